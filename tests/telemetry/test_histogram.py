"""Buckets without gaps, two digits true, sums that merge."""

from __future__ import annotations

import random

import pytest

from fastgw.telemetry.histogram import Histogram, bucket_of, lowest_in


def test_buckets_have_no_gaps_and_begin_where_they_say() -> None:
    last = -1
    for micros in range(20_000):
        bucket = bucket_of(micros)
        assert bucket in (last, last + 1)
        if bucket != last:
            assert lowest_in(bucket) == micros
        last = bucket


@pytest.mark.parametrize("power", range(8, 40))
def test_no_bucket_is_wider_than_a_128th(power: int) -> None:
    for micros in (1 << power, (1 << power) + 12345 % (1 << power), (2 << power) - 1):
        bucket = bucket_of(micros)
        assert lowest_in(bucket) <= micros < lowest_in(bucket + 1)
        assert (lowest_in(bucket + 1) - lowest_in(bucket)) * 128 <= lowest_in(bucket)


def test_percentiles_are_true_to_two_digits() -> None:
    dice = random.Random(1)
    values = [dice.lognormvariate(-6, 1.5) for _ in range(5000)]
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    for share in (0.5, 0.9, 0.99, 0.999):
        exact = sorted(values)[int(share * len(values)) - 1]
        assert histogram.percentile(share) == pytest.approx(exact, rel=0.01, abs=2e-6)


def test_merging_equals_recording_in_one() -> None:
    parts, whole = [Histogram(), Histogram()], Histogram()
    for number in range(1000):
        value = number * number / 1e6
        parts[number % 2].record(value)
        whole.record(value)
    parts[0].merge(parts[1])
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
    assert histogram.percentile(1.0) == 0.0
