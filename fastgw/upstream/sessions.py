"""Which session at which legacy server belongs to whom, for all workers.

    none     --asked for-->               opening
    opening  --initialize succeeds-->     open
    opening  --initialize fails-->        none, or the one that was called dead; whoever asks within a second hears why
    open     --called dead-->             opening, once for all who say so
    open     --idle too long, gives way, the agent's own ended-->     none (DELETE)

Which one gives way where a server has no place for another:

    the agent that asks has its even share     its own that was unused longest
    it has less                                the one unused longest of the agent that holds most

A session is never given to another identity, and no more than one `initialize` goes out for an identity at an instance
within a second. Where sessions are shared all ask under one identity, the gateway itself too. Some servers have one
session and no second, and end with it: it is kept over a restart, and never ended.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from fastgw.config.instance_urls import label
from fastgw.errors import Fault, Kind
from fastgw.snapshot.model import Backend
from fastgw.upstream import legacy, modern
from fastgw.upstream.call_context import ASIDE
from fastgw.upstream.classify import new_id
from fastgw.upstream.controller import NO_SESSION, UpstreamSession
from fastgw.upstream.discovery.kept import KeptSessions
from fastgw.upstream.rpc import NOTHING, Declared, RpcClient, RpcClients, RpcReply, declared_in

log = logging.getLogger("fastgw")

Key = tuple[str, str]
"""(instance key, identity). An identity is `agent:NAME`, `session:NAME:ID` (an agent's own session; an id has no
colon, a name may have), either with the tag of a credential before its first colon (`agent/TAG:NAME`) where the server
has several; `ANYONE` or `GATEWAY`."""

ANYONE = "*"  # whose session it is where a server's sessions are shared
GATEWAY = "controller"
"""Whose the gateway's own session at each instance is, for lists and notices of change; never idle."""

SETTLED = 5.0  # seconds without use after which a session may make room for another identity's
SHORTEST_IDLE = 2.0
"""Seconds a session is kept at least, whatever `session_idle` says: that it is in use is known only now and then."""
_AT_MOST_EVERY = 1.0  # seconds between two `initialize` for one identity at one instance
_MOST_SUPERSEDED = 10_000
"""Sessions opened in vain that are still to be ended; of those beyond it their servers will rid themselves."""
_ONE_ONLY = "refused a second session: if it takes one only, write `shared_session: true`"
_SESSION_ID = re.compile(r"[!-~]{1,8192}")


class ModernOnly(Fault):
    """It refuses `initialize` as servers of 2026-07-28 do."""


def own_identity(backend: Backend) -> str:
    """Under which identity the gateway itself asks a server."""
    return ANYONE if backend.shared_session else GATEWAY


def agent_of(identity: str) -> str:
    """The agent that an identity belongs to; empty for anyone's."""
    kind, _, rest = identity.partition(":")
    return rest.rpartition(":")[0] if kind.partition("/")[0] == "session" else rest


def is_of(identity: str, session: str) -> bool:
    """Whether an identity is this session of an agent."""
    return identity.startswith(("session:", "session/")) and identity.rpartition(":")[2] == session


@dataclass(slots=True)
class HeldSession:
    """One session; `used` in monotonic seconds. `headers` are the lines that it was opened by; None: the gateway's own,
    or unknown.
    """

    session: UpstreamSession
    used: float
    headers: bytes | None = field(default=None, repr=False)


def session_to_evict(held: Collection[Key], identity: str, places: int) -> Key | None:
    """Of these sessions, the one unused longest first, the one that makes room for another of this identity; None where
    none may.
    """
    own = agent_of(identity)
    holds = Counter(agent_of(key[1]) for key in held)
    most = max(holds.values(), default=0)
    has_share = holds[own] * len({*holds, own}) >= places
    agents = {own} if has_share else {agent for agent, number in holds.items() if number == most}
    return next((key for key in held if agent_of(key[1]) in agents), None)


class UpstreamSessions:
    """All upstream sessions; shared ones are kept in `file` over a restart."""

    def __init__(self, clients: RpcClients, file: Path | None = None) -> None:
        self._clients = clients
        self._clock = clients.clock
        self._kept = KeptSessions(file) if file is not None else None
        self._pools: defaultdict[str, OrderedDict[Key, HeldSession]] = defaultdict(OrderedDict)
        """By server, the one unused longest first; under "" the gateway's own: they take no place among the others."""
        self._openings: dict[Key, asyncio.Task[UpstreamSession | Fault]] = {}
        self._refused: dict[Key, tuple[float, Fault, bytes | None]] = {}
        self._declared: dict[str, Declared] = {}
        self._superseded: deque[tuple[float, Key, HeldSession]] = deque(maxlen=_MOST_SUPERSEDED)

    async def own(self, instance: str, dead: UpstreamSession | None = None) -> UpstreamSession:
        """The session that the gateway itself asks in; as `open`."""
        return await self.open(instance, own_identity(self._clients.client(instance).backend), dead)

    async def open(
        self, instance: str, identity: str, dead: UpstreamSession | None = None, headers: bytes | None = None
    ) -> UpstreamSession:
        """The session of this identity at this instance; opened if there is none, or only the one found dead, by these
        header lines. Raises Fault NO_SERVER or TIMEOUT, never `sent`: no call was given to the server.
        """
        key = (instance, identity)
        client = self._clients.client(instance)
        held = self._pool(key).get(key)
        if held is None and identity == ANYONE and self._kept is not None and (kept := self._kept.get(instance)):
            held = self._pool(key)[key] = HeldSession(kept, self._clock())
        if held is not None and held.session != dead:
            self.touch(instance, identity)
            return held.session
        opening = self._openings.get(key)
        if opening is None:
            when, refusal, shown = self._refused.get(key, (0.0, None, None))
            if refusal is not None and shown == headers and self._clock() - when < _AT_MOST_EVERY:
                raise _unsent(refusal)
            if held is None and identity != GATEWAY:
                self._make_room(client.backend, key)
            opening = self._clients.spawn(self._opened(client, key, held, headers), f"session at {label(instance)}")
            self._openings[key] = opening
        # Whoever stops waiting leaves it to the others.
        outcome = await asyncio.shield(opening)
        if isinstance(outcome, Fault):
            raise _unsent(outcome)
        return outcome

    def keep(self, instance: str, identity: str, session: UpstreamSession, instead: UpstreamSession) -> UpstreamSession:
        """Go back to a session that was called dead and is not, and end the one opened instead. Raises as `open`."""
        key = (instance, identity)
        idle = self._clients.client(instance).backend.session_idle
        held = self._pool(key).get(key)
        if held is None or held.session != instead or instead.id == session.id:
            return session if held is None else held.session
        # Other calls may have been handed it meanwhile: it is ended when they must be over.
        self._superseded.append((self._clock() + idle, key, replace(held, session=instead)))
        held.session = replace(session, opened=self._clock())
        return held.session

    def declared(self, instance: str) -> Declared:
        """What a server said of itself when the gateway's own session was opened there last."""
        return self._declared.get(instance, NOTHING)

    def touch(self, instance: str, identity: str) -> None:
        key = (instance, identity)
        held = self._pool(key)
        if key in held:
            held[key].used = self._clock()
            held.move_to_end(key)

    def adopt(self, known: Iterable[tuple[str, str, UpstreamSession]]) -> None:
        """Take over what a worker knows (`UpstreamCaller.known_sessions`), after this process was restarted."""
        for instance, identity, session in known:
            if self._is_known(instance):
                key = (instance, identity)
                self._pool(key).setdefault(key, HeldSession(session, self._clock()))

    def end(self, session: str) -> None:
        """An agent's own session is over: so are those opened for it, and those that are being opened."""
        for key in [key for held in self._pools.values() for key in held if is_of(key[1], session)]:
            self._end(key, self._pool(key).pop(key))
        for key, opening in self._openings.items():
            if is_of(key[1], session):
                opening.add_done_callback(lambda _: self.end(session))

    def reap(self) -> None:
        """End what was idle for longer than its server's `session_idle`, and forget what instances now unknown had."""
        now = self._clock()
        self._declared = {key: one for key, one in self._declared.items() if self._is_known(key)}
        self._refused = {key: found for key, found in self._refused.items() if now - found[0] < _AT_MOST_EVERY}
        while self._superseded and self._superseded[0][0] < now:
            _, key, superseded = self._superseded.popleft()
            self._end(key, superseded)
        for sessions in self._pools.values():
            for key, held in list(sessions.items()):
                if not self._is_known(key[0]):
                    del sessions[key]
                    continue
                backend = self._clients.client(key[0]).backend
                if key[1] == GATEWAY:
                    if backend.shared_session:  # a reload made its sessions one: this may be in its way
                        self._end(key, sessions.pop(key))
                elif key[1] != ANYONE:
                    if now - held.used < max(backend.session_idle, SHORTEST_IDLE):
                        break  # the others were used later
                    self._end(key, sessions.pop(key))

    async def run(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self.reap()

    def count(self, server: str) -> int:
        """Sessions of identities at this server, the gateway's own not counted."""
        return len(self._pools[server])

    async def close(self, within: float) -> None:
        """End every session with its server, as far as `within` seconds allow."""
        every = [item for held in self._pools.values() for item in held.items()]
        self._pools.clear()
        tasks = [task for key, held in every if (task := self._end(key, held)) is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=within)
            for task in late:
                task.cancel()

    def _pool(self, key: Key) -> OrderedDict[Key, HeldSession]:
        """The sessions among which that of a key is."""
        return self._pools["" if key[1] == GATEWAY else key[0].partition("|")[0]]

    def _is_known(self, instance: str) -> bool:
        try:
            self._clients.client(instance)
        except Fault:
            return False
        return True

    def _make_room(self, backend: Backend, key: Key) -> None:
        """Have a place for one more; raises Fault NO_SERVER, busy, where what had to give way is in use."""
        held = self._pool(key)
        if len(held) + len(self._openings) < backend.max_sessions:
            return  # whichever servers these are opened at
        opening = sum(self._pool(other) is held and other not in held for other in self._openings)
        if len(held) + opening >= backend.max_sessions:
            evicted = session_to_evict(held, key[1], backend.max_sessions)
            if evicted is None or self._clock() - held[evicted].used < SETTLED:
                detail = f"no place among {backend.max_sessions} sessions"
                raise Fault(Kind.NO_SERVER, detail=detail, data={"reason": "busy"}, retry_after=round(SETTLED))
            self._end(evicted, held.pop(evicted))

    async def _opened(
        self, client: RpcClient, key: Key, lost: HeldSession | None, headers: bytes | None
    ) -> UpstreamSession | Fault:
        """A new session in place of a lost one, which stays where another cannot be had. A failure is the outcome, not
        an exception: it is for those who wait to make something of it.
        """
        instance, identity = key
        try:
            if lost is not None:
                await asyncio.sleep(lost.session.opened + _AT_MOST_EVERY - self._clock())
            session, declared = await self._initialize(key, headers)
        except Exception as wrong:
            fault = wrong if isinstance(wrong, Fault) else Fault(Kind.INTERNAL, detail=repr(wrong))
            if not isinstance(wrong, Fault):
                log.exception("a session at %s could not be opened", label(instance))
            if not fault.repeatable:  # it was asked
                self._refused[key] = self._clock(), fault, headers
                if identity != GATEWAY and (instance, GATEWAY) in self._pools[""]:
                    client.transport.notes.add(_ONE_ONLY)
            return fault
        finally:
            # No await from here on: whoever asks finds the opening or the session.
            del self._openings[key]
        self._pool(key)[key] = HeldSession(session, self._clock(), headers)
        if identity == ANYONE and self._kept is not None:
            self._kept.put(instance, session)
        if lost is not None:
            client.transport.notes.add("refused a session that it had given: another one was opened")
            if identity == GATEWAY and lost.session.id != session.id:
                self._end(key, lost)  # should it still be there: nobody else uses it
        if identity == own_identity(client.backend):
            self._declared[instance] = declared
        return session

    async def _asking(self, instance: str, headers: bytes | None) -> RpcClient:
        """Who asks an instance, showing these lines; None: the gateway's own."""
        return (
            await self._clients.ready(instance) if headers is None else self._clients.client(instance).showing(headers)
        )

    async def _initialize(self, key: Key, shown: bytes | None) -> tuple[UpstreamSession, Declared]:
        """Send `initialize`, then `notifications/initialized` (2025-11-25, Lifecycle)."""
        instance, identity = key
        client, upstream_id = await self._asking(instance, shown), new_id()
        headers = legacy.headers(client.backend.headers, NO_SESSION)
        body = legacy.initialize(upstream_id, self._clients.ours, modern.OF_AGENTS if identity == GATEWAY else b"{}")
        try:
            reply = await client.ask(headers, body, upstream_id, NO_SESSION)
        except Fault as fault:
            if fault.kind is Kind.TIMEOUT:
                fault.detail = f"initialize: no answer within {client.deadlines.total:g} s (start_timeout)"
            raise
        session = _session(reply, client.backend, self._clock())
        client = await self._asking(instance, shown)  # its token may be another by now
        following = legacy.headers(client.backend.headers, session)
        try:
            (await client.transport.request("POST", following, legacy.INITIALIZED, client.deadlines)).close()
        except Fault as fault:
            fault.repeatable = False  # whatever became of this, `initialize` was asked
            raise
        return session, declared_in(reply.result)

    def _end(self, key: Key, held: HeldSession) -> asyncio.Task[None] | None:
        """DELETE the session; None where there is nothing the server could forget, or it is shared, or it is no longer
        known whose credential it was opened with.
        """
        (instance, identity), session = key, held.session
        is_foreign = "/" in identity.partition(":")[0] and held.headers is None
        if not session.id or identity == ANYONE or is_foreign or not self._is_known(instance):
            return None
        return self._clients.spawn(self._delete(instance, held), "end a session")

    async def _delete(self, instance: str, held: HeldSession) -> None:
        with suppress(Fault):  # it ends by itself then, or it has
            client = await self._asking(instance, held.headers)
            headers = legacy.headers(client.backend.headers, held.session)
            (await client.transport.request("DELETE", headers, b"", ASIDE)).close()


def _session(reply: RpcReply, backend: Backend, now: float) -> UpstreamSession:
    if reply.speaks_modern:
        raise ModernOnly(Kind.NO_SERVER, detail="it speaks 2026-07-28 and has no sessions", data={"reason": "down"})
    if (refusal := reply.refusal(backend)) is not None:
        raise refusal
    # Only this answer's id counts: some servers send a fresh, useless one with every error.
    name = reply.headers.get("mcp-session-id", "")
    version = reply.result.get("protocolVersion")
    wrong = ""
    if reply.message is None or reply.message.result is None or reply.status >= 300:
        wrong = f"initialize was refused: status {reply.status}{reply.shown_error(backend)}"
    elif version not in legacy.SPOKEN:
        wrong = f"the server wants revision {version!r:.34}"
    elif name and _SESSION_ID.fullmatch(name) is None:
        wrong = "the session id holds characters it must not hold"
    if wrong:
        raise Fault(Kind.NO_SERVER, detail=wrong, data={"reason": "down"}, retry_after=1)
    return UpstreamSession(name, str(version), now)


def _unsent(wrong: Fault) -> Fault:
    """The failure of an opening, for a call that waited for it and was never sent. Each waiter gets its own."""
    kind = Kind.NO_SERVER if wrong.kind in (Kind.LOST, Kind.INTERNAL) else wrong.kind
    made = ModernOnly if isinstance(wrong, ModernOnly) else Fault
    data = wrong.data or {"reason": "down"}
    detail = wrong.detail or wrong.message
    return made(kind, detail=detail, data=data, failure=wrong.failure, retry_after=wrong.retry_after)
