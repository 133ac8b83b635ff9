"""How many calls there were of late and how long they took, put together for people: by tool, by server, in all.

Histograms are merged, never percentiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastgw.errors import ERROR_OUTCOMES, REFUSED_OUTCOMES
from fastgw.telemetry.counters import CallSeries
from fastgw.telemetry.histogram import Counts
from fastgw.telemetry.latencies import Histograms, Latencies, at_percents

SHOWN_PERCENTS = (50.0, 95.0, 99.0)
Times = list[float] | list[None]
"""Milliseconds at `SHOWN_PERCENTS`, rounded to what an eye takes in; None where nothing was called."""
ToolKey = tuple[str, str]
"""Tool as agents see it, and server; empty where none was asked."""


class Tally:
    """Calls of one kind: how many, of them errors and refused ones, and one histogram of how long they took."""

    __slots__ = ("calls", "counts", "errors", "refused")

    def __init__(self) -> None:
        self.calls = self.errors = self.refused = 0
        self.counts: Counts = {}

    def count(self, outcome: str, calls: int) -> None:
        """So many calls ended so."""
        self.calls += calls
        if outcome in ERROR_OUTCOMES:
            self.errors += calls
        elif outcome in REFUSED_OUTCOMES:
            self.refused += calls

    def time(self, buckets: Iterable[int], counts: Iterable[int]) -> None:
        """They took so long."""
        mine = self.counts
        for bucket, count in zip(buckets, counts, strict=True):
            mine[bucket] = mine.get(bucket, 0) + count

    @property
    def row(self) -> list[Any]:
        """Calls, errors, refused, then milliseconds at `SHOWN_PERCENTS`."""
        return [self.calls, self.errors, self.refused, *times_of(self.counts)]


class RecentPaces:
    """The last minute: `everything`, `tools` by tool and server, `servers` by name.

    Of tools and in all: how long agents waited. Of servers: how long they took. A refused call reached no server: it
    counts with the server of its tool that was called most.
    """

    def __init__(self, latencies: Latencies) -> None:
        self.everything = Tally()
        self.tools: dict[ToolKey, Tally] = {}
        self.servers: dict[str, Tally] = {}
        unsent: dict[str, Tally] = {}
        for _, _, histograms in latencies.intervals("1m"):
            for one in histograms:
                self._add(one, unsent)
        busiest: dict[str, tuple[int, ToolKey]] = {}
        for key, tally in self.tools.items():
            busiest[key[0]] = max(busiest.get(key[0], (0, key)), (tally.calls, key))
        for tool, tally in unsent.items():
            mine = self.tools.setdefault(busiest[tool][1] if tool in busiest else (tool, ""), Tally())
            mine.calls, mine.errors, mine.refused = (
                mine.calls + tally.calls, mine.errors + tally.errors, mine.refused + tally.refused,
            )  # fmt: skip

    def _add(self, one: Histograms, unsent: dict[str, Tally]) -> None:
        (tool, server, outcome), stage, buckets, counts = one
        calls = sum(counts)
        if stage == "upstream":
            if server is not None:
                mine = self.servers.setdefault(server, Tally())
                mine.count(outcome, calls)
                mine.time(buckets, counts)
        elif stage == "total":
            self.everything.count(outcome, calls)
            self.everything.time(buckets, counts)
            if tool is not None and server is None:
                unsent.setdefault(tool, Tally()).count(outcome, calls)
            elif tool is not None and server is not None:
                mine = self.tools.setdefault((tool, server), Tally())
                mine.count(outcome, calls)
                mine.time(buckets, counts)


def last_hour(latencies: Latencies, tool: str | None, server: str | None) -> list[list[Any]]:
    """One row for each minute in which a tool, or a server, was called: seconds ago it ended, then as `Tally.row`.

    Of a tool how long agents waited, of a server alone how long it took.
    """
    stage = "total" if tool is not None else "upstream"

    def wanted(series: CallSeries) -> bool:
        return (tool is None or series[0] == tool) and (server is None or series[1] == server)

    rows = []
    for _, ago, histograms in latencies.intervals("1h", wanted):
        tally = Tally()
        for series, one_stage, buckets, counts in histograms:
            if one_stage == stage:
                tally.count(series[2], sum(counts))
                tally.time(buckets, counts)
        if tally.calls:
            rows.append([round(ago, 1), *tally.row])
    return rows


def times_of(counts: Mapping[int, int]) -> Times:
    """Percentiles of a histogram, to three digits."""
    if not counts:
        return [None, None, None]
    buckets = sorted(counts)
    found = at_percents(buckets, [counts[bucket] for bucket in buckets], SHOWN_PERCENTS)
    return [float(f"{value:.3g}") for value in found]
