"""The calls of a window put together by tool or by server: `/stats/tools` and `/stats/servers`.

Histograms are added up, never percentiles.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from fastgw.errors import ERROR_OUTCOMES
from fastgw.telemetry.histogram import Counts, add_counts
from fastgw.telemetry.latencies import PERCENTS, Latencies, at_percents

SHOWN: Final = tuple(map(PERCENTS.index, (50.0, 95.0, 99.0)))
MOST: Final = 1000
"""Rows of an answer: those with the most calls."""
LENGTHS: Final = {"1m": 60.0, "1h": 3600.0}
"""Seconds of a window; its first slice may have begun a little earlier."""
Subject = Literal["tool", "server"]


class CallRow(msgspec.Struct):
    """The calls of one tool or server, or of all: how many, how many of them are errors, and milliseconds.

    Of tools and of all it is how long agents waited, of servers how long they took. `name`: None for all.
    """

    name: str | None
    calls: int
    errors: int
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    servers: list[str] = []
    """Of a tool: who was asked."""


class CallRows(msgspec.Struct):
    """A window, the last so many `seconds`; the most called first."""

    seconds: float
    total: CallRow
    rows: list[CallRow]


class CallTally:
    """What is added up for a row."""

    def __init__(self) -> None:
        self.calls = self.errors = 0
        self.times: Counts = {}
        self.servers: dict[str, None] = {}

    def count(self, outcome: str, calls: int) -> None:
        """So many calls ended so."""
        self.calls += calls
        self.errors += calls * (outcome in ERROR_OUTCOMES)

    def row(self, name: str | None) -> CallRow:
        """All of it."""
        row = CallRow(name, self.calls, self.errors, servers=list(self.servers))
        if buckets := sorted(self.times):
            found = at_percents(buckets, [self.times[bucket] for bucket in buckets])
            row.p50, row.p95, row.p99 = (found[place] for place in SHOWN)
        return row


def call_rows(latencies: Latencies, window: str, subject: Subject) -> CallRows:
    """The calls of a window by `subject`; those without one count in the total alone."""
    tallies: dict[str, CallTally] = {}
    total = CallTally()
    uptime = next(latencies.intervals("start"))[0]
    seconds = min(LENGTHS.get(window, uptime), uptime)
    timed = "upstream" if subject == "server" else "total"
    for begun, _, rows in latencies.intervals(window):
        seconds = max(seconds, begun)
        for (tool, server, outcome), stage, buckets, counts in rows:
            taken = dict(zip(buckets, counts, strict=True))
            name = tool if subject == "tool" else server
            tally = CallTally() if name is None else tallies.setdefault(name, CallTally())
            if stage == "total":
                total.count(outcome, sum(counts))
                tally.count(outcome, sum(counts))
                add_counts(total.times, taken)
            if stage == timed:
                add_counts(tally.times, taken)
            if subject == "tool" and server is not None:
                tally.servers[server] = None
    found = [tally.row(name) for name, tally in tallies.items()]
    found.sort(key=lambda row: (-row.calls, row.name or ""))
    return CallRows(seconds, total.row(None), found[:MOST])
