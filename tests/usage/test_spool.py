"""What a worker writes: whole lines, in files that are locked while they grow, whatever the disk does."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastgw.usage import spool
from fastgw.usage.spool import SpoolWriter
from fastgw.usage.spool_files import read_piece, spool_files


def until(look: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.005)


def lines(folder: Path) -> list[bytes]:
    return [line for name in spool_files(folder) for line in read_piece(folder / name, 0, 1 << 30).lines]


def events(count: int) -> list[bytes]:
    return [b'{"n":%d}' % number for number in range(count)]


@contextmanager
def smallest_files(most: int) -> Iterator[None]:
    """Files of this process end at `most` bytes, in the middle of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "DELAY", 0.005)
    monkeypatch.setattr(spool, "RETRY_AFTER", 0.02)


def test_events_stand_in_one_private_file_that_is_open_while_it_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "usage" / "spool"
    writer = SpoolWriter(folder)
    assert spool_files(folder) == []
    for event in events(100):
        writer.add(event)
    until(lambda: lines(folder) == events(100))
    (name,) = spool_files(folder)
    assert not read_piece(folder / name, 0, 1 << 20).is_last
    assert ((folder / name).stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
    assert name.split("-")[1] == str(os.getpid())
    writer.add(b'{"n":100}')
    writer.close(10)
    assert (lines(folder), writer.written, writer.lost) == (events(101), 101, 0)
    assert read_piece(folder / name, 0, 1 << 20).is_last
    counted = dict(writer.counted())
    assert counted["fastgw_usage_events_total",] == 101
    assert sum(dict(writer.counted()).values()) == 0, "each is told once"


@pytest.mark.parametrize("bound", ["MOST_BYTES", "MOST_SECONDS"])
def test_a_file_that_is_large_or_old_is_closed_and_another_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(spool, bound, 0.02 if bound == "MOST_SECONDS" else 500)
    writer = SpoolWriter(tmp_path)
    for event in events(300):
        writer.add(event)
        if len(event) % 3 == 0:
            time.sleep(0)
    until(lambda: writer.written == 300)
    until(lambda: any(read_piece(tmp_path / name, 0, 1 << 20).is_last for name in spool_files(tmp_path)))
    writer.add(b'{"n":300}')
    writer.close(10)
    assert len(spool_files(tmp_path)) >= 2
    assert lines(tmp_path) == events(301)


def test_a_disk_that_is_full_in_the_middle_of_a_line_leaves_whole_lines_in_files_that_follow_each_other(
    tmp_path: Path,
) -> None:
    with smallest_files(1001):
        writer = SpoolWriter(tmp_path)
        for event in events(500):
            writer.add(event)
        until(lambda: len(spool_files(tmp_path)) > 2)
        writer.close(10)
    assert writer.written + writer.lost == 500
    assert lines(tmp_path) == events(writer.written)
    texts = [(tmp_path / name).read_bytes() for name in spool_files(tmp_path)]
    assert len(texts) >= 1
    assert all(text.endswith(b"\n") and len(text) <= 1001 for text in texts)
    assert writer.errors >= 1


def test_a_disk_that_comes_back_is_written_to_and_what_found_no_room_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "ROOM", 1000)
    blocked = tmp_path / "usage"
    blocked.write_bytes(b"")  # a file where the folder should be: root, too, cannot write there
    writer = SpoolWriter(blocked / "spool")
    begun = time.monotonic()
    for event in events(1000):
        writer.add(event)
    assert time.monotonic() - begun < 1
    until(lambda: writer.errors > 1)
    fit = 1000 - writer.lost
    assert 0 < fit < 200
    blocked.unlink()
    until(lambda: writer.written == fit)
    writer.add(b'{"more":1}')
    writer.close(10)
    assert lines(blocked / "spool") == [*events(fit), b'{"more":1}']


HANGING = """
import logging, resource, sys, time
from pathlib import Path
from fastgw.usage import spool
from fastgw.usage.spool_files import read_piece, spool_files
from tests.usage.hung_disk import hanging
logging.basicConfig(stream=sys.stdout, format="%(message)s")
spool.DELAY = spool.SYNC_EVERY = 0.005
spool.ROOM, spool.SILENCE = 4 * 2**20, 0.05
folder, event, slowest = Path(sys.argv[1]), b"x" * 1000, 0.0
def memory():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
def until(look):
    end = time.monotonic() + 10
    while not look():
        assert time.monotonic() < end
        time.sleep(0.005)
writer, stopped = spool.SpoolWriter(folder / "a"), spool.SpoolWriter(folder / "b")
for one in (writer, stopped):
    one.add(event)
until(lambda: writer.written and stopped.written)
try:
    held = hanging()
    held.__enter__()
except OSError as wrong:
    print("cannot:", wrong)
    sys.exit(0)
for one in (writer, stopped):
    one.add(event)
    until(lambda: one._asked and time.monotonic() - one._asked > spool.SILENCE)
before, given = memory(), 100_000
for number in range(given):
    begun = time.monotonic()
    writer.add(b"%01000d" % number)
    slowest = max(slowest, time.monotonic() - begun)
counted = dict(writer.counted())
print("slowest", slowest)
print("grown", memory() - before)
print("waiting", len(writer._lines), "lost", counted["fastgw_usage_events_lost_total", "spool"])
print("told", counted["fastgw_usage_write_errors_total",], dict(writer.counted())["fastgw_usage_write_errors_total",])
stopped.add(event)
begun = time.monotonic()
stopped.close(0.1)
print("closed", time.monotonic() - begun, stopped.lost)
held.__exit__(None, None, None)
until(lambda: writer.written + writer.lost == given + 2)
writer.close(10)
there = [line for name in spool_files(folder / "a") for line in read_piece(folder / "a" / name, 0, 2**30).lines]
print("there", len(there), writer.written)
"""
"""A process of its own: what its kernel does to it cannot be undone."""


def test_a_disk_that_does_not_answer_holds_nobody_and_what_finds_no_room_is_counted(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HANGING, str(tmp_path)]
    said = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True).stdout
    if said.startswith("cannot"):
        pytest.skip(said)
    found = {line.split()[0]: line.split()[1:] for line in said.splitlines()}
    assert float(found["slowest"][0]) < 1
    assert 4 * 2**20 < int(found["grown"][0]) < 8 * 2**20, "what has room"
    waiting, lost = int(found["waiting"][0]), int(found["waiting"][2])
    assert 4 * 2**20 - 1000 < 1000 * waiting <= 4 * 2**20
    assert waiting + lost == 100_000
    assert found["told"] == ["1", "0"]
    assert said.count("the disk has not answered for 0.05 s") == 1
    assert "usage events are written again" in said
    assert float(found["closed"][0]) < 5
    assert found["closed"][1] == "1"
    assert found["there"] == [str(2 + waiting)] * 2, "all that had room"


def test_whatever_goes_wrong_ends_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: object) -> int:
        raise MemoryError

    with monkeypatch.context() as memory:
        memory.setattr("fastgw.usage.spool.os.write", short)
        writer = SpoolWriter(tmp_path)
        writer.add(b"{}")
        until(lambda: writer.errors)
    until(lambda: writer.written == 1)
    writer.close(10)
    assert lines(tmp_path) == [b"{}"]


def test_what_cannot_be_written_at_the_end_counts_as_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "usage").write_bytes(b"")
    writer = SpoolWriter(tmp_path / "usage" / "spool")
    writer.add(b"{}")
    writer.add(b"{}")
    writer.close(10)
    assert (writer.written, writer.lost) == (0, 2)
    assert "2 usage events are lost" in caplog.text


def test_a_spool_that_was_deleted_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "SYNC_EVERY", 0.0)
    writer = SpoolWriter(tmp_path / "spool")
    writer.add(b"{}")
    until(lambda: writer.written == 1)
    (name,) = spool_files(tmp_path / "spool")
    (tmp_path / "spool" / name).unlink()
    (tmp_path / "spool").rmdir()

    def comes_back() -> bool:
        writer.add(b'{"again":1}')
        return bool(spool_files(tmp_path / "spool"))

    until(comes_back)
    writer.close(10)


@pytest.mark.parametrize("how", ["file deleted", "folder moved"])
def test_events_are_not_written_where_nobody_reads_them(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "spool"
    writer = SpoolWriter(folder)
    writer.add(b"{}")
    until(lambda: writer.written == 1)
    if how == "folder moved":
        folder.rename(tmp_path / "moved")
    else:
        (folder / spool_files(folder)[0]).unlink()
    writer.add(b'{"after":1}')
    writer.close(10)
    assert lines(folder) == [b'{"after":1}']


def test_a_killed_writer_leaves_a_closed_file_with_all_that_was_written(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        writer = SpoolWriter(tmp_path)
        for event in events(10):
            writer.add(event)
        while writer.written < 10:
            time.sleep(0.001)
        os.write(writer._fd, b'{"cut')
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    (name,) = spool_files(tmp_path)
    piece = read_piece(tmp_path / name, 0, 1 << 20)
    assert (piece.lines, piece.is_last, piece.cut) == (events(10), True, True)


def test_a_piece_is_bounded_but_has_a_line_at_least(tmp_path: Path) -> None:
    file = tmp_path / "1.jsonl"
    file.write_bytes(b"a" * 100 + b"\n" + b"bb\ncc\n")
    piece = read_piece(file, 0, 51)
    assert (piece.lines, piece.is_last) == ([b"a" * 100], False)
    piece = read_piece(file, piece.end, 4)
    assert (piece.lines, piece.is_last) == ([b"bb"], False)
    with file.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert read_piece(file, piece.end, 100).is_last is False
    last = read_piece(file, piece.end, 100)
    assert (last.lines, last.is_last, last.cut) == ([b"cc"], True, False)
