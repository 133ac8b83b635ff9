"""Admission: the gates that a call passes, in order, before it goes to its server. The last are the rate limits: what a
call counts in, and its refusal when it is one too many.

Where buckets are kept, and how they are decided, is in `limits/` and `policy/bucket.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence, Sized
from dataclasses import asdict, replace
from heapq import nlargest
from itertools import islice
from math import ceil
from operator import attrgetter
from time import monotonic
from typing import Annotated, Any, NamedTuple

import msgspec

from fastgw.catalog.route import Arm
from fastgw.config.rules import FAILED_CREDENTIALS
from fastgw.errors import Fault, Kind
from fastgw.gateway.context import RequestContext
from fastgw.limits.batch import AwaitedAdmission
from fastgw.limits.memory_buckets import MemoryBuckets
from fastgw.limits.shared_buckets import SharedBuckets
from fastgw.policy.limits import (
    ApplyingLimits,
    BucketCharge,
    BucketState,
    CallSubject,
    Limit,
    LimitVerdict,
    SubjectReader,
    ToolPatterns,
    applying,
    override_table,
    shown,
)
from fastgw.policy.match import Claim
from fastgw.policy.networks import guesser, origin_of
from fastgw.protocol import names
from fastgw.protocol.call import Call
from fastgw.snapshot.model import Snapshot
from fastgw.telemetry.counters import Counters, Top
from fastgw.upstream.bulkhead import Bulkheads

log = logging.getLogger("fastgw")

MOST_IN_FLIGHT = 10_000
"""Calls one worker carries at a time; above it an answer in no time beats a place in a queue without end."""
MOST_SELECTIONS = 200_000
"""Agents of which it is remembered which limits speak of them."""
MOST_NAMES = 20_000
"""Tools and prompts of which the same is remembered: servers may give theirs other names without end."""
MOST_CHARGES = 1000
"""Tools of which one agent's buckets are remembered."""
MOST_RESETS = 1000
"""Resets that are remembered: workers repeat each for some seconds (`limits/decide.lua`)."""
SOON = 1
"""`Retry-After` where nobody can say when another call ends, in seconds."""
HEARTBEAT = 0.5
"""Seconds between two looks at what is idle, and two signs of life to a store."""
READY_WITHIN = 1.0
"""Seconds a worker waits for the store before it serves without."""
REPORTED = 100
"""Buckets, and agents, that a report names."""
SLICE = 500
"""Buckets that are looked at before calls have their turn: about 1 ms."""

Buckets = MemoryBuckets | SharedBuckets
Spawn = Callable[[Coroutine[Any, Any, Any], str], asyncio.Task[Any]]


class Reset(msgspec.Struct, frozen=True, tag_field="do", tag="reset"):
    """An operator makes buckets of a limit full.

    Args:
        number: of no other reset: each is obeyed once, whoever repeats it.
        subject: values of the limit's `by`, in order; None for all of its buckets.
    """

    number: Annotated[int, msgspec.Meta(ge=1, le=2**32)]
    limit: str
    subject: tuple[str | None, ...] | None = None


_RESET = msgspec.json.Decoder(Reset).decode


Counting = tuple[ApplyingLimits, SubjectReader]
"""How a limit counts the calls of one tool or prompt. Made once: with each part of each subject looked up for each call
a call that counts in four buckets cost 1.2 times what reading its envelope costs, so 0.7 (`python -m bench limits`)."""


class Selection(NamedTuple):
    """The limits that may count one class of agents on one endpoint.

    Args:
        limits: in the order of the configuration.
        of: how those count that speak of one tool or prompt, by method, name, server and its own name.
    """

    limits: tuple[ApplyingLimits, ...]
    of: dict[tuple[str, ...], Sequence[Counting]]


class AdmissionGate:
    """One of `Gateway.gates`."""

    def admit(self, context: RequestContext) -> Awaitable[None] | None:
        """Let the call pass: at once, or when what is returned has been awaited. Raises a Fault: it may not, now."""
        raise NotImplementedError

    def settle(self, context: RequestContext) -> None:
        """The call is over, however it ended: give back what was taken, if it came as far as this gate at all."""


class AvailabilityGate(AdmissionGate):
    """Bounds the calls that one worker carries, and keeps calls from servers that are full or under maintenance; those
    that crash workers are kept from all.

    Args:
        running: the calls.
    """

    def __init__(self, running: Sized, bulkheads: Bulkheads) -> None:
        self._running = running
        self._bulkheads = bulkheads
        self.most = MOST_IN_FLIGHT
        self.quarantined: frozenset[int] = frozenset()

    def admit(self, context: RequestContext) -> None:
        if len(self._running) > self.most:
            raise Fault(Kind.FULL, retry_after=1)
        if self.quarantined and context.fingerprint in self.quarantined:
            words = "Two workers crashed with this call in flight; it is refused for ten minutes"
            raise Fault(Kind.INTERNAL, words)
        assert context.arm is not None
        backends, targets = context.snapshot.backends, context.arm.targets
        first = backends[targets[0].server]
        if first.max_in_flight is not None and len(targets) == 1 and not first.backup:
            self._bulkheads.check(first.name, context.principal)
        maintenance = first.maintenance
        if maintenance is None:
            return
        places = [name for target in targets for name in (target.server, *backends[target.server].backup)]
        if all(backends[name].maintenance is not None for name in places):
            raise Fault(Kind.NO_SERVER, maintenance, data={"reason": "maintenance"}, retry_after=60)


class Limiter(AdmissionGate):
    """Holds one worker's calls to the limits."""

    def __init__(self, buckets: Buckets, counters: Counters) -> None:
        self._buckets = buckets
        self._counters = counters
        self._limits: tuple[Limit, ...] = ()
        self._known: dict[tuple[str, str], tuple[Mapping[str, Claim], Selection]] = {}
        """By endpoint and agent. Its claims are looked at again where they are another object."""
        self._selections: dict[tuple[str, tuple[ApplyingLimits, ...]], Selection] = {}
        self._failed_logins = Limit(FAILED_CREDENTIALS, ("address",))
        self._resets: dict[int, None] = {}
        self.refused: Top[tuple[str, str]] = Top()
        """(limit, subject) of those who are refused most."""

    def load(self, snapshot: Snapshot) -> None:
        """Go by the limits of this snapshot. Buckets stay as they are: they are known by name."""
        self._failed_logins = replace(self._failed_logins, rate=snapshot.failed_credentials)
        if snapshot.limits != self._limits:
            self._limits = snapshot.limits
            self._known.clear()
            self._selections.clear()

    async def prepare(self, spawn: Spawn) -> None:
        """Begin; returns when the buckets are there, or were waited for long enough."""
        ready = spawn(self._buckets.begin(), "finding the store")
        spawn(self._run(), "looking after limits")
        await asyncio.wait((ready,), timeout=READY_WITHIN)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT)
            try:
                self._buckets.heartbeat(int(monotonic() * 1e6))
                self._counters.gauge(self._buckets.state == "up", "fastgw_store_up")
                held = self._buckets.held()
                for limit in self._limits:
                    self._counters.gauge(held.get(limit.name, 0), "fastgw_limit_held", limit.name)
            except Exception:  # without signs of life the store takes this worker's calls for over
                log.exception("limits could not be looked after")

    # -- a call ------------------------------------------------------------------------------------------------------

    def admit(self, context: RequestContext) -> Awaitable[None] | None:
        """Count the call, or refuse it.

        Raises:
            Fault: RATE_LIMITED; FULL where a limit that must hold cannot be checked.
        """
        if not self._limits:
            return None
        access = context.access
        assert access is not None
        known = access.charges.get(context.tool or "")
        charges = known[1] if known is not None and known[0] is context.arm else self.charges(context)
        if not charges:
            return None
        context.verdict = verdict = self._buckets.decide(charges, int(monotonic() * 1e6))
        if verdict is None:
            return self._admit_later(context, charges)
        if verdict.refused is None and not verdict.shadowed:
            # `counters.inc` written out: a function call less for each request.
            self._counters.counts["fastgw_limit_decisions_total", verdict.how, "admitted"] += 1
        else:
            self._judge(context, verdict)
        return None

    async def _admit_later(self, context: RequestContext, charges: Sequence[BucketCharge]) -> None:
        context.verdict = verdict = await self._asked(context, charges)
        self._judge(context, verdict)

    def _judge(self, context: RequestContext, verdict: LimitVerdict) -> None:
        for limit in verdict.shadowed:
            self._counters.inc("fastgw_limit_refusals_total", limit.name, "shadow")
        if verdict.refused is not None:
            raise self._refusal(context, verdict, verdict.refused)
        self._counters.inc("fastgw_limit_decisions_total", verdict.how, "admitted")

    async def _asked(self, context: RequestContext, charges: Sequence[BucketCharge]) -> LimitVerdict:
        admission = context.admission = AwaitedAdmission(charges)
        self._buckets.ask(admission)
        return await admission.wait()

    def settle(self, context: RequestContext) -> None:
        """The call is over, however it ended."""
        admission, verdict = context.admission, context.verdict
        if admission is not None:
            self._buckets.release(admission.close())
        elif verdict is not None and verdict.permits:
            self._buckets.release(verdict.permits)

    def _refusal(self, context: RequestContext, verdict: LimitVerdict, charge: BucketCharge) -> Fault:
        limit = charge.limit
        context.refused_by = limit.name
        self._counters.inc("fastgw_limit_decisions_total", verdict.how, "refused")
        self._counters.inc("fastgw_limit_refusals_total", limit.name, "enforce")
        self.refused.add((limit.name, shown(charge.bucket[1])))
        if verdict.how == "deny":
            return Fault(Kind.FULL, "A limit cannot be checked now", retry_after=SOON)
        wait = max(SOON, ceil(verdict.wait))
        data = {"limit": limit.name, "by": list(limit.by)}
        if charge.most:
            words = f"Too many calls at the same time: limit {limit.name}"
        else:
            words = f"Rate limit {limit.name} is used up; try again in {wait} s"
        return Fault(Kind.RATE_LIMITED, words, data=data, retry_after=wait)

    # -- what it counts in -------------------------------------------------------------------------------------------

    def charges(self, context: RequestContext) -> Sequence[BucketCharge]:
        """The buckets that the call counts in: the same for all calls of one tool, unless its arguments are asked."""
        access, call, arm = context.access, context.call, context.arm
        assert access is not None and call is not None and arm is not None
        selection = self._selection(context)
        if not selection.limits:
            return ()
        found = self._charges(context, call, arm, selection)
        if call.method == names.TOOLS_CALL and not any(one.match or one.overrides for one in selection.limits):
            if len(access.charges) >= MOST_CHARGES:
                access.charges.clear()
            access.charges[context.tool or ""] = arm, found
        return found

    def _charges(self, context: RequestContext, call: Call, arm: Arm, selection: Selection) -> list[BucketCharge]:
        weight, principal, found = arm.weight, context.principal, []
        for applies, read in _speaking(selection, context):
            limit = applies.limit
            table, rate = applies.table
            if applies.match is not None or applies.overrides:
                arguments = call.params.get("arguments", b"{}")
                if not applies.counts(arguments):
                    continue
                table, rate = applies.table_for(arguments)
            subject = read(principal)
            if rate is not None:
                cost = weight if weight < 2 else min(weight, rate.burst)
                found.append(BucketCharge(limit, (table, subject), rate, cost))
            if limit.in_flight is not None:
                found.append(BucketCharge(limit, (f"{limit.name}\n*", subject), None, 1, limit.in_flight))
        return found

    def _selection(self, context: RequestContext) -> Selection:
        principal, endpoint = context.principal, context.endpoint.path
        key = endpoint, principal.agent
        claims, selection = self._known.get(key, (None, None))
        if selection is not None and claims is principal.claims:
            return selection
        found = applying(self._limits, principal, endpoint)
        selection = self._selections.setdefault((endpoint, found), Selection(found, {}))
        if len(self._known) >= MOST_SELECTIONS:
            self._known.clear()
        self._known[key] = principal.claims, selection
        return selection

    # -- operators ---------------------------------------------------------------------------------------------------

    def reset(self, text: str) -> None:
        """Make buckets of a limit full: here, and wherever the store is shared."""
        self.take_resets([text])
        self._buckets.repeat(text)

    def take_resets(self, texts: Iterable[str]) -> None:
        """Resets that were ordered here or elsewhere, each perhaps often."""
        for text in texts:
            try:
                reset = _RESET(text)
            except (msgspec.MsgspecError, UnicodeError, RecursionError):
                continue  # the store is shared with whoever has its password
            if reset.number not in self._resets:
                self._resets[reset.number] = None
                if len(self._resets) > MOST_RESETS:
                    del self._resets[next(iter(self._resets))]
                self._fill(reset)

    def _fill(self, reset: Reset) -> None:
        if reset.subject is None:
            self._buckets.reset_all(reset.limit, reset.number)
            return
        subject = reset.subject[0] if len(reset.subject) == 1 else reset.subject
        for limit in (*self._limits, self._failed_logins):
            if limit.name == reset.limit:
                tables = [
                    (limit.name, limit.rate),
                    *((override_table(limit, one), one.rate) for one in limit.overrides),
                ]
                charges = [BucketCharge(limit, (table, subject), rate) for table, rate in tables if rate]
                self._buckets.reset(charges, reset.number)

    async def report(self) -> dict[str, Any]:
        """How the limits stand here, fit for JSON: fullest buckets, who is refused most."""
        fullest: list[BucketState] = []
        states = self._buckets.bucket_states(int(monotonic() * 1e6))
        while some := list(islice(states, SLICE)):
            fullest = nlargest(REPORTED, [*fullest, *some], key=attrgetter("used"))
            await asyncio.sleep(0)  # calls go on meanwhile
        return {
            "buckets": [asdict(one) for one in fullest],
            "refused": [
                {"limit": limit, "subject": subject, "calls": calls}
                for (limit, subject), calls in islice(self.refused, REPORTED)
            ],
            "store": self._buckets.state,
        }

    # -- failed logins -----------------------------------------------------------------------------------------------

    async def throttle_failed_login(self, context: RequestContext, fault: Fault) -> Fault:
        """The refusal of a wrong credential: `fault`, or RATE_LIMITED for an address that has shown too many."""
        limit = self._failed_logins
        if limit.rate is None or fault.kind is not Kind.WRONG_CREDENTIAL:
            return fault
        bucket = limit.name, _counted_address(context)
        charges = [BucketCharge(limit, bucket, limit.rate)]
        verdict = self._buckets.decide(charges, int(monotonic() * 1e6))
        if verdict is None:
            try:
                verdict = await self._asked(context, charges)
            finally:
                self.settle(context)
        return self._refusal(context, verdict, verdict.refused) if verdict.refused is not None else fault


def _counted_address(context: RequestContext) -> str | None:
    """Whom wrong credentials are counted against: who is behind trusted proxies where it is known."""
    peer = str(context.client[0]) if context.client else ""
    return guesser(origin_of(peer, context.headers.get(b"x-forwarded-for", b""), context.snapshot.trusted_proxies))


def _speaking(selection: Selection, context: RequestContext) -> Sequence[Counting]:
    """Those of a selection that speak of what is asked for."""
    call, grant, arm, endpoint = context.call, context.grant, context.arm, context.endpoint
    assert call is not None and grant is not None and arm is not None
    target = arm.target
    key = call.method, grant.route.name, target.server, target.tool
    known = selection.of.get(key)
    if known is not None:
        return known
    subject = call_subject(context, [one.limit.tools for one in selection.limits])
    found = [
        (one, one.limit.subject_reader(endpoint.path, subject))
        for one in selection.limits
        if one.limit.tools is None or one.limit.tools.take(subject)
    ]
    if call.method in (names.TOOLS_CALL, names.PROMPTS_GET):  # agents can write as many URIs as they like
        if len(selection.of) >= MOST_NAMES:
            selection.of.clear()
        selection.of[key] = found
    return found


def call_subject(context: RequestContext, tools: Iterable[ToolPatterns | None]) -> CallSubject:
    """What a call is about, for rules that look at it by these patterns."""
    call, grant, arm = context.call, context.grant, context.arm
    assert call is not None and grant is not None and arm is not None
    target = arm.target
    subject = CallSubject(_kind(call), grant.route.name, target.server, target.tool)
    if subject.kind == "resource" and not all(one is None or one.uris.free for one in tools):
        subject = subject._replace(known_as=context.endpoint.uris.known_as(target.server, target.tool))
    return subject


def _kind(call: Call) -> str:
    """What is called; of a completion what is completed."""
    if call.method == names.TOOLS_CALL:
        return "tool"
    if call.method == names.COMPLETE:
        return "prompt" if msgspec.json.decode(call.params["ref"])["type"] == "ref/prompt" else "resource"
    return "prompt" if call.method == names.PROMPTS_GET else "resource"
