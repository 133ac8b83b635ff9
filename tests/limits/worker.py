"""One worker as a process of its own: it shares buckets with others and writes down what was let through, and when.

Run by `processes.Crowd`. It is sent a `Task`, says `ready` when it has found the store, works when it is told anything,
and sends a `Record`. CLOCK_MONOTONIC is the same for all processes.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from time import monotonic

import uvloop

from fastgw.config.schema.store import StorePlace
from fastgw.limits import batcher, redis_connection
from fastgw.policy.bucket import bucket_rate
from fastgw.policy.limits import BucketCharge, Limit, LimitVerdict
from tests.limits.workers import Worker, connected

ALL, AGENT, PAIR = Limit("all", exact=True), Limit("agent", ("agent",)), Limit("pair", ("agent", "tool"))
FEW, MANY = Limit("few", exact=True), Limit("many")
RATES = {"all": (100, 1, 100), "agent": (60, 1, 300), "pair": (30, 1, 200)}
MOST = {"few": 6, "many": 300}
AGENTS, TOOLS = 3, 3
PAUSE = 0.02  # seconds after a refusal
PATIENT = 5.0  # seconds for an answer: a machine that is busy is not to be taken for a store that is away


@dataclass
class Task:
    """What a worker is to do.

    Args:
        name: letters and digits.
        seconds: to work.
        hold: work differently: take so many of `few` and never give them back.
    """

    name: str
    place: StorePlace
    seconds: float
    hold: int = 0


@dataclass
class Record:
    """What it did.

    Args:
        passed: by bucket, when each token was taken.
        refused: when a call that counts in `all` alone was.
        ran: by limit, when each call at the same time began and ended.
        hows: verdicts by who decided.
        errors: of the store, by kind.
        slowest: seconds that a verdict took; p99 of them.
    """

    passed: dict[str, list[float]] = field(default_factory=dict)
    refused: list[float] = field(default_factory=list)
    ran: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    hows: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    p99: float = 0.0


def rate(limit: Limit, *subject: str) -> BucketCharge:
    """A charge of one of the rates."""
    known = subject[0] if len(subject) == 1 else subject
    return BucketCharge(limit, (limit.name, known or None), bucket_rate(*RATES[limit.name]))


def at_once(limit: Limit) -> BucketCharge:
    """A charge of one of the limits on calls at the same time."""
    return BucketCharge(limit, (f"{limit.name}\n*", None), None, 1, MOST[limit.name])


def some_call(dice: random.Random, kind: int) -> list[BucketCharge]:
    """What a call counts in."""
    agent, tool = f"agent{dice.randrange(AGENTS)}", f"tool{dice.randrange(TOOLS)}"
    if kind == 0:
        return [rate(ALL)]
    if kind == 1:
        return [rate(AGENT, agent)]
    if kind == 2:
        return [rate(AGENT, agent), rate(PAIR, agent, tool)]
    return [at_once(FEW)] if kind == 3 else [at_once(MANY)]


class Work:
    """All that one worker does for a task."""

    def __init__(self, worker: Worker, seconds: float) -> None:
        self.worker, self.end = worker, monotonic() + seconds
        self.record = Record()
        self.took: list[float] = []
        self.calls: list[asyncio.Task[None]] = []

    async def all(self) -> Record:
        """Ten agents, two of each kind."""
        await asyncio.gather(*(self._agent(at % 5, random.Random()) for at in range(10)))
        await asyncio.gather(*self.calls)
        self.took.sort()
        for (name, *labels), count in self.worker.counted.items():
            if name == "fastgw_store_errors_total":
                self.record.errors[labels[0]] += count
        self.record.slowest, self.record.p99 = self.took[-1], self.took[int(0.99 * len(self.took))]
        return self.record

    async def _agent(self, kind: int, dice: random.Random) -> None:
        while monotonic() < self.end:
            began = monotonic()
            charges = some_call(dice, kind)
            verdict = await self.worker.call(*charges)
            now = monotonic()
            self.took.append(now - began)
            self.record.hows[verdict.how] += 1
            if verdict.refused is not None:
                if kind == 0:
                    self.record.refused.append(now)
                await asyncio.sleep(PAUSE)
                continue
            for charge in charges:
                if charge.rate is not None:
                    self.record.passed.setdefault(str(charge.bucket), []).append(now)
            if kind == 4:  # a long call; the agent does not wait for its end
                self.calls.append(asyncio.create_task(self._run(verdict, now, 0.5 + dice.random())))
            else:
                await self._run(verdict, now, PAUSE * dice.random() * len(verdict.permits))
            await asyncio.sleep(dice.random() * PAUSE / 2)

    async def _run(self, verdict: LimitVerdict, began: float, seconds: float) -> None:
        await asyncio.sleep(max(0.0, min(seconds, self.end - began)))
        ended = monotonic()
        for charge in verdict.permits:
            self.record.ran.setdefault(charge.limit.name, []).append((began, ended))
        self.worker.shared.release(verdict.permits)


async def work(task: Task, test: Connection) -> Record:
    """The task, from the test's next word on."""
    async with connected(task.place, task.name) as worker:
        test.send("ready")
        await asyncio.to_thread(test.recv)
        if not task.hold:
            return await Work(worker, task.seconds).all()
        held = [await worker.call(at_once(FEW)) for _ in range(task.hold)]
        test.send(sum(verdict.refused is None for verdict in held))
        await asyncio.sleep(task.seconds)
        return Record()


def main(test: Connection) -> None:
    """One task after another, until killed."""
    batcher.DEADLINE = redis_connection.CONNECT_WITHIN = PATIENT
    while True:
        test.send(uvloop.run(work(test.recv(), test)))
