"""Calls from one worker to servers: target by target, instance by instance, each mended where its server says why.

    no session, or a lost one        another: `session_repair.py`
    answered in the other era        the controller probes; asked again where the era has changed, once per attempt
    headers that no longer fit       the controller fetches the definition anew; asked again, once per attempt

Each is asked again only because the server has said that it did not run the call; another instance is asked only
where nothing was sent. Nothing else is ever sent twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from zlib import crc32

from fastgw.catalog.route import Arm
from fastgw.errors import Fault, Kind
from fastgw.policy.match import Principal
from fastgw.protocol import names
from fastgw.protocol.call import Call
from fastgw.protocol.headers import ParamHeader
from fastgw.protocol.names import Era
from fastgw.protocol.quick import QuickResult
from fastgw.snapshot.model import BOTH_ERAS, Backend
from fastgw.upstream.call_context import Attempt, Spawn
from fastgw.upstream.classify import Classified, ReplyKind
from fastgw.upstream.controller import NO_SESSION, ControllerPort, UpstreamSession
from fastgw.upstream.instances import Instance, Instances
from fastgw.upstream.reply import UpstreamReply
from fastgw.upstream.session_repair import SessionRepair, settle_level
from fastgw.upstream.sessions import ANYONE

_MODERN = Era.MODERN.value
HEARTBEAT = 0.5
"""Seconds between two words to the controller that a session with a call in flight is in use. With what they wait on
their way it must stay below `sessions.SHORTEST_IDLE`."""


class UpstreamCaller:
    """All calls of one worker."""

    def __init__(self, controller: ControllerPort, instances: Instances, spawn: Spawn) -> None:
        self._controller = controller
        self._instances = instances
        self._spawn = spawn
        self._repair = SessionRepair(controller, spawn)
        self._beating: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    async def forward(
        self, call: Call, principal: Principal, arm: Arm, backends: Mapping[str, Backend], attempts: list[Attempt]
    ) -> UpstreamReply | QuickResult:
        """Give a call to the first instance that takes it and wait until that begins to answer, or has answered in the
        usual shape; `attempts` gets each attempt, as it begins. Raises Fault NO_SERVER where no instance takes it; else
        what `call` raises.
        """
        loop = self._loop
        deadlines, first = arm.deadlines, loop.time()
        failed: Fault | None = None
        for target in arm.targets[:1]:  # the others are for when their servers may stand in for each other
            backend = backends[target.server]
            known = self._instances.usable.get(target.server)
            instances = known[1] if known is not None and known[0] is backend else self._instances.of(backend)
            identity = identity_of(backend, principal, call)
            tried: tuple[Instance, ...] = ()
            while (instance := pick(instances, identity, tried, call.instance)) is not None:
                tried = (*tried, instance)
                attempt = Attempt(call, target, backend, instance.address, identity, deadlines, loop.time())
                attempts.append(attempt)
                began = time.monotonic()
                try:
                    attempt.credential = backend.headers
                    return await self.call(attempt, instance)
                except Fault as fault:
                    attempt.sent, attempt.failed_with = fault.sent, fault.kind
                    if fault.sent or fault.kind is not Kind.NO_SERVER:
                        raise
                    failed, deadlines = fault, arm.deadlines.left(loop.time() - first)
                finally:
                    attempt.waited += time.monotonic() - began
        raise failed or Fault(Kind.NO_SERVER, data={"reason": "down"}, retry_after=1)

    def suspect(self, key: tuple[str, str], session: str) -> None:
        """A call in this session, by its id, was answered as if the server had lost it; key: (instance, identity)."""
        with suppress(Fault):  # it is not configured any more
            self._instances.find(key[0]).suspect(key[1], session)

    def known_sessions(self) -> list[tuple[str, str, UpstreamSession]]:
        """Sessions this worker knows, (instance key, identity, session): for a controller that has been restarted."""
        return [(one.address.key, *known) for one in self._instances for known in one.sessions.items()]

    async def call(self, attempt: Attempt, instance: Instance) -> UpstreamReply | QuickResult:
        """Have one instance answer, mending what its server says is wrong. Raises Fault: as `classify` says; what
        `StreamableHttp.send` and `ControllerPort.open_session` raise.
        """
        known_eras = instance.found_era or instance.address.era
        if known_eras is None:
            await self._doubt(attempt, instance)
        else:
            attempt.known_eras = known_eras
            if known_eras != _MODERN:  # as attempts begin
                attempt.era = _era(known_eras, attempt.call)
        while True:
            try:
                if attempt.era is Era.MODERN:
                    reply = await instance.transport.send(attempt)
                else:
                    reply = await self._send_in_session(attempt, instance)
            except Fault as fault:
                has_none_any_more = not fault.sent and attempt.known_eras == BOTH_ERAS and attempt.era is Era.LEGACY
                if has_none_any_more and await self._in_other_era(attempt, instance):
                    continue
                raise
            if type(reply) is QuickResult or (classified := reply.classified).kind is ReplyKind.RELAY:
                if instance.suspects:
                    instance.suspects.pop(attempt.identity, None)
                return reply
            if not await self._mend(attempt, instance, classified):
                if classified.message is None:
                    detail = f"{classified.kind.name} again"
                    raise classified.fault or Fault(Kind.INTERNAL, detail=detail, sent=True)
                return reply

    async def _send_in_session(self, attempt: Attempt, instance: Instance) -> UpstreamReply | QuickResult:
        known = instance.sessions.get(attempt.identity)
        if known is not None and not instance.suspects:
            attempt.session = known
        else:
            await self._repair.provide(attempt, instance)
        if attempt.call.log_level_set and attempt.backend.logs:
            await settle_level(attempt, instance, self._spawn)
        identity = attempt.identity
        # Long calls keep their session from being ended as idle.
        self._controller.touch(instance.address.key, identity)
        instance.in_use[identity] += 1
        if self._beating is None:
            self._beating = self._loop.call_later(HEARTBEAT, self._beat)
        try:
            reply = await instance.transport.send(attempt)
        except BaseException:
            instance.release(identity)
            raise
        if isinstance(reply, UpstreamReply) and reply.streams:
            reply.on_over = partial(instance.release, identity)
        else:
            instance.release(identity)
        return reply

    async def _mend(self, attempt: Attempt, instance: Instance, classified: Classified) -> bool:
        """Whether the call is worth asking again."""
        in_doubt = classified.fallback is ReplyKind.ERA_DOUBT
        match classified.kind:
            case ReplyKind.SESSION_DEAD | ReplyKind.SESSION_REFUSED:
                try:
                    if await self._repair.replace_session(attempt, instance, classified.kind):
                        return True
                except Fault:
                    in_doubt = in_doubt or attempt.known_eras == BOTH_ERAS
            case ReplyKind.SESSION_SUSPECT:
                # Before the agent hears the answer: its next call may come to another worker.
                await self._controller.suspect_session((attempt.address.key, attempt.identity), attempt.session.id)
                return False
            case ReplyKind.HEADER_MISMATCH:
                # Only a tool's definition says which headers its calls need.
                is_tool = attempt.call.method == names.TOOLS_CALL
                return is_tool and attempt.first_time(classified.kind) and await self._refresh_headers(attempt)
            case ReplyKind.ERA_DOUBT:
                in_doubt = True
        return in_doubt and await self._in_other_era(attempt, instance)

    async def _refresh_headers(self, attempt: Attempt) -> bool:
        """Fetch the tool's headers by its newest definition."""
        try:
            found = await attempt.in_time(self._controller.refresh(attempt.target.server, attempt.target.tool))
        except Fault as fault:
            raise Fault(Kind.INTERNAL, detail=f"header mismatch, and no newer definition: {fault}", sent=True) from None
        attempt.target = replace(attempt.target, param_headers=tuple(ParamHeader(*header) for header in found))
        return True

    async def _in_other_era(self, attempt: Attempt, instance: Instance) -> bool:
        """Whether the call is to be asked again, since the server speaks another era now."""
        if not attempt.first_time(ReplyKind.ERA_DOUBT):
            return False
        was = attempt.era
        await self._doubt(attempt, instance)
        attempt.session = NO_SESSION
        return attempt.era is not was

    async def _doubt(self, attempt: Attempt, instance: Instance) -> None:
        """Have it found out what the server speaks."""
        believed = attempt.era.value if attempt.known_eras else ""
        attempt.known_eras = await attempt.in_time(self._controller.doubt_era(attempt.address.key, believed))
        instance.found_era = attempt.known_eras
        attempt.era = _era(attempt.known_eras, attempt.call)

    def _beat(self) -> None:
        self._beating = None
        for instance in self._instances:
            for identity in instance.in_use:
                self._controller.touch(instance.address.key, identity)
                self._beating = self._beating or self._loop.call_later(HEARTBEAT, self._beat)


def identity_of(backend: Backend, principal: Principal, call: Call) -> str:
    """Whose session at a server this call may use: the agent's own session's, or the agent's; `*` for anyone's."""
    if backend.shared_session:
        return ANYONE
    if call.session is not None:
        return f"session:{principal.agent}:{call.session}"
    return f"agent:{principal.agent}"


def _era(known_eras: str, call: Call) -> Era:
    """How a server is asked that speaks so: who has a session with us gets one there, where there are any."""
    if known_eras == BOTH_ERAS:
        return Era.MODERN if call.version == names.MODERN_VERSION else Era.LEGACY
    return Era.MODERN if known_eras == _MODERN else Era.LEGACY


def pick(
    instances: Sequence[Instance], identity: str, tried: Collection[Instance] = (), first: str | None = None
) -> Instance | None:
    """The instance to try next: the same first one for the same identity on every worker; None when all were tried.

    Rendezvous hashing (Thaler and Ravishankar, 1998): when an instance goes, only its identities move. `tried` were
    tried for this call; `first` is the key of the one to begin with where there is still such a one.
    """
    left = [one for one in instances if one not in tried] if tried else instances
    if len(left) < 2:
        return left[0] if left else None
    return min(left, key=lambda one: (one.address.key != first, _rank(one.address.key, identity)))


def _rank(instance: str, identity: str) -> int:
    """A number of 32 bits. A CRC alone will not do: two of them differ by the same bits for every identity of a
    length, so that of three instances one would get half of all; to multiply (a step of lowbias32) ends that.
    """
    mixed = crc32(f"{instance}\n{identity}".encode())
    return (mixed ^ mixed >> 16) * 0x21F0AAAD & 0xFFFFFFFF
