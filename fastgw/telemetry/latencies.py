"""How long calls took, by tool, server and outcome: over the last minute, the last hour, and since the start.

HDR histograms of three significant digits, kept sparsely: what several workers tell adds up exactly.
"""

from __future__ import annotations

import time
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import nlargest
from itertools import accumulate, groupby
from typing import Final, NamedTuple

import msgspec

from fastgw.telemetry.counters import STAGES, CallSeries, CallTimes
from fastgw.telemetry.histogram import LONGEST, Counts, add_counts, bucket_of, highest

PERCENTS: Final = (50.0, 90.0, 95.0, 99.0, 99.9, 100.0)
WINDOWS: Final = ("1m", "1h", "start")

MOST_SERIES = 65_536
"""Distinct tools, servers and outcomes; calls of others count as tool and server `other`."""
MOST_CELLS = 5_000_000
"""Bucket counts since the start, 8 bytes each. What would need one more counts as `other`."""
STEP = 10.0
"""Seconds after which what was added last is put into the windows, if it is not asked for before."""
MOST_FRESH = 50_000
"""Bucket counts after which that is done earlier."""
MOST_OPEN = 300_000
"""Bucket counts of a slice that is being filled, about 90 bytes each; a fuller one is packed before its time."""
MOST_PACKED = 12 * 1024 * 1024
"""Bytes of a window's packed slices; beyond it the oldest go, and the window is shorter."""
LAST_BUCKET = bucket_of(LONGEST)
_BUCKETS = 1 << LAST_BUCKET.bit_length()
_COUNT_BITS, _TOTAL_BITS = 24, 48
_COUNT, _TOTAL = (1 << _COUNT_BITS) - 1, (1 << _TOTAL_BITS) - 1
"""How a count stands in the lowest bits of a cell: of a slice, and since the start."""
OTHER: Final = ("other", "other")

Row = tuple[int, list[int], list[int]]
"""Three times the number of the series and that of the stage; buckets, rising; the count of each."""
Histograms = tuple[CallSeries, str, list[int], list[int]]
"""The same by name."""


class Slice(NamedTuple):
    """What was counted between two times of the clock; a packed cell is row, bucket and, lowest, the count."""

    begun: float
    ended: float
    cells: bytes


class RecentCalls:
    """The counts of the last `span` seconds, in slices of `step` seconds, so that the oldest can be let go."""

    def __init__(self, step: float, span: float) -> None:
        self._step, self._span = step, span
        self._state: tuple[float, float, dict[int, int], tuple[Slice, ...]] = 0.0, 0.0, {}, ()
        """Begin and end of the slice that is being filled, its counts, and the slices before it."""

    def add(self, fresh: Mapping[int, int], begun: float, ended: float) -> None:
        """Add what was counted between two times: cell to count."""
        first, last, cells, packed = self._state
        if ended > first + self._step or len(cells) >= MOST_OPEN:
            packed = (*packed, _packed(first, last, cells))
            while packed and (
                packed[0].ended <= ended - self._span or sum(len(one.cells) for one in packed) > MOST_PACKED
            ):
                packed = packed[1:]
            first, cells = begun, {}
        self._state = first, ended, cells, packed
        for key, count in fresh.items():
            cells[key] = cells.get(key, 0) + count

    def slices(self, now: float) -> list[Slice]:
        """Those that hold anything of the last `span` seconds, the oldest first."""
        first, last, cells, packed = self._state
        return [one for one in (*packed, _packed(first, last, cells)) if one.ended > now - self._span]


def _packed(begun: float, ended: float, cells: Mapping[int, int]) -> Slice:
    found = array("Q", sorted([key << _COUNT_BITS | count for key, count in dict(cells).items()]))
    return Slice(begun, ended, zlib.compress(found.tobytes(), 1))


def _rows(slices: Iterable[Slice]) -> Iterator[Row]:
    """The histograms of slices together."""
    merged: dict[int, int] = {}
    for one in slices:
        for cell in memoryview(zlib.decompress(one.cells)).cast("Q"):
            key = cell >> _COUNT_BITS
            merged[key] = merged.get(key, 0) + (cell & _COUNT)
    for row, keys in groupby(sorted(merged), lambda key: key // _BUCKETS):
        of_row = list(keys)
        yield row, [key % _BUCKETS for key in of_row], [merged[key] for key in of_row]


def _rows_of(one: Slice, only: Iterable[int] | None = None) -> Iterator[Row]:
    """The histograms of one slice, whose cells stand in order; `only` of these rows."""
    cells = memoryview(zlib.decompress(one.cells)).cast("Q")
    for row in _rows_in(cells) if only is None else only:
        begin, end = (bisect_left(cells, number * _BUCKETS << _COUNT_BITS) for number in (row, row + 1))
        if part := cells[begin:end].tolist():
            yield row, [(cell >> _COUNT_BITS) % _BUCKETS for cell in part], [cell & _COUNT for cell in part]


def _rows_in(cells: Sequence[int]) -> Iterator[int]:
    end = 0
    while end < len(cells):
        row = (cells[end] >> _COUNT_BITS) // _BUCKETS
        yield row
        end = bisect_left(cells, (row + 1) * _BUCKETS << _COUNT_BITS, end)


class Percentiles(msgspec.Struct):
    """One histogram in short, as `/stats` shows it: milliseconds, each the highest value that counts as the same."""

    tool: str | None
    server: str | None
    outcome: str
    stage: str
    count: int
    p50: float
    p90: float
    p95: float
    p99: float
    p999: float
    max: float

    @property
    def times(self) -> tuple[float, ...]:
        """At `PERCENTS`."""
        return self.p50, self.p90, self.p95, self.p99, self.p999, self.max


class Latencies:
    """The histograms of all workers. `clock` gives seconds that never go back.

    `merge` and `settle` are for one thread; the others may be called in another one meanwhile.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._numbers: dict[CallSeries, int] = {}
        self._names: list[CallSeries] = []
        self._begun, self._fresh = self._started, dict[int, int]()
        self._recent = {"1m": RecentCalls(STEP, 60), "1h": RecentCalls(60, 3600)}
        self._all: list[array[int]] = []
        self._room = MOST_CELLS

    def merge(self, calls: Mapping[CallSeries, CallTimes]) -> None:
        """Add what a worker has counted. It is shown after the next `settle`."""
        if len(self._fresh) >= MOST_FRESH or self._clock() >= self._begun + STEP:
            self.settle()
        fresh = self._fresh
        for series, times in calls.items():
            first = self._number(series) * 3
            for row, counts in enumerate((times.total, times.upstream, times.overhead), first):
                for bucket, count in counts.items():
                    at = bucket if 0 <= bucket < LAST_BUCKET else max(0, min(bucket, LAST_BUCKET))
                    key = row * _BUCKETS + at
                    fresh[key] = fresh.get(key, 0) + count

    def settle(self) -> None:
        """Put what was added last into all windows: a few milliseconds now and then, which each delta is spared."""
        now, fresh = self._clock(), self._fresh
        if fresh:
            for window in self._recent.values():
                window.add(fresh, self._begun, min(now, self._begun + STEP))
        for key, count in fresh.items():
            self._add(*divmod(key, _BUCKETS), count)
        self._begun, self._fresh = now, {}

    def _number(self, series: CallSeries) -> int:
        number = self._numbers.get(series)
        if number is None:
            if len(self._names) >= MOST_SERIES and series[:2] != OTHER:
                return self._number((*OTHER, series[2]))
            number = self._numbers[series] = len(self._names)
            self._names.append(series)
            self._all += (array("Q"), array("Q"), array("Q"))
        return number

    def _add(self, row: int, bucket: int, count: int) -> None:
        cells = self._all[row]
        place = bisect_left(cells, bucket << _TOTAL_BITS)
        if place < len(cells) and cells[place] >> _TOTAL_BITS == bucket:
            cells[place] += count
            return
        series = self._names[row // 3]
        if self._room > 0 or series[:2] == OTHER:
            cells.insert(place, bucket << _TOTAL_BITS | count)
            self._room -= 1
        else:
            self._add(self._number((*OTHER, series[2])) * 3 + row % 3, bucket, count)

    def percentiles(self, window: str) -> list[Percentiles]:
        """Of each series that was called within `window` (of `WINDOWS`) its stages; the most called first."""
        rows = self._since_start() if window == "start" else _rows(self._recent[window].slices(self._clock()))
        found = [_percentiles(series, stage, buckets, counts) for series, stage, buckets, counts in self._named(rows)]
        return sorted(found, key=lambda row: -row.count)

    def busiest(self, window: str, most: int) -> list[Percentiles]:
        """The same of those `most` alone that were called most; all others together are `other`, by outcome."""
        rows = {row: (buckets, counts) for row, buckets, counts in _rows(self._recent[window].slices(self._clock()))}
        calls = {row // 3: sum(counts) for row, (_, counts) in rows.items()}
        shown = {number for number in nlargest(most, calls, key=calls.__getitem__) if self._names[number][:2] != OTHER}
        rest: dict[tuple[str, int], Counts] = {}
        found = []
        for row, (buckets, counts) in rows.items():
            series, stage = self._names[row // 3], row % 3
            if row // 3 in shown:
                found.append(_percentiles(series, STAGES[stage], buckets, counts))
            else:
                merged = rest.setdefault((series[2], stage), {})
                add_counts(merged, dict(zip(buckets, counts, strict=True)))
        for (outcome, stage), merged in rest.items():
            buckets = sorted(merged)
            found.append(
                _percentiles((*OTHER, outcome), STAGES[stage], buckets, [merged[bucket] for bucket in buckets])
            )
        return found

    def intervals(
        self, window: str, wanted: Callable[[CallSeries], bool] | None = None
    ) -> Iterator[tuple[float, float, Iterator[Histograms]]]:
        """The histograms of `window`, one slice after the other: how many seconds ago it began and ended, then each.

        With `wanted`, which is for `1m` and `1h`, only those of the series for which it is true, quickly.
        """
        now = self._clock()
        if window == "start":
            yield now - self._started, 0.0, self._named(self._since_start())
            return
        only: list[int] | None = None
        if wanted is not None:
            numbers = [number for number, series in enumerate(list(self._names)) if wanted(series)]
            only = [3 * number + stage for number in numbers for stage in range(3)]
        for one in self._recent[window].slices(now):
            yield now - one.begun, now - one.ended, self._named(_rows_of(one, only))

    def _since_start(self) -> Iterator[Row]:
        for row, cells in enumerate(list(self._all)):
            if packed := cells.tolist():
                yield row, [cell >> _TOTAL_BITS for cell in packed], [cell & _TOTAL for cell in packed]

    def _named(self, rows: Iterator[Row]) -> Iterator[Histograms]:
        return ((self._names[row // 3], STAGES[row % 3], buckets, counts) for row, buckets, counts in rows)


def _percentiles(series: CallSeries, stage: str, buckets: list[int], counts: list[int]) -> Percentiles:
    return Percentiles(*series, stage, sum(counts), *at_percents(buckets, counts))


def at_percents(buckets: list[int], counts: list[int], percents: Sequence[float] = PERCENTS) -> list[float]:
    """Milliseconds at each of `percents`, by the rank that HdrHistogram takes, of a histogram that is not empty:
    its buckets, rising, and the count of each.
    """
    sums = list(accumulate(counts))
    ranks = (max(1, int(percent * sums[-1] / 100 + 0.5)) for percent in percents)
    return [highest(buckets[bisect_left(sums, rank)]) / 1000 for rank in ranks]
