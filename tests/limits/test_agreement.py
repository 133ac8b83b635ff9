"""Random calls of the script, its clock thrown forward and back: the server, Python and a naive model say the same.

All steps are made up beforehand, with what the models say of each; then the server is asked for all of them together.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from fastgw.limits.memory_buckets import MemoryBuckets
from fastgw.limits.script import AT_LEAST, ENFORCE, FILL, SHADOW, TAKE, ScriptRequest, ScriptRow
from fastgw.policy.bucket import MICROS, BucketRate, bucket_rate
from fastgw.policy.limits import BucketCharge, Limit
from tests.limits.models import Model, Naive, Spent, Told, Whole
from tests.limits.played import Played, Step
from tests.limits.valkeys import Valkey
from tests.policy.test_bucket import START

SEED = int(os.environ.get("FASTGW_SEED", random.randrange(10**9)))
STEPS = 10_000
EACH = 500  # steps sent together
HELD_FOR = 1_600_000  # microseconds for which a worker spends what it holds
DAY = 86_400
CHOICES = [
    bucket_rate(*one)
    for one in [
        (1, 1, 1), (1, 1, 40), (7, 60, 7), (7, 60, 1000), (10, 1, 100), (1000, 1, 1000), (1000, 1, 3000), (3, 7, 500),
        (999_983, DAY, 999_983), (100_000_007, DAY, 100_000_007), (1, DAY, 10**6), (10**6, 1, 10**6), (1, DAY, 10**9),
    ]
]  # fmt: skip


@pytest.fixture(scope="module")
def started() -> Iterator[Valkey]:
    with Valkey() as server:
        yield server


@pytest.fixture
def server(started: Valkey) -> Valkey:
    started.ask("FLUSHALL")
    return started


@dataclass
class Clock:
    """The time that is played, and how much of it went by, counted forward alone, in ticks of each length."""

    dice: random.Random
    steady: bool = False
    now: int = START
    gone_by: dict[int, int] = field(default_factory=lambda: {1: 0, 1000: 0, MICROS: 0})

    def go_on(self, hint: int) -> None:
        """A step, at times to the instant that was told as `hint`, or just before it."""
        at = self.dice.random()
        step = self.dice.choice(
            [0, 1, self.dice.randrange(1000), self.dice.randrange(10**6), self.dice.randrange(10**7)]
        )
        if at < 0.02 and not self.steady:
            step = -self.dice.choice([1, self.dice.randrange(10**7), self.dice.randrange(10**10)])
        elif at < 0.03:
            step = self.dice.choice([10**9, 10**11, 10**13])
        elif at < 0.3 and 0 < hint < 10**12:
            step = hint - self.dice.randrange(2)
        for tick in self.gone_by:
            self.gone_by[tick] += max(0, (self.now + step) // tick - self.now // tick)
        self.now += step


def some_checks(dice: random.Random, rows: list[ScriptRow], most: int = 3) -> list[list[int]]:
    """Calls that want something of some of the rows."""
    checks = []
    for _ in range(dice.randint(1, most)):
        check: list[int] = []
        for place in dice.sample(range(len(rows)), dice.randint(1, min(3, len(rows)))):
            rate = rows[place].rate
            burst = rate.burst if rate is not None else 1
            cost = dice.choice([0, 1, 1, 1, burst, dice.randint(0, burst), dice.randint(0, 1 + burst // 20)])
            check += (place + 1, min(cost, burst), SHADOW if dice.random() < 0.2 else ENFORCE)
        checks.append(check)
    return checks


# -- without leases: as `store: memory` ------------------------------------------------------------------------------


def charges_of(check: list[int], rows: list[ScriptRow]) -> list[BucketCharge]:
    """What one worker alone is asked instead."""
    made = []
    for place, cost, mode in zip(*[iter(check)] * 3, strict=True):
        row = rows[place - 1]
        made.append(BucketCharge(Limit(row.key, shadow=mode == SHADOW), (row.key, None), row.rate, cost))
    return made


def told_by_memory(memory: MemoryBuckets, check: list[int], rows: list[ScriptRow], now: int) -> list[object]:
    """Place of the refusal, seconds to wait, shadow refusals."""
    charges = charges_of(check, rows)
    verdict = memory.decide(charges, now)
    place = charges.index(verdict.refused) + 1 if verdict.refused is not None else 0
    return [place, verdict.wait, sum(1 << at for at, one in enumerate(charges) if one.limit in verdict.shadowed)]


class Alone:
    """One worker. Memory's clock never goes back, and it keeps a bucket as it was when it last took something of it:
    so one whose rate change is touched before and after."""

    def __init__(self) -> None:
        self.dice = random.Random(SEED)
        self.clock = Clock(self.dice, steady=True)
        self.memory, self.whole, self.naive = MemoryBuckets(), Model(Whole), Model(Naive)
        self.rate = {f"{{agree}}:{name}": self.dice.choice(CHOICES) for name in range(8)}
        self.steps: list[Step] = []
        self.expected: list[Told] = []

    def go_on(self) -> None:
        self.clock.go_on(self.expected[-1].checks[0][1] if self.expected else 0)
        if self.dice.random() < 0.01:
            key = self.dice.choice(list(self.rate))
            for rate in (self.rate[key], self.dice.choice(CHOICES)):
                self.rate[key] = rate
                self._ask([ScriptRow(key, rate)], [1, 0, ENFORCE])
        keys = self.dice.sample(list(self.rate), self.dice.randint(1, 3))
        rows = [ScriptRow(key, self.rate[key]) for key in keys]
        self._ask(rows, some_checks(self.dice, rows, most=1)[0])

    def _ask(self, rows: list[ScriptRow], check: list[int]) -> None:
        request, now = ScriptRequest(rows, [check]), self.clock.now
        told = self.whole.decide(request, "w1", now)
        assert self.naive.decide(request, "w1", now, self.whole) == told, SEED
        refused, pause, shadows, *_ = told.checks[0]
        assert told_by_memory(self.memory, check, rows, now) == [refused, pause / MICROS, shadows], SEED
        self.steps.append((request, "w1", now))
        self.expected.append(told)


def test_the_server_memory_and_a_naive_model_agree(server: Valkey) -> None:
    print("seed", SEED)
    alone = Alone()
    while len(alone.steps) < STEPS:
        alone.go_on()
    assert_told(Played(server.client(), "agree"), alone.steps, alone.expected)


def assert_told(played: Played, steps: list[Step], expected: list[Told]) -> None:
    """The server says what the models do."""
    for first in range(0, len(steps), EACH):
        replies = played.ask_all(steps[first : first + EACH])
        for at, (reply, told) in enumerate(zip(replies, expected[first:], strict=False)):
            assert Told(reply.held, reply.checks) == told, (SEED, first + at, steps[first + at])


# -- with leases, and all that a batch may carry --------------------------------------------------------------------


@dataclass
class Lease:
    """What a worker believes to hold of a bucket; `fresh`: when, in time gone by, it was told; `seen`: still good."""

    tokens: int = 0
    fresh: int = 0
    seen: int = 0


class Deployment:
    """Two workers that spend, give back, forget and come again; the models say what the store answers."""

    def __init__(self) -> None:
        self.dice = random.Random(SEED)
        self.clock = Clock(self.dice)
        self.whole, self.naive = Model(Whole), Model(Naive)
        self.rate = {f"{{agree}}:{name}": self.dice.choice(CHOICES) for name in range(6)}
        self.most = {f"{{agree}}:calls{name}": self.dice.choice([1, 10, 200]) for name in range(2)}
        self.leases = {(key, who): Lease() for key in self.rate for who in ("w1", "w2")}
        self.spent = {key: Spent(rate, rate.burst) for key, rate in self.rate.items()}
        self.hint = 0
        self.order = 1

    def gone_by(self, key: str) -> int:
        return self.clock.gone_by[self.rate[key].tick]

    def step(self) -> tuple[Step, Told]:
        self._go_on()
        worker = self.dice.choice(["w1", "w2"])
        rows = [self._row(key, worker) for key in self.dice.sample([*self.rate, *self.most], self.dice.randint(1, 4))]
        request = ScriptRequest(rows, some_checks(self.dice, rows))
        rates = [place for place, row in enumerate(rows, 1) if row.rate is not None]
        if rates and self.dice.random() < 0.2:
            request.checks.append(self._order(self.dice.choice(rates), rows))
        told = self.whole.decide(request, worker, self.clock.now)
        assert self.naive.decide(request, worker, self.clock.now, self.whole) == told, SEED
        self._hear(request, told, worker)
        return (request, worker, self.clock.now), told

    def _go_on(self) -> None:
        self.clock.go_on(self.hint)
        for (key, _), lease in self.leases.items():
            if self.clock.gone_by[1] - lease.fresh < HELD_FOR:
                lease.seen = self.gone_by(key)
            elif lease.tokens:  # spent as late as could be
                self.spent[key].add(lease.seen, lease.tokens)
                lease.tokens = 0
        if self.dice.random() < 0.01:
            self._change(self.dice.choice(list(self.rate)), self.dice.choice(CHOICES))

    def _change(self, key: str, rate: BucketRate) -> None:
        """Another configuration. What is held stays, so it may be more than the new burst."""
        self.spent[key].check()
        self.rate[key] = rate
        held = sum(self.leases[key, who].tokens for who in ("w1", "w2"))
        self.spent[key] = Spent(rate, max(rate.burst, held))

    def _row(self, key: str, worker: str) -> ScriptRow:
        if key in self.most:
            most = self.most[key]
            return ScriptRow(
                key, most=most, held=self.dice.randint(0, 1 + most // 2), ahead=self.dice.choice([0, 1, most // 20])
            )
        lease, rate = self.leases[key, worker], self.rate[key]
        spends = self.dice.randint(0, lease.tokens)
        back = self.dice.choice([0, 0, lease.tokens - spends, self.dice.randint(0, lease.tokens - spends)])
        self.spent[key].add(self.gone_by(key), spends)
        lease.tokens -= spends + back
        ahead = self.dice.choice([0, 0, 1, self.dice.randint(0, 1 + rate.burst // 10), rate.burst // 100])
        return ScriptRow(key, rate, 0, lease.tokens, back, ahead)

    def _order(self, place: int, rows: list[ScriptRow]) -> list[int]:
        rate = rows[place - 1].rate
        assert rate is not None
        mode = self.dice.choice([TAKE, TAKE, AT_LEAST, FILL])
        amount = self.dice.randint(0, rate.cap if mode == AT_LEAST else 2 * rate.burst)
        if mode == FILL:
            amount = self.dice.choice([self.order, self.order + 1])
            self.order = amount
        return [place, amount, mode]

    def _hear(self, request: ScriptRequest, told: Told, worker: str) -> None:
        self.hint = max(answer[1] for answer in told.checks)
        for check, (refused, _, shadows, *_) in zip(request.checks, told.checks, strict=True):
            for at, (place, cost, mode) in enumerate(zip(*[iter(check)] * 3, strict=True)):
                row = request.rows[place - 1]
                if mode == FILL:
                    self._filled(row.key)
                elif row.rate is not None and mode <= SHADOW and not refused and not shadows >> at & 1:
                    self.spent[row.key].add(self.gone_by(row.key), cost)
        for row, held in zip(request.rows, told.held, strict=True):
            bucket = self.whole.buckets[row.key]
            if row.rate is not None:
                self.leases[row.key, worker] = Lease(held, self.clock.gone_by[1], self.gone_by(row.key))
                least = min(row.rate.cap, bucket.lent() * row.rate.price)
                assert bucket.arithmetic.units() >= least, SEED
            else:
                assert bucket.lent() <= max(row.most, row.held + bucket.lent(worker)), SEED

    def _filled(self, key: str) -> None:
        """An operator made it full: what was let through before no longer counts."""
        self.spent[key].check()
        held = sum(self.leases[key, who].tokens for who in ("w1", "w2"))
        self.spent[key] = Spent(self.rate[key], max(self.rate[key].burst, held))


KEPT = re.compile(r"(\d+) (\d+) (\d+)(?: (\d+))?((?:;\w+ \d+ \d+)*)")


def test_the_server_and_the_models_agree_on_leases_and_orders(server: Valkey) -> None:
    print("seed", SEED)
    deployment = Deployment()
    steps, expected = zip(*(deployment.step() for _ in range(STEPS)), strict=True)
    for spent in deployment.spent.values():
        spent.check()
    client = server.client(decode_responses=False)
    assert_told(Played(client, "agree"), list(steps), list(expected))
    for key in deployment.rate:
        bucket = deployment.whole.buckets[key]
        kept = client.get(key)
        found = KEPT.fullmatch(kept.decode()) if kept is not None else None
        units = int(found[1]) if found is not None else 0
        holders = re.findall(r";(\w+) (\d+) (\d+)", found[5]) if found is not None else []
        assert int(found[4] or 0) == bucket.filled if found is not None else not bucket.filled
        assert units == bucket.arithmetic.units(), SEED
        assert {who: (int(held), int(till)) for who, held, till in holders} == bucket.held, SEED
