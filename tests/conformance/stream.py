"""Streams of the fixture server: a log of events that any reader may follow, from the start or from an event id on.

Knows: server-sent events and `Last-Event-ID` (2025-11-25, basic/transports, resumability). Refuses to know: what the
messages mean and who reads them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any


class Stream:
    """The messages of one stream, in order, until it is done. A reader that is sent away may come back."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.messages: list[str] = []
        self.done = False
        self.opened = asyncio.Event()
        """Set once there is anything to read: a message, or the end."""
        self._waiting: list[asyncio.Future[None]] = []
        self._detached = 0

    def put(self, message: dict[str, Any]) -> None:
        self.messages.append(json.dumps(message, separators=(",", ":")))
        self._wake()

    def end(self) -> None:
        self.done = True
        self._wake()

    def detach(self) -> None:
        """Sends the readers of now away; what follows waits for the next one."""
        self._detached += 1
        self._wake()

    def _wake(self) -> None:
        self.opened.set()
        for waiter in list(self._waiting):
            if not waiter.done():
                waiter.set_result(None)

    async def read(self, start: int) -> AsyncIterator[tuple[int, str]]:
        """Each message with its index, from `start` on, until the stream is done or sends its readers away."""
        seat, at = self._detached, start
        while True:
            while at < len(self.messages):
                yield at, self.messages[at]
                at += 1
            if self.done or seat != self._detached:
                return
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            finally:
                self._waiting.remove(waiter)
