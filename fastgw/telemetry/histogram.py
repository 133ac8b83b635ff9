"""Times as counts per bucket, so that histograms of many workers add up exactly and percentiles come from the sums.

HdrHistogram's indexing for three significant digits (2,048 sub-buckets), in whole microseconds, kept sparsely: values
below 2,048 have a bucket each; above, every power of two is split into 1,024, so that a bucket is never wider than
1/1,024 of its values.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import Final

Counts = dict[int, int]
"""Bucket index to count."""
LONGEST: Final = 3_600_000_000
"""Microseconds up to which percentiles tell times apart; what is longer counts as that."""


def bucket_of(micros: int) -> int:
    """Index of the bucket that `micros` (>= 0) falls into; indices have no gaps and grow with the value."""
    if micros < 2048:
        return micros
    shift = micros.bit_length() - 11
    return (shift << 10) + (micros >> shift)


def highest(bucket: int) -> int:
    """The highest value, in microseconds, that falls into a bucket."""
    shift = max(0, (bucket >> 10) - 1)
    return ((bucket - (shift << 10) + 1) << shift) - 1


def add_counts(counts: Counts, more: Counts) -> None:
    """Add what another has counted."""
    for bucket, count in more.items():
        counts[bucket] = counts.get(bucket, 0) + count


def seconds_in(counts: Counts) -> float:
    """The sum of what was counted, every value taken for the middle of its bucket."""
    return sum((highest(bucket - 1) + 1 + highest(bucket)) * count for bucket, count in counts.items()) / 2e6


def at_most(counts: Counts, bounds: tuple[float, ...]) -> list[int]:
    """For each bound in seconds: how many values do not exceed it, true to three digits."""
    buckets = sorted(counts)
    sums = [0, *accumulate([counts[bucket] for bucket in buckets])]
    return [sums[bisect_right(buckets, bucket_of(round(bound * 1e6)))] for bound in bounds]
