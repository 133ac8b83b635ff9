"""A worker's usage events on their way to the controller, in batches.

Adding an event never waits; what finds no room is counted as lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

DELAY = 0.05
"""Seconds after which a batch goes."""
ROOM = 16 * 1024 * 1024
"""Bytes that may wait while the controller is away."""


class Spool:
    """Events of one worker.

    Args:
        send: takes (number of events, their lines); False when it cannot take them now, and they stay.
        lost: hears how many events were dropped.
    """

    def __init__(self, send: Callable[[int, bytes], bool], lost: Callable[[int], None]) -> None:
        self._send = send
        self._lost = lost
        self._lines: list[bytes] = []
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, event: bytes) -> None:
        """Take one encoded event."""
        if self._bytes + len(event) > ROOM:
            self._lost(1)
            return
        self._lines.append(event)
        self._bytes += len(event) + 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DELAY, self._due)

    def _due(self) -> None:
        self.flush()
        self._timer = asyncio.get_running_loop().call_later(DELAY, self._due) if self._lines else None

    def flush(self) -> None:
        """Hand over what waits, if somebody takes it."""
        if self._lines and self._send(len(self._lines), b"\n".join(self._lines) + b"\n"):
            self._lines.clear()
            self._bytes = 0
