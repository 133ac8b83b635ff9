"""Buckets without gaps and HdrHistogram's own, three digits true, sums that merge."""

from __future__ import annotations

import random

import pytest
from hdrh.histogram import HdrHistogram

from fastgw.telemetry.counters import BOUNDS, Counters
from fastgw.telemetry.histogram import LONGEST, Counts, add_counts, at_most, bucket_of, highest, seconds_in


def test_buckets_have_no_gaps() -> None:
    last = -1
    for micros in range(20_000):
        bucket = bucket_of(micros)
        assert bucket in (last, last + 1)
        last = bucket


@pytest.mark.parametrize("power", range(8, 40))
def test_no_bucket_is_wider_than_a_128th(power: int) -> None:
    for micros in (1 << power, (1 << power) + 12345 % (1 << power), (2 << power) - 1):
        assert bucket_of(micros) < bucket_of(micros + micros // 128 + 1)


def test_buckets_are_those_of_hdrhistogram_for_three_digits() -> None:
    theirs, dice = HdrHistogram(1, LONGEST, 3), random.Random(3)
    values = [*range(9000), *(1 << power for power in range(32)), *((1 << power) - 1 for power in range(32)), LONGEST]
    for micros in values + [int(2 ** dice.uniform(10, 31.7)) for _ in range(20_000)]:
        bucket = bucket_of(micros)
        assert bucket == theirs.get_counts_array_index(micros)
        assert highest(bucket) == theirs.get_highest_equivalent_value(micros)


def counted(*seconds: float) -> Counts:
    """Seconds, as a worker counts and tells them."""
    counters = Counters()
    for one in seconds:
        counters.record(one, "fastgw_store_seconds")
    delta = counters.take()
    return {} if delta is None else delta.times["fastgw_store_seconds",]


def test_counts_below_bounds_are_true_to_three_digits() -> None:
    dice = random.Random(1)
    values = [dice.lognormvariate(-6, 1.5) for _ in range(5000)]
    for bound, found in zip(BOUNDS, at_most(counted(*values), BOUNDS), strict=True):
        assert (
            sum(value <= bound for value in values) <= found <= sum(value <= bound * 1.001 + 1e-6 for value in values)
        )


def test_sums_are_true_to_three_digits_and_below_two_milliseconds_to_the_microsecond() -> None:
    dice = random.Random(2)
    values = [dice.lognormvariate(-4, 2) for _ in range(5000)]
    assert seconds_in(counted(*values)) == pytest.approx(sum(values), rel=0.0005)
    assert seconds_in(counted(0.002047, 0.000001, 0.0)) == pytest.approx(0.002048)
    assert seconds_in({}) == 0


def test_merging_equals_recording_in_one() -> None:
    values = [number * number / 1e6 for number in range(1000)]
    parts = counted(*values[::2])
    add_counts(parts, counted(*values[1::2]))
    assert parts == counted(*values)
    assert sum(parts.values()) == 1000


def test_bounds_are_cumulative() -> None:
    assert at_most(counted(0.001, 0.01, 0.01, 3.0, 100.0), (0.0005, 0.001, 0.05, 10.0)) == [0, 1, 3, 4]


def test_a_clock_that_steps_back_counts_as_nought() -> None:
    assert counted(-1.0) == {0: 1}
