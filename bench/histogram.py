"""Latencies as log-linear counts in the manner of HdrHistogram: 256 steps in each power of two, so 0.8 % at worst.

Knows: whole microseconds. Refuses to know: clocks. Counts are summed over processes, percentiles never averaged.
"""

from __future__ import annotations

from collections.abc import Iterable

_BITS = 8
_HALF = 1 << (_BITS - 1)


def index(value: int) -> int:
    """The cell of a value in microseconds, value >= 0. Below 256 each value has its own."""
    shift = max(0, value.bit_length() - _BITS)
    return shift * _HALF + (value >> shift)


def top(cell: int) -> int:
    """The largest value that falls into this cell: percentiles err towards the slower side."""
    if cell < 2 * _HALF:
        return cell
    shift = cell // _HALF - 1
    return ((cell - shift * _HALF + 1) << shift) - 1


class Histogram:
    """Counts by cell."""

    __slots__ = ("counts",)

    def __init__(self, counts: dict[int, int] | None = None) -> None:
        self.counts = counts or {}

    def record(self, seconds: float) -> None:
        """Count one latency; less than nothing counts as nothing."""
        cell = index(max(0, round(seconds * 1e6)))
        self.counts[cell] = self.counts.get(cell, 0) + 1

    def merge(self, others: Iterable[Histogram]) -> Histogram:
        """This and the others, summed."""
        counts = dict(self.counts)
        for other in others:
            for cell, count in other.counts.items():
                counts[cell] = counts.get(cell, 0) + count
        return Histogram(counts)

    @property
    def total(self) -> int:
        """How many were recorded."""
        return sum(self.counts.values())

    def percentile(self, share: float) -> int:
        """Microseconds that `share` percent of the recorded latencies do not exceed; 0 where there are none."""
        wanted, seen = self.total * share / 100, 0
        for cell in sorted(self.counts):
            seen += self.counts[cell]
            if seen >= wanted:
                return top(cell)
        return 0
