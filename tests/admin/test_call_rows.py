"""Calls by tool and by server agree with what was recorded, whatever series they came in."""

from __future__ import annotations

import json
import random
from collections import defaultdict

import pytest

from fastgw.admin.call_rows import MOST, call_rows
from fastgw.admin.stats import as_rows
from fastgw.errors import ERROR_OUTCOMES
from fastgw.telemetry.counters import Counters
from fastgw.telemetry.latencies import Latencies


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def merged(kept: Latencies, counters: Counters) -> None:
    delta = counters.take()
    assert delta is not None
    kept.merge(delta.calls)
    kept.settle()


def percentile(seconds: list[float], percent: float) -> float:
    ordered = sorted(seconds)
    return 1000 * ordered[max(1, int(percent * len(ordered) / 100 + 0.5)) - 1]


def test_they_are_added_up_over_outcomes_servers_and_slices() -> None:
    dice, clock = random.Random(5), Clock()
    kept, counters = Latencies(clock), Counters()
    waited: dict[str | None, list[float]] = defaultdict(list)
    took: dict[str | None, list[float]] = defaultdict(list)
    errors: dict[str | None, int] = defaultdict(int)
    for number in range(3000):
        tool, server = dice.choice(("search", "fetch", None)), dice.choice(("docs", "web", None))
        outcome = dice.choice(("ok", "ok", "tool_error", "denied"))
        seconds = dice.lognormvariate(-3, 1)
        counters.call((tool, server, outcome), int(seconds * 1e6), int(seconds * 1e6) // 4, 1)
        for key in {tool, "all"}:
            waited[key].append(seconds)
            errors[key] += outcome in ERROR_OUTCOMES
        took[server].append(seconds * 0.75)
        if number % 700 == 0:
            merged(kept, counters)
            clock.now += 11.0
    merged(kept, counters)
    clock.now += 1.0
    found = call_rows(kept, "1m", "tool")
    assert [row.name for row in found.rows] == sorted(("search", "fetch"), key=lambda name: -len(waited[name]))
    for row, key in (*((row, row.name) for row in found.rows), (found.total, "all")):
        assert (row.calls, row.errors) == (len(waited[key]), errors[key])
        assert row.p95 == pytest.approx(percentile(waited[key], 95), rel=2e-3)
    assert {*found.rows[0].servers} == {"docs", "web"} and found.total.servers == []
    assert found.seconds == 56.0  # since the start
    for row in call_rows(kept, "1m", "server").rows:
        assert (row.calls, row.servers) == (len(took[row.name]), [])
        assert row.p50 == pytest.approx(percentile(took[row.name], 50), rel=2e-3)
    clock.now += 300.0
    later = call_rows(kept, "1m", "tool")
    assert (later.seconds, later.total.calls, later.total.p50, later.rows) == (60.0, 0, None, [])


def test_of_thousands_of_tools_the_busiest_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, counters = Latencies(), Counters()
    for number in range(MOST + 10):
        for _ in range(1 + (number >= MOST)):
            counters.call((f"tool-{number}", "s", "ok"), 10_000, 1_000, 1)
    merged(kept, counters)
    told = json.loads(as_rows(kept, None, "tool").body)  # type: ignore[arg-type]
    assert (len(told["rows"]), told["total"]["calls"]) == (MOST, MOST + 20)
    assert {row["calls"] for row in told["rows"][:10]} == {2}
