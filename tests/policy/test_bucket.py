"""The arithmetic of one bucket: the vectors it shares with the script, and the laws behind them.

`bucket_vectors.json` is a list of stories about one bucket each, told by a clock that is set by hand. A step tries to
take `cost` tokens `at` some microsecond (`wait`: it is refused for so long), has another worker take some in advance
(`lend`) and say later that it has `spent` them or gives them `back`, or brings another rate (`rate`, `burst`).
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from fastgw.policy.bucket import (
    FASTEST,
    MICROS,
    MOST_BURST,
    MOST_UNITS,
    MOST_WAIT,
    TICKS,
    BucketRate,
    Lack,
    bucket_rate,
    now_lacking,
    wait,
)

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "bucket_vectors.json").read_text("utf-8"))
DAY = 86_400
START = 1_700_000_000 * MICROS


@dataclass
class Kept:
    """A bucket as a store keeps it."""

    rate: BucketRate
    lack: Lack = (0, 0, 0)
    lent: int = 0

    def lacking(self, now: int) -> int:
        units = now_lacking(self.lack, self.rate, now, self.lent)
        self.lack = units, now - now % self.rate.tick, self.rate.cap
        return units

    def change(self, now: int, tokens: int) -> None:
        """So many tokens more are gone."""
        units = self.lacking(now) + tokens * self.rate.price
        self.lack = max(0, units), now - now % self.rate.tick, self.rate.cap

    def take(self, now: int, cost: int) -> int:
        """Microseconds to wait; 0: taken."""
        short = self.lacking(now) + cost * self.rate.price - self.rate.cap
        if short > 0:
            return wait(short, self.rate, now)
        self.change(now, cost)
        return 0


@pytest.mark.parametrize("story", VECTORS, ids=lambda story: story["law"])
def test_the_vectors(story: dict[str, Any]) -> None:
    kept = Kept(bucket_rate(*story["rate"], story["burst"]))
    for step in story["steps"]:
        if "rate" in step:
            kept.rate = bucket_rate(*step["rate"], step["burst"])
            continue
        now = START + step["at"]
        if "cost" in step:
            assert kept.take(now, step["cost"]) == step.get("wait", 0), step
        elif "lend" in step:
            kept.change(now, step["lend"])
            kept.lent += step["lend"]
        elif "spent" in step:
            kept.lacking(now)
            kept.lent -= step["spent"]
        else:
            kept.change(now, -step["back"])
            kept.lent -= step["back"]
        assert kept.lack[0] == step["lacking"], step


def some_rate(dice: random.Random) -> BucketRate:
    seconds = dice.choice([1, 1, 60, 3600, DAY, dice.randint(1, DAY)])
    calls = dice.randint(1, min(FASTEST * seconds, 10 ** dice.randint(1, 10)))
    return bucket_rate(calls, seconds, dice.randint(1, 10 ** dice.randint(1, 9)))


def test_every_rate_is_exact_and_every_sum_fits_a_double() -> None:
    dice = random.Random(1)
    ticks = set()
    for _ in range(2_000):
        seconds, burst = dice.choice([1, 60, 3600, DAY]), dice.randint(1, 10 ** dice.randint(1, 9))
        calls = dice.randint(1, min(FASTEST * seconds, 10 ** dice.randint(1, 10)))
        gain, price, cap, tick = bucket_rate(calls, seconds, burst)
        assert Fraction(gain * MICROS, price * tick) == Fraction(calls, seconds)
        assert cap == burst * price
        assert cap < MOST_UNITS
        ticks.add(tick)
    assert ticks == set(TICKS)


def test_the_finest_tick_that_fits_is_taken() -> None:
    assert bucket_rate(7, 60, 7) == (7, 60_000_000, 420_000_000, 1)
    assert bucket_rate(1, DAY, 52_124) == (1, DAY * MICROS, 52_124 * DAY * MICROS, 1)
    assert bucket_rate(1, DAY, 52_125) == (1, DAY * 1000, 52_125 * DAY * 1000, 1000)


def test_what_limits_nothing_is_refused() -> None:
    assert bucket_rate(FASTEST * DAY, DAY, MOST_BURST).burst == MOST_BURST
    with pytest.raises(ValueError, match="a second, which limits nothing"):
        bucket_rate(FASTEST * DAY + 1, DAY, 1)
    with pytest.raises(ValueError, match="at once, which limits nothing"):
        bucket_rate(1, 1, MOST_BURST + 1)


def test_a_refused_call_is_let_through_after_its_wait_and_not_a_microsecond_before() -> None:
    dice = random.Random(2)
    for _ in range(2_000):
        kept = Kept(some_rate(dice))
        burst, now = kept.rate.burst, START + dice.randrange(10**7)
        assert kept.take(now, dice.randint(1, burst)) == 0
        cost = dice.randint(1, burst)
        pause = kept.take(now, cost)
        if pause == 0 or pause == MOST_WAIT:
            continue
        assert kept.take(now + pause - 1, cost) == 1
        assert kept.take(now + pause, cost) == 0


def test_looking_often_gives_no_more_and_no_less_than_looking_once() -> None:
    dice = random.Random(3)
    for _ in range(300):
        rate = some_rate(dice)
        often, once = Kept(rate), Kept(rate)
        now = START
        for kept in (often, once):
            kept.take(now, rate.burst)
        for _ in range(20):
            now += dice.randrange(2 * rate.tick)
            often.lacking(now)
        assert often.lacking(now) == once.lacking(now)


def test_all_that_is_lent_stays_away_until_it_is_spent() -> None:
    rate = bucket_rate(10, 1, 100)
    lack = (30 * rate.price, START, rate.cap)
    year = START + 365 * DAY * MICROS
    assert now_lacking(lack, rate, year, lent=4) == 4 * rate.price
    assert now_lacking(lack, rate, year, lent=40) == 40 * rate.price
    assert now_lacking(lack, rate, year, lent=400) == rate.cap
    assert now_lacking(lack, rate, START + 100_000, lent=4) == 29 * rate.price
    assert now_lacking(lack, rate, year) == 0


@pytest.mark.parametrize("count", [1, 2, 3, 8, 64])
def test_shares_are_no_more_than_the_whole(count: int) -> None:
    for whole in (bucket_rate(7, 60, 7), bucket_rate(100, 1, 100), bucket_rate(1, DAY, 1)):
        share = whole.among(count)
        assert Fraction(share.gain * count, share.price) == Fraction(whole.gain, whole.price)
        assert share.burst * count <= max(whole.burst, count)
        assert share.burst >= 1


def test_the_time_until_some_have_come_back() -> None:
    rate = bucket_rate(2, 1, 10)
    assert rate.seconds(0) == 0.0
    assert rate.seconds(rate.price) == 0.5
    assert rate.seconds(rate.cap) == 5.0
    assert rate.seconds(1) == 1 / MICROS
