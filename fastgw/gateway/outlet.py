"""Where the answer to one call goes: an HTTP answer of its own, or its place in a batch.

Knows: when an answer must become a stream, and that a silent stream needs a comment now and then.
Refuses to know: what is said.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from fastgw.faults import Fault, Kind
from fastgw.gateway import rates, refusals
from fastgw.gateway.agent import JSON, STREAM, Agent, Fields
from fastgw.gateway.budget import Budget
from fastgw.gateway.exchange import Exchange
from fastgw.gateway.registry import Registry
from fastgw.mcp import headers, sse

KEEP_ALIVE = 15.0
"""Seconds of silence after which a stream gets a comment: many proxies give up at 60, some at 30."""


class Outlet(Protocol):
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


class HttpOutlet:
    """An HTTP answer: JSON if the last word comes first, else an event stream."""

    def __init__(self, agent: Agent, exchange: Exchange, common: Fields, registry: Registry) -> None:
        self._agent = agent
        self._exchange = exchange
        self._common = common
        self._registry = registry
        self._streams = (exchange.face is None or exchange.face.streams) and headers.accepts(
            exchange.headers.get(b"accept"), b"text/event-stream"
        )
        self._turn = asyncio.Lock()
        self._pulse: asyncio.TimerHandle | None = None

    async def answer(self, status: int, fields: Fields, body: bytes) -> None:
        """See `Outlet.answer`."""
        self._still()
        self._exchange.bytes_out += len(body)
        if not self._agent.started:
            await self._agent.answer(status, [*self._head(), *fields, JSON], body)
            return
        async with self._turn:
            await self._agent.push(sse.encode(body))
            await self._agent.close()

    async def event(self, data: bytes) -> None:
        """See `Outlet.event`. An agent that takes no streams gets no notifications."""
        if not self._streams:
            return
        self._exchange.bytes_out += len(data)
        await self._push(sse.encode(data))

    async def silence(self) -> None:
        """See `Outlet.silence`."""
        self._still()
        if not self._agent.started:
            await self._agent.open([*self._head(), *STREAM] if self._streams else self._head())
        async with self._turn:
            await self._agent.close()

    def expect_events(self) -> None:
        """See `Outlet.expect_events`."""
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
        return [*self._common, *rates.fields(self._exchange.verdict)] if self._exchange.verdict else self._common

    def _beat(self) -> None:
        self._registry.spawn(self._push(sse.KEEP_ALIVE), "keep-alive")

    def _still(self) -> None:
        if self._pulse is not None:
            self._pulse.cancel()
            self._pulse = None


class BatchOutlet:
    """The place of one answer in a batch; notifications have none, since a batch is one JSON array."""

    def __init__(self, exchange: Exchange, room: Budget) -> None:
        self.exchange = exchange
        self._room = room
        self.reply: bytes | None = None

    async def answer(self, status: int, fields: Fields, body: bytes) -> None:
        """See `Outlet.answer`; inside a batch there is no status, and the answers share the room of one."""
        if not self._room.take(len(body)):
            body = refusals.body(Fault(Kind.FULL, "The answers to this batch are too large together"), self.exchange)
        self.exchange.bytes_out += len(body)
        self.reply = body

    async def event(self, data: bytes) -> None:
        """See `Outlet.event`."""

    async def silence(self) -> None:
        """See `Outlet.silence`."""

    def expect_events(self) -> None:
        """See `Outlet.expect_events`."""
