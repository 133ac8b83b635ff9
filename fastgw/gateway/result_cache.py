"""Results of tools with `cache`: kept for a while for equal calls of the same agent, and shared by those that come
while one of them is under way. Each worker has its own.

What is kept is the server's result, not an agent's answer: agents of every revision get theirs made of it.

under way --its result may be kept--> over        whoever waits is answered with it
under way --refused, failed, an error--> over     each goes on by itself; who comes next waits for one of them
under way --its agent left--> over                one of those who wait goes on, the others wait for that one
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import NamedTuple

from fastgw.catalog.route import Arm, Checks, Deadlines, Target
from fastgw.errors import Fault, Kind
from fastgw.policy.match import Principal
from fastgw.protocol.call import Call
from fastgw.protocol.quick import QuickResult
from fastgw.telemetry.counters import Counters

ROOM = 64 * 2**20
"""Bytes that one worker keeps."""
LARGEST = 2**20
"""Bytes of a result that is kept."""
OVERHEAD = 1024
"""Bytes that are counted for one result beside its own and its arguments': the objects around them."""


class ResultKey(NamedTuple):
    """What calls have in common that are answered alike. Where a reload changes one of these, nothing is found.

    Args:
        endpoint: its path.
        principal: what one agent was told, no other hears; nor one whose claims were others.
        seconds: `Arm.cache`: a shorter time holds for what is there, too.
        targets: where such calls go, in order.
        checks: what the result was held to.
        passed: headers that its server may read (`Call.passed`).
        sent_as: what else servers are shown of who asks: (server, `SentAs.alike`).
        arguments: JSON text, as they are sent.
    """

    endpoint: str
    principal: Principal
    tool: str
    seconds: float
    targets: tuple[Target, ...]
    checks: Checks | None
    passed: tuple[tuple[bytes, bytes], ...]
    sent_as: tuple[tuple[str, bytes], ...]
    arguments: bytes


def key_of(endpoint: str, principal: Principal, call: Call, arm: Arm) -> ResultKey | None:
    """The key of a call of a tool; None where more than its arguments decides about its result: the rounds of one that
    asked for input (2026-07-28, Base Protocol, Caching).
    """
    arguments = call.params.get("arguments")
    if len(call.params) != (arguments is not None):
        return None
    name = call.name or ""
    sent_as = tuple([(server, one.alike) for server, one in call.sent_as.items()]) if call.sent_as else ()
    return ResultKey(
        endpoint, principal, name, arm.cache, arm.targets, arm.checks, call.passed, sent_as, arguments or b"{}"
    )


class KeptResult(NamedTuple):
    """A complete result of a tool, not an error, as its server gave it.

    Args:
        result: in the usual shape, or as JSON text.
        server: whose URIs it holds.
        expires: CLOCK_MONOTONIC seconds from which on it is not used any more.
    """

    result: QuickResult | bytes
    server: str
    expires: float

    @property
    def size(self) -> int:
        """Bytes of it."""
        found = self.result
        if isinstance(found, bytes):
            return len(found)
        return len(found.content) + len(found.structured) + len(found.meta)


class KeptResults:
    """Results by key, bounded in bytes; what was used longest ago goes first."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._kept: dict[ResultKey, KeptResult] = {}
        """The one used last stands last."""
        self.held = 0
        """Bytes."""

    def get(self, key: ResultKey, now: float) -> KeptResult | None:
        """The result of this key, if it is fresh at `now`, CLOCK_MONOTONIC seconds."""
        found = self._kept.pop(key, None)
        if found is None:
            return None
        if found.expires <= now:
            self.held -= _weight(key, found)
            return None
        self._kept[key] = found
        return found

    def put(self, key: ResultKey, result: KeptResult, now: float) -> None:
        """Keep a result in place of what was there. What makes room for it, or has expired and was used before all that
        has not, goes.
        """
        before = self._kept.pop(key, None)
        if before is not None:
            self.held -= _weight(key, before)
        self._kept[key] = result
        self.held += _weight(key, result)
        while self._kept:
            oldest, found = next(iter(self._kept.items()))
            if self.held <= self._room and found.expires > now:
                break
            del self._kept[oldest]
            self.held -= _weight(oldest, found)


def _weight(key: ResultKey, result: KeptResult) -> int:
    shown = sum([len(value) for _, value in (*key.passed, *key.sent_as)])
    return OVERHEAD + len(key.arguments) + shown + result.size


class Flight:
    """A call on its way to its server. `over` is its result where equal calls may have that, None where not; cancelled
    where its agent has left.
    """

    def __init__(self, key: ResultKey, on_over: Callable[[Flight, KeptResult | None], None]) -> None:
        self.key = key
        self.over: asyncio.Future[KeptResult | None] = asyncio.get_running_loop().create_future()
        self._on_over = on_over

    def complete(self, result: QuickResult | bytes, server: str, fresh: float = inf) -> None:
        """The server `server` has given this result, which it lets be kept for `fresh` seconds."""
        seconds = min(self.key.seconds, fresh)
        kept = KeptResult(result, server, monotonic() + seconds)
        self._end(kept if seconds > 0.0 and kept.size <= LARGEST else None)

    def fail(self) -> None:
        """It has no result that another call may have; of no effect once it is complete."""
        self._end(None)

    def abandon(self) -> None:
        """Its agent has left; of no effect once it is complete."""
        if not self.over.done():
            self._on_over(self, None)
            self.over.cancel()

    def _end(self, kept: KeptResult | None) -> None:
        if not self.over.done():
            self._on_over(self, kept)
            self.over.set_result(kept)


class ResultCache:
    """The results that one worker keeps, and its flights."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._kept = KeptResults()
        self._flights: dict[ResultKey, Flight] = {}

    def get(self, key: ResultKey) -> KeptResult | None:
        """What is kept of an equal call."""
        found = self._kept.get(key, monotonic())
        if found is not None:
            self._counters.inc("fastgw_cache_total", "hit")
        return found

    async def share(self, key: ResultKey, deadlines: Deadlines) -> KeptResult | Flight:
        """The result of an equal call that is under way, or a flight of this call's own: `settle` it.

        Raises:
            Fault: TIMEOUT, not `sent`, where the other takes longer than this one has.
        """
        due = monotonic() + deadlines.total
        while (other := self._flights.get(key)) is not None:
            await asyncio.wait((other.over,), timeout=max(0.0, due - monotonic()))
            if not other.over.done():
                data = {"timeoutMs": round(deadlines.whole * 1000)}
                raise Fault(Kind.TIMEOUT, detail="an equal call, waited for, was not answered in time", data=data)
            left = other.over.cancelled()
            found = self._kept.get(key, monotonic()) if left else other.over.result()
            if found is not None:
                self._counters.inc("fastgw_cache_total", "shared")
                return found
            if not left:
                break
        self._counters.inc("fastgw_cache_total", "miss")
        flight = Flight(key, self._end)
        self._flights.setdefault(key, flight)
        return flight

    def settle(self, flight: Flight, outcome: str) -> None:
        """The call is over, in the words of usage events; of no effect once its flight is complete."""
        if outcome == "cancelled":
            flight.abandon()
        else:
            flight.fail()

    def _end(self, flight: Flight, kept: KeptResult | None) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
        if kept is not None:
            self._kept.put(flight.key, kept, monotonic())
            self._counters.gauge(self._kept.held, "fastgw_cache_bytes")
