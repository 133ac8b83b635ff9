"""Several workers before one store, by one clock: whatever they do, no limit lets more through than it says."""

from __future__ import annotations

import random
from collections import Counter

from fastgw.policy.bucket import MICROS, bucket_rate
from fastgw.policy.limits import BucketCharge, Limit
from tests.limits.models import Spent
from tests.limits.test_leases import at_once, charge, clock, held, played
from tests.limits.workers import Clock, Deployment, Worker

__all__ = ["clock"]
LEASED, SLOW, EXACT = Limit("leased"), Limit("slow"), Limit("exact", exact=True)
RATES = [
    charge(LEASED, bucket_rate(50, 1, 1000)),
    charge(SLOW, bucket_rate(60, 60, 300)),
    charge(EXACT, bucket_rate(7, 1, 50)),
]
CALLS = [at_once(500, LEASED), at_once(8, EXACT)]
STEPS = 1000


class Crowd:
    """Workers with calls that run; at times one stands still, or dies and another takes its place."""

    def __init__(self, deployment: Deployment, dice: random.Random) -> None:
        self.deployment, self.dice, self.clock = deployment, dice, deployment.clock
        self.running: dict[Worker, list[list[BucketCharge]]] = {}
        self.still: dict[Worker, int] = {}
        self.beaten: dict[Worker, int] = {}
        self.spent = {one.bucket: Spent(one.rate, one.rate.burst) for one in RATES if one.rate is not None}
        self.hows: Counter[str] = Counter()

    async def join(self) -> None:
        worker = await self.deployment.worker()
        self.running[worker], self.beaten[worker] = [], self.clock.now

    async def step(self) -> None:
        self.clock.go_on(self.dice.choice([0, 100, 10_000, self.dice.randrange(300_000), self.dice.randrange(10**6)]))
        for worker in self.running:
            if self.clock.now - self.beaten[worker] > 500_000 and self.still.get(worker, 0) < self.clock.now:
                self.beaten[worker] = self.clock.now
                await worker.heartbeat()
        worker = self.dice.choice(list(self.running))
        at = self.dice.random()
        if at < 0.02:
            del self.running[worker]  # dead: it says nothing any more
            await self.join()
        elif at < 0.05:
            self.still[worker] = self.clock.now + self.dice.randrange(2 * MICROS)
        elif at < 0.4:
            self._end_some(worker)
        else:
            await self._call(worker)

    def _end_some(self, worker: Worker) -> None:
        running = self.running[worker]
        for _ in range(self.dice.randint(0, len(running))):
            worker.shared.release(running.pop(self.dice.randrange(len(running))))

    async def _call(self, worker: Worker) -> None:
        chosen = self.dice.sample([*RATES, *CALLS], self.dice.choice([1, 1, 2, 3]))
        for _ in range(self.dice.choice([1, 5, 50])):
            charges = [one._replace(cost=self.dice.choice([1, 1, 2, 5])) if one.rate else one for one in chosen]
            verdict = await worker.call(*charges)
            self.hows[verdict.how] += 1
            if verdict.refused is None:
                self.running[worker] += [list(verdict.permits)] if verdict.permits else []
                for one in charges:
                    if one.rate is not None:
                        self.spent[one.bucket].add(self.clock.now, one.cost)
        at_the_same_time = Counter(one.bucket for calls in self.running.values() for some in calls for one in some)
        assert all(at_the_same_time[one.bucket] <= one.most for one in CALLS)


def test_no_limit_lets_more_through_than_it_says(clock: Clock) -> None:
    seed = random.randrange(10**9)

    async def story(deployment: Deployment) -> None:
        crowd = Crowd(deployment, random.Random(seed))
        for _ in range(4):
            await crowd.join()
        for _ in range(STEPS):
            await crowd.step()
        for spent in crowd.spent.values():
            spent.check()
        assert min(crowd.hows["store"], crowd.hows["lease"]) > STEPS / 10
        assert set(crowd.hows) == {"store", "lease"}

    try:
        played(clock, story)
    except AssertionError as wrong:
        raise AssertionError(f"seed {seed}") from wrong


def test_all_that_is_lent_is_spent_or_given_back(clock: Clock) -> None:
    """When all is quiet the store has every token that nobody spent."""

    async def story(deployment: Deployment) -> None:
        workers = [await deployment.worker() for _ in range(4)]
        for _ in range(60):
            for worker in workers:
                assert (await worker.call(RATES[0])).refused is None
        assert sum(map(held, workers)) > 0
        clock.go_on(600_000)
        for worker in workers:
            await worker.heartbeat()
        assert sum(map(held, workers)) == 0
        bucket = deployment.store.model.buckets[deployment.keys.bucket(*RATES[0].bucket)]
        assert (bucket.lent(), bucket.arithmetic.units()) == (0, 240 * 20_000 - 600_000)

    played(clock, story)


def test_a_reset_at_one_worker_is_heard_by_all_with_their_next_sign_of_life(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        first, second = await deployment.worker(), await deployment.worker()
        heard: list[list[str]] = []
        second.shared.on_resets = heard.append
        first.shared.repeat("a reset")
        await first.rest()
        await second.heartbeat()
        assert heard == [["a reset"]]

    played(clock, story)
