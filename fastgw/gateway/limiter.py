"""Rate limits, and calls at the same time: what a call counts in, what it hears when it is one too many."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, replace
from heapq import nlargest
from ipaddress import ip_address, ip_network
from itertools import islice
from math import ceil
from time import monotonic
from typing import Any, NamedTuple

import msgspec

from fastgw.catalog.route import Arm
from fastgw.config.limitchecks import FAILED_CREDENTIALS
from fastgw.errors import Fault, Kind
from fastgw.gateway.context import RequestContext
from fastgw.gateway.orders import Order, Orders
from fastgw.limits.admission import Admission
from fastgw.limits.buckets import Buckets
from fastgw.policy.bucket import BucketRate
from fastgw.policy.limits import (
    ApplyingLimits,
    CallSubject,
    Limit,
    Subject,
    SubjectReader,
    applying,
    override_table,
    shown,
)
from fastgw.policy.principal import Claim
from fastgw.policy.verdict import BucketCharge, BucketState, LimitVerdict
from fastgw.protocol import names
from fastgw.protocol.call import Call
from fastgw.snapshot.model import Snapshot
from fastgw.telemetry.counters import Counters, Top

log = logging.getLogger("fastgw")

MOST_SELECTIONS = 200_000
"""Agents of which it is remembered which limits speak of them."""
MOST_NAMES = 20_000
"""Tools and prompts of which the same is remembered: servers may give theirs other names without end."""
NETWORK = 64
"""Bits of an IPv6 address that tell one client from another (RFC 6177)."""
SOON = 1
"""Seconds after which a call is told to come back where nobody can tell when another one ends."""


Spawn = Callable[[Coroutine[Any, Any, Any], str], asyncio.Task[Any]]


class Counting(NamedTuple):
    """How a limit counts the calls of one tool or prompt, or of one server's resources.

    Made once: with each part of each subject looked up for each call, a call that counts in four buckets cost 1.2 times
    what reading its envelope costs, so 0.7 (`python -m bench limits`).

    Args:
        asks: whether it looks at the arguments.
        subject: the bucket of an agent.
        calls: what its buckets of calls at the same time are kept under.
    """

    applies: ApplyingLimits
    asks: bool
    subject: SubjectReader
    calls: str


class Selection(NamedTuple):
    """The limits that may count one class of agents on one endpoint.

    Args:
        limits: in the order of the configuration.
        of: how those count that speak of one tool or prompt, by method, name, server and its own name; how all of them
            count one server's resources, by `RESOURCE` and server.
        by_uri: whether any of them tells resources apart.
    """

    limits: tuple[ApplyingLimits, ...]
    of: dict[tuple[str, ...], tuple[Counting, ...]]
    by_uri: bool


class _KnownAgent(NamedTuple):
    """What was found for one agent; its claims are looked at again where they are another object."""

    claims: dict[str, Claim]
    selection: Selection


class _Reference(msgspec.Struct):
    type: str


_REFERENCE = msgspec.json.Decoder(_Reference).decode
BEAT = 0.5
"""Seconds between two looks at what is idle, and two signs of life to a store."""
READY_WITHIN = 1.0
"""Seconds a worker waits for the store before it serves without."""
REPORTED = 100
"""Buckets, and agents, that a report names."""
SLICE = 500
"""Buckets that are looked at before calls have their turn: about 1 ms."""
RESOURCE = "resource"
_METHODS = {"tool": names.TOOLS_CALL, "prompt": names.PROMPTS_GET}
_SHOWN_TOOLS = frozenset(_METHODS.values())


class Limiter:
    """Holds one worker's calls to the limits.

    Args:
        buckets: where they are kept.
        counters: of this worker.
        orders: of operators.
    """

    def __init__(self, buckets: Buckets, counters: Counters, orders: Orders) -> None:
        self._buckets = buckets
        self._counters = counters
        self.orders = orders
        self._limits: tuple[Limit, ...] = ()
        self._known: dict[tuple[str, str], _KnownAgent] = {}
        self._selections: dict[tuple[str, tuple[ApplyingLimits, ...]], Selection] = {}
        self._figures: BucketRate | None = None
        self._strangers = Limit(FAILED_CREDENTIALS, ("address",))
        orders.reset = self.reset
        self.refused: Top[tuple[str, str]] = Top()
        """(limit, subject) of those who are refused most."""

    def load(self, snapshot: Snapshot) -> None:
        """Go by the limits of this snapshot. Buckets stay as they are: they are known by name."""
        self._figures = snapshot.failed_credentials
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
            await asyncio.sleep(BEAT)
            try:
                self._beat()
            except Exception:  # without signs of life the store takes this worker's calls for over
                log.exception("limits could not be looked after")

    def _beat(self) -> None:
        self._buckets.beat(int(monotonic() * 1e6))
        self._counters.gauge(self._buckets.state == "up", "fastgw_store_up")
        held = self._buckets.held()
        for limit in self._limits:
            self._counters.gauge(held.get(limit.name, 0), "fastgw_limit_held", limit.name)

    # -- a call ------------------------------------------------------------------------------------------------------

    async def admit(self, context: RequestContext) -> None:
        """Count the call, or refuse it.

        Raises:
            Fault: RATE_LIMITED; FULL where a limit that must hold cannot be checked.
        """
        charges = self.charges(context) if self._limits else ()
        if not charges:
            return
        verdict = await self._verdict(context, charges)
        context.verdict = verdict
        for limit in verdict.shadowed:
            self._counters.inc("fastgw_limit_refusals_total", limit.name, "shadow")
        if verdict.refused is not None:
            raise self._refusal(context, verdict, verdict.refused)
        self._counters.inc("fastgw_limit_decisions_total", verdict.how, "admitted")

    async def _verdict(self, context: RequestContext, charges: Sequence[BucketCharge]) -> LimitVerdict:
        admission = context.admission = Admission(charges)
        verdict = self._buckets.decide(charges, int(monotonic() * 1e6))
        if verdict is not None:
            admission.verdict = verdict
            return verdict
        self._buckets.ask(admission)
        return await admission.wait()

    def settle(self, context: RequestContext) -> None:
        """The call is over, however it ended."""
        admission = context.admission
        if admission is not None and (permits := admission.close()):
            self._buckets.release(permits)

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

    def charges(self, context: RequestContext) -> list[BucketCharge]:
        """The buckets that the call counts in."""
        call, arm = context.call, context.arm
        assert call is not None and arm is not None
        selection = self._selection(context)
        if not selection.limits:
            return []
        weight, principal, found = arm.weight, context.principal, []
        for applies, asks, read, calls in self._speaking(selection, context, call, arm):
            limit = applies.limit
            table, figures = applies.tariff
            if asks:
                arguments = call.params.get("arguments", b"{}")
                if not applies.counts(arguments):
                    continue
                table, figures = applies.tariff_for(arguments)
            subject = read(principal)
            if figures is not None:
                if self.orders.raises:
                    figures = self.orders.raised(limit.name, subject, figures)
                cost = weight if weight < 2 else min(weight, figures.burst)
                found.append(BucketCharge(limit, (table, subject), figures, cost))
            if limit.in_flight is not None:
                found.append(BucketCharge(limit, (calls, subject), None, 1, limit.in_flight))
        return found

    def _selection(self, context: RequestContext) -> Selection:
        principal, endpoint = context.principal, context.endpoint.path
        key = endpoint, principal.agent
        known = self._known.get(key)
        if known is not None and known.claims is principal.claims:
            return known.selection
        found = applying(self._limits, principal, endpoint)
        selection = self._selections.get((endpoint, found))
        if selection is None:
            by_uri = any(one.limit.tools is not None and not one.limit.tools.uris.free for one in found)
            selection = self._selections[endpoint, found] = Selection(found, {}, by_uri)
        if len(self._known) >= MOST_SELECTIONS:
            self._known.clear()
        self._known[key] = _KnownAgent(principal.claims, selection)
        return selection

    def _speaking(self, selection: Selection, context: RequestContext, call: Call, arm: Arm) -> Sequence[Counting]:
        """Those of a selection that speak of what is asked for."""
        grant, target, endpoint = context.grant, arm.targets[0], context.endpoint.path
        assert grant is not None
        known = selection.of.get((call.method, grant.route.name, target.server, target.tool))
        if known is not None:
            return known
        matter = _matter(context, selection)
        if matter.kind == RESOURCE:  # agents can write as many URIs as they like: none is remembered
            key: tuple[str, ...] = RESOURCE, matter.server
            if key not in selection.of:
                selection.of[key] = tuple([_counting(one, endpoint, matter) for one in selection.limits])
            return [one for one in selection.of[key] if _speaks(one.applies, matter)]
        key = _METHODS[matter.kind], matter.name, matter.server, matter.own
        speaking = [one for one in selection.limits if _speaks(one, matter)]
        if len(selection.of) >= MOST_NAMES:
            selection.of.clear()
        found = selection.of[key] = tuple([_counting(one, endpoint, matter) for one in speaking])
        return found

    # -- operators ---------------------------------------------------------------------------------------------------

    def reset(self, order: Order) -> None:
        """Make buckets of a limit full."""
        if order.subject is None:
            self._buckets.reset_all(order.limit, order.number)
            return
        strangers = replace(self._strangers, figures=self._figures)
        limit = next((one for one in (*self._limits, strangers) if one.name == order.limit), None)
        if limit is None:
            return
        tables = [(limit.name, limit.figures)]
        tables += [(override_table(limit, one), one.figures) for one in limit.overrides]
        subject = subject_of(order.subject)
        charges = [BucketCharge(limit, (table, subject), figures) for table, figures in tables if figures]
        self._buckets.reset(charges, order.number)

    async def report(self) -> dict[str, Any]:
        """How the limits stand here, fit for JSON: fullest buckets, who is refused most, what operators have raised."""
        standings: list[BucketState] = []
        for at, one in enumerate(self._buckets.standings(int(monotonic() * 1e6))):
            if at % SLICE == SLICE - 1:
                standings = nlargest(REPORTED, standings, key=_fullness)
                await asyncio.sleep(0)  # calls go on meanwhile
            standings.append(one)
        return {
            "buckets": [asdict(one) for one in nlargest(REPORTED, standings, key=_fullness)],
            "refused": [
                {"limit": limit, "subject": subject, "calls": calls}
                for (limit, subject), calls in islice(self.refused, REPORTED)
            ],
            "raises": self.orders.told(),
            "store": self._buckets.state,
        }

    # -- strangers ---------------------------------------------------------------------------------------------------

    async def throttle_failed_login(self, context: RequestContext, fault: Fault) -> Fault:
        """What a wrong credential hears: `fault`, or, from an address that has shown too many, RATE_LIMITED."""
        if self._figures is None or fault.kind is not Kind.WRONG_CREDENTIAL:
            return fault
        bucket = FAILED_CREDENTIALS, _address(context.client)
        try:
            verdict = await self._verdict(context, [BucketCharge(self._strangers, bucket, self._figures)])
        finally:
            self.settle(context)
        if verdict.refused is None:
            return fault
        return self._refusal(context, verdict, verdict.refused)


def _address(client: Sequence[object] | None) -> str | None:
    """Whom wrong credentials are counted against: an address; of IPv6 the network, since whoever has one has it all."""
    host = str(client[0]) if client else ""
    try:
        found = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if found.version == 6 and found.ipv4_mapped is None:
        return str(ip_network((int(found), NETWORK), strict=False))
    return str(found if found.version == 4 else found.ipv4_mapped)


def _fullness(standing: BucketState) -> float:
    return standing.used


def _speaks(applies: ApplyingLimits, matter: CallSubject) -> bool:
    tools = applies.limit.tools
    return tools is None or tools.take(matter)


def _counting(applies: ApplyingLimits, endpoint: str, matter: CallSubject) -> Counting:
    limit, asks = applies.limit, applies.match is not None or bool(applies.overrides)
    return Counting(applies, asks, limit.subject_reader(endpoint, matter), f"{limit.name}\n*")


def _matter(context: RequestContext, selection: Selection) -> CallSubject:
    """What the call is about. Of a completion it is what is completed."""
    call, arm, grant = context.call, context.arm, context.grant
    assert call is not None and arm is not None and grant is not None
    target, name = arm.targets[0], grant.route.name
    if call.method in _SHOWN_TOOLS:
        return CallSubject("tool" if call.method == names.TOOLS_CALL else "prompt", name, target.server, target.tool)
    if call.method == names.COMPLETE and _REFERENCE(call.params["ref"]).type == "ref/prompt":
        return CallSubject("prompt", name, target.server, target.tool)
    known_as = context.endpoint.uris.known_as(target.server, target.tool) if selection.by_uri else ()
    return CallSubject(RESOURCE, name, target.server, target.tool, known_as)


def subject_of(parts: Sequence[str | None]) -> Subject:
    """A subject of its values, in the order of `by`."""
    return parts[0] if len(parts) == 1 else tuple(parts)
