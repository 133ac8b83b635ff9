"""The calls of a window put together by tool or by server: `/stats/tools` and `/stats/servers`.

Histograms are added up, never percentiles.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from fastgw.admin.paces import SHOWN_PERCENTS, Tally
from fastgw.telemetry.latencies import Latencies, at_percents

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


def call_rows(latencies: Latencies, window: str, subject: Subject) -> CallRows:
    """The calls of a window by `subject`; those without one count in the total alone."""
    tallies, servers = dict[str, Tally](), dict[str, dict[str, None]]()
    total = Tally()
    uptime = next(latencies.intervals("start"))[0]
    seconds = min(LENGTHS.get(window, uptime), uptime)
    timed = "upstream" if subject == "server" else "total"
    for begun, _, rows in latencies.intervals(window):
        seconds = max(seconds, begun)
        for (tool, server, outcome), stage, buckets, counts in rows:
            name = tool if subject == "tool" else server
            tally = Tally() if name is None else tallies.setdefault(name, Tally())
            if stage == "total":
                total.count(outcome, sum(counts))
                tally.count(outcome, sum(counts))
                total.time(buckets, counts)
            if stage == timed:
                tally.time(buckets, counts)
            if subject == "tool" and tool is not None and server is not None:
                servers.setdefault(tool, {})[server] = None
    found = [_row(name, tally, [*servers.get(name, ())]) for name, tally in tallies.items()]
    found.sort(key=lambda row: (-row.calls, row.name or ""))
    return CallRows(seconds, _row(None, total, []), found[:MOST])


def _row(name: str | None, tally: Tally, servers: list[str]) -> CallRow:
    row = CallRow(name, tally.calls, tally.errors, servers=servers)
    if buckets := sorted(tally.counts):
        counts = [tally.counts[bucket] for bucket in buckets]
        row.p50, row.p95, row.p99 = at_percents(buckets, counts, SHOWN_PERCENTS)
    return row
