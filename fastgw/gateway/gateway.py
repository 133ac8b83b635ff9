"""What one worker holds between requests: the snapshot in force, connections, sessions, calls in flight."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from itertools import count
from typing import Any

from fastgw.errors import Fault, Kind
from fastgw.gateway.access import KnownAgents
from fastgw.gateway.admission import AdmissionGate, AvailabilityGate, Limiter
from fastgw.gateway.connection import FREE, Budget
from fastgw.gateway.context import SLOTS, DeadlineSweep, RequestContext
from fastgw.gateway.dialects import legacy, modern
from fastgw.gateway.dialects.agent_sessions import LIFETIME, AgentSessions
from fastgw.gateway.dialects.dialect import ParsedRequest, RequestKind
from fastgw.gateway.header_agents import HeaderAgents
from fastgw.gateway.kept_texts import ListPages
from fastgw.gateway.observers import Observer, RequestMetrics, UsageEvents
from fastgw.gateway.openapi import Descriptions
from fastgw.gateway.quota_gate import QuotaGate
from fastgw.gateway.refusals import RefusalLog
from fastgw.gateway.result_cache import ResultCache
from fastgw.gateway.shadow_policies import ShadowCounts
from fastgw.gateway.token_agents import TokenAgents
from fastgw.gateway.tracing import RequestSpans, follow
from fastgw.limits.quota_accounts import QuotaAccounts
from fastgw.limits.quota_ledger import LocalLedger
from fastgw.limits.quota_script import QuotaKeys
from fastgw.policy.match import ANONYMOUS
from fastgw.protocol import headers, rounds, trace_context
from fastgw.protocol.sealing import Sealer
from fastgw.snapshot.model import Endpoint, Snapshot, View
from fastgw.telemetry.counters import Counters
from fastgw.telemetry.spans import SpanRecord
from fastgw.upstream.attempts import UpstreamCaller
from fastgw.upstream.breaker import BreakerNews
from fastgw.upstream.call_context import BackgroundTasks
from fastgw.upstream.controller import ControllerPort, UpstreamSession
from fastgw.upstream.instances import Instances

log = logging.getLogger("fastgw")

OBSERVED_TOGETHER = 64
"""Requests that observers hear of in one go: their code, still in the processor's caches, then takes some 3 us a
request instead of 8 (`python -m bench steps`, with and without observers).
"""
OBSERVED_WITHIN = 0.05
"""Seconds after which they hear of fewer."""
_MARKED = 4096
"""Bytes of arguments by which a call is known again."""
_NONE: frozenset[bytes] = frozenset()
_HEADER, _MEMBER = trace_context.PARENT_HEADER, trace_context.PARENT
_NOWHERE = Endpoint("", {}, (View(),), {ANONYMOUS.agent: 0}, False, 0.0, (), "")


class Gateway:
    """One worker's live state.

    Args:
        controller: the port to what must be one in the whole gateway.
        counters: of this worker.
        tasks: background work.
        limiter: holds calls to the limits; quotas: to the quotas, where there is more than nothing to hold.
    """

    def __init__(
        self,
        controller: ControllerPort,
        counters: Counters,
        tasks: BackgroundTasks,
        limiter: Limiter,
        quotas: QuotaGate | None = None,
    ) -> None:
        self.controller = controller
        self.limiter = limiter
        self.quotas = quotas or QuotaGate(
            QuotaAccounts(LocalLedger(None, "0"), QuotaKeys("fastgw"), tasks.spawn, counters.inc), counters
        )
        self.quotas.on_warning = partial(controller.alert, "quota_warning")
        self.tasks = tasks
        self.refusal_log, self.shadow_policies = RefusalLog(), ShadowCounts(counters)
        self.results = ResultCache(counters)
        self._newest: Snapshot | None = None
        self._listed: Snapshot | None = None
        self._instances = Instances(tasks.spawn)
        self.caller = UpstreamCaller(controller, self._instances, tasks.spawn, counters)
        self._bodies = Budget()
        self._calls: dict[tuple[str, bytes], RequestContext] = {}
        self._running: set[RequestContext] = set()
        self.slots = memoryview(bytearray(8 * SLOTS)).cast("q")
        """What calls are written down in; a worker gives its own."""
        self._availability = AvailabilityGate(self._running, self.caller.bulkheads)
        self.gates: list[AdmissionGate] = [self._availability, limiter]
        """What a call passes, in order, before it goes to its server; and back when it is over."""
        self._settled_gates = [one for one in reversed(self.gates) if type(one).settle is not AdmissionGate.settle]
        self._usage_events, self._spans = UsageEvents(), RequestSpans()
        self.observers: list[Observer] = [RequestMetrics(counters), self._usage_events]
        """What observes every request that is over, in order."""
        self._finished: list[RequestContext] = []
        self._flushing: asyncio.TimerHandle | None = None
        self._boot = os.urandom(5).hex()
        self._numbers = count(1)
        self._sweep = DeadlineSweep()
        self._loop = asyncio.get_running_loop()
        self.known_agents, self.token_agents = KnownAgents(), TokenAgents(controller, counters)
        self.header_agents = HeaderAgents(counters, self.refusal_log)
        self.agent_sessions = AgentSessions()
        self.list_pages, self.descriptions = ListPages(), Descriptions()
        self.cursors: Sealer
        self.states: Sealer

    @property
    def in_flight(self) -> int:
        """Calls being carried."""
        return len(self._running)

    @property
    def write_event(self) -> Callable[[bytes], object]:
        """Takes each usage event; a worker gives its spool's."""
        return self._usage_events.write

    @write_event.setter
    def write_event(self, write: Callable[[bytes], object]) -> None:
        self._usage_events.write = write

    @property
    def write_spans(self) -> Callable[[list[SpanRecord]], object]:
        """Takes the spans of what is recorded; a worker gives what sends them."""
        return self._spans.write

    @write_spans.setter
    def write_spans(self, write: Callable[[list[SpanRecord]], object]) -> None:
        self._spans.write = write

    # -- snapshots ----------------------------------------------------------------------------------------------

    def load(self, snapshot: Snapshot) -> None:
        """Use this snapshot for calls. Lists follow with `activate`, when every worker can serve what they name."""
        previous, self._newest = self._newest, snapshot
        if previous is None:
            self._listed = snapshot
        if previous is None or previous.seal_keys != snapshot.seal_keys:
            self.agent_sessions.renew(snapshot.seal_keys)
            self.cursors = Sealer(snapshot.seal_keys, "cursor")
            self.states = Sealer(snapshot.seal_keys, "state")
        self.known_agents.clear()
        self.limiter.load(snapshot)
        self.quotas.load(snapshot)
        # Who has no quotas enters no function for them; calls that have reserved in some are settled all the same.
        self.gates = [self._availability, *([self.quotas] if snapshot.quotas else []), self.limiter]
        if snapshot.quotas and self.quotas not in self._settled_gates:
            self._settled_gates.append(self.quotas)
        if snapshot.sample is not None and self._spans not in self.observers:
            self.observers.append(self._spans)
        self.caller.bulkheads.load(snapshot.backends)
        self._instances.load(snapshot, previous.longest if previous is not None else None)

    def activate(self, generation: int) -> None:
        """Every worker has loaded this generation: list from it."""
        if self._newest is not None and self._newest.generation == generation:
            self._listed = self._newest
            self.descriptions.forget()
            self.list_pages.forget()

    def freshened(self, until: dict[str, float]) -> None:
        """What lists say of their freshness goes by this from now on; see `plan.GatewayPort`."""
        if self._newest is not None:
            self._newest = self._newest.freshened(until)
            self.known_agents.clear()

    def issuer_keys(self, documents: dict[str, bytes]) -> None:
        """The keys of all issuers; see `plan.GatewayPort`. What a key that is gone has signed counts no more."""
        if self.token_agents.learn(documents):
            self.known_agents.clear()

    def quarantined(self, fingerprints: frozenset[int]) -> None:
        """Calls of these fingerprints are refused from now on; see `processes/quarantine.py`."""
        self._availability.quarantined = fingerprints

    def instance_status(self, key: str, era: str, _version: str) -> None:
        """Calls of this instance go by this era from now on; see `plan.GatewayPort`."""
        self._instances.learn(key, era)

    def breaker(self, key: str, news: BreakerNews) -> None:
        """Another worker, or an operator, says what became of an instance's breaker."""
        self._instances.adopt(key, BreakerNews(*news), time.monotonic())

    def breakers(self) -> list[tuple[str, BreakerNews]]:
        """By key, of the instances whose breaker is not closed: for a controller that has been restarted."""
        return [(one.address.key, one.breaker.news()) for one in self._instances if one.breaker.opened]

    def instance_health(self, key: str, *, healthy: bool, drained: bool) -> None:
        """The controller says how it has found an instance, and whether an operator wants calls there."""
        self._instances.mark(key, healthy=healthy, drained=drained)

    def listed(self, context: RequestContext) -> View:
        """The view that lists are answered from: of the newest snapshot that *every* worker serves calls from."""
        listed = self._listed
        if listed is not None and listed.generation == context.snapshot.generation and context.view is not None:
            return context.view
        endpoint = listed.endpoints.get(context.endpoint.path) if listed is not None else None
        view = endpoint.view_for(context.principal) if endpoint is not None else None
        view = view or context.endpoint.view_for(context.principal)
        assert view is not None, "who has no view is refused before"
        return view

    # -- one request --------------------------------------------------------------------------------------------

    def begin(self, scope: Mapping[str, Any]) -> RequestContext:
        """The context of a new request. The snapshot taken here is the one it keeps."""
        snapshot, lines = self._newest, scope["headers"]
        assert snapshot is not None
        found, twice = dict(lines), _NONE
        if len(found) != len(lines):
            found, twice = headers.index(lines, snapshot.forwarded)
        number = next(self._numbers)
        name = f"req_{self._boot}{number:06x}"
        now = time.monotonic()
        context = RequestContext(name, snapshot, _NOWHERE, modern.DIALECT, found, twice, now, time.time(), number)
        context.client = scope.get("client")
        context.task = asyncio.current_task(self._loop)
        self._sweep.add(context)
        return context

    def renew(self, context: RequestContext) -> None:
        """Let a request of which nothing is known yet go by the newest snapshot. Raises a Fault, NO_ENDPOINT."""
        assert self._newest is not None
        endpoint = self._newest.endpoints.get(context.endpoint.path)
        if endpoint is None:
            raise Fault(Kind.NO_ENDPOINT)
        context.snapshot, context.endpoint = self._newest, endpoint

    def is_newest(self, snapshot: Snapshot) -> bool:
        """Whether nothing has been loaded since."""
        return self._newest is not None and self._newest.generation == snapshot.generation

    def batch_context(self, whole: RequestContext, found: ParsedRequest) -> RequestContext:
        """The context of one message of a batch."""
        number = next(self._numbers)
        name = f"req_{self._boot}{number:06x}"
        return RequestContext(
            name, whole.snapshot, whole.endpoint, whole.dialect, whole.headers, whole.twice, whole.started,
            number=number,
            timestamp=whole.timestamp, principal=whole.principal, view=whole.view, access=whole.access,
            method=found.call.method, bytes_in=found.size, reply_to=found.call.id,
        )  # fmt: skip

    def hold(self, context: RequestContext, count: int) -> bool:
        """Take room for `count` bytes of the body of this request, besides what it has; given back by `end`."""
        is_free = self._bodies.take(count)
        context.held += count if is_free else 0
        return is_free

    def end(self, context: RequestContext) -> None:
        """The request is over: its body is no more."""
        context.watched = context.task = None  # as cycles they cost 20 us per call in the collector
        self._sweep.remove(context)
        if context.held:
            self._bodies.give(context.held)
            context.held = 0

    def track(self, context: RequestContext) -> None:
        """The call runs: it can be cancelled by its session, a drain waits for it, and it is part of a trace."""
        self._running.add(context)
        call = context.call
        assert call is not None
        if context.snapshot.sample is not None or _HEADER in context.headers or _MEMBER in call.meta:
            follow(context, call, self._spans)
        if "arguments" in call.params:
            # Bytes have the same hash in all workers, which are forked from one process.
            context.fingerprint = hash((context.principal.agent, call.name, call.params["arguments"][:_MARKED]))
            self.slots[context.number % SLOTS] = context.fingerprint
        if call.session is not None:
            self._calls[call.session, call.id] = context

    def settle(self, context: RequestContext) -> None:
        """The call is over, however it ended: the gates get back what they gave, the observers hear of it."""
        if context.flight is not None:
            self.results.settle(context.flight, context.outcome)
        context.end(time.monotonic())
        if context.arm is not None and context.arm.meters:
            context.charge()
        for gate in self._settled_gates:
            gate.settle(context)
        self._running.discard(context)
        if context.fingerprint:
            self.slots[context.number % SLOTS] = 0
        call = context.call
        if call is not None and call.session is not None and self._calls.get((call.session, call.id)) is context:
            del self._calls[call.session, call.id]
        self._record(context)

    def expire(self) -> None:
        """The worker ends before these calls do: each is answered so, rather than cut off."""
        for context in self._running:
            context.expire()

    def record(self, context: RequestContext) -> None:
        """The request is over, answered or refused: let the observers know, in a moment."""
        context.end(time.monotonic())
        self._record(context)

    def _record(self, context: RequestContext) -> None:
        self._finished.append(context)
        # What waits holds its arguments: megabytes must not wait beyond the room that bodies have.
        if len(self._finished) >= OBSERVED_TOGETHER or context.bytes_in > FREE:
            self.flush()
        elif self._flushing is None:
            self._flushing = self._loop.call_later(OBSERVED_WITHIN, self.flush)

    def measure(self) -> None:
        """Set the gauges that nothing on the path of a call sets."""
        self.caller.measure()

    def flush(self) -> None:
        """Let the observers know of all requests that are over by now."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        finished, self._finished = self._finished, []
        for observer in self.observers:
            for context in finished:
                try:
                    observer.observe(context)
                except Exception:  # one request must not cost the others what is written down of them
                    log.exception("%s could not be observed", context.request_id)
        if self._spans.waiting:
            self._spans.hand_over()

    # -- sessions and cancels -----------------------------------------------------------------------------------

    def handle_notification(self, found: ParsedRequest) -> None:
        """Take note of a notification; a cancel is carried to whichever worker has the call."""
        call = found.call
        if found.kind is RequestKind.CANCEL and call.session is not None and not self.cancelled(call.session, call.id):
            self.controller.cancel(call.session, call.id)

    def cancelled(self, session: str, request: bytes) -> bool:
        """An agent has withdrawn a call; whether this worker had it."""
        context = self._calls.get((session, request))
        if context is None:
            return False
        context.withdraw()
        return True

    async def end_session(self, context: RequestContext) -> None:
        """End the session a DELETE names, on every worker. Raises a Fault: NOT_ONE_MESSAGE, SESSION_UNKNOWN."""
        session = legacy.session_of(context, self.agent_sessions)
        self.agent_sessions.end(session.id, LIFETIME)
        await self.controller.end_session(session.id, LIFETIME)

    def known_sessions(self) -> list[tuple[str, str, UpstreamSession]]:
        """(instance, identity, session) of the sessions at servers that this worker uses."""
        return self.caller.known_sessions()

    async def set_level(self, session: str, level: str) -> bytes:
        """The agent wants log messages of this session from `level` on, whichever worker has its next call: the result
        says no more than that it is so.
        """
        self.agent_sessions.set_level(session, level)
        await self.controller.set_level(session, level)
        return b"{}"

    def suspected(self, key: tuple[str, str], session: str) -> None:
        """A call in this upstream session was answered as if its server had lost it."""
        self.caller.suspect(key, session)

    def leveled(self, session: str, level: str) -> None:
        """A level was set through another worker, or before this one started."""
        self.agent_sessions.set_level(session, level)

    def ended(self, session: str, seconds: float) -> None:
        """A session was ended through another worker, or before this one started."""
        self.agent_sessions.end(session, seconds)

    # -- limits -------------------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        self.quotas.prepare(self.tasks.spawn)
        await self.limiter.prepare(self.tasks.spawn)

    def operate(self, verb: str, args: tuple[Any, ...], answer: Callable[[Any], object]) -> None:
        if verb == "report":
            self.tasks.spawn(self._report(self.limiter.report(), answer), "reporting limits")
        elif verb == "quotas":
            self.tasks.spawn(self._report(self.quotas.report(), answer), "reporting quotas")
        elif verb == "raise":
            answer(self.quotas.raise_amounts(*args))
        elif verb == "instances":
            answer({one.address.key: one.report() for one in self._instances})
        else:
            self.limiter.reset(*args)
            answer(None)

    async def _report(self, work: Awaitable[Any], answer: Callable[[Any], object]) -> None:
        report = None
        try:
            report = await work
        finally:
            answer(report)

    # -- servers ------------------------------------------------------------------------------------------------

    def resume(self, context: RequestContext, servers: Collection[str]) -> None:
        """Open the `requestState` of a call, so that the server that gave it gets its own back.

        Args:
            servers: where the call may go.

        Raises:
            Fault: BAD_PARAMS where it is altered, expired, or was given to another agent or for something else.
        """
        call = context.call
        assert call is not None and call.request_state is not None
        bound = rounds.bond(context.endpoint.path, context.principal.agent, call.method, call.name or "")
        state = rounds.open_state(call.request_state, self.states, bound, time.time())
        if state is None or state.server not in servers:
            raise Fault(Kind.BAD_PARAMS, "Invalid params: unknown or expired requestState")
        call.params[rounds.STATE] = state.inner
        call.instance = state.instance

    async def close(self) -> None:
        """End what runs in the background and every connection."""
        self.flush()
        await self.tasks.close()
        await self._instances.close()
