"""One request: what each step of the pipeline has found out, how long it took, and its deadlines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from fastgw.catalog.metering import Meter
from fastgw.catalog.route import Arm
from fastgw.errors import Fault
from fastgw.gateway.access import Access
from fastgw.gateway.quota_charges import Estimate
from fastgw.gateway.result_cache import Flight
from fastgw.limits.batch import AwaitedAdmission
from fastgw.limits.quota_account import Reservation
from fastgw.policy.limits import LimitVerdict
from fastgw.policy.match import ANONYMOUS, Principal
from fastgw.protocol.call import Call
from fastgw.protocol.trace_context import TraceContext
from fastgw.snapshot.model import Endpoint, Grant, Snapshot, View
from fastgw.upstream.call_context import Attempt

if TYPE_CHECKING:
    from fastgw.gateway.dialects.dialect import Dialect

log = logging.getLogger("fastgw")

SLOTS = 4096
"""Calls that a worker writes down while it carries them, at most (`processes/quarantine.py`)."""
PERIOD = 0.02
"""Seconds between two rounds: how much later than at once a leaving agent is noticed."""
_SERVERS_FAULT = 500
"""The lowest `statusCode` that is not the agent's doing."""
_LONGEST_NAME = 200
"""Letters of a name that the log shows."""


class WatchedConnection(Protocol):
    """A connection whose end somebody wants to know of."""

    def watch(self, left: Callable[[], None]) -> None:
        """Call `left` once if the agent goes away before its answer is complete."""


class StepTimes:
    """When each step of a request began; the one before ended then. Made only where the endpoint has `server_timing`:
    everywhere else no clock is read for it.

    Args:
        started: CLOCK_MONOTONIC seconds when the request arrived, which is when *accept* began.
    """

    __slots__ = ("_begun",)

    def __init__(self, started: float) -> None:
        self._begun = [("accept", started)]

    def begin(self, step: str) -> None:
        """This step begins now."""
        self._begun.append((step, monotonic()))

    def header(self) -> tuple[bytes, bytes]:
        """`Server-Timing` (W3C) with the steps until now, in milliseconds to the microsecond.

        What comes after the head of an answer it cannot know: the rest of *relay*, and *settle*.
        """
        ends = [begun for _, begun in self._begun[1:]] + [monotonic()]
        entries = [
            f"{step};dur={max(0.0, end - begun) * 1000:.3f}"
            for (step, begun), end in zip(self._begun, ends, strict=True)
        ]
        return b"server-timing", ", ".join(entries).encode("ascii")


class RequestContext(msgspec.Struct, eq=False):
    """Filled in by the steps of the pipeline, from top to bottom.

    Args:
        request_id: the id agents, logs and usage events share.
        snapshot: taken once by `accept`, kept to the end.
        started: CLOCK_MONOTONIC seconds when the request arrived.
        timestamp: Unix seconds when it had been read.
        headers: by lower-case name; `twice`: names that came more than once.
        reply_to: the JSON-RPC id that a refusal answers, as JSON text; `null` until one is known.
        method: the JSON-RPC method, as soon as it is known.
        access: what is kept of who calls; None until that is known.
        client: (address, port) of the connection; None where the server does not say.
        admission: what it asked of the limits; stands here before that is waited for.
        verdict: what the limits said; None where none speaks of it.
        reserved: what it has taken of accounts of quotas, until it is over; by which estimate of what it uses.
        attempts: to have it answered by a server, in order.
        cached: its result is that of an equal call; waited: seconds that it waited for one.
        number: of the request, in its worker; `fingerprint`: as what its call is written down while it is carried.
        flight: what equal calls wait for while this one is under way; None where its results are not kept.
        latency_us: microseconds that it took, once it is over; overhead_us: of these, not waiting for servers.
        sent: how many attempts may have reached a server, once it is over.
        tokens_in, tokens_out: as its result says; None where it does not.
        meter: by which that was read.
        cost: in billionths of the currency, once it is over; None where nobody has given a price.
        held: bytes of its body that count against the worker's budget.
        body_due: CLOCK_MONOTONIC seconds by which its body must be here; 0 while none is awaited.
        cors: headers that let a browser hand its answer to the page that asked; empty for everybody else.
        trace: what it is part of; None where neither the agent nor we have begun a trace.
        steps: how long they took, where its endpoint wants that said.
        watched: the connection whose end withdraws it; looked at once it takes longer than most do.
        outcome: how it ended, in the words of usage events; *cancelled* until something better is known.
    """

    request_id: str
    snapshot: Snapshot
    endpoint: Endpoint
    dialect: Dialect
    headers: dict[bytes, bytes]
    twice: frozenset[bytes]
    started: float
    timestamp: float = 0.0
    number: int = 0
    reply_to: bytes = b"null"
    method: str = ""
    access: Access | None = None
    principal: Principal = ANONYMOUS
    view: View | None = None
    call: Call | None = None
    grant: Grant | None = None
    arm: Arm | None = None
    tool: str | None = None
    attempts: list[Attempt] = []
    cached: bool = False
    waited: float = 0.0
    fingerprint: int = 0
    flight: Flight | None = None
    latency_us: int = 0
    overhead_us: int = 0
    sent: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    tokens_in: int | None = None
    tokens_out: int | None = None
    meter: Meter | None = None
    cost: int | None = None
    held: int = 0
    outcome: str = "cancelled"
    status: int = 499
    error_code: int | None = None
    refused_by: str | None = None
    client: Sequence[Any] | None = None
    admission: AwaitedAdmission | None = None
    verdict: LimitVerdict | None = None
    reserved: Sequence[Reservation] = ()
    estimate: Estimate | None = None
    task: asyncio.Task[Any] | None = None
    agent_gone: bool = False
    withdrawn: bool = False
    expired: bool = False
    body_due: float = 0.0
    too_slow: bool = False
    cors: Sequence[tuple[bytes, bytes]] = ()
    watched: WatchedConnection | None = None
    trace: TraceContext | None = None
    steps: StepTimes | None = None

    @property
    def trace_id(self) -> str | None:
        """The agent's, or our own where its trace begins here: 32 hex digits."""
        return None if self.trace is None else self.trace.trace_id

    @property
    def times_sent(self) -> int:
        """How many attempts may have reached a server."""
        return sum([attempt.sent for attempt in self.attempts])

    def refuse(self, fault: Fault) -> None:
        """It ends with this fault: what observers want to know, and in the log what only operators may read."""
        kind = fault.kind
        self.outcome, self.status, self.error_code = kind.outcome, kind.rest, self.dialect.code(fault)
        if fault.detail:
            # What agents do wrong is theirs to mend; it must not fill the log.
            level = logging.WARNING if kind.rest >= _SERVERS_FAULT else logging.DEBUG
            name = self.call.name if self.call is not None else None
            log.log(level, "%s %s %s: %s", self.request_id, self.method, (name or "")[:_LONGEST_NAME], fault)

    def charge(self) -> None:
        """It is over: what it cost, by the price of the server that answered, or was tried last."""
        meter = self.meter or self._meter_of_last()
        if meter is not None and meter.price is not None:
            is_free = self.cached or not self.sent
            self.cost = 0 if is_free else meter.price.cost(self.tokens_in or 0, self.tokens_out or 0)

    def _meter_of_last(self) -> Meter | None:
        if self.arm is None or not self.arm.targets:
            return None
        if not self.attempts:
            return self.arm.meter(self.arm.target.server, self.arm.target.tool)
        last = self.attempts[-1]
        return self.arm.meter(last.address.server, last.target.tool)

    def end(self, now: float) -> None:
        """It is answered, or will not be, at `now` (CLOCK_MONOTONIC seconds): what observers want to know."""
        waiting = now - self.started
        self.latency_us = int(waiting * 1e6)
        if self.waited:
            waiting -= self.waited
        for attempt in self.attempts:
            waiting -= attempt.waited
            self.sent += attempt.sent
        self.overhead_us = int(waiting * 1e6) if waiting > 0.0 else 0

    def leave(self) -> None:
        """The agent is gone and that ends its call: what awaits on its behalf is interrupted."""
        if not self.agent_gone and self.task is not None:
            self.agent_gone = True
            self.task.cancel()

    def withdraw(self) -> None:
        """The agent is there but has cancelled its call: interrupted likewise, and not answered."""
        self.withdrawn = True
        self.leave()

    def expire(self) -> None:
        """The worker that carries it ends now: interrupted, and answered."""
        if self.task is not None and not self.agent_gone:
            self.expired = True
            self.task.cancel()

    def check_deadlines(self, now: float) -> None:
        """It is not over at `now` (CLOCK_MONOTONIC seconds), so it is one of the slow ones."""
        if 0.0 < self.body_due < now and self.task is not None:
            self.body_due = 0.0
            self.too_slow = True
            self.task.cancel()
        if self.watched is not None:
            watched, self.watched = self.watched, None
            watched.watch(self.leave)


class DeadlineSweep:
    """Looks after the requests of one worker that take long, so that quick ones pay nothing for it.

    A timer and a pending `receive` for every request cost about 25 us of CPU together, most of it wake-ups between the
    server's thread and ours; nine requests in ten are over before either could matter. So one timer goes round for
    all, and only while there are requests.
    """

    def __init__(self) -> None:
        self._requests: set[RequestContext] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, context: RequestContext) -> None:
        """Look after this request until it is removed."""
        self._requests.add(context)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PERIOD, self._round)

    def remove(self, context: RequestContext) -> None:
        """It is over."""
        self._requests.discard(context)

    def _round(self) -> None:
        now = monotonic()
        for context in [one for one in self._requests if one.started <= now - PERIOD]:
            try:
                context.check_deadlines(now)
            except Exception:  # one request must not end the round for all others
                log.exception("%s could not be looked after", context.request_id)
        self._timer = asyncio.get_running_loop().call_later(PERIOD, self._round) if self._requests else None
