"""A worker's end of the link to the controller: the port `ControllerPort`, made of one Unix socket.

Without a controller the worker goes on; nothing here waits for ever.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from typing import Any

from fastgw.catalog.uris import Uris
from fastgw.config.certificates import ListenerTls
from fastgw.credentials.token_endpoint import ServerToken
from fastgw.errors import Fault, Kind
from fastgw.policy.match import Principal
from fastgw.processes.ipc import Channel, LinkLost
from fastgw.processes.plan import GatewayPort, Lifecycle
from fastgw.protocol.call import SubjectToken
from fastgw.snapshot.codec import Part, SnapshotDecoder
from fastgw.telemetry.counters import Counters, Series
from fastgw.upstream.breaker import BreakerNews
from fastgw.upstream.call_context import BackgroundTasks
from fastgw.upstream.controller import UpstreamSession

log = logging.getLogger("fastgw")

ASK_WITHIN = 900.0
"""Seconds for an answer, however long servers may take; a call waits no longer than its own deadlines say."""
CONNECT_WITHIN = 5.0
"""Seconds a question waits for a controller to be there; one that has died is back before, on a busy machine too."""
TRIES = 2
"""How often a question is asked where the controller dies over it: a question that kills controllers must not kill
all.
"""
END_WITHIN = 2.0
"""Seconds for an ended session to be known everywhere."""
REPORT_EVERY = 0.25
"""Seconds between two deltas of the counters."""
RECONNECT_AFTER = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds before each further attempt to connect; the last one repeats."""
DECODE_FOR = 0.0005
"""Seconds of work on a snapshot after which calls have their turn."""
YIELD_FOR = 0.002
"""Seconds of that turn, once there are calls: one of them, which needs several rounds of the loop, meets one stretch
at most.
"""
MOST_ALERTS = 100
"""Alerts that wait for a controller; the oldest go."""
FREED_AT_ONCE = 32
"""Parts of an old snapshot that are freed each time."""
MOST_UNSENT = 32 * 1024 * 1024
"""Bytes that may wait in the socket of a controller that does not read; more counts stay here."""


class IpcClient:
    """The link of worker `number` to the controller's socket at `path`."""

    def __init__(self, path: str, number: int, counters: Counters, life: Lifecycle, tasks: BackgroundTasks) -> None:
        self._path = path
        self._number = number
        self._counters = counters
        self._life = life
        self._tasks = tasks
        self._served: GatewayPort
        self._handlers: dict[str, Callable[..., Any]] = {}
        self._channel: Channel | None = None
        self._connected = asyncio.Event()
        self._touched: set[tuple[str, str]] = set()
        self._unannounced: dict[str, float] = {}
        self._decoder = SnapshotDecoder()
        self._generation = 0
        self._old: list[Any] = []
        self._alerts: deque[tuple[str, str, dict[str, Any]]] = deque(maxlen=MOST_ALERTS)
        self.usage_counts: Callable[[], Iterable[tuple[Series, int]]] = tuple
        """Asked before each report: what was counted of usage events."""
        self.on_listener_tls: Callable[[ListenerTls | None], object] = lambda _: None
        """Takes what the listener of agents is to show."""
        self.activated = asyncio.Event()
        """Set once a snapshot has been activated."""

    def attach(self, served: GatewayPort) -> None:
        """Who is given what the controller says: the messages, and what each does."""
        self._served = served
        self._handlers = {
            "parts": self._take,
            "load": self._load,
            "activate": self._activate,
            "fresh": served.freshened,
            "instance_status": served.instance_status,
            "issuer_keys": served.issuer_keys,
            "listener_tls": lambda tls: self.on_listener_tls(tls),
            "instance_health": lambda key, healthy, drained: served.instance_health(
                key, healthy=healthy, drained=drained
            ),
            "breaker": served.breaker,
            "ended": lambda sessions: _each(served.ended, sessions),
            "levels": lambda levels: _each(served.leveled, levels),
            "suspects": lambda suspects: _each(served.suspected, suspects),
            "cancelled": served.cancelled,
            "operate": self._operate,
        }

    # -- the port ------------------------------------------------------------------------------------------------

    async def open_session(
        self, instance: str, identity: str, dead: UpstreamSession | None = None, headers: bytes | None = None
    ) -> UpstreamSession:
        found: UpstreamSession = await self._ask("open_session", instance, identity, dead, headers)
        return found

    async def keep_session(
        self, instance: str, identity: str, session: UpstreamSession, instead: UpstreamSession
    ) -> UpstreamSession:
        found: UpstreamSession = await self._ask("keep_session", instance, identity, session, instead)
        return found

    async def suspect_session(self, key: tuple[str, str], session: str) -> None:
        """With the controller away the other workers find out by themselves."""
        await self._inform("suspect_session", key, session)

    def touch(self, instance: str, identity: str) -> None:
        self._touched.add((instance, identity))

    async def server_token(
        self, server: str, grant: str, subject: SubjectToken | None = None, refused: bytes = b""
    ) -> ServerToken:
        found: ServerToken = await self._ask("server_token", server, grant, subject, refused)
        return found

    async def doubt_era(self, instance: str, believed: str) -> str:
        return str(await self._ask("doubt_era", instance, believed))

    async def refresh(self, server: str, tool: str) -> tuple[tuple[str, tuple[str, ...], str], ...]:
        return tuple(await self._ask("refresh", server, tool))

    async def look_for_key(self, issuer: str, kid: str | None) -> None:
        await self._ask("look_for_key", issuer, kid)

    async def introspect(self, issuer: str, token: bytes) -> bytes:
        return bytes(await self._ask("introspect", issuer, token))

    async def meet(self, path: str, principal: Principal) -> None:
        await self._ask("meet", path, principal)

    async def end_session(self, session: str, seconds: float) -> None:
        """With the controller away for long it is known here, and announced when one is back."""
        self._unannounced[session] = seconds
        if await self._inform("end_session", session, seconds):
            self._unannounced.pop(session, None)

    async def set_level(self, session: str, level: str) -> None:
        """With the controller away it holds here alone, and the log says so."""
        await self._inform("set_level", session, level)

    def breaker(self, instance: str, news: BreakerNews) -> None:
        """With the controller away the other workers find out by themselves."""
        if (channel := self._ready()) is not None:
            channel.send("breaker", instance, tuple(news))

    def cancel(self, session: str, request: bytes) -> None:
        if (channel := self._ready()) is not None:
            channel.send("cancel", session, request)

    def alert(self, kind: str, text: str, details: dict[str, Any]) -> None:
        """With the controller away it waits for the next."""
        self._alerts.append((kind, text, details))
        self._send_alerts()

    def _send_alerts(self) -> None:
        while self._alerts and (channel := self._ready()) is not None:
            channel.send("alert", *self._alerts.popleft())

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
                attempt = 0
                await self._converse(Channel(reader, writer, self._handlers, self._tasks))
            await asyncio.sleep(RECONNECT_AFTER[min(attempt, len(RECONNECT_AFTER) - 1)])
            attempt += 1

    async def _converse(self, channel: Channel) -> None:
        self._channel = channel
        channel.send("hello", self._number, self._life.state, list(self._decoder.parts))
        channel.send("sessions", self._served.known_sessions())
        for key, news in self._served.breakers():
            channel.send("breaker", key, tuple(news))
        self._connected.set()
        self._send_alerts()
        for session, seconds in self._unannounced.items():  # what the controller before may not have heard
            self._tasks.spawn(self.end_session(session, seconds), "tell of an ended session")
        try:
            await channel.run()
        except Exception:  # whoever connects anew is sent everything
            log.exception("the controller's socket")
        finally:
            self._channel = None
            self._connected.clear()

    async def report(self) -> None:
        """Report what was counted and touched, for ever."""
        while True:
            await asyncio.sleep(REPORT_EVERY)
            self._report_now()
            await self._free_old_parts()

    def send_state(self) -> None:
        """The life has moved on."""
        if self._channel is not None:
            self._channel.send("state", self._life.state)

    async def close(self, seconds: float) -> None:
        """Report the last counts, and wait until they have left."""
        self._report_now()
        if self._channel is None:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._channel.drained()
        except (TimeoutError, OSError):
            log.warning("the last counts did not reach the controller")

    def _report_now(self) -> None:
        self._counters.gauge(self._served.in_flight, "fastgw_in_flight")
        for series, count in self.usage_counts():
            if count:
                self._counters.add(series, count)
        if (channel := self._ready()) is None:
            return
        if self._touched:
            channel.send("touch", list(self._touched))
            self._touched.clear()
        if (delta := self._counters.take()) is not None:
            channel.send("delta", delta)

    def _ready(self) -> Channel | None:
        """The channel, where what can wait or be lost may be sent."""
        channel = self._channel
        return channel if channel is not None and not channel.is_closing and channel.unsent < MOST_UNSENT else None

    # -- questions -----------------------------------------------------------------------------------------------

    async def _ask(self, name: str, *args: Any) -> Any:
        """The controller's answer. Every question may be asked twice: what it brings about is the same.

        Raises:
            Fault: what the controller answers; NO_SERVER where there is none, TIMEOUT where it says nothing.
        """
        try:
            async with asyncio.timeout(ASK_WITHIN):
                for _ in range(TRIES):
                    with suppress(TimeoutError):
                        async with asyncio.timeout(CONNECT_WITHIN):
                            await self._connected.wait()
                    if self._channel is None:
                        break
                    with suppress(LinkLost):
                        return await self._channel.ask(name, *args)
        except TimeoutError:
            raise Fault(Kind.TIMEOUT, detail=f"{name}: the controller did not answer") from None
        raise Fault(Kind.NO_SERVER, detail=f"{name}: no controller", data={"reason": "down"}, retry_after=1)

    async def _inform(self, name: str, *args: Any) -> bool:
        """Have the controller tell the other workers; whether it has."""
        try:
            async with asyncio.timeout(END_WITHIN):
                await self._ask(name, *args)
        except (Fault, TimeoutError) as wrong:
            log.warning("%s is not known to the other workers yet: %s", name, wrong)
            return False
        return True

    # -- snapshots and orders ------------------------------------------------------------------------------------

    async def _take(self, parts: list[Part]) -> None:
        pause = YIELD_FOR if self.activated.is_set() else 0.0
        begun = time.perf_counter()
        for key, text in parts:
            for _ in self._decoder.take(key, text):
                if time.perf_counter() - begun > DECODE_FOR:
                    await asyncio.sleep(pause)
                    begun = time.perf_counter()
            if isinstance(uris := self._decoder.parts[key], Uris):
                # Thousands of templates take 100 ms to lay out: beside the calls, and before the first of them asks.
                await asyncio.to_thread(lambda uris: uris.tables, uris)
        await asyncio.sleep(pause)

    def _load(self, generation: int, root: bytes, gone: Collection[bytes]) -> None:
        try:
            snapshot, old = self._decoder.whole(root, gone)
        except KeyError:
            # Over a new link the controller learns what is here, and sends the rest.
            if self._channel is not None:
                self._channel.close()
            raise
        self._old.extend(old)
        # A controller that was started again counts on from a later time: only what is newer is taken.
        if generation > self._generation:
            self._generation = generation
            self._served.load(snapshot)

    def _activate(self, generation: int) -> None:
        self._served.activate(generation)
        self.activated.set()

    async def _free_old_parts(self) -> None:
        """Free some of what older snapshots held: ten thousand grants at once would hold up calls for 10 ms."""
        # A quarter of it at least: however fast servers change their lists, it does not pile up.
        for _ in range(min(len(self._old), max(FREED_AT_ONCE, len(self._old) // 4))):
            self._old.pop()
            await asyncio.sleep(0)

    def _operate(self, verb: str, args: tuple[Any, ...]) -> Awaitable[Any]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._served.operate(verb, args, answer.set_result)
        return answer


def _each(take: Callable[..., object], found: list[tuple[Any, ...]]) -> None:
    for one in found:
        take(*one)
