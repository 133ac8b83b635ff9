"""Which session at which legacy server belongs to whom. One directory serves all workers.

    none --open--> opening --initialize ok--> open --dead--> opening (once for all who say so)
                       |                        |--idle too long, gives way, the agent's own ended--> ended (DELETE)
                       +--initialize fails--> none, or the one that was called dead

Never more than one `initialize` for an identity at an instance within a second.

A session is never given to another identity. Where sessions are shared all ask under one identity, the gateway itself
too. Some servers have one session and no second, and end with it: it is kept over a restart, and never ended.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from fastgw.config.instance_urls import label
from fastgw.errors import Fault, Kind
from fastgw.ports import UpstreamSession
from fastgw.snapshot.model import Backend
from fastgw.upstream import legacy, modern
from fastgw.upstream.call_context import ASIDE, NO_SESSION
from fastgw.upstream.classify import speaks_modern
from fastgw.upstream.discovery.capabilities import NOTHING, Declared, said_in
from fastgw.upstream.discovery.kept import recall_sessions, store_sessions
from fastgw.upstream.ids import new_id
from fastgw.upstream.rpc import RpcClient, RpcClients, RpcReply, not_evidence, result_of, told
from fastgw.upstream.session_pool import ANYONE, HeldSession, Key, SessionPool, is_of

log = logging.getLogger("fastgw")

KEEPER = "controller"
"""Identity of the gateway's own session at each instance, for lists and notices of change; never idle, never evicted.
No agent's identity is spelt so: they are `*` or have a colon."""

SETTLED = 5.0
"""Seconds without use after which a session may make room for another identity's."""

SHORTEST_IDLE = 2.0
"""Seconds a session is kept at least, whatever `session_idle` says: that it is in use is told only now and then."""

_ONE_ONLY = "refused a second session: if it takes one only, write `shared_session: true`"
_SESSION_ID = re.compile(r"[!-~]{1,8192}")
_MOST_SPARE = 10_000
"""Sessions opened in vain that are still to be ended; of those beyond it their servers will rid themselves."""
_AT_MOST_EVERY = 1.0
"""Seconds between two `initialize` for one identity at one instance."""


class ModernOnly(Fault):
    """It refuses `initialize` as servers of 2026-07-28 do."""


def own_identity(backend: Backend) -> str:
    """Under which identity the gateway itself asks a server."""
    return ANYONE if backend.shared_session else KEEPER


class UpstreamSessions:
    """All upstream sessions.

    Args:
        reach: how servers are reached.
        file: where shared sessions are kept over a restart; None: nowhere.
    """

    def __init__(self, clients: RpcClients, file: Path | None = None) -> None:
        self._askers = clients.client
        self._spawn = clients.spawn
        self._ours = clients.ours
        self._clock = clients.clock
        self._shelves: dict[str, SessionPool] = {}
        self._flights: dict[Key, asyncio.Task[UpstreamSession | Fault]] = {}
        self._mine: dict[Key, HeldSession] = {}
        self._refused: dict[Key, tuple[float, Fault]] = {}
        self._said: dict[str, Declared] = {}
        self._spare: deque[tuple[float, Key, UpstreamSession]] = deque(maxlen=_MOST_SPARE)
        self._file = file
        self._shared: dict[str, UpstreamSession] = {}

    async def open(self, instance: str, identity: str, dead: UpstreamSession | None = None) -> UpstreamSession:
        """The session of this identity at this instance; opened if there is none, or only the dead one.

        Args:
            instance: key of the instance.
            identity: whose session.
            dead: a session that the server was found not to know.

        Raises:
            Fault: NO_SERVER or TIMEOUT, never `sent`: no call was given to the server.
        """
        key = (instance, identity)
        client = self._askers(instance)
        held = self._held(client, key) or self._recalled(client, key)
        if held is not None and held.session != dead:
            self.touch(instance, identity)
            return held.session
        flight = self._flights.get(key)
        if flight is None:
            when, refusal = self._refused.get(key, (0.0, None))
            if refusal is not None and self._clock() - when < _AT_MOST_EVERY:
                raise _unsent(refusal)
            if held is None:
                self._make_room(client, identity)
            flight = self._spawn(self._opened(client, key, held), f"session at {label(instance)}")
            self._flights[key] = flight
        # Whoever stops waiting leaves the flight to the others.
        outcome = await asyncio.shield(flight)
        if isinstance(outcome, Fault):
            raise _unsent(outcome)
        return outcome

    def keep(self, instance: str, identity: str, session: UpstreamSession, instead: UpstreamSession) -> UpstreamSession:
        """Go back to a session that was called dead and is not, and end the one opened instead of it.

        Raises:
            Fault: NO_SERVER for an instance that is not configured any more.
        """
        key = (instance, identity)
        held = self._held(self._askers(instance), key)
        if held is None or held.session != instead or instead.id == session.id:
            return session if held is None else held.session
        # Other calls may have been handed it meanwhile: it is ended when they must be over.
        self._spare.append((self._clock() + self._askers(instance).backend.session_idle, key, instead))
        held.session = replace(session, opened=self._clock())
        return held.session

    def said(self, instance: str) -> Declared:
        """What a server said of itself when the gateway's own session was opened there last."""
        return self._said.get(instance, NOTHING)

    def touch(self, instance: str, identity: str) -> None:
        """The session is in use now."""
        server = instance.partition("|")[0]
        pool, key = self._shelves.get(server), (instance, identity)
        if pool is not None and key in pool.held:
            pool.held[key].used = self._clock()
            pool.held.move_to_end(key)

    def adopt(self, known: Iterable[tuple[str, str, UpstreamSession]]) -> None:
        """Take over sessions that a worker knows, after this process was restarted. Those known already stay.

        Args:
            known: (instance key, identity, session), from `UpstreamCaller.known_sessions`.
        """
        for instance, identity, session in known:
            try:
                client = self._askers(instance)
            except Fault:
                continue
            pool = self._shelf(client.backend.name)
            now = self._clock()
            pool.held.setdefault((instance, identity), HeldSession(session, now))

    def end(self, session: str) -> None:
        """An agent's own session is over: so are those opened for it, and those that are being opened."""
        for pool in self._shelves.values():
            for key in [key for key in pool.held if is_of(key[1], session)]:
                self._end(key, pool.held.pop(key))
        for key, flight in self._flights.items():
            if is_of(key[1], session):
                flight.add_done_callback(lambda _: self.end(session))

    def reap(self) -> None:
        """End what was idle for longer than its server's `session_idle`, and what belongs to instances now unknown."""
        self._mine = {key: held for key, held in self._mine.items() if self._is_known(key[0])}
        for key in [key for key in self._mine if self._askers(key[0]).backend.shared_session]:
            self._end(key, self._mine.pop(key))  # a reload made its sessions one: this one may be in its way
        self._said = {key: said for key, said in self._said.items() if self._is_known(key)}
        while self._spare and self._spare[0][0] < self._clock():
            _, key, session = self._spare.popleft()
            self._end(key, HeldSession(session, 0.0))
        since = self._clock() - _AT_MOST_EVERY
        self._refused = {key: found for key, found in self._refused.items() if found[0] > since}
        for pool in self._shelves.values():
            for key, held in list(pool.held.items()):
                if not self._is_known(key[0]):
                    del pool.held[key]
                    continue
                if key[1] == ANYONE:
                    continue
                idle = max(self._askers(key[0]).backend.session_idle, SHORTEST_IDLE)
                if self._clock() - held.used < idle:
                    break  # the others were used later
                del pool.held[key]
                self._end(key, held)

    async def run(self, every: float = 1.0) -> None:
        """Reap for ever."""
        while True:
            await asyncio.sleep(every)
            self.reap()

    def __len__(self) -> int:
        return sum(len(pool.held) for pool in self._shelves.values())

    def count(self, server: str) -> int:
        """Sessions of identities at this server, the gateway's own not counted."""
        pool = self._shelves.get(server)
        return len(pool.held) if pool is not None else 0

    async def close(self, within: float = 1.0) -> None:
        """End every session with its server, as far as `within` seconds allow."""
        held = [*self._mine.items(), *(item for pool in self._shelves.values() for item in pool.held.items())]
        self._shelves.clear()
        self._mine.clear()
        tasks = [task for key, one in held if (task := self._end(key, one)) is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=within)
            for task in late:
                task.cancel()

    # -- inside -------------------------------------------------------------------------------------------------

    def _shelf(self, server: str) -> SessionPool:
        return self._shelves.setdefault(server, SessionPool())

    def _held(self, client: RpcClient, key: Key) -> HeldSession | None:
        return self._mine.get(key) if key[1] == KEEPER else self._shelf(client.backend.name).held.get(key)

    def _recalled(self, client: RpcClient, key: Key) -> HeldSession | None:
        """The shared session of an earlier run."""
        if key[1] != ANYONE or self._file is None:
            return None
        self._shared |= recall_sessions(self._file, [key[0]])
        session = self._shared.get(key[0])
        if session is None:
            return None
        held = self._shelf(client.backend.name).held[key] = HeldSession(session, self._clock())
        return held

    def _is_known(self, instance: str) -> bool:
        try:
            self._askers(instance)
        except Fault:
            return False
        return True

    def _make_room(self, client: RpcClient, identity: str) -> None:
        """Keep a place for one more session of this server.

        Raises:
            Fault: NO_SERVER, busy, where the session that had to give way was in use a moment ago.
        """
        backend = client.backend
        pool = self._shelf(backend.name)
        if identity == KEEPER:
            return
        if pool.is_full(backend.max_sessions):
            giving = pool.gives_way(identity, backend.max_sessions)
            if giving is None or self._clock() - pool.held[giving].used < SETTLED:
                detail = f"no place among {backend.max_sessions} sessions"
                raise Fault(Kind.NO_SERVER, detail=detail, data={"reason": "busy"}, retry_after=round(SETTLED))
            self._end(giving, pool.held.pop(giving))
        pool.opening += 1

    async def _opened(self, client: RpcClient, key: Key, lost: HeldSession | None) -> UpstreamSession | Fault:
        """One flight. A failure is its outcome, not its exception: it is for those who wait to make something of it.

        Args:
            lost: the session that is to be replaced; it stays where another cannot be had.
        """
        pool = self._shelf(client.backend.name)
        offered = modern.OF_AGENTS if key[1] == KEEPER else b"{}"
        try:
            if lost is not None:
                await asyncio.sleep(lost.session.opened + _AT_MOST_EVERY - self._clock())
            session, said = await initialize(client, self._ours, offered, self._clock)
        except Exception as wrong:
            fault = wrong if isinstance(wrong, Fault) else Fault(Kind.INTERNAL, detail=repr(wrong))
            if not isinstance(wrong, Fault):
                log.exception("a session at %s could not be opened", label(key[0]))
            if not fault.repeatable:  # it was asked
                self._refused[key] = self._clock(), fault
                if (key[0], KEEPER) in self._mine and key[1] != KEEPER:
                    client.transport.notes.add(_ONE_ONLY)
            return fault
        finally:
            # No await from here on: whoever asks finds the flight or the session.
            if self._flights.get(key) is asyncio.current_task():
                del self._flights[key]
            if key[1] != KEEPER and lost is None:
                pool.opening -= 1
        self._keep(pool, key, session)
        if lost is not None:
            client.transport.notes.add("refused a session that it had given: another one was opened")
        if lost is not None and key[1] == KEEPER and lost.session.id != session.id:
            self._end(key, lost)  # should it still be there: nobody else uses it
        if key[1] == own_identity(client.backend):
            self._said[key[0]] = said
        return session

    def _keep(self, pool: SessionPool, key: Key, session: UpstreamSession) -> None:
        (self._mine if key[1] == KEEPER else pool.held)[key] = HeldSession(session, self._clock())
        if key[1] != ANYONE or self._file is None:
            return
        self._shared[key[0]] = session
        try:
            store_sessions(self._file, {key: one for key, one in self._shared.items() if self._is_known(key)})
        except OSError as wrong:
            log.warning("shared sessions could not be kept: %s", wrong)

    def _end(self, key: Key, held: HeldSession) -> asyncio.Task[None] | None:
        """DELETE the session; None where there is nothing the server could forget, or it is shared."""
        if not held.session.id or key[1] == ANYONE:
            return None
        try:
            client = self._askers(key[0])
        except Fault:
            return None
        return self._spawn(end(client, held.session), "end a session")


async def initialize(
    client: RpcClient, ours: bytes, offered: bytes, clock: Callable[[], float]
) -> tuple[UpstreamSession, Declared]:
    """Open a session: `initialize`, then `notifications/initialized` (2025-11-25, Lifecycle).

    Args:
        asker: who asks.
        ours: our `clientInfo` as JSON text.
        offered: `ClientCapabilities` as JSON text.
        clock: monotonic seconds.

    Returns:
        the session, and what the server says of itself.

    Raises:
        Fault: NO_SERVER for a server that refuses, or speaks no revision of ours (`ModernOnly` where it says that it
            speaks 2026-07-28); LOST, TIMEOUT from the wire.
    """
    upstream_id = new_id()
    headers = legacy.opening_headers(client.backend)
    try:
        reply = await client.ask(headers, legacy.initialize(upstream_id, ours, offered), upstream_id, NO_SESSION)
    except Fault as fault:
        if fault.kind is Kind.TIMEOUT:
            fault.detail = f"initialize: no answer within {client.deadlines.total:g} s (start_timeout)"
        raise
    session, said = _session(reply, client.backend, clock())
    following = legacy.headers(client.backend, session)
    answer = await client.transport.request("POST", following, legacy.INITIALIZED, client.deadlines)
    answer.close()
    return session, said


def _session(reply: RpcReply, backend: Backend, now: float) -> tuple[UpstreamSession, Declared]:
    if speaks_modern(reply.message, reply.body):
        raise ModernOnly(Kind.NO_SERVER, detail="it speaks 2026-07-28 and has no sessions", data={"reason": "down"})
    wrong = not_evidence(reply, backend)
    if wrong is not None:
        raise wrong
    if reply.message is None or reply.message.result is None or reply.status >= 300:
        raise _declined(f"initialize was refused: status {reply.status}{told(reply, backend)}")
    result = result_of(reply)
    version = result.get("protocolVersion")
    if not isinstance(version, str):
        raise _declined("the result of initialize names no revision")
    if version not in legacy.SPOKEN:
        raise _declined(f"the server wants revision {version[:32]!r}")
    # Only this answer's id counts: some servers send a fresh, useless one with every error.
    name = reply.headers.get("mcp-session-id", "")
    if name and _SESSION_ID.fullmatch(name) is None:
        raise _declined("the session id holds characters it must not hold")
    return UpstreamSession(name, version, now), said_in(result)


async def end(client: RpcClient, session: UpstreamSession) -> None:
    """DELETE a session, where there is anything the server could forget."""
    if not session.id:
        return
    try:
        answer = await client.transport.request("DELETE", legacy.headers(client.backend, session), b"", ASIDE)
        answer.close()
    except Fault:
        pass  # it ends by itself then, or it has


def _declined(detail: str) -> Fault:
    return Fault(Kind.NO_SERVER, detail=detail, data={"reason": "down"}, retry_after=1)


def _unsent(wrong: Fault) -> Fault:
    """The failure of an opening, for a call that waited for it and was never sent. Each waiter gets its own."""
    kind = Kind.NO_SERVER if wrong.kind in (Kind.LOST, Kind.INTERNAL) else wrong.kind
    data = wrong.data or {"reason": "down"}
    made = ModernOnly if isinstance(wrong, ModernOnly) else Fault
    return made(kind, detail=wrong.detail or wrong.message, data=data, retry_after=wrong.retry_after)
