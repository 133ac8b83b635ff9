"""The agent's side of one HTTP request: its body comes in, answers go out, its leaving is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from fastgw.errors import Fault, Kind
from fastgw.gateway.budget import FREE
from fastgw.upstream.tasks import BackgroundTasks

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Fields = list[tuple[bytes, bytes]]

_THROWN_AWAY = 1024 * 1024
"""Bytes read and dropped after a refusal for size, so that the agent gets to read the refusal before a reset."""

JSON = (b"content-type", b"application/json")
STREAM: Fields = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class AgentConnection:
    """One request's connection, as far as this request goes."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self.over = False
        """Whether the end of an answer has been sent."""
        self.started = False
        """Whether the head of an answer has been sent."""

    async def read(self, limit: int, length: int | None, hold: Callable[[int], bool]) -> bytes:
        """The whole body.

        Args:
            limit: most bytes taken.
            length: the declared length; None for a chunked body. At that length reading stops (each message costs).
            hold: asked for room before more than `budget.FREE` bytes are kept.

        Raises:
            Fault: BODY_TOO_LARGE; FULL where there is no room; ABANDONED where it broke off: the agent left, or its
                chunks are none.
        """
        message = await self._receive()
        body: bytes = message.get("body", b"")
        size = len(body)
        if size == length:
            return body
        parts = [body]
        held = FREE
        while message["type"] == "http.request" and message.get("more_body", False) and size != length:
            if size > limit:
                raise Fault(Kind.BODY_TOO_LARGE, data={"limitBytes": limit})
            if size > held:
                if not hold(more := min(max(held, size - held), limit)):
                    raise Fault(Kind.FULL, retry_after=1)
                held += more
            message = await self._receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
        if message["type"] == "http.disconnect" or (length is not None and size < length):
            raise Fault(Kind.ABANDONED)
        if size > limit:
            raise Fault(Kind.BODY_TOO_LARGE, data={"limitBytes": limit})
        return b"".join(parts)

    async def throw_away(self, seconds: float) -> None:
        """Read on a little after a refusal for size and drop it; ends when the agent does, or in `seconds`."""
        dropped = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while dropped < _THROWN_AWAY:
                    message = await self._receive()
                    dropped += len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return

    async def answer(self, status: int, fields: Fields, body: bytes) -> None:
        """A whole answer in one piece."""
        self.over = self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": fields})
        await self._send({"type": "http.response.body", "body": body})

    async def open(self, fields: Fields) -> None:
        """The head of a stream."""
        self.started = True
        await self._send({"type": "http.response.start", "status": 200, "headers": fields})

    async def push(self, data: bytes) -> None:
        """One piece of the stream; waits while the agent reads slower than it is sent."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def close(self) -> None:
        """The end of the stream."""
        self.over = True
        await self._send({"type": "http.response.body", "body": b""})

    def watch(self, left: Callable[[], None], tasks: BackgroundTasks) -> None:
        """Call `left` once if the agent goes away before its answer is complete.

        A pending `receive` of the server is a future, so watching costs no task; elsewhere it is a coroutine.
        """
        pending: Any = self._receive()
        future = pending if hasattr(pending, "add_done_callback") else tasks.spawn(pending, "watch")

        def woken(done: asyncio.Future[Message]) -> None:
            if self.over or done.cancelled() or done.exception() is not None:
                return
            if done.result()["type"] == "http.disconnect":
                left()
            else:
                self.watch(left, tasks)

        future.add_done_callback(woken)
