"""Times as counts per bucket, so that histograms of many workers add up.

Rule: HdrHistogram's bucket layout with 256 sub-buckets. Values below 256 have a bucket each; above, every power of two
is split into 128, so that a bucket is never wider than 1/128 of its values.
"""

from __future__ import annotations

_SUB = 256
_HALF_BITS = 7
_HALF = 1 << _HALF_BITS


def bucket_of(micros: int) -> int:
    """Index of the bucket that `micros` (>= 0) falls into; indices have no gaps and grow with the value."""
    if micros < _SUB:
        return micros
    shift = micros.bit_length() - 8
    return (shift << _HALF_BITS) + (micros >> shift)


def lowest_in(bucket: int) -> int:
    """Smallest number of microseconds that falls into `bucket`."""
    if bucket < _SUB:
        return bucket
    shift = (bucket >> _HALF_BITS) - 1
    return ((bucket & (_HALF - 1)) + _HALF) << shift


class Histogram:
    """Counts per bucket, their number and the sum of what was recorded.

    Args:
        counts: bucket index to count.
        total: microseconds recorded in all.
    """

    __slots__ = ("counts", "total")

    def __init__(self, counts: dict[int, int] | None = None, total: int = 0) -> None:
        self.counts = counts if counts is not None else {}
        self.total = total

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

    def percentile(self, share: float) -> float:
        """Seconds that `share` (0 to 1) of the durations do not exceed, true to two digits; 0.0 of none."""
        left = share * self.count
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= left:
                return (lowest_in(bucket + 1) - 1) / 1e6
        return 0.0

    def at_most(self, bounds: tuple[float, ...]) -> list[int]:
        """For each bound in seconds, ascending: how many durations do not exceed it, true to two digits."""
        ordered = sorted(self.counts.items())
        found, seen, at = [], 0, 0
        for bound in bounds:
            limit = bucket_of(round(bound * 1e6))
            while at < len(ordered) and ordered[at][0] <= limit:
                seen += ordered[at][1]
                at += 1
            found.append(seen)
        return found
