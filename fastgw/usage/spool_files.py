"""The spool as its readers see it: files of whole lines, some still written to, the last line of a dead one's cut."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path


def spool_files(folder: Path) -> list[str]:
    """Names of the files, in the order of their beginning; none where there is no folder.

    Raises:
        OSError: it cannot be read, so that nobody takes it for empty.
    """
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(".jsonl") and name[0] != ".")  # noqa: PTH208 - thousands
    except (FileNotFoundError, NotADirectoryError):
        return []


def begun_at(name: str) -> float:
    """Unix seconds at which the file of this name was begun; 0 where the name does not say."""
    digits = name.partition("-")[0]
    return int(digits) / 1000 if digits.isdecimal() else 0.0


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole lines of one file.

    Args:
        end: offset after them.
        is_last: nothing will follow. `cut`: what follows is a line that was never finished.
    """

    lines: list[bytes]
    end: int
    is_last: bool
    cut: bool = False


def read_piece(path: Path, offset: int, most: int) -> Piece:
    """What the file has from `offset` on, whole lines without their breaks, at least one and at most `most` bytes.

    Raises:
        FileNotFoundError: there is none of this name any more.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        closed = is_closed(fd)  # asked before reading: what is read afterwards is all there will ever be
        text = os.pread(fd, most, offset)
        while (end := text.rfind(b"\n") + 1) == 0 and len(text) >= most:
            most *= 2
            text = os.pread(fd, most, offset)
        is_last = closed and len(text) < most
        return Piece(text[:end].split(b"\n")[:-1], offset + end, is_last, is_last and end < len(text))
    finally:
        os.close(fd)


def is_closed(fd: int) -> bool:
    """Whether nobody writes to this file any more."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return True
