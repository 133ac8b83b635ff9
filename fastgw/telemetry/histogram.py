"""Times as counts per bucket, so that histograms of many workers add up exactly and percentiles come from the sums.

HdrHistogram's indexing for three significant digits (2,048 sub-buckets), in whole microseconds, kept sparsely: values
below 2,048 have a bucket each; above, every power of two is split into 1,024, so that a bucket is never wider than
1/1,024 of its values.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Counts = dict[int, int]
"""Bucket index to count."""


def bucket_of(micros: int) -> int:
    """Index of the bucket that `micros` (>= 0) falls into; indices have no gaps and grow with the value."""
    if micros < 2048:
        return micros
    shift = micros.bit_length() - 11
    return (shift << 10) + (micros >> shift)


@dataclass(slots=True)
class Histogram:
    """Counts per bucket, their number and the sum of what was recorded.

    Args:
        total: microseconds recorded in all.
    """

    counts: Counts = field(default_factory=dict)
    total: int = 0

    def record(self, seconds: float) -> None:
        """Count one duration in seconds; what is negative (a clock step) counts as nought."""
        micros = max(0, int(seconds * 1e6))
        self.total += micros
        bucket = bucket_of(micros)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1

    def merge(self, counts: Counts, total: int) -> None:
        """Add what another has counted."""
        self.total += total
        for bucket, count in counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count

    @property
    def count(self) -> int:
        """How many durations were recorded."""
        return sum(self.counts.values())

    def at_most(self, bounds: tuple[float, ...]) -> list[int]:
        """For each bound in seconds: how many durations do not exceed it, true to three digits."""
        limits = [bucket_of(round(bound * 1e6)) for bound in bounds]
        return [sum([count for bucket, count in self.counts.items() if bucket <= limit]) for limit in limits]
