"""A disk of our own, for a test to fill and to freeze: a frozen one holds who writes until it thaws, and SIGKILL too.

It takes root, and a kernel that mounts; elsewhere the test is skipped.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

LONGEST = 60
"""Seconds after which a frozen disk thaws, whatever became of the test."""


def _done(*words: str) -> None:
    try:
        subprocess.run(words, check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as wrong:
        pytest.skip(f"this machine does not let us: {wrong}")


class SmallDisk:
    """A file system that can be filled and frozen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._thawing: subprocess.Popen[bytes] | None = None

    def fill(self) -> None:
        """To the last byte, until `make_room`."""
        with (self.folder / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while True:
                filler.write(b"\0" * 4096)

    def make_room(self) -> None:
        (self.folder / "filler").unlink()

    def freeze(self) -> None:
        self._thawing = subprocess.Popen(["sh", "-c", 'sleep "$1"; fsfreeze -u "$2"', "sh", str(LONGEST), self.folder])
        _done("fsfreeze", "-f", str(self.folder))

    def thaw(self) -> None:
        subprocess.run(["fsfreeze", "-u", self.folder], check=False, capture_output=True)
        if self._thawing is not None:
            self._thawing.kill()
            self._thawing.wait()
            self._thawing = None


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """An ext4 file system of 16 MiB, in a file beside `folder`."""
    folder.mkdir()
    image = folder.with_suffix(".ext4")
    with image.open("wb") as file:
        file.truncate(16 * 2**20)
    _done("mkfs.ext4", "-q", str(image))
    _done("mount", "-o", "loop", str(image), str(folder))
    disk = SmallDisk(folder)
    try:
        yield disk
    finally:
        disk.thaw()
        subprocess.run(["umount", "--lazy", str(folder)], check=False)
