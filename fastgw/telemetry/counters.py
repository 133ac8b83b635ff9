"""What one process counts, and the steps in which it tells the controller."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from fastgw.telemetry.histogram import Counts, Histogram

K = TypeVar("K", bound=Hashable)

MOST_KEYS = 256
"""Keys that a `Top` remembers."""
Series = tuple[str, ...]
"""A metric's name and then its label values, in the order of `FAMILIES`."""
CallSeries = tuple[str | None, str | None, str]
"""Tool as agents see it, server that answered or was tried last, outcome."""


_zeros = partial(defaultdict[Any, int], int)
"""A dictionary that counts from 0 without a call of `get`."""


@dataclass(slots=True)
class CallTimes:
    """How long the calls of one kind took: in all, of it waiting for servers, and the rest.

    Args:
        sum_total, sum_overhead: microseconds recorded in `total` and in `overhead`.
        sent: how many of them reached a server, as far as is known.
    """

    total: Counts = field(default_factory=_zeros)
    upstream: Counts = field(default_factory=_zeros)
    overhead: Counts = field(default_factory=_zeros)
    sum_total: int = 0
    sum_overhead: int = 0
    sent: int = 0


@dataclass(slots=True)
class Delta:
    """What was counted since the last delta.

    Args:
        counts: by series, to be added.
        calls: by tool, server and outcome, to be added.
        times: by series, (bucket counts, microseconds), to be added.
        gauges: by series, the value now; replaces what this process said before.
    """

    counts: dict[Series, int] = field(default_factory=dict)
    calls: dict[CallSeries, CallTimes] = field(default_factory=dict)
    times: dict[Series, tuple[dict[int, int], int]] = field(default_factory=dict)
    gauges: dict[Series, float] = field(default_factory=dict)


class Counters:
    """The counters of one process. Every method is a few dictionary steps: they are on the path of a call."""

    __slots__ = ("_calls", "_counts", "_times", "_gauges", "_dirty")

    def __init__(self) -> None:
        self._counts: dict[Series, int] = _zeros()
        self._calls: dict[CallSeries, CallTimes] = {}
        self._times: dict[Series, Histogram] = {}
        self._gauges: dict[Series, float] = {}
        self._dirty = False

    def inc(self, *series: str) -> None:
        """Count one: `inc("fastgw_requests_total", endpoint, method, outcome)`."""
        self._counts[series] += 1
        self._dirty = True

    def add(self, series: Series, count: int) -> None:
        """Count `count` at once."""
        self._counts[series] += count
        self._dirty = True

    def call(self, series: CallSeries, total: float, overhead: float, sent: int) -> None:
        """Record how long a call took, in seconds, how much of that was not spent waiting for servers, and how often it
        was sent to one.

        `bucket_of` written out: three function calls less for each request (`python -m bench counts`).
        """
        times = self._calls.get(series)
        if times is None:
            times = self._calls[series] = CallTimes()
        micros, over = int(total * 1e6), int(overhead * 1e6)
        times.sum_total += micros
        times.sum_overhead += over
        times.sent += sent > 0
        for counts, value in ((times.total, micros), (times.upstream, micros - over), (times.overhead, over)):
            bucket = value
            if value >= 2048:
                shift = value.bit_length() - 11
                bucket = (shift << 10) + (value >> shift)
            counts[bucket] += 1
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
            self._calls,
            {series: (histogram.counts, histogram.total) for series, histogram in self._times.items()},
            dict(self._gauges),
        )
        self._counts, self._calls, self._times, self._dirty = _zeros(), {}, {}, False
        return delta


class Top(Generic[K]):
    """Counts of the most frequent keys, of more than could be remembered.

    Space-Saving (Metwally, Agrawal and El Abbadi, 2005): a newcomer takes the place and the count of the rarest, so
    that whoever is truly frequent stands in the table, with a count that may be too high but never too low.
    """

    def __init__(self, room: int = MOST_KEYS) -> None:
        self._room = room
        self._counts: dict[K, int] = {}

    def add(self, key: K) -> None:
        """Count one."""
        counts = self._counts
        found = counts.get(key)
        if found is None and len(counts) >= self._room:
            rarest = min(counts, key=counts.__getitem__)
            found = counts.pop(rarest)
        counts[key] = (found or 0) + 1

    def __iter__(self) -> Iterator[tuple[K, int]]:
        """Key and count, the most frequent first."""
        return iter(sorted(self._counts.items(), key=lambda row: -row[1]))
