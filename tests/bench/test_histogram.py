"""The histogram against sorted values."""

from __future__ import annotations

import random

import pytest

from bench.histogram import Histogram, index, top


@pytest.mark.parametrize("value", [0, 1, 127, 128, 255, 256, 257, 511, 512, 1000, 65_535, 65_536, 10**6, 10**9])
def test_a_cell_holds_its_value_within_one_percent(value: int) -> None:
    assert value <= top(index(value)) <= value * 1.008
    assert index(top(index(value))) == index(value)
    assert index(top(index(value)) + 1) == index(value) + 1


def test_percentiles_are_those_of_the_sorted_values() -> None:
    dice = random.Random(1)
    values = sorted(round(dice.lognormvariate(6, 1.5)) for _ in range(10_000))
    seen = Histogram()
    for value in values:
        seen.record(value / 1e6)
    for share in (50, 90, 99, 99.9, 100):
        exact = values[min(len(values), -(-len(values) * share // 100).__int__()) - 1]
        assert exact <= seen.percentile(share) <= exact * 1.008 + 1


def test_merging_is_recording_all_in_one() -> None:
    parts, whole = [Histogram(), Histogram()], Histogram()
    for number in range(1000):
        parts[number % 2].record(number / 1e4)
        whole.record(number / 1e4)
    assert parts[0].merge([parts[1]]).counts == whole.counts
    assert whole.total == 1000


def test_nothing_recorded_is_nought() -> None:
    assert Histogram().percentile(99) == 0
