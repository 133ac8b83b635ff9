"""The agent's side: its body comes in, its leaving is noticed, its answer goes out, by itself or in a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Any, Protocol

from fastgw.errors import Fault, Kind
from fastgw.gateway.context import RequestContext
from fastgw.policy.bucket import MICROS, BucketRate
from fastgw.policy.limits import LimitVerdict
from fastgw.protocol import headers, sse
from fastgw.upstream.call_context import BackgroundTasks

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Fields = list[tuple[bytes, bytes]]

FREE = 64 * 1024
"""Bytes of a body that do not count against a worker's budget: nearly every call is smaller."""
_DISCARDED = 1024 * 1024
"""Bytes read and dropped after a refusal for size, so that the agent gets to read the refusal before a reset."""

JSON = (b"content-type", b"application/json")
_STREAM: Fields = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]
KEEP_ALIVE = 15.0
"""Seconds of silence after which a stream gets a comment: many proxies give up at 60, some at 30."""


class Draining(Protocol):
    """How far this worker's life is: whether connections are to end with the answer they wait for."""

    draining: bool


@dataclass(slots=True)
class Budget:
    """Bytes that bodies may hold together; whoever takes gives back once."""

    left: int = 256 * 1024 * 1024

    def take(self, count: int) -> bool:
        """Whether there was room for `count` bytes; they are taken then."""
        if count > self.left:
            return False
        self.left -= count
        return True

    def give(self, count: int) -> None:
        """Return what was taken."""
        self.left += count


class ResponseWriter:
    """What the pipeline needs to answer one call; by itself it has room for nothing but the response."""

    __slots__ = ()

    async def answer(self, status: int, fields: Fields, body: bytes) -> None:
        """The final response, whole; on a stream that has begun it is the last event."""
        raise NotImplementedError

    async def event(self, data: bytes) -> None:
        """One notification before the response."""

    async def close_unanswered(self) -> None:
        """End without a response: the agent has cancelled the call and must not be answered."""

    def keep_alive(self) -> None:
        """The server streams: from now on silence is filled with comments."""


class AgentConnection(ResponseWriter):
    """One request's connection, as far as this request goes. Its answer is JSON if the response comes first, else an
    event stream.

    Args:
        life: whether connections are to end with the answer they wait for.
    """

    __slots__ = ("_context", "_life", "_receive", "_send", "_tasks", "_timer", "_turn", "over", "started")

    def __init__(
        self, context: RequestContext, receive: Receive, send: Send, life: Draining, tasks: BackgroundTasks
    ) -> None:
        self._context = context
        self._receive = receive
        self._send = send
        self._life = life
        self._tasks = tasks
        self._timer: asyncio.TimerHandle | None = None
        self._turn: asyncio.Lock | None = None
        self.over = False
        """Whether the end of an answer has been sent."""
        self.started = False
        """Whether the head of an answer has been sent."""

    async def read(self, limit: int, length: int | None, hold: Callable[[RequestContext, int], bool]) -> bytes:
        """The whole body.

        Args:
            limit: most bytes taken.
            length: the declared length; None for a chunked body. At that length reading stops (each message costs).
            hold: asked for room before more than `FREE` bytes are kept.

        Raises:
            Fault: BODY_TOO_LARGE; FULL where there is no room; ABANDONED where it broke off: the agent left, or its
                chunks are none.
        """
        message = await self._receive()
        body: bytes = message.get("body", b"")
        size = self._context.bytes_in = len(body)
        if size == length:
            return body
        parts = [body]
        held = FREE
        while message["type"] == "http.request" and message.get("more_body", False) and size != length:
            if size > limit:
                raise Fault(Kind.BODY_TOO_LARGE, data={"limitBytes": limit})
            if size > held:
                if not hold(self._context, more := min(max(held, size - held), limit)):
                    raise Fault(Kind.FULL, retry_after=1)
                held += more
            message = await self._receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
        if message["type"] == "http.disconnect" or (length is not None and size < length):
            raise Fault(Kind.ABANDONED)
        if size > limit:
            raise Fault(Kind.BODY_TOO_LARGE, data={"limitBytes": limit})
        self._context.bytes_in = size
        return b"".join(parts)

    async def discard_body(self, seconds: float) -> None:
        """Read on a little after a refusal for size and drop it; ends when the agent does, or in `seconds`."""
        dropped = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while dropped < _DISCARDED:
                    message = await self._receive()
                    dropped += len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return

    def watch(self, left: Callable[[], None]) -> None:
        """Call `left` once if the agent goes away before its answer is complete.

        A pending `receive` of the server is a future, so watching costs no task; elsewhere it is a coroutine.
        """
        pending: Any = self._receive()
        future = pending if hasattr(pending, "add_done_callback") else self._tasks.spawn(pending, "watch")

        def woken(done: asyncio.Future[Message]) -> None:
            if self.over or done.cancelled() or done.exception() is not None:
                return
            if done.result()["type"] == "http.disconnect":
                left()
            else:
                self.watch(left)

        future.add_done_callback(woken)

    async def answer(self, status: int, fields: Fields, body: bytes) -> None:
        self._context.bytes_out += len(body)
        if self._timer is not None:
            self._stop_timer()
        if not self.started:
            self.over = self.started = True
            found = [*self._head(), *fields, JSON] if body else [*self._head(), *fields]
            await self._send({"type": "http.response.start", "status": status, "headers": found})
            await self._send({"type": "http.response.body", "body": body})
            return
        async with self._in_turn:
            await self._send({"type": "http.response.body", "body": sse.encode(body), "more_body": True})
            await self._end()

    async def event(self, data: bytes) -> None:
        """An agent that takes no streams gets no notifications."""
        if self._streams:
            self._context.bytes_out += len(data)
            await self._push(sse.encode(data))

    async def close_unanswered(self) -> None:
        self._stop_timer()
        if not self.started:
            await self._open(_STREAM if self._streams else [])
        async with self._in_turn:
            await self._end()

    def keep_alive(self) -> None:
        if self._streams:
            self._timer = asyncio.get_running_loop().call_later(KEEP_ALIVE, self._comment)

    @property
    def _streams(self) -> bool:
        context = self._context
        return context.dialect.streams and headers.accepts(context.headers.get(b"accept"), b"text/event-stream")

    @property
    def _in_turn(self) -> asyncio.Lock:
        """A stream is written by the call and by its timer."""
        self._turn = self._turn or asyncio.Lock()
        return self._turn

    async def _push(self, data: bytes) -> None:
        async with self._in_turn:
            if self.over:  # a comment that was on its way while the answer was given
                return
            if not self.started:
                await self._open(_STREAM)
            # Waits while the agent reads slower than it is sent.
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
        if self._timer is not None:
            self._timer.cancel()
            self.keep_alive()

    async def _open(self, fields: Fields) -> None:
        self.started = True
        await self._send({"type": "http.response.start", "status": 200, "headers": [*self._head(), *fields]})

    async def _end(self) -> None:
        self.over = True
        await self._send({"type": "http.response.body", "body": b""})

    def _head(self) -> Fields:
        """The headers of every answer, and how the limits stand that counted this one."""
        context = self._context
        found = [(b"x-request-id", context.request_id.encode()), *context.cors]
        if context.verdict is not None:
            found += rate_limit_headers(context.verdict)
        if context.steps is not None:
            found.append(context.steps.header())
        if self._life.draining:
            found.append((b"connection", b"close"))
        return found

    def _comment(self) -> None:
        self._tasks.spawn(self._push(sse.KEEP_ALIVE), "keep-alive")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def rate_limit_headers(verdict: LimitVerdict | None) -> Fields:
    """`RateLimit` and `RateLimit-Policy` for the tightest rate that counted a call.

    `q` calls in `w` seconds: a bucket, and how long it takes to fill. `r` calls are left; in `t` seconds it is full.
    """
    charge = verdict.tightest if verdict is not None else None
    if verdict is None or charge is None or charge.rate is None:
        return []
    name, policy = _limit_policy(charge.limit.name, charge.rate)
    full_in = -(-verdict.lacking // charge.rate.gain) * charge.rate.tick
    return [policy, (b"ratelimit", b"%s;r=%d;t=%d" % (name, verdict.left, -(-full_in // MICROS)))]


@lru_cache(maxsize=1024)
def _limit_policy(limit: str, rate: BucketRate) -> tuple[bytes, tuple[bytes, bytes]]:
    """The limit's name in headers, and the header that says what it grants."""
    # A String of structured fields (RFC 9651, section 3.3.3): printable ASCII, two letters escaped.
    plain = "".join(letter if " " <= letter <= "~" else "?" for letter in limit)
    name = b'"%s"' % plain.replace("\\", "\\\\").replace('"', '\\"').encode()
    window = max(1, ceil(rate.seconds(rate.cap)))
    return name, (b"ratelimit-policy", b"%s;q=%d;w=%d" % (name, rate.burst, window))


def tightest(verdicts: Iterable[LimitVerdict | None]) -> LimitVerdict | None:
    """The one of several calls' verdicts whose bucket has the fewest calls left."""
    counted = [verdict for verdict in verdicts if verdict is not None and verdict.tightest is not None]
    return min(counted, key=lambda verdict: verdict.left, default=None)


class BatchResponse(ResponseWriter):
    """The place of one answer in a batch; notifications have none, since a batch is one JSON array."""

    def __init__(self, context: RequestContext, room: Budget) -> None:
        self.context = context
        self._room = room
        self.reply: bytes | None = None

    async def answer(self, status: int, fields: Fields, body: bytes) -> None:
        """Inside a batch there is no status, and the answers share the room of one."""
        if not self._room.take(len(body)):
            fault = Fault(Kind.FULL, "The answers to this batch are too large together")
            body = self.context.dialect.refusal(fault, self.context.reply_to, self.context.request_id)
        self.context.bytes_out += len(body)
        self.reply = body
