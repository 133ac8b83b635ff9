"""A worker's usage events on their way to its own file under `data/usage/spool`.

Adding an event never waits and touches no disk: a thread writes batches of whole lines. The file is locked (`flock`)
for as long as it is written to, so that readers know a closed one, whoever closed it: rotation or death.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

log = logging.getLogger("fastgw")

DELAY = 0.05
"""Seconds between two batches."""
MOST_AT_ONCE = 10_000
"""Events of one batch."""
ROOM = 16 * 1024 * 1024
"""Bytes that may wait while the disk is full, or does not answer."""
SYNC_EVERY = 1.0
"""Seconds between two fsyncs."""
MOST_BYTES = 64 * 1024 * 1024
MOST_SECONDS = 60.0
"""Size and age at which a file is closed and another begun."""
RETRY_AFTER = 1.0
"""Seconds before a disk that has refused is tried again."""
SILENCE = 5.0
"""Seconds after which a disk that does not answer is told of."""

SERIES: tuple[tuple[str, ...], ...] = (
    ("fastgw_usage_events_total",),
    ("fastgw_usage_events_lost_total", "spool"),
    ("fastgw_usage_write_errors_total",),
)


class SpoolWriter:
    """The events of one worker; made after the fork, for it starts a thread.

    Args:
        folder: of the files; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.written = 0
        """Events in the spool."""
        self.lost = 0
        """Events that found no room."""
        self.errors = 0
        """Times that the disk refused, or did not answer."""
        self._told = (0, 0, 0)
        self._folder = folder
        self._lines: list[bytes] = []
        # Bytes; each is counted by one thread alone: the loop's, the writer's.
        self._taken = self._gone = 0
        self._fd = -1
        self._file = folder
        self._size = 0
        self._begun = self._synced = self._again = self._asked = 0.0
        self._is_unsynced = False
        self._number = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="usage spool", daemon=True)
        self._thread.start()

    def add(self, event: bytes) -> None:
        """Take one encoded event, without a line break; for the loop's thread only."""
        size = len(event)
        if self._taken - self._gone + size > ROOM:
            self.lost += 1
            return
        self._taken += size
        self._lines.append(event)

    def counted(self) -> Iterator[tuple[tuple[str, ...], int]]:
        """What has been counted since the last time: metric with its labels, and how many."""
        self._tell_of_silence()
        told, self._told = self._told, (self.written, self.lost, self.errors)
        return ((series, now - before) for series, now, before in zip(SERIES, self._told, told, strict=True))

    def close(self, seconds: float) -> None:
        """Write what waits, within `seconds`; what is left then counts as lost."""
        self._closing.set()
        self._thread.join(seconds)
        if left := len(self._lines):
            self.lost += left
            log.error("%d usage events are lost: the disk has not taken them until the end", left)

    def _run(self) -> None:
        while not self._closing.wait(DELAY):
            if time.monotonic() >= self._again:
                self._try(self._step)
        while self._lines and self._try(self._write):
            pass
        if self._fd >= 0:
            self._try(self._end_file)

    def _try(self, work: Callable[[], None]) -> bool:
        """Whether the disk did it; an outage is logged once, and its end."""
        self._asked = time.monotonic()
        try:
            work()
        except Exception as wrong:  # noqa: BLE001 - memory may be short, too: the thread must not end
            self.errors += 1
            if not self._again:
                log.error("usage events cannot be written, and wait: %s: %s", type(wrong).__name__, wrong)
            self._again = time.monotonic() + RETRY_AFTER
            return False
        finally:
            self._asked = 0.0
        if self._again:
            log.warning("usage events are written again")
            self._again = 0.0
        return True

    def _tell_of_silence(self) -> None:
        """A disk that does not answer holds the thread, and raises nothing."""
        asked = self._asked
        if asked and not self._again and time.monotonic() - asked >= SILENCE:
            self._again = asked
            self.errors += 1
            log.error("usage events wait: the disk has not answered for %g s", SILENCE)

    def _step(self) -> None:
        if self._lines:
            self._write()
        if self._fd < 0:
            return
        now = time.monotonic()
        if self._size >= MOST_BYTES or now - self._begun >= MOST_SECONDS:
            self._end_file()
        elif self._is_unsynced and now - self._synced >= SYNC_EVERY:
            self._synced, self._is_unsynced = now, False
            os.fsync(self._fd)

    def _write(self) -> None:
        """Append one batch. Where the disk refuses in the middle, the file ends with the last whole line."""
        if self._fd >= 0 and not self._file.exists():  # deleted, or moved away: nobody would read it
            self._end_file()
        if self._fd < 0:
            self._begin_file()
        lines = self._lines[:MOST_AT_ONCE]  # the loop may append at any time: only ever take from the front
        text = b"\n".join(lines) + b"\n"
        done = 0
        try:
            while done < len(text):
                done += os.write(self._fd, memoryview(text)[done:])
        finally:
            whole = text.rfind(b"\n", 0, done) + 1
            count = text.count(b"\n", 0, whole)
            self._gone += whole - count
            self.written += count
            self._size += whole
            del self._lines[:count]
            self._is_unsynced = True
            if done < len(text):
                self._cut()

    def _cut(self) -> None:
        """Leave whole lines only. A file that has some is closed: it may be the file that is too large."""
        try:
            os.ftruncate(self._fd, self._size)
        finally:
            if self._size:
                self._end_file()

    def _begin_file(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._number += 1
        name = f"{int(time.time() * 1000):013d}-{os.getpid()}-{self._number}.jsonl"
        hidden = self._folder / f".{name}"
        fd = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            self._file = hidden.rename(self._folder / name)  # by this name it has never been unlocked
        except OSError:
            os.close(fd)
            hidden.unlink(missing_ok=True)
            raise
        self._fd, self._size, self._begun, self._is_unsynced = fd, 0, time.monotonic(), False

    def _end_file(self) -> None:
        fd, self._fd = self._fd, -1
        try:
            if self._is_unsynced:
                os.fsync(fd)
        finally:
            os.close(fd)
