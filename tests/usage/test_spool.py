"""What a worker writes: whole lines, in files that are locked while they grow, whatever the disk does."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
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


def test_what_cannot_be_written_at_the_end_counts_as_lost(tmp_path: Path) -> None:
    (tmp_path / "usage").write_bytes(b"")
    writer = SpoolWriter(tmp_path / "usage" / "spool")
    writer.add(b"{}")
    writer.add(b"{}")
    writer.close(10)
    assert (writer.written, writer.lost) == (0, 2)


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
