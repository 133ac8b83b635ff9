"""Times as counts per bucket, so that histograms of many workers add up.

HdrHistogram's bucket layout with 256 sub-buckets, in whole microseconds, kept sparsely: values below 256 have a bucket
each; above, every power of two is split into 128, so that a bucket is never wider than 1/128 of its values.
"""

from __future__ import annotations

from dataclasses import dataclass, field


def bucket_of(micros: int) -> int:
    """Index of the bucket that `micros` (>= 0) falls into; indices have no gaps and grow with the value."""
    if micros < 256:
        return micros
    shift = micros.bit_length() - 8
    return (shift << 7) + (micros >> shift)


@dataclass(slots=True)
class Histogram:
    """Counts per bucket, their number and the sum of what was recorded.

    Args:
        counts: bucket index to count.
        total: microseconds recorded in all.
    """

    counts: dict[int, int] = field(default_factory=dict)
    total: int = 0

    def record(self, seconds: float) -> None:
        """Count one duration in seconds; what is negative (a clock step) counts as nought."""
        micros = int(seconds * 1e6)
        if micros < 0:
            micros = 0
        self.total += micros
        bucket = bucket_of(micros)
        counts = self.counts
        counts[bucket] = counts.get(bucket, 0) + 1

    def merge(self, other: Histogram) -> None:
        """Add what `other` counted."""
        self.total += other.total
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count

    @property
    def count(self) -> int:
        """How many durations were recorded."""
        return sum(self.counts.values())

    def at_most(self, bounds: tuple[float, ...]) -> list[int]:
        """For each bound in seconds: how many durations do not exceed it, true to two digits."""
        limits = [bucket_of(round(bound * 1e6)) for bound in bounds]
        return [sum([count for bucket, count in self.counts.items() if bucket <= limit]) for limit in limits]
