"""What one process counts, and the steps in which it tells the controller."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeVar

from fastgw.telemetry.histogram import Counts, add_counts, bucket_of

K = TypeVar("K", bound=Hashable)

MOST_REFUSALS_TOLD = 20
"""Refused requests that one report names."""

MOST_KEYS = 256
"""Keys that a `Top` remembers."""
Series = tuple[str, ...]
"""A metric's name and then its label values, in the order of `FAMILIES`."""
CallSeries = tuple[str | None, str | None, str]
"""Tool as agents see it, server that answered or was tried last, outcome."""
STAGES: Final = ("total", "upstream", "overhead")
"""What is measured of a call: the whole, of it waiting for servers, and the rest."""
BOUNDS: Final = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0),
)
"""Upper bounds of the buckets shown, in seconds: from what the gateway itself takes to what an agent waits for."""


class Exemplar(NamedTuple):
    """One traced call of those in a bucket: its trace, what was measured in seconds, Unix seconds of its end."""

    trace_id: str
    seconds: float
    timestamp: float


_zeros: Callable[[], defaultdict[Any, Any]] = partial(defaultdict, int)
"""A dictionary that counts from 0 without a call of `get`."""


@dataclass(slots=True)
class CallTimes:
    """How long the calls of one kind took: in all, of it waiting for servers, and the rest.

    Args:
        sent: how many of them reached a server, as far as is known.
    """

    total: Counts = field(default_factory=_zeros)
    upstream: Counts = field(default_factory=_zeros)
    overhead: Counts = field(default_factory=_zeros)
    sent: int = 0


class Counters:
    """What one process counts. Every method is a few dictionary steps: they are on the path of a call."""

    def __init__(self) -> None:
        self.counts: dict[Series, float] = _zeros()
        self.calls: dict[CallSeries, CallTimes] = {}
        self.times: dict[Series, Counts] = {}
        self.gauges: dict[Series, float] = {}
        self.noted_refusals: list[tuple[object, ...]] = []
        """The fields of a `NotedRefusal` each; for no more of them than `room`."""
        self.room = MOST_REFUSALS_TOLD
        self.exemplars: dict[tuple[str, int], Exemplar] = {}
        """The last one by stage (of `STAGES`) and place in `BOUNDS` of the first bound that it does not exceed."""
        self._told: dict[Series, float] = {}
        self._measured: Mapping[Series, float] = {}

    def inc(self, *series: str) -> None:
        """Count one: `inc("fastgw_requests_total", endpoint, method, outcome, agent)`."""
        self.counts[series] += 1

    def add(self, series: Series, count: float) -> None:
        """Count `count` at once."""
        self.counts[series] += count

    def call(self, series: CallSeries, total: int, overhead: int, sent: int) -> None:
        """Record how long a call took, in microseconds, how much of that was not spent waiting for servers, and how
        often it was sent to one.

        `bucket_of` written out: three function calls less for each request (`python -m bench counts`).
        """
        times = self.calls.get(series)
        if times is None:
            times = self.calls[series] = CallTimes()
        times.sent += sent > 0
        for counts, value in ((times.total, total), (times.upstream, total - overhead), (times.overhead, overhead)):
            bucket = value
            if value >= 2048:
                shift = value.bit_length() - 11
                bucket = (shift << 10) + (value >> shift)
            counts[bucket] += 1

    def trace(self, trace_id: str, total: int, overhead: int, begun: float) -> None:
        """Remember a call of a sampled trace, beside `call`; it began at `begun`, Unix seconds."""
        for stage, micros in zip(STAGES, (total, total - overhead, overhead), strict=True):
            seconds = micros / 1e6
            self.exemplars[stage, bisect_left(BOUNDS, seconds)] = Exemplar(trace_id, seconds, begun + total / 1e6)

    def record(self, seconds: float, *series: str) -> None:
        """Record a duration: `record(0.012, "fastgw_store_seconds")`; a negative one (a clock step) is nought."""
        bucket = bucket_of(max(0, int(seconds * 1e6)))
        add_counts(self.times.setdefault(series, {}), {bucket: 1})

    def gauge(self, value: float, *series: str) -> None:
        """Say what a value is now; the sum over workers is shown."""
        self.gauges[series] = value

    def measured(self, found: Mapping[Series, float]) -> None:
        """Say what values are now, in place of all that were said in this way before."""
        for series in self._measured.keys() - found.keys():
            self.gauges.pop(series, None)
        self.gauges.update(found)
        self._measured = found

    def take(self) -> Counters | None:
        """What was counted since the last call, and what all values are now; None where nothing is new."""
        if not (self.counts or self.calls or self.times) and self.gauges == self._told:
            return None
        taken = copy(self)
        taken.gauges = self._told = self.gauges.copy()
        taken._told = taken._measured = {}  # is not sent along
        self.counts, self.calls, self.times = _zeros(), {}, {}
        self.noted_refusals, self.room, self.exemplars = [], MOST_REFUSALS_TOLD, {}
        return taken


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
