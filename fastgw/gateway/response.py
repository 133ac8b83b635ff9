"""Where the answer to one call goes: an HTTP answer of its own, or its place in a batch."""

from __future__ import annotations

import asyncio
from typing import Protocol

from fastgw.errors import Fault, Kind
from fastgw.gateway import rate_headers, refusals
from fastgw.gateway.budget import Budget
from fastgw.gateway.connection import JSON, STREAM, AgentConnection, Fields
from fastgw.gateway.context import RequestContext
from fastgw.protocol import headers, sse
from fastgw.upstream.tasks import BackgroundTasks

KEEP_ALIVE = 15.0
"""Seconds of silence after which a stream gets a comment: many proxies give up at 60, some at 30."""


class ResponseWriter(Protocol):
    """What the path needs to answer one call."""

    async def answer(self, status: int, fields: Fields, body: bytes) -> None:
        """The last word, whole; on a stream that has begun it is the last event."""
        ...

    async def event(self, data: bytes) -> None:
        """One notification before the last word."""
        ...

    async def silence(self) -> None:
        """End without a last word: the agent has cancelled the call and must not be answered."""
        ...

    def expect_events(self) -> None:
        """The server streams: from now on silence is filled with comments."""
        ...


class HttpResponse:
    """An HTTP answer: JSON if the last word comes first, else an event stream."""

    def __init__(self, agent: AgentConnection, context: RequestContext, common: Fields, tasks: BackgroundTasks) -> None:
        self._agent = agent
        self._exchange = context
        self._common = common
        self._tasks = tasks
        self._streams = (context.dialect is None or context.dialect.streams) and headers.accepts(
            context.headers.get(b"accept"), b"text/event-stream"
        )
        self._turn = asyncio.Lock()
        self._pulse: asyncio.TimerHandle | None = None

    async def answer(self, status: int, fields: Fields, body: bytes) -> None:
        self._still()
        self._exchange.bytes_out += len(body)
        if not self._agent.started:
            await self._agent.answer(status, [*self._head(), *fields, JSON], body)
            return
        async with self._turn:
            await self._agent.push(sse.encode(body))
            await self._agent.close()

    async def event(self, data: bytes) -> None:
        """See `ResponseWriter.event`. An agent that takes no streams gets no notifications."""
        if not self._streams:
            return
        self._exchange.bytes_out += len(data)
        await self._push(sse.encode(data))

    async def silence(self) -> None:
        self._still()
        if not self._agent.started:
            await self._agent.open([*self._head(), *STREAM] if self._streams else self._head())
        async with self._turn:
            await self._agent.close()

    def expect_events(self) -> None:
        if self._streams:
            self._pulse = asyncio.get_running_loop().call_later(KEEP_ALIVE, self._beat)

    async def _push(self, data: bytes) -> None:
        async with self._turn:
            if self._agent.over:  # a comment that was on its way while the answer was given
                return
            if not self._agent.started:
                await self._agent.open([*self._head(), *STREAM])
            await self._agent.push(data)
        if self._pulse is not None:
            self._pulse.cancel()
            self.expect_events()

    def _head(self) -> Fields:
        """The headers of every answer, and how the limits stand that counted this one."""
        return [*self._common, *rate_headers.fields(self._exchange.verdict)] if self._exchange.verdict else self._common

    def _beat(self) -> None:
        self._tasks.spawn(self._push(sse.KEEP_ALIVE), "keep-alive")

    def _still(self) -> None:
        if self._pulse is not None:
            self._pulse.cancel()
            self._pulse = None


class BatchResponse:
    """The place of one answer in a batch; notifications have none, since a batch is one JSON array."""

    def __init__(self, context: RequestContext, room: Budget) -> None:
        self.context = context
        self._room = room
        self.reply: bytes | None = None

    async def answer(self, status: int, fields: Fields, body: bytes) -> None:
        """See `ResponseWriter.answer`; inside a batch there is no status, and the answers share the room of one."""
        if not self._room.take(len(body)):
            body = refusals.body(Fault(Kind.FULL, "The answers to this batch are too large together"), self.context)
        self.context.bytes_out += len(body)
        self.reply = body

    async def event(self, data: bytes) -> None:
        """See `ResponseWriter.event`."""

    async def silence(self) -> None:
        """See `ResponseWriter.silence`."""

    def expect_events(self) -> None:
        """See `ResponseWriter.expect_events`."""
