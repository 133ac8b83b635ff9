"""Workers that share buckets: `SharedBuckets` with all that is below it, before any store.

`Worker` asks as the gateway does: what is held, then the store. `Deployment` is several of them before a store of the
test's own, by one clock that is set by hand; `connected` is one before a real store.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

from fastgw.config.schema.store import StorePlace
from fastgw.limits.batcher import Batcher, StoreConnection
from fastgw.limits.redis_connection import RedisConnection
from fastgw.limits.script import StoreKeys
from fastgw.limits.shared_buckets import SharedBuckets
from fastgw.policy.bucket import MICROS
from fastgw.policy.limits import BucketCharge, LimitVerdict
from tests.limits.fakes import Caller, FakeStore, Spawner, until
from tests.policy.test_bucket import START

WORKERS = 8
HEARTBEAT = 0.5


class Clock:
    """CLOCK_MONOTONIC of all workers; the store's is `START` ahead."""

    def __init__(self) -> None:
        self.now = 5_000 * MICROS

    def go_on(self, micros: int) -> None:
        self.now += micros

    def seconds(self) -> float:
        return (self.now + 0.5) / MICROS  # that the whole microsecond comes out again

    def of_store(self) -> int:
        return START + self.now


class Worker:
    """One worker."""

    def __init__(self, connection: StoreConnection, name: str, workers: int = WORKERS) -> None:
        self.connection, self.spawner = connection, Spawner()
        keys = StoreKeys("fastgw")
        self.batcher = Batcher(connection, keys, name, self.spawner.spawn)
        self.counted: Counter[tuple[str, ...]] = Counter()
        self.shared = SharedBuckets(keys, self.batcher, self._count, workers)
        self.now = lambda: int(monotonic() * MICROS)

    def _count(self, *labels: str) -> None:
        self.counted[labels] += 1

    async def call(self, *charges: BucketCharge) -> LimitVerdict:
        """The verdict on a call."""
        verdict = self.shared.decide(charges, self.now())
        if verdict is not None:
            return verdict
        caller = Caller(charges)
        self.shared.ask(caller)
        return await caller.wait()

    async def run(self) -> None:
        """Find the store, then give signs of life."""
        await self.shared.begin()
        while True:
            await asyncio.sleep(HEARTBEAT)
            self.shared.heartbeat(self.now())

    async def heartbeat(self) -> None:
        """A sign of life, and all that goes with it, until nothing is under way."""
        self.shared.heartbeat(self.now())
        await self.rest()

    async def rest(self) -> None:
        """Return when nothing is under way."""
        await until(lambda: not self.spawner.tasks)

    async def close(self) -> None:
        await self.spawner.close()
        await self.connection.close()
        assert self.spawner.failed == []


class Deployment:
    """Workers before a model of the store, by one clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.store, self.keys = clock, FakeStore(clock.of_store), StoreKeys("fastgw")
        self.workers: list[Worker] = []

    async def worker(self) -> Worker:
        """One more, that has found the store."""
        made = Worker(self.store, f"w{len(self.workers)}")
        made.now = lambda: self.clock.now
        self.workers.append(made)
        await made.shared.begin()
        return made

    async def close(self) -> None:
        for worker in self.workers:
            await worker.close()


@asynccontextmanager
async def connected(place: StorePlace, name: str, workers: int = WORKERS) -> AsyncIterator[Worker]:
    """A worker before a real store, that gives signs of life."""
    worker = Worker(RedisConnection(place), name, workers)
    worker.spawner.spawn(worker.run(), "run")
    try:
        async with asyncio.timeout(5):
            while worker.shared.state == "away":
                await asyncio.sleep(0.005)
        yield worker
    finally:
        await worker.close()
