"""Sinks that work, sinks that stop, sinks that are gone."""

from __future__ import annotations

import os
import time
from pathlib import Path

from fastgw.usage import writer
from fastgw.usage.writer import Sink, UsageWriter


def test_a_file_gets_every_line_in_order(tmp_path: Path) -> None:
    made = UsageWriter(tmp_path)
    made.set_targets(("file:deep/usage.jsonl",))
    for number in range(1000):
        made.put(1, b"%d\n" % number)
    made.close()
    assert (tmp_path / "deep" / "usage.jsonl").read_bytes() == b"".join(b"%d\n" % number for number in range(1000))
    assert made.lost == 0


def stuck_sink(tmp_path: Path) -> tuple[Sink, int]:
    """A sink on a pipe nobody reads."""
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    return Sink(f"file:{fifo}", tmp_path), reader


def test_a_reader_that_stops_delays_nobody_and_the_loss_is_exact(tmp_path: Path) -> None:
    sink, reader = stuck_sink(tmp_path)
    lines = b"x" * 65535 + b"\n"
    put = 2 * writer.ROOM // len(lines)
    begun = time.monotonic()
    for _ in range(put):
        sink.put(1, lines)
    assert time.monotonic() - begun < 5
    assert sink.lost > 0
    sink.close(time.monotonic() + 0.2)
    assert time.monotonic() - begun < 10
    # One batch of 64 KiB fits a pipe whole; whether the writer had finished it when it was asked to stop is its luck.
    assert put - sink.lost in (0, 1)
    os.close(reader)


def test_a_batch_larger_than_the_room_is_written_where_nothing_waits(tmp_path: Path) -> None:
    """As one is that a worker kept while the controller was away."""
    made = UsageWriter(tmp_path)
    made.set_targets(("file:a",))
    made.put(2, b"x" * writer.ROOM + b"\n\n")
    made.close(10)
    assert (made.lost, (tmp_path / "a").stat().st_size) == (0, writer.ROOM + 2)


def test_a_reader_that_leaves_costs_only_events(tmp_path: Path) -> None:
    sink, reader = stuck_sink(tmp_path)
    sink.put(1, b"first\n")
    while not os.get_blocking(reader) and not _readable(reader):
        time.sleep(0)
    os.close(reader)
    for _ in range(3):
        sink.put(2, b"a\nb\n")
    sink.close(time.monotonic() + 2)
    assert sink.lost == 6


def _readable(reader: int) -> bool:
    try:
        return bool(os.read(reader, 100))
    except BlockingIOError:
        return False


def test_a_reload_keeps_the_sinks_that_stay(tmp_path: Path) -> None:
    made = UsageWriter(tmp_path)
    made.set_targets(("file:a", "file:b"))
    made.put(1, b"1\n")
    made.set_targets(("file:b", "file:c"))
    made.put(1, b"2\n")
    made.close()
    read = {name: (tmp_path / name).read_bytes() for name in "abc"}
    assert read == {"a": b"1\n", "b": b"1\n2\n", "c": b"2\n"}
