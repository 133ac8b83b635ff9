"""What one process counts, and the steps in which it tells the controller."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastgw.telemetry.histogram import Histogram

Series = tuple[str, ...]
"""A metric's name and then its label values, in the order of `FAMILIES`."""


@dataclass(slots=True)
class Delta:
    """What was counted since the last delta.

    Args:
        counts: by series, to be added.
        times: by series, (bucket counts, microseconds), to be added.
        gauges: by series, the value now; replaces what this process said before.
    """

    counts: dict[Series, int] = field(default_factory=dict)
    times: dict[Series, tuple[dict[int, int], int]] = field(default_factory=dict)
    gauges: dict[Series, float] = field(default_factory=dict)


class Counters:
    """The counters of one process. Every method is a few dictionary steps: they are on the path of a call."""

    __slots__ = ("_counts", "_times", "_gauges", "_dirty")

    def __init__(self) -> None:
        self._counts: dict[Series, int] = {}
        self._times: dict[Series, Histogram] = {}
        self._gauges: dict[Series, float] = {}
        self._dirty = False

    def inc(self, *series: str) -> None:
        """Count one: `inc("fastgw_requests_total", endpoint, method, outcome)`."""
        counts = self._counts
        counts[series] = counts.get(series, 0) + 1
        self._dirty = True

    def add(self, series: Series, count: int) -> None:
        """Count `count` at once."""
        self._counts[series] = self._counts.get(series, 0) + count
        self._dirty = True

    def record(self, seconds: float, *series: str) -> None:
        """Record a duration in seconds: `record(0.012, "fastgw_request_seconds")`."""
        histogram = self._times.get(series)
        if histogram is None:
            histogram = self._times[series] = Histogram()
        histogram.record(seconds)
        self._dirty = True

    def gauge(self, value: float, *series: str) -> None:
        """Say what a value is now; the sum over workers is shown."""
        if self._gauges.get(series) != value:
            self._gauges[series] = value
            self._dirty = True

    def take(self) -> Delta | None:
        """What was counted since the last call; None where nothing was."""
        if not self._dirty:
            return None
        delta = Delta(
            self._counts,
            {series: (histogram.counts, histogram.total) for series, histogram in self._times.items()},
            dict(self._gauges),
        )
        self._counts, self._times, self._dirty = {}, {}, False
        return delta
