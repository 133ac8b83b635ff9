"""Listening for `notifications/.../list_changed`, so that a changed list is known before its next fetch.

legacy   GET, an event stream in the gateway's own session
modern   subscriptions/listen for the lists whose changes the server says it announces

stream   ends, or fails          opened again, after a pause that grows
         refused, session lost   opened again at once, in another session
         refused otherwise       asked for again in some minutes
         open again              counts as an announcement: what was announced in between is lost
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from fastgw.catalog.route import Deadlines
from fastgw.errors import Fault
from fastgw.protocol import names
from fastgw.protocol.envelope import NotAMessage, NotJson, emit, read
from fastgw.protocol.names import Era
from fastgw.protocol.sse import EventParser, EventTooLong
from fastgw.upstream import legacy, modern
from fastgw.upstream.call_context import CallContext
from fastgw.upstream.classify import new_id
from fastgw.upstream.controller import UpstreamSession
from fastgw.upstream.discovery.status import ProbeResult
from fastgw.upstream.reply import aside
from fastgw.upstream.rpc import RpcClients, is_alive
from fastgw.upstream.sessions import UpstreamSessions
from fastgw.upstream.transports import lost
from fastgw.upstream.transports.http_exchange import HttpAnswer

LONGEST_EVENT = 1024 * 1024
_FOR_EVER = 7 * 86_400.0
STREAM = Deadlines(connect=5.0, first_byte=30.0, idle=_FOR_EVER, total=_FOR_EVER)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0
_NOT_OFFERED_FOR = 600.0  # seconds after which a server that offers no such stream is asked again
_STEADY = 30.0  # seconds a stream lives before the pauses start small again
_NO_STREAM = 405  # status of a server that offers none (2025-11-25, Listening for Messages)
_CHANGED = frozenset((names.TOOLS_CHANGED, names.PROMPTS_CHANGED, names.RESOURCES_CHANGED))


class NoEventStream(Exception):
    """The server has no such stream."""


def pause(failures: int, first: float, longest: float) -> float:
    """Seconds to wait after so many failures in a row: `first`, doubled with each up to `longest`, up to half less."""
    return min(longest, first * 2.0 ** min(failures - 1, 10)) * (1 - random.random() / 2)


@dataclass(slots=True)
class Listener:
    """Listens at one instance and calls `changed` for every announcement; `missed` where nobody listened for a while,
    `refused` is the session in which the stream was refused last.
    """

    clients: RpcClients
    sessions: UpstreamSessions
    instance: str
    changed: Callable[[], None]
    missed: bool = False
    refused: UpstreamSession | None = None

    async def run(self, found: ProbeResult) -> None:
        """Listen until cancelled; returns at once where the server offers nothing to listen to."""
        failures = 0
        while not found.is_modern or found.declared.announces:
            began, wait = self.clients.clock(), 0.0
            try:
                await (self._modern(found.declared.announces) if found.is_modern else self._legacy())
            except NoEventStream:
                wait = _NOT_OFFERED_FOR * (0.5 + random.random())
            except Fault:
                pass  # not there, or gone: the next try tells
            failures = 1 if self.clients.clock() - began >= _STEADY else failures + 1
            self.missed = True
            await asyncio.sleep(wait or pause(failures, _FIRST_PAUSE, _LONGEST_PAUSE))

    async def _legacy(self) -> None:
        client = await self.clients.ready(self.instance)

        async def get(session: UpstreamSession) -> HttpAnswer:
            headers = legacy.stream_headers(client.backend.headers, session, None)
            return await client.transport.request("GET", headers, b"", STREAM)

        session = await self.sessions.own(self.instance)
        answer = await get(session)
        if answer.body is None or answer.status == _NO_STREAM:
            self.refused = None
        else:  # for the session's sake, where it says so or this happens again
            again, self.refused = self.refused == session, session
            if again or not await is_alive(client, session):
                session = await self.sessions.own(self.instance, session)
                answer = await get(session)
        now, spawn = self.clients.clock(), self.clients.spawn
        context = CallContext(
            b"null", Era.LEGACY, client.transport, client.backend.headers, session, STREAM, now, spawn
        )
        await self._follow(answer, context)

    async def _modern(self, announces: tuple[str, ...]) -> None:
        client = await self.clients.ready(self.instance)
        wanted = {"notifications": emit(dict.fromkeys(announces, b"true"))}
        headers, body = modern.question(names.LISTEN, wanted, new_id(), self.clients.ours)
        await self._follow(await client.transport.request("POST", client.backend.headers + headers, body, STREAM), None)

    async def _follow(self, answer: HttpAnswer, context: CallContext | None) -> None:
        """Read a stream to its end; `context` is the way to answer a legacy server's questions."""
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
        elif message.method is not None and message.id is not None and context is not None:
            self.clients.spawn(aside(context, legacy.response(message.method, message.id)), "answer a server")
