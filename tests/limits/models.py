"""What the script does, a second and a third time: its steps in Python, over an arithmetic that can be exchanged.

`Whole` counts with `policy.bucket`, `Naive` in tokens and fractions, from the full side instead of the empty one, and
knows nothing of units, caps and gains but the size of a tick. What workers hold is the same for both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor
from typing import Protocol

from fastgw.limits.script import AT_LEAST, FILL, SHADOW, TAKE, ScriptRequest, ScriptRow
from fastgw.policy.bucket import BucketRate, Lack, now_lacking, wait

LEASE, PERMIT = 2_000_000, 4_000_000  # microseconds, as in the script
ROOM = 10
FOREVER = 2**52
NONE = BucketRate(1, 1, 0, 1)


class Arithmetic(Protocol):
    """One bucket without anything that is held of it."""

    def pass_until(self, rate: BucketRate, now: int, lent: int) -> None: ...
    def take(self, tokens: int) -> None: ...
    def at_least(self, units: int) -> None: ...
    def pause(self, cost: int, now: int) -> int: ...
    def units(self) -> int: ...
    def adopt(self, units: int) -> None: ...


@dataclass
class Whole:
    """By `policy.bucket`."""

    lack: Lack = (0, 0, 0)
    rate: BucketRate = NONE

    def pass_until(self, rate: BucketRate, now: int, lent: int) -> None:
        self.rate = rate
        self._become(now_lacking(self.lack, rate, now, lent), now - now % rate.tick)

    def take(self, tokens: int) -> None:
        self._become(self.lack[0] + tokens * self.rate.price, self.lack[1])

    def at_least(self, units: int) -> None:
        self._become(max(self.lack[0], units), self.lack[1])

    def pause(self, cost: int, now: int) -> int:
        short = self.lack[0] + cost * self.rate.price - self.rate.cap
        return wait(short, self.rate, now) if short > 0 else 0

    def units(self) -> int:
        return self.lack[0]

    def adopt(self, units: int) -> None:
        assert units == self.lack[0]

    def _become(self, units: int, stamp: int) -> None:
        self.lack = max(0, min(units, self.rate.cap)), stamp, self.rate.cap


class Naive:
    """In tokens: `level` of them are there."""

    def __init__(self) -> None:
        self.level, self.burst, self.since = Fraction(0), 0, 0
        self.rate = NONE
        self.resized = False

    def pass_until(self, rate: BucketRate, now: int, lent: int) -> None:
        before, self.burst = self.burst, rate.cap // rate.price
        last, self.rate = self.rate, rate
        self.level = self.level / before * self.burst if before else Fraction(self.burst)
        if before and rate.cap != last.cap:
            self.resized = True
            self.level = Fraction(floor(self.level * rate.price), rate.price)
        last_time, self.since = self.since, now // rate.tick * rate.tick
        ticks = (self.since - last_time) // rate.tick
        self.level = max(Fraction(0), min(self.level + max(0, ticks) * self.each_tick, Fraction(self.burst - lent)))

    @property
    def each_tick(self) -> Fraction:
        return Fraction(self.rate.gain, self.rate.price)

    def take(self, tokens: int) -> None:
        self.level = min(Fraction(self.burst), max(Fraction(0), self.level - tokens))

    def at_least(self, units: int) -> None:
        self.level = max(Fraction(0), min(self.level, self.burst - Fraction(units, self.rate.price)))

    def pause(self, cost: int, now: int) -> int:
        if self.level >= cost:
            return 0
        return min(FOREVER, ceil((cost - self.level) / self.each_tick) * self.rate.tick - now % self.rate.tick)

    def units(self) -> int:
        exact = (self.burst - self.level) * self.rate.price
        assert exact.denominator == 1
        return int(exact)

    def adopt(self, units: int) -> None:
        """Where sizes change, the others count in doubles: the last unit may differ."""
        assert abs(units - self.units()) <= self.resized
        self.resized = False
        self.level = self.burst - Fraction(units, self.rate.price)


@dataclass
class Bucket:
    """A bucket with what each worker holds of it, and until when; and the last order that made it full."""

    arithmetic: Arithmetic
    held: dict[str, tuple[int, int]] = field(default_factory=dict)
    filled: int = 0

    def lent(self, but: str = "") -> int:
        return sum(tokens for who, (tokens, _) in self.held.items() if who != but)

    def begin(self, now: int) -> tuple[int, int]:
        """Tokens that ran out since, and when the last of them did."""
        ended = [(tokens, till) for tokens, till in self.held.values() if till <= now]
        living = {who: (tokens, till) for who, (tokens, till) in self.held.items() if till > now}
        self.held = {who: (tokens, min(till, now + PERMIT)) for who, (tokens, till) in living.items()}
        return sum(tokens for tokens, _ in ended), max((till for _, till in ended), default=0)


@dataclass
class Told:
    """What a model answers: as `Reply`, of buckets alone."""

    held: list[int]
    checks: list[list[int]]


class Model:
    """All buckets, by key."""

    def __init__(self, arithmetic: Callable[[], Arithmetic]) -> None:
        self._arithmetic = arithmetic
        self.buckets: dict[str, Bucket] = {}

    def decide(self, request: ScriptRequest, worker: str, now: int, doubles: Model | None = None) -> Told:
        """One call of the script.

        Args:
            doubles: the model that counts as the script does, already asked.
        """
        used = [self._hear(row, worker, now) for row in request.rows]
        if doubles is not None:
            for key, units in doubles.heard.items():
                self.buckets[key].arithmetic.adopt(units)
        rates = [row.key for row in request.rows if row.rate is not None]
        self.heard = {key: self.buckets[key].arithmetic.units() for key in rates}
        checks = [self._check(check, request.rows, used, worker, now) for check in request.checks]
        held = [self._lend(row, used[at], worker, now) for at, row in enumerate(request.rows)]
        return Told(held, checks)

    def _hear(self, row: ScriptRow, worker: str, now: int) -> int:
        """The worker's word on a bucket; of calls, how many it runs."""
        bucket = self.buckets.setdefault(row.key, Bucket(self._arithmetic()))
        gone, ended = bucket.begin(now)
        if row.rate is None:
            return row.held
        if gone:
            bucket.arithmetic.pass_until(row.rate, ended, bucket.lent() + gone)
        bucket.arithmetic.pass_until(row.rate, now, bucket.lent())
        before, _ = bucket.held.pop(worker, (0, 0))
        given = min(row.back, before)
        if held := min(row.held, before - given):
            bucket.held[worker] = held, now + LEASE
        if given:
            bucket.arithmetic.take(-given)
            bucket.arithmetic.at_least(min(row.rate.burst, bucket.lent()) * row.rate.price)
        return 0

    def _check(self, check: list[int], rows: list[ScriptRow], used: list[int], worker: str, now: int) -> list[int]:
        items = [(place - 1, cost, mode) for place, cost, mode in zip(*[iter(check)] * 3, strict=True)]
        refused, longest, shadows = 0, -1, 0
        for at, (place, cost, mode) in enumerate(items):
            row, bucket = rows[place], self.buckets[rows[place].key]
            if row.rate is None:
                full, pause = bucket.lent(worker) + used[place] + cost > row.most, 0
            else:
                pause = bucket.arithmetic.pause(cost, now)
                full = pause > 0
            if full and mode == SHADOW:
                shadows |= 1 << at
            elif full and mode < SHADOW and pause > longest:
                refused, longest = at + 1, pause
        lacking = []
        for at, (place, cost, mode) in enumerate(items):
            row, bucket = rows[place], self.buckets[rows[place].key]
            counts = mode == TAKE or (mode <= SHADOW and not refused and not shadows >> at & 1)
            if row.rate is None:
                used[place] += cost if counts else 0
                lacking.append(bucket.lent(worker) + used[place])
                continue
            if mode == AT_LEAST:
                bucket.arithmetic.at_least(cost)
            elif mode == FILL:
                self._fill(bucket, row, cost)
            elif counts:
                bucket.arithmetic.take(cost)
            lacking.append(bucket.arithmetic.units())
        return [refused, max(0, longest), shadows, *lacking]

    def _fill(self, bucket: Bucket, row: ScriptRow, order: int) -> None:
        """Make it full but for what is lent; an order is heeded once."""
        assert row.rate is not None
        if order != bucket.filled:
            bucket.filled = order
            bucket.arithmetic.take(-row.rate.burst)
            bucket.arithmetic.at_least(min(row.rate.burst, bucket.lent()) * row.rate.price)

    def _lend(self, row: ScriptRow, used: int, worker: str, now: int) -> int:
        """What the worker holds in the end."""
        bucket = self.buckets[row.key]
        if row.rate is None:
            room = row.most - bucket.lent(worker) - used
            allotted = used + (row.ahead if row.ahead and room >= ROOM * row.ahead else 0)
            bucket.held.pop(worker, None)
            if allotted:
                bucket.held[worker] = allotted, now + PERMIT
            return allotted
        held, _ = bucket.held.get(worker, (0, 0))
        if row.ahead and not bucket.arithmetic.pause(ROOM * row.ahead, now):
            bucket.arithmetic.take(row.ahead)
            held += row.ahead
            bucket.held[worker] = held, now + LEASE
        return held


class Spent:
    """What was let through of one bucket, and when: never more than a burst and what the time gives back."""

    def __init__(self, rate: BucketRate, allowed: int) -> None:
        self.rate, self.allowed = rate, Fraction(allowed)
        self._events: list[tuple[int, int]] = []

    def add(self, at: int, tokens: int) -> None:
        self._events.append((at, tokens))

    def check(self) -> None:
        """Every window at once: the most that one brought since the best moment to begin."""
        worst, last = Fraction(0), 0
        for at, tokens in sorted(self._events):
            worst = max(Fraction(0), worst - Fraction((at - last) * self.rate.gain, self.rate.price)) + tokens
            assert worst <= self.allowed, (self.rate, float(worst))
            last = at
