"""Stdout and files: whole lines, readers that stop, files that move, disks that are full."""

from __future__ import annotations

import os
import resource
import time
import tty
from collections.abc import Callable
from pathlib import Path

import pytest

from fastgw.config.schema.settings import SinkSettings
from fastgw.usage.sinks import SinkDown, make_sink
from fastgw.usage.sinks import local as module
from fastgw.usage.sinks.local import FileSink, StdoutSink
from fastgw.usage.sinks.sink import label_of
from tests.usage.events import line

LINES = [b'{"schema":1,"n":%d}' % number for number in range(3)]
TEXT = b"".join(line + b"\n" for line in LINES)


def test_a_file_is_appended_to_and_begun_anew_when_it_was_moved_away(tmp_path: Path) -> None:
    sink = make_sink(SinkSettings(url="file:deep/events"), tmp_path)
    file = tmp_path / "deep" / "events"
    sink.deliver(LINES)
    sink.deliver(LINES)
    file.rename(tmp_path / "events.1")
    sink.deliver(LINES)
    sink.close()
    assert ((tmp_path / "events.1").read_bytes(), file.read_bytes()) == (TEXT * 2, TEXT)


@pytest.mark.parametrize(
    ("left", "kept"),
    [
        (TEXT + b'{"schema":1,"n', TEXT),
        (b'{"sch', b""),
        (b"somebody else's", b"somebody else's\n"),
        (b"theirs\nmore", b"theirs\nmore\n"),
    ],
)
def test_a_line_that_was_cut_by_a_kill_does_not_spoil_the_next(tmp_path: Path, left: bytes, kept: bytes) -> None:
    file = tmp_path / "events"
    file.write_bytes(left)
    sink = FileSink(file)
    sink.deliver(LINES)
    sink.close()
    assert file.read_bytes() == kept + TEXT


def test_a_full_disk_is_down_and_leaves_no_part_when_it_is_back(tmp_path: Path) -> None:
    file = tmp_path / "events"
    sink = FileSink(file)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(TEXT) - 5, before[1]))
    try:
        with pytest.raises(SinkDown):
            sink.deliver(LINES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    sink.deliver(LINES)
    sink.close()
    whole = file.read_bytes()
    assert whole.endswith(TEXT)
    assert all(line in LINES for line in whole.splitlines())


def test_a_folder_that_cannot_be_made_is_down(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(SinkDown):
        FileSink(tmp_path / "x" / "events").deliver(LINES)


def test_a_pipe_whose_reader_stops_is_down_and_goes_on_with_the_next_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.02)
    reader, writer = os.pipe()
    sink = StdoutSink(writer)
    long = [b'{"schema":1,"pad":"%s"}' % (b"x" * size) for size in (10, 9_000, 70_000, 200)] * 5
    begun, read = time.monotonic(), b""
    delivered = False
    while not delivered:
        try:
            sink.deliver(long)
            delivered = True
        except SinkDown:
            read += os.read(reader, 1 << 16)
        assert time.monotonic() - begun < 20
    os.close(writer)
    while piece := os.read(reader, 1 << 16):
        read += piece
    os.close(reader)
    assert read.splitlines() == long


def test_a_reader_that_has_gone_is_down(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(SinkDown):
        StdoutSink(writer).deliver(LINES)
    os.close(writer)


def test_a_named_pipe_without_a_reader_is_down_until_there_is_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    sink = FileSink(tmp_path / "pipe")
    with pytest.raises(SinkDown):
        sink.deliver(LINES)
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    sink.deliver(LINES)
    assert os.read(reader, 1000) == TEXT
    sink.close()
    os.close(reader)


def test_a_label_carries_no_secret() -> None:
    labels: Callable[[str], str] = label_of
    assert labels("redis://user:hush@h:6379/stream") == "redis://h:6379"
    assert labels("https://h/path/hush?key=hush") == "https://h"
    assert (labels("stdout"), labels("file:/x/y")) == ("stdout", "file:/x/y")


def shown(*events: bytes) -> str:
    """What a terminal gets of these events."""
    reader, terminal = os.openpty()
    try:
        tty.setraw(terminal)
        StdoutSink(terminal).deliver(events)
        return os.read(reader, 1 << 16).decode()
    finally:
        os.close(reader)
        os.close(terminal)


def test_on_a_terminal_each_call_is_a_short_line() -> None:
    done = line(1, mcpServer="docs", tool="search", traceId="ab" * 16).encode()
    refused = line(
        2, mcpServer=None, tool=None, method="resources/read", outcome="rate_limited", errorCode=-31029
    ).encode()
    assert shown(done, refused).splitlines() == [
        f"14:32:01.445Z  deploy-bot  search  -> docs  ok  342.1 ms  req_000001  {'ab' * 16}",
        "14:32:01.445Z  deploy-bot  resources/read  -> -  rate_limited  -31029  342.1 ms  req_000002",
    ]


def test_no_name_commands_the_terminal_and_what_is_no_event_is_shown_in_ascii() -> None:
    hostile = line(1, agentId="a\x1b[2J\nb\u202e", tool="\x9b1m é").encode()
    text = shown(hostile, b'{"schema":1} \x1b]0;x\x07 \xc2\x9b1m')
    assert text.splitlines()[0].startswith("14:32:01.445Z  a\\x1b[2J\\nb\\u202e  \\x9b1m \\xe9  -> ")
    assert text.replace("\n", "").isprintable() and text.count("\n") == 2
