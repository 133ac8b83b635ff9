"""Calls from one worker to servers: in the right era, inside the right session, mended once where a server says why.

    no session, or a lost one        the controller gives another: one that some other worker has, then a new one; never
                                     again where that was opened for this call
    answered in the other era        the controller probes; asked again where the era has changed, once per call
    headers that no longer fit       the controller fetches the definition anew; asked again, once per call

Each is asked again only because the server has said that it did not run the call. Nothing else is ever sent twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from fastgw.catalog.route import Target
from fastgw.errors import Fault, Kind
from fastgw.ports import Answer, Controller, Deadlines, Transport, UpstreamSession
from fastgw.protocol import names
from fastgw.protocol.call import Call
from fastgw.protocol.headers import ParamHeader
from fastgw.protocol.names import Era
from fastgw.snapshot.model import BOTH, Address, Backend
from fastgw.upstream import legacy, log_levels, modern
from fastgw.upstream.call_context import NO_SESSION, CallContext, Spawn, remaining
from fastgw.upstream.classify import Classified, ReplyKind, classify
from fastgw.upstream.ids import new_id
from fastgw.upstream.log_levels import SessionLogLevels
from fastgw.upstream.reply import UpstreamReply, withdraw
from fastgw.upstream.rpc import RpcClient, is_alive

T = TypeVar("T")

JUST_OPENED = 1.0
"""Seconds in which a session that was there a moment ago is not doubted, unless its server says that it is gone."""

MOST_SESSIONS = 20_000
"""Sessions one worker remembers; the controller knows those that fall out."""

HEARTBEAT = 0.5
"""Seconds between two words to the controller that a session with a call in flight is in use. With what they wait on
their way it must stay below `sessions.SHORTEST_IDLE`."""


@dataclass(slots=True)
class _SentCall:
    """One call on its way, and what has been mended for it."""

    call: Call
    target: Target
    backend: Backend
    instance: Address
    identity: str
    deadlines: Deadlines
    started: float
    spoken: str
    era: Era
    session: UpstreamSession = NO_SESSION
    lost: UpstreamSession | None = None
    mended: set[ReplyKind] | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Whose session at which instance."""
        return self.instance.key, self.identity

    def first_time(self, what: ReplyKind) -> bool:
        """Whether this has not been mended yet; it now counts as mended."""
        if self.mended is None:
            self.mended = set()
        new = what not in self.mended
        self.mended.add(what)
        return new


class UpstreamCaller:
    """All calls of one worker.

    Args:
        controller: port to what is one in the whole gateway.
        wires: the connections to an instance, by its key; raises Fault for one that a reload took away.
        spawn: `BackgroundTasks.spawn`.
        ours: our `clientInfo` as JSON text.
        max_reply: most bytes of one event of a stream.
    """

    def __init__(
        self,
        controller: Controller,
        pools: Callable[[str], Transport],
        spawn: Spawn,
        ours: bytes,
        max_reply: int = 64 * 1024 * 1024,
    ) -> None:
        self._controller = controller
        self._pools = pools
        self._spawn = spawn
        self._ours = ours
        self.max_reply = max_reply
        self._sessions: dict[tuple[str, str], UpstreamSession] = {}
        self._levels = SessionLogLevels(spawn)
        self._suspects: dict[tuple[str, str], tuple[str, int]] = {}
        self._in_use: Counter[tuple[str, str]] = Counter()
        self._beating: asyncio.TimerHandle | None = None
        self._eras: dict[str, str] = {}

    async def call(  # noqa: PLR0913 - one verb of the path with all it needs
        self,
        call: Call,
        target: Target,
        backend: Backend,
        instance: Address,
        identity: str,
        deadlines: Deadlines,
    ) -> UpstreamReply:
        """Give a call to one instance of a server and wait until it begins to answer.

        Cancelled while it waits, it withdraws the call from the server.

        Args:
            call: the lifted request.
            target: the tool, prompt or resource by its server's own name.
            backend: the server.
            instance: the address to use.
            identity: whose session, where the server has sessions.
            deadlines: of the whole exchange, repeats included.

        Raises:
            Fault: what the table of `fastgw.upstream.classify` says; what `ports.Transport.request` and
                `ports.Controller.open_session` raise; BAD_PARAMS.
        """
        started = asyncio.get_running_loop().time()
        spoken = self._eras.get(instance.key, instance.era)
        attempt = _SentCall(
            call, target, backend, instance, identity, deadlines, started, spoken or "", _era(spoken or "", call)
        )
        if spoken is None:
            await self._doubt(attempt)
        while True:
            try:
                context, answer = await self._send(attempt)
            except Fault as fault:
                if fault.sent or attempt.spoken != BOTH or attempt.era is Era.MODERN:
                    raise
                if await self._in_other_era(attempt):
                    continue  # it no longer has sessions
                raise
            try:
                classified = classify(answer, attempt.era, context.id, call.capabilities)
            except Fault:
                if answer.body is None:
                    self._release(attempt)
                raise
            if classified.means is ReplyKind.RELAY:
                if self._suspects:
                    self._suspects.pop(attempt.key, None)
                return self._upstream(attempt, context, answer, classified)
            if not await self._mend(attempt, classified):
                return self._upstream(attempt, context, answer, classified)

    def suspect(self, key: tuple[str, str], session: str) -> None:
        """A call in this session, by its id, was answered as if the server had lost it."""
        known, times = self._suspects.get(key, (session, 0))
        self._suspects[key] = session, times + 1 if known == session else 1
        if len(self._suspects) > MOST_SESSIONS:
            del self._suspects[next(iter(self._suspects))]

    def known_sessions(self) -> list[tuple[str, str, UpstreamSession]]:
        """Sessions this worker knows, (instance key, identity, session): for a controller that has been restarted."""
        return [(instance, identity, session) for (instance, identity), session in self._sessions.items()]

    def forget(self, instances: set[str]) -> None:
        """Drop what is known of instances that are in `instances` no more."""
        for key in [key for key in self._sessions if key[0] not in instances]:
            self._drop(key)
        for name in [name for name in self._eras if name not in instances]:
            del self._eras[name]

    # -- sending ------------------------------------------------------------------------------------------------

    async def _send(self, attempt: _SentCall) -> tuple[CallContext, Answer]:
        upstream_id = new_id()
        call, target, backend = attempt.call, attempt.target, attempt.backend
        if attempt.era is Era.MODERN:
            headers, body = modern.request(call, target, upstream_id, backend, self._ours)
        else:
            attempt.session = self._sessions.get(attempt.key) or await self._open(attempt, None)
            if self._suspects and self._suspects.get(attempt.key, (None, 0))[0] == attempt.session.id:
                await self._reopen_if_lost(attempt)
            if call.log_level_set and backend.logs:
                await self._tell_level(attempt)
            headers, body = legacy.request(call, target, upstream_id, backend, attempt.session)
        context = CallContext(
            upstream_id, attempt.era, self._pools(attempt.instance.key), backend, attempt.session,
            attempt.deadlines, attempt.started, self._spawn, self.max_reply,
        )  # fmt: skip
        if attempt.era is Era.LEGACY:
            self._hold(attempt.key)
        try:
            answer = await context.transport.request("POST", headers, body, context.left())
        except BaseException as stopped:
            self._release(attempt)
            if attempt.era is Era.LEGACY and _may_still_run(stopped):
                self._spawn(withdraw(context, "no longer wanted"), "cancel a call")
            raise
        if answer.body is not None:
            self._release(attempt)
        return context, answer

    async def _tell_level(self, attempt: _SentCall) -> None:
        """The session knows which log messages this call wants, or its server has been asked in vain."""
        client = RpcClient(self._pools(attempt.instance.key), attempt.backend, self._spawn, log_levels.PATIENCE)
        level = log_levels.wanted(attempt.call, attempt.identity, attempt.session)
        left = remaining(attempt.deadlines, attempt.started).total
        await self._levels.tell(attempt.key, level, attempt.session, client, left)

    def _upstream(
        self, attempt: _SentCall, context: CallContext, answer: Answer, classified: Classified
    ) -> UpstreamReply:
        if classified.means is not ReplyKind.RELAY and classified.message is None:
            raise classified.otherwise or Fault(Kind.INTERNAL, detail=f"{classified.means.name} again", sent=True)
        ended = None if answer.body is not None else lambda: self._release(attempt)
        return UpstreamReply(context, answer, classified.message, ended)

    # -- mending ------------------------------------------------------------------------------------------------

    async def _mend(self, attempt: _SentCall, classified: Classified) -> bool:
        """Whether the call is worth asking again."""
        match classified.means:
            case ReplyKind.SESSION_DEAD | ReplyKind.SESSION_REFUSED:
                if await self._session_mended(attempt, classified.means):
                    return True
                return classified.then is ReplyKind.ERA_DOUBT and await self._in_other_era(attempt)
            case ReplyKind.HEADER_MISMATCH:
                # Only a tool's definition says which headers its calls need.
                is_tool = attempt.call.method == names.TOOLS_CALL
                return is_tool and attempt.first_time(classified.means) and await self._refreshed(attempt)
            case ReplyKind.ERA_DOUBT:
                return await self._in_other_era(attempt)
            case ReplyKind.SESSION_SUSPECT:
                # Before the agent hears of it: its next call may come to another worker.
                await self._controller.suspect_session(attempt.key, attempt.session.id)
        return False

    async def _session_mended(self, attempt: _SentCall, means: ReplyKind) -> bool:
        """Whether the call is to be asked again in another session: one that somebody else has, or a new one."""
        if attempt.session.opened >= attempt.started:
            if attempt.lost is not None:
                await self._go_back(attempt, attempt.lost)
            return False
        young = attempt.session.opened >= attempt.started - JUST_OPENED
        if attempt.lost is None and young and means is not ReplyKind.SESSION_DEAD:
            return False
        attempt.lost = attempt.session
        try:
            await self._renew(attempt)
        except Fault:
            # The one there is may be good for other calls; what its server said of this one is told.
            self._sessions.setdefault(attempt.key, attempt.lost)
            return attempt.spoken == BOTH and await self._in_other_era(attempt)
        return attempt.session != attempt.lost and (not attempt.session.id or attempt.session.id != attempt.lost.id)

    async def _go_back(self, attempt: _SentCall, old: UpstreamSession) -> None:
        """The new session is refused in the same way, so this was about the call: its agent keeps what a server has in
        the old one.
        """
        try:
            kept = await self._in_time(
                attempt, self._controller.keep_session(attempt.instance.key, attempt.identity, old, attempt.session)
            )
        except Fault:
            return  # the new one stays
        self._sessions[attempt.key] = kept

    async def _reopen_if_lost(self, attempt: _SentCall) -> None:
        """Ask a session that is suspect whether it is still there; one that is suspect again is not believed."""
        client = RpcClient(self._pools(attempt.instance.key), attempt.backend, self._spawn)
        left = remaining(attempt.deadlines, attempt.started).total
        client, again = client.within(left / 2), self._suspects[attempt.key][1] > 1
        if not again and await is_alive(client, attempt.session):
            return
        try:
            await self._renew(attempt)
        except Fault:
            if not again or not await is_alive(client, attempt.session):
                raise
            self._sessions.setdefault(attempt.key, attempt.session)  # the only one there is, and it answers

    async def _renew(self, attempt: _SentCall) -> None:
        """Have another session in place of a lost one; a call beside this one may have brought it already."""
        known = self._sessions.get(attempt.key)
        if known is None or known == attempt.session:
            known = await self._open(attempt, attempt.session)
            if known.id and known.id == attempt.session.id and known.opened < attempt.started - JUST_OPENED:
                known = await self._open(attempt, known)  # it was found alive, but that is a while ago
            self._suspects.pop(attempt.key, None)
        attempt.session = known

    async def _in_other_era(self, attempt: _SentCall) -> bool:
        """Whether the call is to be asked again, since the server speaks another era now."""
        if not attempt.first_time(ReplyKind.ERA_DOUBT):
            return False
        was = attempt.era
        await self._doubt(attempt)
        attempt.session = NO_SESSION
        return attempt.era is not was

    async def _open(self, attempt: _SentCall, dead: UpstreamSession | None) -> UpstreamSession:
        self._drop(attempt.key)
        try:
            session = await self._in_time(
                attempt, self._controller.open_session(attempt.instance.key, attempt.identity, dead)
            )
        except Fault:
            # If it no longer speaks as we heard, the snapshot's word counts again.
            self._eras.pop(attempt.instance.key, None)
            raise
        while len(self._sessions) >= MOST_SESSIONS:
            self._drop(next(iter(self._sessions)))
        self._sessions[attempt.key] = session
        return session

    async def _in_time(self, attempt: _SentCall, answer: Awaitable[T]) -> T:
        """The controller's answer, as long as the call has time: the server may take its time for it."""
        try:
            async with asyncio.timeout(remaining(attempt.deadlines, attempt.started).total):
                return await answer
        except TimeoutError:
            data = {"timeoutMs": round(attempt.deadlines.whole * 1000)}
            raise Fault(Kind.TIMEOUT, detail="the server was not ready in time", data=data) from None

    def _drop(self, key: tuple[str, str]) -> None:
        self._sessions.pop(key, None)
        self._levels.forget(key)

    async def _refreshed(self, attempt: _SentCall) -> bool:
        """Fetch the tool's headers by its newest definition."""
        try:
            found = await self._in_time(attempt, self._controller.refresh(attempt.target.server, attempt.target.tool))
        except Fault as fault:
            raise Fault(Kind.INTERNAL, detail=f"header mismatch, and no newer definition: {fault}", sent=True) from None
        headers = tuple(ParamHeader(*header) for header in found)
        attempt.target = replace(attempt.target, param_headers=headers)
        return True

    def learn(self, key: str, era: str) -> None:
        """The controller has found out what an instance speaks: that is newer than any snapshot."""
        self._eras[key] = era

    async def _doubt(self, attempt: _SentCall) -> None:
        """Have it found out what the server speaks."""
        instance = attempt.instance
        believed = attempt.era.value if attempt.spoken else ""
        attempt.spoken = await self._in_time(attempt, self._controller.doubt_era(instance.key, believed))
        self.learn(instance.key, attempt.spoken)
        attempt.era = _era(attempt.spoken, attempt.call)

    # -- sessions in use ----------------------------------------------------------------------------------------

    def _hold(self, key: tuple[str, str]) -> None:
        self._controller.touch(*key)
        self._in_use[key] += 1
        if self._beating is None:
            self._beating = asyncio.get_running_loop().call_later(HEARTBEAT, self._beat)

    def _release(self, attempt: _SentCall) -> None:
        if attempt.era is Era.LEGACY:
            key = attempt.key
            self._in_use[key] -= 1
            if self._in_use[key] <= 0:
                del self._in_use[key]

    def _beat(self) -> None:
        """Long calls keep their sessions from being ended as idle."""
        self._beating = None
        for key in self._in_use:
            self._controller.touch(*key)
        if self._in_use:
            self._beating = asyncio.get_running_loop().call_later(HEARTBEAT, self._beat)


def _era(spoken: str, call: Call) -> Era:
    """How a server is asked that speaks so: who has a session with us gets one there, where there are any."""
    if spoken == BOTH:
        return Era.MODERN if call.version == names.MODERN_VERSION else Era.LEGACY
    return Era.MODERN if spoken == Era.MODERN.value else Era.LEGACY


def _may_still_run(stopped: BaseException) -> bool:
    """Whether the server may be at work on a call whose answer nobody will read."""
    if isinstance(stopped, Fault):
        return stopped.kind is Kind.TIMEOUT
    return isinstance(stopped, asyncio.CancelledError)
