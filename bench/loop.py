"""The loops of the load generator, each answer checked: closed (a connection sends when it has its answer) and open
(calls are due at times of their own, whether or not the target keeps up; latency counts from when a call was *due*).
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from bench import processes
from bench.client import Connection, connect
from bench.messages import Target

PATIENCE = 10.0
"""Seconds for the last answers to come in after the load has ended."""
SAMPLES = 5
now = time.monotonic
"""Not the loop's clock: uvloop's stands still for a millisecond at a time."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to load.

    Args:
        connections: keep-alive, all open before the first call.
        seconds: how long is measured, after `warm` seconds that are not.
        rate: calls per second, Poisson arrivals; 0 for the closed loop.
    """

    connections: int = 32
    seconds: float = 2.0
    warm: float = 0.5
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run showed.

    Args:
        calls: answered rightly within the measured time.
        seconds: of it.
        cpu: CPU seconds of the metered process tree in that time; 0 where none was metered.
        errors: wrong, lost or missing answers in the whole run, the first few of them in `samples`.
        latencies: seconds; of the open loop from the time a call was due.
        late: open loop: how late this program itself was in sending. Where it nears `latencies`, believe neither.
        own: share of one core that this program itself took in that time.
    """

    calls: int
    seconds: float
    cpu: float
    errors: int
    samples: tuple[str, ...]
    latencies: list[float]
    late: list[float]
    own: float = 0.0

    @property
    def rate(self) -> float:
        """Calls per second."""
        return self.calls / self.seconds

    @property
    def cpu_per_call(self) -> float:
        """CPU microseconds per call; 0 where there were no calls."""
        return self.cpu / self.calls * 1e6 if self.calls else 0.0


@dataclass(slots=True)
class _Count:
    """What both desks count."""

    calls: int = 0
    errors: int = 0
    samples: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)


class Closed:
    """Every connection sends its next call when it has its answer. The first wrong answer ends the run."""

    def __init__(self) -> None:
        self.count = _Count()
        self.loop = asyncio.get_running_loop()
        self.stopped = asyncio.Event()
        self.due: deque[float] = deque()
        """When the calls were due that no connection was free for, oldest first; the closed loop has none."""

    def start(self, connections: list[Connection], plan: Plan) -> None:
        """Let all connections send their first call."""
        for connection in connections:
            connection.send(now())

    def done(self, connection: Connection, intended: float) -> None:
        """See `client.Desk`."""
        instant = now()
        self.count.calls += 1
        self.count.latencies.append(instant - intended)
        if not self.stopped.is_set():
            connection.send(instant)

    def wrong(self, connection: Connection, what: str) -> None:
        """See `client.Desk`."""
        self.count.errors += 1
        if len(self.count.samples) < SAMPLES:
            self.count.samples.append(what)
        self.stopped.set()


class Open(Closed):
    """Calls are due by a clock; one that finds no idle connection waits, and its waiting counts."""

    def __init__(self) -> None:
        super().__init__()
        self.idle: deque[Connection] = deque()

    def start(self, connections: list[Connection], plan: Plan) -> None:
        """Begin the schedule."""
        self.idle.extend(connections)
        self.schedule = self.loop.create_task(self.run(plan.rate))

    async def run(self, rate: float) -> None:
        """Send what is due. The loop's timers count milliseconds, so this spins between calls and takes a core."""
        dice = random.Random(rate)
        due = now()
        while not self.stopped.is_set():
            instant = now()
            while due <= instant:
                self.due.append(due)
                due += dice.expovariate(rate)
            while self.due and self.idle:
                self.send(self.idle.popleft())
            await asyncio.sleep(0)

    def send(self, connection: Connection) -> None:
        """The oldest call that is due."""
        intended = self.due.popleft()
        self.count.late.append(now() - intended)
        connection.send(intended)

    def done(self, connection: Connection, intended: float) -> None:
        """See `client.Desk`."""
        self.count.calls += 1
        self.count.latencies.append(now() - intended)
        if self.due:
            self.send(connection)
        else:
            self.idle.append(connection)


class Paced(Open):
    """An open loop that sleeps between calls: it leaves the machine to what is measured. How late its own timer wakes
    it (a millisecond) is in `late` and not in the latencies.
    """

    async def run(self, rate: float) -> None:
        """See `Open.run`."""
        dice = random.Random(rate)
        due = now()
        while not self.stopped.is_set():
            await asyncio.sleep(max(0.0, due - now()))
            if self.stopped.is_set():
                return
            instant = now()
            while due <= instant:
                self.count.late.append(instant - due)
                self.due.append(instant)
                due += dice.expovariate(rate)
            while self.due and self.idle:
                self.send(self.idle.popleft())

    def send(self, connection: Connection) -> None:
        """The oldest call that is due."""
        connection.send(self.due.popleft())


SHARES = {"p50": 50, "p90": 90, "p99": 99, "p99.9": 99.9, "max": 100}


def percentile(seconds: list[float], share: float) -> int:
    """Microseconds that `share` percent of these do not exceed; 0 where there are none."""
    at = max(0, math.ceil(len(seconds) * share / 100) - 1)
    return round(sorted(seconds)[at] * 1e6) if seconds else 0


def percentiles(seconds: list[float]) -> dict[str, int]:
    """Microseconds by the usual names."""
    return {f"{name}_us": percentile(seconds, share) for name, share in SHARES.items()}


async def run(
    target: Target,
    plan: Plan,
    meter: Callable[[], processes.Reading | None] = lambda: None,
    open_loop: type[Open] = Open,
) -> Outcome:
    """Load the target; `meter` is read when the measured time begins and when it ends, `open_loop` keeps a rate.

    Raises:
        OSError: the target does not listen.
        processes.LostProcess: a metered process ended.
    """
    desk = open_loop() if plan.rate else Closed()
    connections = await connect(desk, target, plan.connections)
    desk.start(connections, plan)
    await _until(desk.stopped, plan.warm)
    warm = desk.count
    desk.count = _Count(errors=warm.errors, samples=warm.samples)
    before, begun, spent = meter(), now(), time.process_time()
    await _until(desk.stopped, plan.seconds)
    own = time.process_time() - spent
    after, seconds, calls = meter(), now() - begun, desk.count.calls
    desk.stopped.set()
    await _drain(desk, connections)
    cpu = processes.spent(before, after) if before and after else 0.0
    count = desk.count
    if not calls and not count.errors:
        count.errors, count.samples = 1, ["no answer at all"]
    samples = tuple(count.samples)
    return Outcome(calls, seconds, cpu, count.errors, samples, count.latencies, count.late, own / seconds)


async def _until(stopped: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stopped.wait(), seconds)
    except TimeoutError:
        return


async def _drain(desk: Closed, connections: list[Connection]) -> None:
    """Wait for the last answers, then hang up; what is missing by then was never answered."""
    deadline = now() + PATIENCE
    while any(one.waiting and not one.over for one in connections) and now() < deadline:
        await asyncio.sleep(0.005)
    for one in connections:
        if one.waiting and not one.over:
            one.fail(f"no answer within {PATIENCE:g} s")
        one.close()
    if desk.due:
        desk.count.errors += len(desk.due)
        desk.count.samples.append(f"{len(desk.due)} calls were due and never sent")
    await asyncio.sleep(0)
