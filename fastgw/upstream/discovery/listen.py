"""Listening for `notifications/.../list_changed`, so that a changed list is seen before its next fetch.

    legacy   GET, an event stream in the gateway's own session; 405 and other refusals: not offered, for a while
    modern   subscriptions/listen for the lists whose changes the server says it announces

A stream that ends is opened again, after a pause that grows and has jitter. What was announced in between is lost, so a
stream that is open again counts as an announcement.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from fastgw.errors import Fault
from fastgw.ports import Answer, Deadlines, UpstreamSession
from fastgw.protocol import names
from fastgw.protocol.envelope import Message, NotAMessage, NotJson, emit, members, read
from fastgw.protocol.names import Era
from fastgw.protocol.sse import EventParser, EventTooLong
from fastgw.upstream import legacy, modern
from fastgw.upstream.call_context import CallContext
from fastgw.upstream.discovery.capabilities import ANNOUNCED
from fastgw.upstream.discovery.discover import DiscoveredEra
from fastgw.upstream.failures import lost
from fastgw.upstream.ids import new_id
from fastgw.upstream.reply import aside
from fastgw.upstream.rpc import RpcClient, RpcClients, is_alive
from fastgw.upstream.sessions import UpstreamSessions, own_identity

LONGEST_EVENT = 1024 * 1024
_FOR_EVER = 7 * 86_400.0
STREAM = Deadlines(connect=5.0, first_byte=30.0, idle=_FOR_EVER, total=_FOR_EVER)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0
_NOT_OFFERED_FOR = 600.0
"""Seconds after which a server that offers no such stream is asked again."""
_STEADY = 30.0
"""Seconds a stream lives before the pauses start small again."""
_NO_STREAM = 405
"""Status of a server that offers none (2025-11-25, Listening for Messages)."""
_CHANGED = frozenset((names.TOOLS_CHANGED, names.PROMPTS_CHANGED, names.RESOURCES_CHANGED))
_ACKNOWLEDGED = "notifications/subscriptions/acknowledged"


class NoEventStream(Exception):
    """The server has no such stream."""


def pause(failures: int, dice: float) -> float:
    """Seconds to wait after so many failures in a row; `dice` from 0 to 1 spreads it over the upper half."""
    whole = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(failures, 10))
    return whole * (0.5 + dice / 2)


@dataclass(slots=True)
class Listener:
    """Listens at one instance.

    Args:
        reach: how servers are reached.
        directory: has the gateway's own sessions.
        instance: key of the instance.
        changed: called for every announcement.
        missed: nobody listened for a while.
        refused: the session in which the stream was refused last.
    """

    clients: RpcClients
    sessions: UpstreamSessions
    instance: str
    changed: Callable[[], None]
    missed: bool = False
    refused: UpstreamSession | None = None

    async def run(self, found: DiscoveredEra) -> None:
        """Listen until cancelled; returns at once where the server offers nothing to listen to."""
        failures = 0
        while found.era is Era.LEGACY or found.announces:
            clock = self.clients.clock
            began = clock()
            try:
                await (self._legacy() if found.era is Era.LEGACY else self._modern(found.announces))
            except NoEventStream:
                self.missed = True
                await asyncio.sleep(_NOT_OFFERED_FOR * (0.5 + random.random()))
                continue
            except Fault:
                pass  # not there, or gone: the next try tells
            failures = 0 if clock() - began >= _STEADY else failures + 1
            self.missed = True
            await asyncio.sleep(pause(failures, random.random()))

    async def _legacy(self) -> None:
        client = self.clients.client(self.instance)
        identity = own_identity(client.backend)
        session = await self.sessions.open(self.instance, identity)
        answer = await self._get(client, session)
        if await self._lost(client, session, answer):
            session = await self.sessions.open(self.instance, identity, session)
            answer = await self._get(client, session)
        context = CallContext(
            b"null",
            Era.LEGACY,
            client.transport,
            client.backend,
            session,
            STREAM,
            self.clients.clock(),
            self.clients.spawn,
        )
        await self._follow(answer, context)

    async def _lost(self, client: RpcClient, session: UpstreamSession, answer: Answer) -> bool:
        """Whether a stream that is refused is refused for the session's sake: it says so, or it happens again."""
        if answer.body is None or answer.status == _NO_STREAM:
            self.refused = None
            return False
        again, self.refused = self.refused == session, session
        return again or not await is_alive(client, session)

    async def _get(self, client: RpcClient, session: UpstreamSession) -> Answer:
        return await client.transport.request("GET", legacy.stream_headers(client.backend, session, None), b"", STREAM)

    async def _modern(self, announces: tuple[str, ...]) -> None:
        client = self.clients.client(self.instance)
        upstream_id = new_id()
        wanted = {"notifications": emit(dict.fromkeys(announces, b"true"))}
        headers, body = modern.question(names.LISTEN, wanted, upstream_id, self.clients.ours)
        answer = await client.transport.request("POST", client.backend.headers + headers, body, STREAM)
        await self._follow(answer, None)

    async def _follow(self, answer: Answer, context: CallContext | None) -> None:
        """Read a stream to its end. `line` is the way to answer a legacy server's questions."""
        if answer.body is not None:
            if answer.status in (401, 403, 408, 429) or answer.status >= 500:
                raise lost(f"status {answer.status}")
            raise NoEventStream
        if self.missed:
            self.missed = False
            self.changed()
        parser = EventParser(LONGEST_EVENT)
        try:
            while piece := await answer.read():
                for event in parser.feed(piece):
                    if event.data:
                        self._hear(event.data, context)
        except EventTooLong as wrong:
            raise lost(str(wrong)) from None
        finally:
            answer.close()

    def _hear(self, text: bytes, context: CallContext | None) -> None:
        try:
            message = read(text)
        except (NotJson, NotAMessage):
            return
        if message.method in _CHANGED:
            self.changed()
        elif message.method == _ACKNOWLEDGED and not _acknowledges_any(message):
            raise NoEventStream
        elif message.method is not None and message.id is not None and context is not None:
            self.clients.spawn(aside(context, legacy.response(message.method, message.id)), "answer a server")


def _acknowledges_any(message: Message) -> bool:
    """Whether the server agreed to announce changes of some list (2026-07-28, Subscriptions, Acknowledgment)."""
    try:
        params = members(message.params or b"{}", frozenset(("notifications",)))
        agreed = members(params.get("notifications", b"{}"), frozenset(ANNOUNCED.values()))
        return any(agreed.get(which) == b"true" for which in ANNOUNCED.values())
    except (NotJson, NotAMessage):
        return False
