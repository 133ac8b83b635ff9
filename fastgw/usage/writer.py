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
"""Bytes that may wait for one sink."""


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
        self._lock = threading.Lock()
        self._events = self._bytes = 0
        self._closing = self._given_up = False
        self.lost = 0
        """Events that will never arrive."""
        self._thread = threading.Thread(target=self._run, name=f"usage {target}", daemon=True)
        self._thread.start()

    def put(self, count: int, lines: bytes) -> None:
        """Queue `count` events, each line with its break; never waits for the sink."""
        with self._lock:
            if self._closing or self._bytes + len(lines) > ROOM:
                self.lost += count
                return
            self._events += count
            self._bytes += len(lines)
        self._queue.put((count, lines))

    def close(self, until: float) -> None:
        """Wait for what is queued until `until` (monotonic seconds); what is left then counts as lost."""
        self._closing = True
        self._queue.put(None)
        self._thread.join(max(0.0, until - time.monotonic()))
        with self._lock:
            self._given_up = True
            self.lost += self._events

    def _run(self) -> None:
        for count, lines in iter(self._queue.get, None):
            written = self._write(lines)
            with self._lock:
                if self._given_up:
                    return
                self._events -= count
                self._bytes -= len(lines)
                self.lost += 0 if written else count

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
