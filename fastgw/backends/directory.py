"""Which session at which legacy server belongs to whom. One directory serves all workers.

    none --open--> opening --initialize ok--> open --dead--> opening (once for all who say so)
                       |                        |--idle too long, gives way, the agent's own ended--> ended (DELETE)
                       +--initialize fails--> none

Knows: sessions by (instance, identity), when each was last used. Refuses to know: calls; which one gives way (see
`shelf`).

A session is never given to another identity. Where sessions are shared all ask under the identity `*`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable

import orjson

from fastgw.backends import lower_legacy
from fastgw.backends.capabilities import declared
from fastgw.backends.inquiry import Asker, Reach, Reply, new_id, not_evidence
from fastgw.backends.line import ASIDE, NO_SESSION
from fastgw.backends.shelf import Held, Key, Shelf, is_of
from fastgw.config.instances import label
from fastgw.faults import Fault, Kind
from fastgw.ports import UpstreamSession

KEEPER = "keeper"
"""Identity of the gateway's own session at each instance, for lists and notices of change; never idle, never evicted.
No agent's identity is spelt so: they are `*` or have a colon."""

SETTLED = 5.0
"""Seconds without use after which a session may make room for another identity's."""

SHORTEST_IDLE = 2.0
"""Seconds a session is kept at least, whatever `session_idle` says: that it is in use is told only now and then."""

_SESSION_ID = re.compile(r"[!-~]{1,8192}")
_SURE = 1.0
"""Seconds in which a server without session ids is not asked again although somebody calls its session dead."""


class Directory:
    """All upstream sessions.

    Args:
        reach: how servers are reached.
    """

    def __init__(self, reach: Reach) -> None:
        self._askers = reach.asker
        self._spawn = reach.spawn
        self._ours = reach.ours
        self._clock = reach.clock
        self._shelves: dict[str, Shelf] = {}
        self._flights: dict[Key, asyncio.Task[UpstreamSession | Fault]] = {}
        self._mine: dict[Key, Held] = {}
        self._declared: dict[str, frozenset[str] | None] = {}

    async def open(self, instance: str, identity: str, dead: str | None = None) -> UpstreamSession:
        """The session of this identity at this instance; opened if there is none, or only the dead one.

        Args:
            instance: key of the instance.
            identity: whose session.
            dead: id of a session that the server was found not to know.

        Raises:
            Fault: NO_SERVER or TIMEOUT, never `sent`: no call was given to the server.
        """
        key = (instance, identity)
        flight = self._flights.get(key)
        if flight is None:
            asker = self._askers(instance)
            held = self._held(asker, key)
            if held is not None and not self._is_dead(held, dead):
                self.touch(instance, identity)
                return held.session
            if held is not None:
                self._remove(asker.backend.name, key)
            self._make_room(asker, identity)
            flight = self._spawn(self._opened(asker, key), f"session at {label(instance)}")
            self._flights[key] = flight
        # Whoever stops waiting leaves the flight to the others.
        outcome = await asyncio.shield(flight)
        if isinstance(outcome, Fault):
            raise _unsent(outcome)
        return outcome

    def declared(self, instance: str) -> frozenset[str] | None:
        """Names of the capabilities that a server declared when the gateway's own session was opened there last; None
        where it said nothing of them, or was never asked.
        """
        return self._declared.get(instance)

    def touch(self, instance: str, identity: str) -> None:
        """The session is in use now."""
        server = instance.partition("|")[0]
        shelf, key = self._shelves.get(server), (instance, identity)
        if shelf is not None and key in shelf.held:
            shelf.held[key].used = self._clock()
            shelf.held.move_to_end(key)

    def adopt(self, known: Iterable[tuple[str, str, UpstreamSession]]) -> None:
        """Take over sessions that a worker knows, after this process was restarted. Those known already stay.

        Args:
            known: (instance key, identity, session), from `Caller.known_sessions`.
        """
        for instance, identity, session in known:
            try:
                asker = self._askers(instance)
            except Fault:
                continue
            shelf = self._shelf(asker.backend.name)
            now = self._clock()
            shelf.held.setdefault((instance, identity), Held(session, now, now))

    def end(self, session: str) -> None:
        """An agent's own session is over: so are those opened for it, and those that are being opened."""
        for shelf in self._shelves.values():
            for key in [key for key in shelf.held if is_of(key[1], session)]:
                self._end(key, shelf.held.pop(key))
        for key, flight in self._flights.items():
            if is_of(key[1], session):
                flight.add_done_callback(lambda _: self.end(session))

    def reap(self) -> None:
        """End what was idle for longer than its server's `session_idle`, and what belongs to instances now unknown."""
        self._mine = {key: held for key, held in self._mine.items() if self._is_known(key[0])}
        self._declared = {key: said for key, said in self._declared.items() if self._is_known(key)}
        for shelf in self._shelves.values():
            for key, held in list(shelf.held.items()):
                if not self._is_known(key[0]):
                    del shelf.held[key]
                    continue
                idle = max(self._askers(key[0]).backend.session_idle, SHORTEST_IDLE)
                if self._clock() - held.used < idle:
                    break  # the others were used later
                del shelf.held[key]
                self._end(key, held)

    async def run(self, every: float = 1.0) -> None:
        """Reap for ever."""
        while True:
            await asyncio.sleep(every)
            self.reap()

    def __len__(self) -> int:
        return sum(len(shelf.held) for shelf in self._shelves.values())

    def count(self, server: str) -> int:
        """Sessions of identities at this server, the gateway's own not counted."""
        shelf = self._shelves.get(server)
        return len(shelf.held) if shelf is not None else 0

    async def close(self, within: float = 1.0) -> None:
        """End every session with its server, as far as `within` seconds allow."""
        held = [*self._mine.items(), *(item for shelf in self._shelves.values() for item in shelf.held.items())]
        self._shelves.clear()
        self._mine.clear()
        tasks = [task for key, one in held if (task := self._end(key, one)) is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=within)
            for task in late:
                task.cancel()

    # -- inside -------------------------------------------------------------------------------------------------

    def _shelf(self, server: str) -> Shelf:
        return self._shelves.setdefault(server, Shelf())

    def _held(self, asker: Asker, key: Key) -> Held | None:
        return self._mine.get(key) if key[1] == KEEPER else self._shelf(asker.backend.name).held.get(key)

    def _is_dead(self, held: Held, dead: str | None) -> bool:
        if dead is None or dead != held.session.id:
            return False
        # Without an id the new one looks like the old one: those who ask late must not open it again.
        return bool(dead) or self._clock() - held.opened >= _SURE

    def _is_known(self, instance: str) -> bool:
        try:
            self._askers(instance)
        except Fault:
            return False
        return True

    def _remove(self, server: str, key: Key) -> None:
        self._mine.pop(key, None)
        self._shelf(server).held.pop(key, None)

    def _make_room(self, asker: Asker, identity: str) -> None:
        """Keep a place for one more session of this server.

        Raises:
            Fault: NO_SERVER, busy, where the session that had to give way was in use a moment ago.
        """
        backend = asker.backend
        shelf = self._shelf(backend.name)
        if identity == KEEPER:
            return
        if shelf.is_full(backend.max_sessions):
            giving = shelf.gives_way(identity, backend.max_sessions)
            if giving is None or self._clock() - shelf.held[giving].used < SETTLED:
                detail = f"no place among {backend.max_sessions} sessions"
                raise Fault(Kind.NO_SERVER, detail=detail, data={"reason": "busy"}, retry_after=round(SETTLED))
            self._end(giving, shelf.held.pop(giving))
        shelf.opening += 1

    async def _opened(self, asker: Asker, key: Key) -> UpstreamSession | Fault:
        """One flight. A failure is its outcome, not its exception: it is for those who wait to make something of it."""
        shelf = self._shelf(asker.backend.name)
        try:
            session, said = await initialize(asker, self._ours)
        except Fault as fault:
            return fault
        finally:
            # No await from here on: whoever asks finds the flight or the session.
            if self._flights.get(key) is asyncio.current_task():
                del self._flights[key]
            if key[1] != KEEPER:
                shelf.opening -= 1
        self._keep(shelf, key, session)
        if key[1] == KEEPER:
            self._declared[key[0]] = said
        return session

    def _keep(self, shelf: Shelf, key: Key, session: UpstreamSession) -> None:
        now = self._clock()
        (self._mine if key[1] == KEEPER else shelf.held)[key] = Held(session, now, now)

    def _end(self, key: Key, held: Held) -> asyncio.Task[None] | None:
        """DELETE the session; None where there is nothing the server could forget."""
        if not held.session.id:
            return None
        try:
            asker = self._askers(key[0])
        except Fault:
            return None
        return self._spawn(_delete(asker, held.session), "end a session")


async def initialize(asker: Asker, ours: bytes) -> tuple[UpstreamSession, frozenset[str] | None]:
    """Open a session: `initialize`, then `notifications/initialized` (2025-11-25, Lifecycle).

    Returns:
        the session, and what the server declares: see `capabilities.declared`.

    Raises:
        Fault: NO_SERVER for a server that refuses, or speaks no revision of ours; LOST, TIMEOUT from the wire.
    """
    upstream_id = new_id()
    headers = lower_legacy.opening_headers(asker.backend)
    reply = await asker.ask(headers, lower_legacy.initialize(upstream_id, ours), upstream_id, NO_SESSION)
    session, said = _session(reply)
    following = lower_legacy.headers(asker.backend, session)
    answer = await asker.wire.request("POST", following, lower_legacy.INITIALIZED, asker.deadlines)
    answer.close()
    return session, said


def _session(reply: Reply) -> tuple[UpstreamSession, frozenset[str] | None]:
    wrong = not_evidence(reply)
    if wrong is not None:
        raise wrong
    if reply.message is None or reply.message.result is None or reply.status != 200:
        raise _refused(f"initialize was refused: status {reply.status}")
    try:
        result = orjson.loads(reply.message.result)
        version = result["protocolVersion"]
    except (ValueError, KeyError, TypeError):
        raise _refused("the result of initialize names no revision") from None
    if version not in lower_legacy.SPOKEN:
        raise _refused(f"the server wants revision {str(version)[:32]!r}")
    # Only this answer's id counts: some servers send a fresh, useless one with every error.
    name = reply.headers.get("mcp-session-id", "")
    if name and _SESSION_ID.fullmatch(name) is None:
        raise _refused("the session id holds characters it must not hold")
    return UpstreamSession(name, version), declared(result.get("capabilities"))


async def _delete(asker: Asker, session: UpstreamSession) -> None:
    try:
        answer = await asker.wire.request("DELETE", lower_legacy.headers(asker.backend, session), b"", ASIDE)
        answer.close()
    except Fault:
        pass  # it ends by itself then, or it has


def _refused(detail: str) -> Fault:
    return Fault(Kind.NO_SERVER, detail=detail, data={"reason": "down"}, retry_after=1)


def _unsent(wrong: Fault) -> Fault:
    """The failure of an opening, for a call that waited for it and was never sent. Each waiter gets its own."""
    kind = Kind.NO_SERVER if wrong.kind in (Kind.LOST, Kind.INTERNAL) else wrong.kind
    data = wrong.data or {"reason": "down"}
    return Fault(kind, detail=wrong.detail or wrong.message, data=data, retry_after=wrong.retry_after)
