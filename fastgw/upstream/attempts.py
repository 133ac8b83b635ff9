"""Calls from one worker to servers: target by target, instance by instance, each mended where its server says why.
Which instance is next is in `balancer.py`, when a call may go on to it in `failover.py`.

    no session, or a lost one        another: `session_repair.py`
    answered in the other era        the controller probes; asked again where the era has changed, once per attempt
    headers that no longer fit       the controller fetches the definition anew; asked again, once per attempt

Each is asked again only because the server has said that it did not run the call.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import ceil, exp
from typing import Any, Union

import msgspec

from fastgw.catalog.route import Arm, Target
from fastgw.errors import Fault, Kind
from fastgw.policy.match import Principal
from fastgw.protocol import names
from fastgw.protocol.call import Call
from fastgw.protocol.envelope import Message
from fastgw.protocol.headers import ParamHeader
from fastgw.protocol.names import Era
from fastgw.protocol.quick import QuickResult
from fastgw.snapshot.model import BOTH_ERAS, Backend
from fastgw.telemetry.counters import Counters
from fastgw.upstream.balancer import Wish, pick
from fastgw.upstream.breaker import BreakerState
from fastgw.upstream.bulkhead import Bulkheads
from fastgw.upstream.call_context import Attempt, Spawn
from fastgw.upstream.classify import Classified, ReplyKind
from fastgw.upstream.controller import NO_SESSION, ControllerPort, UpstreamSession
from fastgw.upstream.failover import (
    TOOL_ERROR,
    is_server_error,
    may_follow,
    says_tool_error,
)
from fastgw.upstream.instances import FORGETTING, Instance, Instances
from fastgw.upstream.reply import FinalReply, UpstreamReply
from fastgw.upstream.rpc import MOST_SEARCHED
from fastgw.upstream.session_repair import SessionRepair, settle_level
from fastgw.upstream.sessions import ANYONE
from fastgw.upstream.shown_tokens import ShownTokens
from fastgw.upstream.transports import down
from fastgw.upstream.verdicts import Verdicts

log = logging.getLogger("fastgw")

Reply = Union[UpstreamReply, "StreamedReply", FinalReply, QuickResult]
Candidate = tuple[Target, Backend, Instance, str]
"""Where a call may go, and whose session it uses there."""
_MODERN = Era.MODERN.value
HEARTBEAT = 0.5
"""Seconds between two words to the controller that a session with a call in flight is in use. With what they wait on
their way it must stay below `sessions.SHORTEST_IDLE`."""


class UpstreamCaller:
    """All calls of one worker."""

    def __init__(self, controller: ControllerPort, instances: Instances, spawn: Spawn, counters: Counters) -> None:
        self._controller = controller
        self._counters = counters
        self.instances = instances
        self.bulkheads = Bulkheads(counters)
        self.verdicts = Verdicts(controller, instances, counters)
        self._spawn = spawn
        self._repair = SessionRepair(controller, spawn)
        self._tokens = ShownTokens(controller, spawn)
        self._beating: asyncio.TimerHandle | None = None
        self.loop = asyncio.get_running_loop()

    def forward(
        self, call: Call, principal: Principal, arm: Arm, backends: Mapping[str, Backend], attempts: list[Attempt]
    ) -> Coroutine[Any, Any, Reply]:
        """Give a call to the first instance that takes it and wait until that begins to answer, or has answered in the
        usual shape; `attempts` gets each attempt, as it begins. Raises Fault NO_SERVER where no instance takes it; else
        what `call` raises.
        """
        candidates = in_order(self, call, principal, arm, backends)
        return ForwardedCall(self, call, principal, arm, backends, attempts, self.loop.time(), candidates).go_on()

    def suspect(self, key: tuple[str, str], session: str) -> None:
        """A call in this session, by its id, was answered as if the server had lost it; key: (instance, identity)."""
        with suppress(Fault):  # it is not configured any more
            self.instances.find(key[0]).suspect(key[1], session)

    def known_sessions(self) -> list[tuple[str, str, UpstreamSession]]:
        """Sessions this worker knows, (instance key, identity, session): for a controller that has been restarted."""
        return [(one.address.key, *known) for one in self.instances for known in one.sessions.items()]

    def measure(self) -> None:
        """Set gauges of each server: connections, calls at it, and how many of them might be sent once more."""
        found: defaultdict[tuple[str, ...], float] = defaultdict(int)
        calls: Counter[str] = Counter()
        for one in self.instances:
            server, (used, idle, most, waiting) = one.address.server, one.http.usage()
            calls[server] += one.calls
            found["fastgw_upstream_in_flight", server] += one.in_flight
            found["fastgw_pool_connections", server, "in_use"] += used
            found["fastgw_pool_connections", server, "idle"] += idle
            found["fastgw_pool_max_connections", server] += most
            found["fastgw_pool_waiting", server] += waiting
        for server, count in calls.items():
            found["fastgw_retry_budget", server] = self.verdicts.budgets[server].left(count)
        self._counters.measured(found)

    async def call(self, attempt: Attempt, instance: Instance, principal: Principal) -> UpstreamReply | QuickResult:
        """Have one instance answer, mending what its server says is wrong. Raises Fault: as `classify` says; what
        `StreamableHttp.send`, `ControllerPort.open_session`, `ShownTokens.show` and `Bulkheads.enter` raise.
        """
        if attempt.backend.max_in_flight is not None or attempt.call.sent_as is not None:
            await self._prepare(attempt, principal)
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
                return _unmended(reply, classified)

    async def _prepare(self, attempt: Attempt, principal: Principal) -> None:
        """What not all calls need: a token, or a credential and headers of who asks; a place at the server."""
        if attempt.call.sent_as is not None:
            await self._tokens.show(attempt)
        if attempt.backend.max_in_flight is not None:
            await self.bulkheads.enter(attempt, principal)

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
            self._beating = self.loop.call_later(HEARTBEAT, self._beat)
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
        try:
            return in_doubt and await self._in_other_era(attempt, instance)
        except Fault:  # it cannot be asked; what it has answered counts, for the call may have run
            return False

    async def _refresh_headers(self, attempt: Attempt) -> bool:
        """Fetch the tool's headers by its newest definition."""
        try:
            found = await attempt.in_time(self._controller.refresh(attempt.address.server, attempt.target.tool))
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
        for instance in self.instances:
            for identity in instance.in_use:
                self._controller.touch(instance.address.key, identity)
                self._beating = self._beating or self.loop.call_later(HEARTBEAT, self._beat)


def _unmended(reply: UpstreamReply, classified: Classified) -> UpstreamReply:
    """An answer that says what could not be mended. Raises Fault where it says nothing that an agent could read."""
    if classified.message is None:
        detail = f"{classified.kind.name} again"
        raise classified.fault or Fault(Kind.INTERNAL, detail=detail, sent=True)
    return reply


def _era(known_eras: str, call: Call) -> Era:
    """How a server is asked that speaks so: who has a session with us gets one there, where there are any."""
    if known_eras == BOTH_ERAS:
        return Era.MODERN if call.version == names.MODERN_VERSION else Era.LEGACY
    return Era.MODERN if known_eras == _MODERN else Era.LEGACY


def identity_of(backend: Backend, principal: Principal, call: Call) -> str:
    """Whose session at a server this call may use: the agent's own session's, or the agent's; `*` for anyone's. In none
    two credentials of a server ever meet.
    """
    if backend.shared_session:
        return ANYONE
    every, tag = call.sent_as, ""
    if every is not None and (shown := every.get(backend.name)) is not None and shown.credential:
        tag = f"/{shown.credential}"
    if call.session is not None:
        return f"session{tag}:{principal.agent}:{call.session}"
    return f"agent{tag}:{principal.agent}"


def in_order(
    caller: UpstreamCaller, call: Call, principal: Principal, arm: Arm, backends: Mapping[str, Backend]
) -> Iterator[Candidate]:
    """The instances that may take a call: of each target, then its backups; last what is full or out of order.

    No method of `ForwardedCall`, which holds what this gives: as a cycle each call would be the collector's.
    """
    tried: list[Instance] = []
    every = places(call, arm, backends)
    for target, backend in every:
        if backend.max_in_flight is not None and _passes_over(caller, arm, target, backend, every):
            continue
        known = caller.instances.usable.get(backend.name)
        instances = known[1] if known is not None and known[0] is backend else _instances_of(caller, backend)
        identity = identity_of(backend, principal, call)
        if len(instances) == 1 and instances[0].usable:
            tried.append(instances[0])
            yield target, backend, instances[0], identity
            continue
        mine: list[Instance] = []
        wish = Wish(identity, call.instance, _stays(instances, call))
        while (instance := pick(instances, wish, mine, time.monotonic())) is not None:
            mine.append(instance)
            tried.append(instance)
            yield target, backend, instance, identity
    for target, backend in every:
        identity = identity_of(backend, principal, call)
        wish = Wish(identity, call.instance)
        instances = _instances_of(caller, backend)
        while (instance := pick(instances, wish, tried, time.monotonic(), last=True)) is not None:
            tried.append(instance)
            yield target, backend, instance, identity


def places(call: Call, arm: Arm, backends: Mapping[str, Backend]) -> list[tuple[Target, Backend]]:
    """Each target, then the same tool at its backups; less what is under maintenance."""
    first = call.instance
    found: list[tuple[Target, Backend]] = []
    for target in arm.targets:
        backend = backends[target.server]
        for one in (backend, *map(backends.__getitem__, backend.backup)):
            # What a server has asked for goes back to it alone.
            if one.maintenance is None and (first is None or first.startswith(f"{one.name}|")):
                found += [(target, one)]
    return found


def _passes_over(
    caller: UpstreamCaller, arm: Arm, target: Target, backend: Backend, every: Sequence[tuple[Target, Backend]]
) -> bool:
    """Whether this server is full, and another that may be asked instead has room: then nobody waits."""
    if caller.bulkheads.has_room(backend):
        return False
    return any(
        one is not backend
        and (other is target or "unavailable" in arm.failover_on)
        and caller.bulkheads.has_room(one)
        and any(instance.usable for instance in _instances_of(caller, one))
        for other, one in every
    )


def _instances_of(caller: UpstreamCaller, backend: Backend) -> Sequence[Instance]:
    try:
        return caller.instances.of(backend)
    except Fault:
        return ()


class ForwardedCall(msgspec.Struct, eq=False):
    """One call on its way, from instance to instance until one answers."""

    caller: UpstreamCaller
    call: Call
    principal: Principal
    arm: Arm
    backends: Mapping[str, Backend]
    attempts: list[Attempt]
    begun: float
    candidates: Iterator[Candidate]
    target: Target | None = None
    fault: Fault | None = None
    kept: tuple[Attempt, Reply] | None = None
    repeats: str = ""

    async def go_on(self) -> Reply:
        """Have the next one answer that may be tried. Raises Fault: there is none, or it failed and that is that."""
        caller, arm, attempts, loop = self.caller, self.arm, self.attempts, self.caller.loop
        for target, backend, instance, identity in self.candidates:
            now, deadlines = loop.time(), arm.deadlines
            if attempts or target is not arm.targets[0]:
                if not self._may_go_to(target):
                    continue
                if now - self.begun >= arm.deadlines.total or not self._may_repeat():
                    break
                deadlines = deadlines.left(now - self.begun)
            self.target = target
            attempts.append(
                attempt := Attempt(
                    self.call, target, backend, instance.address, identity, deadlines, now, credential=backend.headers
                )
            )
            if not instance.usable and instance.breaker.state is not BreakerState.CLOSED:
                caller.verdicts.begin_trial(attempt, instance)
            instance.in_flight += 1
            instance.calls += 1
            attempt.started, reply = time.monotonic(), None
            try:
                reply = await caller.call(attempt, instance, self.principal)
            except Fault as fault:
                attempt.sent = fault.sent
                self.note(attempt, instance, fault)
                continue
            finally:
                ended = attempt.ended = time.monotonic()
                attempt.waited += ended - attempt.started
                if reply is None or self.repeats:
                    self._let_go(attempt, instance, reply)
            if type(reply) is UpstreamReply and reply.streams:
                return StreamedReply(self, attempt, instance, reply)
            _measure(attempt, instance, ended - attempt.started, ended)
            if type(reply) is QuickResult and arm.tool_error is None and len(attempts) == 1:
                if attempt.trial or instance.breaker.failures:
                    caller.verdicts.answered(attempt, instance)
                return reply
            if not self.is_refused(
                attempt, instance, reply if type(reply) is QuickResult else reply.classified.message
            ):
                return reply
            self.kept = self.kept or (attempt, reply)
        return self._last_word()

    def note(self, attempt: Attempt, instance: Instance, fault: Fault) -> None:
        """An attempt has failed."""
        self.fault = fault.with_traceback(None)  # whose frames hold this call
        self.caller.verdicts.failed(attempt, instance, fault)

    def heard(self, attempt: Attempt, instance: Instance, found: QuickResult | Message | None) -> None:
        """What an answer says of its instance; None: it has not been read yet."""
        if type(found) is Message and is_server_error(found):
            fault = Fault(
                Kind.LOST,
                detail=f"it answered {(found.error or b'')[:MOST_SEARCHED]!r}",
                sent=True,
                failure="server_error",
            )
            self.caller.verdicts.failed(attempt, instance, fault)
        elif attempt.trial or instance.breaker.failures:
            self.caller.verdicts.answered(attempt, instance)

    def is_begun(self, attempt: Attempt, instance: Instance) -> None:
        """A stream's first message is an event: the call stays there. It may be long, so a trial ends with it."""
        if attempt.trial:
            self.caller.verdicts.answered(attempt, instance)
            attempt.row = 0
        if len(self.attempts) > 1:
            self.caller.verdicts.took_over(attempt, self.attempts[-2])

    def is_refused(self, attempt: Attempt, instance: Instance, found: QuickResult | Message | None) -> bool:
        """Whether an answer is one for which the next target is to be asked; what it says of its instance."""
        arm = self.arm
        if attempt.trial or instance.breaker.failures or (type(found) is Message and found.error is not None):
            self.heard(attempt, instance, found)
        if arm.tool_error is not None and found is not None and says_tool_error(arm, found):
            self.caller.verdicts.failed(attempt, instance, Fault(Kind.INTERNAL, sent=True, failure=TOOL_ERROR))
            return True
        if len(self.attempts) > 1:
            self.caller.verdicts.took_over(attempt, self.attempts[-2])
        return False

    def _may_go_to(self, target: Target) -> bool:
        """Whether the last failure lets the call go on to this target."""
        last = self.attempts[-1] if self.attempts else None
        failure = last.failed_with if last is not None else self._passed_over()
        if self.fault is not None and self.fault.kind is not Kind.NO_SERVER and not failure:
            return False
        elsewhere = target is not (self.target or self.arm.targets[0])
        return may_follow(self.arm, self.call, failure, sent=last is not None and last.sent, elsewhere=elsewhere)

    def _passed_over(self) -> str:
        """Why no instance of the first target was asked, as `Attempt.failed_with`."""
        rests = any(one.rests_until and one.may_take(0.0, last=True) for one in self._instances(self.arm.targets[0]))
        return "throttled" if rests else "unreachable"

    def _instances(self, only: Target | None = None) -> list[Instance]:
        """All that might be asked, or of one target."""
        every = places(self.call, self.arm, self.backends)
        return [one for target, at in every if only in (None, target) for one in _instances_of(self.caller, at)]

    def _may_repeat(self) -> bool:
        """Whether there is room for the call once more, if its last attempt was sent."""
        last = self.attempts[-1] if self.attempts else None
        if last is None or not last.sent:
            return True
        if not self.caller.verdicts.may_repeat(last.address.server):
            return False
        self.repeats = last.address.server
        return True

    def _let_go(self, attempt: Attempt, instance: Instance, reply: Reply | None) -> None:
        if self.repeats:
            self.caller.verdicts.budgets[self.repeats].running -= 1
            self.repeats = ""
        if reply is None:
            instance.in_flight -= 1
            if attempt.leave is not None:
                attempt.leave()
            if attempt.trial:  # cancelled, or not a word about the server: the next call may try
                instance.breaker.withdraw_trial()

    def _last_word(self) -> Reply:
        """What the agent hears when nothing is left to be tried."""
        if self.kept is not None:
            attempt, reply = self.kept
            self.attempts.remove(attempt)
            self.attempts.append(attempt)  # who answers is the last
            return reply
        fault, self.fault = self.fault or down("no instance is in order"), None
        fault.sent = fault.sent or any(attempt.sent for attempt in self.attempts)
        if fault.kind is Kind.NO_SERVER and not fault.sent and fault.failure == "unreachable":
            fault.retry_after = self._soonest()
        try:
            raise fault
        finally:
            del fault

    def _soonest(self) -> int:
        """Seconds until the first breaker may let a call through, at least 1."""
        until = [one.breaker.until for one in self._instances() if one.breaker.state is not BreakerState.CLOSED]
        return max(1, ceil(min(until, default=0.0) - time.monotonic()))


class StreamedReply:
    """A call whose answer comes as a stream. Until its first message is there nothing has been handed on, so that a
    failure before that is one like any other.
    """

    streams = True

    def __init__(self, forwarded: ForwardedCall, attempt: Attempt, instance: Instance, reply: UpstreamReply) -> None:
        self._forwarded = forwarded
        self._attempt = attempt
        self._instance = instance
        self._reply: Any = reply
        self._has_begun = False
        self._inner, reply.on_over = reply.on_over, self._over

    @property
    def may_ask(self) -> bool:
        """As `UpstreamReply`."""
        return bool(self._reply.may_ask)

    async def next(self) -> Message:
        """As `UpstreamReply`."""
        if self._has_begun:
            found: Message = await self._reply.next()
            is_own = found.method is None and type(self._reply) is UpstreamReply
            if is_own and (found.error is not None or self._instance.breaker.failures):
                self._forwarded.heard(self._attempt, self._instance, found)
            return found
        self._has_begun = True
        try:
            found = await self._reply.next()
        except Fault as fault:
            self._forwarded.note(self._attempt, self._instance, fault)
            return await self._elsewhere()
        if found.method is not None:
            self._forwarded.is_begun(self._attempt, self._instance)
        elif self._forwarded.is_refused(self._attempt, self._instance, found):
            self._forwarded.kept = self._forwarded.kept or (self._attempt, FinalReply(found))
            return await self._elsewhere()
        return found

    def renew(self) -> None:
        """As `UpstreamReply`."""
        self._reply.renew()

    def close(self) -> None:
        """As `UpstreamReply`."""
        self._reply.close()

    async def _elsewhere(self) -> Message:
        self._attempt.ended = time.monotonic()
        before = len(self._forwarded.attempts)
        reply = await self._forwarded.go_on()
        for attempt in self._forwarded.attempts[before:]:
            attempt.waited = 0.0  # whoever waits for this message measures it, too
        if type(reply) is QuickResult:
            self._reply = FinalReply(Message(None, None, None, reply.text, None))
        else:
            self._reply = reply
        found: Message = await self._reply.next()
        return found

    def _over(self) -> None:
        self._instance.in_flight -= 1
        if self._attempt.leave is not None:
            self._attempt.leave()
        if self._attempt.trial:
            self._instance.breaker.withdraw_trial()
        if self._inner is not None:
            self._inner()


def _measure(attempt: Attempt, instance: Instance, latency: float, now: float) -> None:
    """A call is over that took so many seconds."""
    instance.in_flight -= 1
    if attempt.leave is not None:
        attempt.leave()
        latency -= attempt.queued
    if latency < instance.latency:
        latency += (instance.latency - latency) * exp((instance.measured - now) / FORGETTING)
    instance.latency, instance.measured = latency, now


def _stays(instances: Sequence[Instance], call: Call) -> bool:
    """Whether calls have a session at the instance they go to, and so return to it."""
    stateless = (_MODERN, BOTH_ERAS) if call.version == names.MODERN_VERSION else (_MODERN,)
    return any((one.found_era or one.address.era or _MODERN) not in stateless for one in instances)
