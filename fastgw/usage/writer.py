"""Usage events on their way out: one thread per sink, the only one that writes there, so lines never mix.

`put` never waits: a sink whose reader stops loses events, which are counted, and delays nobody.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from pathlib import Path
from queue import SimpleQueue

log = logging.getLogger("fastgw")

ROOM = 8 * 1024 * 1024
"""Bytes that wait for one sink, beyond which no more are taken."""


class Sink:
    """One place events go to.

    Args:
        target: `stdout`, or `file:PATH` (relative to `base`).
    """

    def __init__(self, target: str, base: Path) -> None:
        self.target = target
        self._base = base
        self._fd = -1
        self._queue: SimpleQueue[tuple[int, bytes] | None] = SimpleQueue()
        # (events, bytes); each is counted by one thread alone
        self._taken = self._done = 0, 0
        self._refused = self._failed = 0
        self._thread = threading.Thread(target=self._run, name=f"usage {target}", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Events that will never arrive."""
        return self._refused + self._failed

    def put(self, count: int, lines: bytes) -> None:
        """Queue `count` events, each line with its break; never waits for the sink."""
        events, size = self._taken
        if size - self._done[1] > ROOM:  # a batch that waited for the controller may be larger by itself
            self._refused += count
            return
        self._taken = events + count, size + len(lines)
        self._queue.put((count, lines))

    def close(self, until: float) -> None:
        """Wait for what is queued until `until` (monotonic seconds); what is left then counts as lost."""
        self._queue.put(None)
        self._thread.join(max(0.0, until - time.monotonic()))
        self._refused += self._taken[0] - self._done[0]

    def _run(self) -> None:
        for count, lines in iter(self._queue.get, None):
            self._failed += 0 if self._write(lines) else count
            events, size = self._done
            self._done = events + count, size + len(lines)

    def _write(self, lines: bytes) -> bool:
        try:
            if self._fd < 0 and self.target == "stdout":
                self._fd = 1
            elif self._fd < 0:
                path = self._base / self.target.removeprefix("file:")
                path.parent.mkdir(parents=True, exist_ok=True)
                self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
            rest = memoryview(lines)
            while rest:
                try:
                    rest = rest[os.write(self._fd, rest) :]
                except BlockingIOError:  # whoever shares our stdout has made it non-blocking
                    select.select([], [self._fd], [])
        except OSError as wrong:
            log.error("usage events cannot be written to %s: %s", self.target, wrong)
            return False
        return True


class UsageWriter:
    """All sinks of the configuration; a reload changes them."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._sinks: dict[str, Sink] = {}
        self._lost = 0

    def set_targets(self, targets: tuple[str, ...]) -> None:
        """Write to these from now on; sinks that stay keep what they have queued."""
        for target in set(self._sinks) - set(targets):
            gone = self._sinks.pop(target)
            gone.close(time.monotonic() + 0.1)
            self._lost += gone.lost
        for target in targets:
            if target not in self._sinks:
                self._sinks[target] = Sink(target, self._base)

    def put(self, count: int, lines: bytes) -> None:
        """Hand `count` events to every sink; never waits."""
        for sink in self._sinks.values():
            sink.put(count, lines)

    @property
    def lost(self) -> int:
        """Events that some sink did not get."""
        return self._lost + sum(sink.lost for sink in self._sinks.values())

    def close(self, seconds: float = 1.0) -> None:
        """Write what is queued, within `seconds`."""
        until = time.monotonic() + seconds
        for sink in self._sinks.values():
            sink.close(until)
