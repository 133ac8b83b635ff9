"""Bulkheads: how many calls are at a server at the same time, and how many more wait for a place.

Waiters go in by turns of their teams, first in first out within one. Where the queue is full, a team that has few
there takes the place of the newest one of the team that has most.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from math import ceil

from fastgw.errors import Fault
from fastgw.policy.match import Principal
from fastgw.snapshot.model import Backend
from fastgw.telemetry.counters import Counters
from fastgw.upstream.call_context import Attempt
from fastgw.upstream.transports import down

LONGEST_RETRY = 60
"""Seconds after which a refused call may come again, at most."""
_UNBOUNDED = 2**31


class Bulkhead:
    """The places at one server, and who waits for one; not more than the part of one worker.

    Attributes:
        inside: calls that have a place. While any wait, all places are taken.
        waiting: calls in the queue.
    """

    def __init__(self, most: int, queue: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most, self.queue = most, queue
        self.inside = self.waiting = 0
        self._clock = clock
        self._waiters: dict[str, dict[asyncio.Future[bool], None]] = {}
        """By team, whose turn it is first; each in order of arrival. True lets one in, False refuses it."""
        self._pace, self._freed = 0.0, 0.0
        """Seconds between two places that became free while calls waited, on average, and when the last one did."""

    def enter(self, team: str) -> Awaitable[bool] | None:
        """Take a place, to be given back by `leave`: at once (None), or as soon as what is returned, to be awaited
        at once, is true. Where that is false the queue has no room for this call, or none any more.
        """
        if self.inside < self.most:
            self.inside += 1
            return None
        return self._wait(team, self._line_up(team))

    def refuses(self, team: str) -> bool:
        """Whether a call of this team would find neither a place nor room in the queue."""
        return self.inside >= self.most and self.waiting >= self.queue and self._greediest(team) is None

    def leave(self) -> None:
        """A call that had a place is over."""
        self.inside -= 1
        if self.waiting:
            now = self._clock()
            self._pace += (now - self._freed - self._pace) / self.most
            self._freed = now
            self._let_in()

    def resize(self, most: int, queue: int) -> None:
        """Calls that have a place keep it, and those that wait go on waiting."""
        self.most, self.queue = most, queue
        self._let_in()

    def retry_after(self) -> int:
        """Whole seconds in which those who wait now will have had their turn, about."""
        if not self.waiting:
            return 1
        pace = max(self._pace, (self._clock() - self._freed) / self.most)  # they may all hang
        return max(1, min(LONGEST_RETRY, ceil(pace * (self.waiting + 1))))

    def _line_up(self, team: str) -> asyncio.Future[bool]:
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self.waiting >= self.queue:
            greediest = self._greediest(team)
            if greediest is None:
                waiter.set_result(False)
                return waiter
            newest = self._drop(greediest, next(reversed(self._waiters[greediest])))
            if not newest.done():
                newest.set_result(False)
        if not self.waiting:
            self._freed = self._clock()
        self._waiters.setdefault(team, {})[waiter] = None
        self.waiting += 1
        return waiter

    async def _wait(self, team: str, waiter: asyncio.Future[bool]) -> bool:
        try:
            return await waiter
        except BaseException:
            if waiter in self._waiters.get(team, ()):
                self._drop(team, waiter)
            elif waiter.done() and not waiter.cancelled() and waiter.result():
                self.leave()  # let in, and withdrawn before it could hear of that: the place goes to the next
            raise

    def _greediest(self, team: str) -> str | None:
        """The team whose newest waiter gives way to a call of this one; after that it must still not have fewer."""
        if not self._waiters:
            return None
        greediest = max(self._waiters, key=lambda one: len(self._waiters[one]))
        has = len(self._waiters.get(team, ()))
        return greediest if has + 1 < len(self._waiters[greediest]) else None

    def _let_in(self) -> None:
        while self.inside < self.most and self._waiters:
            team = next(iter(self._waiters))
            waiter = self._drop(team, next(iter(self._waiters[team])))
            if team in self._waiters:
                self._waiters[team] = self._waiters.pop(team)  # the others come first now
            if not waiter.done():
                self.inside += 1
                waiter.set_result(True)

    def _drop(self, team: str, waiter: asyncio.Future[bool]) -> asyncio.Future[bool]:
        waiters = self._waiters[team]
        del waiters[waiter]
        self.waiting -= 1
        if not waiters:
            del self._waiters[team]
        return waiter


class Bulkheads:
    """One worker's part of the bulkheads of all servers; survives a reload.

    Attributes:
        worker: which one it is, from 1, and of how many: each has its part of the places.
    """

    def __init__(self, counters: Counters) -> None:
        self.worker = 1, 1
        self._counters = counters
        self._known: dict[str, Bulkhead] = {}

    def load(self, backends: Mapping[str, Backend]) -> None:
        """Go by what these servers may have at the same time."""
        for name, bulkhead in self._known.items():
            if name not in backends or backends[name].max_in_flight is None:
                bulkhead.resize(_UNBOUNDED, 0)  # those who are inside count where it gets a bound again
        for name, backend in backends.items():
            if backend.max_in_flight is not None:
                # One at least: without a place this worker's calls would wait for nothing.
                most, queue = self._part(backend.max_in_flight) or 1, self._part(backend.queue)
                if name in self._known:
                    self._known[name].resize(most, queue or min(backend.queue, 1))
                else:
                    self._known[name] = Bulkhead(most, queue or min(backend.queue, 1))

    def has_room(self, backend: Backend) -> bool:
        """Whether a call would have a place there at once."""
        bulkhead = self._known.get(backend.name) if backend.max_in_flight is not None else None
        return bulkhead is None or bulkhead.inside < bulkhead.most

    def check(self, server: str, principal: Principal) -> None:
        """Raises Fault NO_SERVER, busy: a call would not even find room in the queue."""
        bulkhead = self._known.get(server)
        if bulkhead is not None and bulkhead.refuses(team_of(principal)):
            raise self._refusal(server, bulkhead)

    async def enter(self, attempt: Attempt, principal: Principal) -> None:
        """Have a place at the attempt's server, to be given back by its `leave`.

        Raises:
            Fault: NO_SERVER, busy: the queue is full, or the call's time has passed.
        """
        server = attempt.address.server
        bulkhead = self._known.get(server)
        if bulkhead is None:  # it is not configured any more
            return
        entering = bulkhead.enter(team_of(principal))
        if entering is not None:
            self._tell(server, bulkhead)
            began = time.monotonic()
            try:
                async with asyncio.timeout(attempt.deadlines.total):
                    if not await entering:
                        raise self._refusal(server, bulkhead)
            except TimeoutError:
                raise down(f"{server}: no place within {attempt.deadlines.total:g} s", "busy") from None
            finally:
                attempt.queued = time.monotonic() - began
                self._tell(server, bulkhead)

        def leave() -> None:
            bulkhead.leave()
            self._tell(server, bulkhead)

        attempt.leave = leave
        self._tell(server, bulkhead)

    def _part(self, whole: int) -> int:
        number, workers = self.worker
        return whole // workers + (number <= whole % workers)

    def _refusal(self, server: str, bulkhead: Bulkhead) -> Fault:
        self._counters.inc("fastgw_bulkhead_refusals_total", server)
        refusal = down(f"{server}: {bulkhead.most} calls are there and {bulkhead.waiting} wait", "busy")
        refusal.retry_after = bulkhead.retry_after()
        return refusal

    def _tell(self, server: str, bulkhead: Bulkhead) -> None:
        gauges: MutableMapping[tuple[str, ...], float] = self._counters.gauges
        gauges["fastgw_bulkhead_in_flight", server] = bulkhead.inside
        gauges["fastgw_bulkhead_waiting", server] = bulkhead.waiting


def team_of(principal: Principal) -> str:
    """Among whom places are shared evenly: the claim `team`, else the agent."""
    team = principal.claims.get("team")
    return f"agent {principal.agent}" if team is None else f"team {team}"
