"""One token bucket in whole numbers: the same steps as `limits/decide.lua`, held to the same vectors.

A bucket is kept as what it *lacks*: nothing lacking is full, so a bucket that nobody keeps is a full one. Amounts are
*units*, of which a token has `price` and a bucket gets back `gain` every tick. That makes every rate a whole number:
7/minute is 7 units a microsecond at a price of 60,000,000. With floats a call was refused at the very instant of its
refill.

    time goes on           -> it lacks less, by `gain` each tick, never less than what is lent out
    time goes back         -> it lacks what it lacked; it counts on from the earlier time
    its size has changed   -> it lacks the same part of the new size, and what is lent out
    a token is taken       -> it lacks `price` more, if it then lacks no more than all (`cap`)
"""

from __future__ import annotations

from math import ceil, gcd
from typing import NamedTuple

MICROS = 1_000_000
MOST_UNITS = 2**52
"""Lua counts in doubles: sums of two amounts must stay exact."""
MOST_WAIT = 2**52
"""Microseconds, 142 years: likewise."""
MOST_BURST = 10**9
"""Tokens. A larger bucket limits nothing."""
FASTEST = 10**6
"""Tokens a second. A faster rate limits nothing that a gateway could carry."""
TICKS = (1, 1000, MICROS)
"""Microseconds: the finest that keeps the amounts exact is taken."""


class BucketRate(NamedTuple):
    """A rate and a burst in units: what comes back each tick (microseconds), of one token, and of a whole bucket."""

    gain: int
    price: int
    cap: int
    tick: int

    @property
    def burst(self) -> int:
        """Tokens of a full bucket."""
        return self.cap // self.price

    def among(self, count: int) -> BucketRate:
        """The share of one of `count` that go on alone: a part of the rate and of the burst, one token at least."""
        burst = max(1, self.burst // count)
        return BucketRate(self.gain, self.price * count, burst * self.price * count, self.tick)

    def seconds(self, units: int) -> float:
        """How long it takes until `units` have come back."""
        return -(-units // self.gain) * self.tick / MICROS


Lack = tuple[int, int, int]
"""What is kept of a bucket: units it lacks; microseconds of the clock when it lacked that; `cap` of the rate it was
counted with."""


def bucket_rate(calls: int, seconds: int, burst: int) -> BucketRate:
    """The rate of `calls` in `seconds`, with at most `burst` at once.

    Raises:
        ValueError: faster than `FASTEST` or larger than `MOST_BURST`.
    """
    if calls > FASTEST * seconds:
        raise ValueError(f"is more than {FASTEST:,} a second, which limits nothing")
    if burst > MOST_BURST:
        raise ValueError(f"lets more than {MOST_BURST:,} calls through at once, which limits nothing")
    for tick in TICKS:
        span = seconds * MICROS // tick
        shared = gcd(calls, span)
        gain, price = calls // shared, span // shared
        if burst * price < MOST_UNITS:
            return BucketRate(gain, price, burst * price, tick)
    raise ValueError("has no whole numbers")  # cannot be: 86,400 ticks of a day times `MOST_BURST` fit


def now_lacking(lack: Lack, rate: BucketRate, now: int, lent: int = 0) -> int:
    """Units that a bucket lacks at `now`. It is kept as (these, `now - now % tick`, `cap`) from then on.

    Args:
        lack: what was kept; of a bucket that nobody keeps, 0 of a cap of 0.
        now: microseconds.
        lent: tokens that somebody holds and has not spent: what is lent does not come back by itself.
    """
    units, stamp, size = lack
    if units == 0 and lent == 0:
        return 0
    gain, price, cap, tick = rate
    if size != cap:
        units = min(cap, ceil(units / size * cap))
    passed = (now - now % tick - stamp) // tick
    if passed > 0:
        units -= passed * gain
    least = min(cap, lent * price) if lent else 0
    return units if units > least else least


def wait(short: int, rate: BucketRate, now: int) -> int:
    """Microseconds from `now` until `short` units have come back; at most `MOST_WAIT`."""
    return min(MOST_WAIT, -(-short // rate.gain) * rate.tick - now % rate.tick)
