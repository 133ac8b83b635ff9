"""Buckets without gaps and HdrHistogram's own, three digits true, sums that merge."""

from __future__ import annotations

import random

import pytest
from hdrh.histogram import HdrHistogram

from fastgw.telemetry.histogram import LONGEST, Histogram, bucket_of, highest
from fastgw.telemetry.metrics import BOUNDS


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


def test_counts_below_bounds_are_true_to_three_digits() -> None:
    dice = random.Random(1)
    values = [dice.lognormvariate(-6, 1.5) for _ in range(5000)]
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    for bound, found in zip(BOUNDS, histogram.at_most(BOUNDS), strict=True):
        assert (
            sum(value <= bound for value in values) <= found <= sum(value <= bound * 1.001 + 1e-6 for value in values)
        )


def test_merging_equals_recording_in_one() -> None:
    parts, whole = [Histogram(), Histogram()], Histogram()
    for number in range(1000):
        value = number * number / 1e6
        parts[number % 2].record(value)
        whole.record(value)
    parts[0].merge(parts[1].counts, parts[1].total)
    assert parts[0].counts == whole.counts
    assert parts[0].total == whole.total
    assert parts[0].count == 1000


def test_bounds_are_cumulative() -> None:
    histogram = Histogram()
    for value in (0.001, 0.01, 0.01, 3.0, 100.0):
        histogram.record(value)
    assert histogram.at_most((0.0005, 0.001, 0.05, 10.0)) == [0, 1, 3, 4]


def test_a_clock_that_steps_back_counts_as_nought() -> None:
    histogram = Histogram()
    histogram.record(-1.0)
    assert histogram.counts == {0: 1}
