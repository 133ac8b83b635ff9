"""A worker's end of the link to the controller: the port `fastgw.ports.Controller`, made of one Unix socket.

Without a controller the worker goes on; nothing here waits for ever.
The messages are listed in `ipc_server`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from itertools import count
from typing import Any

from fastgw.catalog.uris import Uris
from fastgw.errors import Fault, Kind
from fastgw.ports import UpstreamSession
from fastgw.processes import ipc_framing
from fastgw.processes.lifecycle import Lifecycle
from fastgw.processes.plan import GatewayPort
from fastgw.snapshot.codec import GRANTS, KINDS, SnapshotDecoder
from fastgw.telemetry.counters import Counters
from fastgw.usage.spool import Spool

log = logging.getLogger("fastgw")

ASK_WITHIN = 900.0
"""Seconds for an answer, however long servers may take; a call waits no longer than its own deadlines say."""
AWAY = 2.0
"""Seconds a question waits for a controller to be there; one that has died is back long before."""
TRIES = 2
"""How often a question is asked where the controller dies over it: a question that kills controllers must not kill
all.
"""
END_WITHIN = 2.0
"""Seconds for an ended session to be known everywhere."""
TELL_EVERY = 0.25
"""Seconds between two deltas of the counters."""
AGAIN = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds before each further attempt to connect; the last one repeats."""
BREATH = 0.002
"""Seconds between two stretches of work on a change: a call, which needs several rounds of the loop, meets one of them
at most. A whole snapshot, which all wait for, is taken without."""
LET_GO = 32
"""Parcels of an old snapshot that are freed each time."""
_PARCELS = frozenset(("begin", "gone", *KINDS))
MOST_UNSENT = 32 * 1024 * 1024
"""Bytes that may wait in the socket of a controller that does not read; more stays in the spool, whose loss is
counted.
"""


class _ControllerGone(Exception):
    """The controller has gone before it answered."""


class IpcClient:
    """The link of worker `number`.

    Args:
        path: of the controller's socket.
        counters: of this worker; what is counted is told every quarter of a second.
        life: of this worker.
    """

    def __init__(self, path: str, number: int, counters: Counters, life: Lifecycle) -> None:
        self._path = path
        self._number = number
        self._counters = counters
        self._life = life
        self._served: GatewayPort | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._numbers = count(1)
        self._touched: set[tuple[str, str]] = set()
        self._unsaid: dict[str, float] = {}
        self._generation = 0
        self._there = asyncio.Event()
        self._early: list[tuple[str, float]] = []
        self._coming = SnapshotDecoder()
        self._breath = 0.0
        self._old: list[Any] = []
        self._spool = Spool(self._send_usage, self._lost_usage)
        self.loaded = asyncio.Event()
        """Set once a snapshot has been loaded."""
        self.activated = asyncio.Event()
        """Set once a snapshot has been activated."""

    def attach(self, served: GatewayPort) -> None:
        """Who is given snapshots, ended sessions and cancels."""
        self._served = served

    # -- the port ------------------------------------------------------------------------------------------------

    async def open_session(self, instance: str, identity: str, dead: UpstreamSession | None = None) -> UpstreamSession:
        found = await self._ask("open_session", (instance, identity, dead))
        assert isinstance(found, UpstreamSession)
        return found

    async def keep_session(
        self, instance: str, identity: str, session: UpstreamSession, instead: UpstreamSession
    ) -> UpstreamSession:
        found = await self._ask("keep_session", (instance, identity, session, instead))
        assert isinstance(found, UpstreamSession)
        return found

    async def suspect_session(self, key: tuple[str, str], session: str) -> None:
        """See `fastgw.ports.Controller`. With the controller away the other workers find out by themselves."""
        await self._tell_all("suspect_session", (key, session))

    def touch(self, instance: str, identity: str) -> None:
        self._touched.add((instance, identity))

    async def doubt_era(self, instance: str, believed: str) -> str:
        return str(await self._ask("doubt_era", (instance, believed)))

    async def refresh(self, server: str, tool: str) -> tuple[tuple[str, tuple[str, ...], str], ...]:
        return tuple(await self._ask("refresh", (server, tool)))

    async def end_session(self, session: str, seconds: float) -> None:
        """See `fastgw.ports.Controller`. With the controller away for long it is known here, and told when one is
        back.
        """
        self._unsaid[session] = seconds
        try:
            async with asyncio.timeout(END_WITHIN):
                await self._ask("end_session", (session, seconds))
        except (Fault, TimeoutError) as wrong:
            log.warning("an ended session is not known to the other workers yet: %s", wrong)
        else:
            self._unsaid.pop(session, None)

    async def set_level(self, session: str, level: str) -> None:
        """See `fastgw.ports.Controller`. With the controller away it holds here alone, and the log says so."""
        await self._tell_all("set_level", (session, level))

    async def _tell_all(self, verb: str, args: tuple[Any, ...]) -> None:
        try:
            async with asyncio.timeout(END_WITHIN):
                await self._ask(verb, args)
        except (Fault, TimeoutError) as wrong:
            log.warning("%s is not known to the other workers: %s", verb, wrong)

    def _say_again(self) -> None:
        """Tell a controller what the one before may not have heard; each is forgotten when it is answered."""
        for session, seconds in self._unsaid.items():
            number = next(self._numbers)
            told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            told.add_done_callback(lambda done, session=session: self._said(session, done))  # type: ignore[misc]
            self._asked[number] = told
            self._send(("ask", number, "end_session", (session, seconds)))

    def _said(self, session: str, done: asyncio.Future[Any]) -> None:
        if not done.cancelled() and done.exception() is None:
            self._unsaid.pop(session, None)

    def cancel(self, session: str, request: bytes) -> None:
        if self._ready():
            self._send(("cancel", session, request))

    def usage(self, event: bytes) -> None:
        self._spool.add(event)

    # -- the link ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the link up until cancelled."""
        attempt = 0
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(self._path, limit=1 << 20)
            except OSError as wrong:
                log.debug("no controller yet: %s", wrong)
            else:
                if await self._converse(reader, writer):
                    attempt = 0
            await asyncio.sleep(AGAIN[min(attempt, len(AGAIN) - 1)])
            attempt += 1

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Speak until the connection ends; whether the controller said anything."""
        self._writer = writer
        heard = False
        self._send(("hello", self._number, os.getpid(), self._life.state))
        if self._served is not None:
            self._send(("sessions", self._served.known_sessions()))
        self._say_again()
        self._there.set()
        try:
            while (message := await ipc_framing.read(reader)) is not None:
                heard = True
                if message[0] in _PARCELS:
                    await self._unpack(message)
                else:
                    self._take(self._put_together(message))
        except Exception:  # whoever connects anew is sent everything
            log.exception("the controller's socket")
        finally:
            self._writer = None
            self._there.clear()
            writer.close()
            self._give_up()
        return heard

    async def _unpack(self, message: ipc_framing.Message) -> None:
        """Take a part of a snapshot, with calls in between."""
        match message:
            case ("uris", _, Uris() as uris):
                # Thousands of templates take 100 ms to lay out: beside the calls, and before the first of them asks.
                await asyncio.to_thread(lambda: uris.layout)
        if message[0] == "begin":
            self._breath = BREATH if message[2] else 0.0
        for _ in self._coming.take(message):
            await asyncio.sleep(self._breath)
        await asyncio.sleep(self._breath)

    def _take(self, message: ipc_framing.Message) -> None:
        try:
            self._hear(message)
        except Exception:  # a worker that lost its link for one message would be deaf to all that follow
            log.exception("a word of the controller could not be taken: %r", message[0])

    async def tell(self) -> None:
        """Tell what was counted and touched, for ever."""
        while True:
            await asyncio.sleep(TELL_EVERY)
            self._tell_now()
            await self._let_go()

    def say_state(self) -> None:
        """The life has moved on."""
        self._send(("state", self._life.state))

    async def close(self, seconds: float) -> None:
        """Tell the last counts and events, and wait until they have left."""
        self._tell_now()
        self._spool.flush()
        writer = self._writer
        if writer is None:
            return
        try:
            async with asyncio.timeout(seconds):
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError):
            log.warning("the last counts did not reach the controller")

    def _tell_now(self) -> None:
        if self._served is not None:
            self._counters.gauge(self._served.in_flight, "fastgw_in_flight")
        if not self._ready():
            return
        if self._touched:
            self._send(("touch", list(self._touched)))
            self._touched.clear()
        delta = self._counters.take()
        if delta is not None:
            self._send(("delta", delta))

    def _ready(self) -> bool:
        writer = self._writer
        if writer is None or writer.is_closing():
            return False
        return writer.transport.get_write_buffer_size() < MOST_UNSENT

    def _send(self, message: ipc_framing.Message) -> bool:
        writer = self._writer
        if writer is None or writer.is_closing():
            return False
        writer.write(ipc_framing.pack(message))
        return True

    def _send_usage(self, events: int, lines: bytes) -> bool:
        return self._ready() and self._send(("usage", events, lines))

    def _lost_usage(self, events: int) -> None:
        self._counters.add(("fastgw_usage_events_lost_total", "worker"), events)

    # -- questions -----------------------------------------------------------------------------------------------

    async def _ask(self, verb: str, args: tuple[Any, ...]) -> Any:
        """The controller's answer. Every question may be asked twice: what it brings about is the same.

        Raises:
            Fault: what the controller answers; NO_SERVER where there is none, TIMEOUT where it says nothing.
        """
        try:
            async with asyncio.timeout(ASK_WITHIN):
                for _ in range(TRIES):
                    await self._controller_there(verb)
                    try:
                        return await self._ask_once(verb, args)
                    except _ControllerGone:
                        continue
        except TimeoutError:
            raise Fault(Kind.TIMEOUT, detail=f"{verb}: the controller did not answer") from None
        raise _nobody(verb)

    async def _controller_there(self, verb: str) -> None:
        try:
            async with asyncio.timeout(AWAY):
                await self._there.wait()
        except TimeoutError:
            raise _nobody(verb) from None

    async def _ask_once(self, verb: str, args: tuple[Any, ...]) -> Any:
        number = next(self._numbers)
        if not self._send(("ask", number, verb, args)):
            raise _ControllerGone
        future = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        try:
            return await future
        finally:
            self._asked.pop(number, None)

    def _give_up(self) -> None:
        asked, self._asked = self._asked, {}
        for future in asked.values():
            if not future.done():
                future.set_exception(_ControllerGone())

    def _hear(self, message: ipc_framing.Message) -> None:
        match message:
            case ("answer", number, value):
                future = self._asked.pop(number, None)
                if future is not None and not future.done():
                    future.set_result(value)
            case ("fault", number, kind, words, detail, retry, data):
                future = self._asked.pop(number, None)
                if future is not None and not future.done():
                    future.set_exception(Fault(kind, words, detail=detail, retry_after=retry, data=data))
            case _:
                self._obey(message)

    def _obey(self, message: ipc_framing.Message) -> None:
        served = self._served
        if served is None:
            return
        match message:
            case ("load", generation, found):
                # A controller that was started again counts on from a later time: only what is newer is taken.
                if generation > self._generation:
                    self._generation = generation
                    served.load(found)
                self._heed_early(served)
                self.loaded.set()
                self._send(("loaded", generation))
            case ("activate", generation):
                served.activate(generation)
                self.activated.set()
            case ("fresh", until):
                served.freshened(until)
            case ("ended", ticket, sessions):
                self._early.extend(sessions)
                if self._generation:
                    self._heed_early(served)
                self._send(("known", ticket))
            case ("levels" | "suspects" as what, ticket, pairs):
                for pair in pairs:
                    (served.leveled if what == "levels" else served.suspected)(*pair)
                self._send(("known", ticket))
            case ("cancelled", session, request):
                served.cancelled(session, request)
            case ("operate", ticket, verb, args):
                served.operate(verb, args, lambda value: self._send(("operated", ticket, value)))

    def _put_together(self, message: ipc_framing.Message) -> ipc_framing.Message:
        """The message, where it is the last of a snapshot with the whole of it. What is replaced goes in `_let_go`.

        Raises:
            LookupError: a parcel is missing: with a new link all come again.
        """
        match message:
            case ("load", generation, shell):
                message = "load", generation, self._coming.whole(generation, shell)
                self._old.extend(self._coming.left())
        return message

    async def _let_go(self) -> None:
        """Free some of what older snapshots held: ten thousand grants at once would hold up calls for 10 ms."""
        # A quarter of it at least: however fast servers change their lists, it does not pile up.
        for _ in range(max(LET_GO, len(self._old) // (4 * GRANTS))):
            if not self._old:
                return
            del self._old[-GRANTS:]
            await asyncio.sleep(0)

    def _heed_early(self, served: GatewayPort) -> None:
        """Hand over ended sessions. Before the first snapshot nothing can be opened, nor is anything served."""
        early, self._early = self._early, []
        for session, seconds in early:
            served.ended(session, seconds)


def _nobody(verb: str) -> Fault:
    return Fault(Kind.NO_SERVER, detail=f"{verb}: no controller", data={"reason": "down"}, retry_after=1)
