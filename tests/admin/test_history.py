"""The last hour of all calls, point by point."""

from __future__ import annotations

from fastgw.admin.history import MOST_POINTS, STEP, CallHistory
from fastgw.telemetry.counters import Counters
from fastgw.telemetry.metrics import Sums
from tests.admin.page_world import took


def counted(sums: Sums, outcome: str, seconds: float, times: int, method: str = "tools/call") -> None:
    told = Counters()
    for _ in range(times):
        told.inc("fastgw_requests_total", "/mcp", method, outcome)
        if method == "tools/call":
            took(told, ("t", "s", outcome), seconds)
    sums.merge(1, told)


def test_a_point_says_what_came_since_the_one_before() -> None:
    sums, now = Sums(), 0.0
    counted(sums, "ok", 5.0, 7)  # before it begins
    history = CallHistory(sums, lambda: now)
    counted(sums, "ok", 0.010, 97)
    counted(sums, "timeout", 0.200, 2)
    counted(sums, "denied", 0.001, 1)
    counted(sums, "timeout", 0.0, 50, method="tools/list")  # is no call
    now = 10.0
    history.add(1_000.0)
    assert history.points() == {"1": [1000.0, 10.0, 0.2, 0.1, 10.0, 10.0, 200.0]}
    now = 20.0
    history.add(1_010.0)
    assert history.points()["2"] == [1010.0, 0.0, 0.0, 0.0, None, None, None]


def test_rates_go_by_a_clock_that_is_not_set() -> None:
    sums, now = Sums(), 0.0
    history = CallHistory(sums, lambda: now)
    counted(sums, "ok", 0.01, 20)
    now = 2 * STEP  # one step was missed, and the wall clock has gone back by a day
    history.add(-86_400.0)
    assert history.points()["1"][:2] == [-86_400.0, 20 / (2 * STEP)]


def test_it_keeps_an_hour() -> None:
    history = CallHistory(Sums())
    for at in range(2 * MOST_POINTS):
        history.add(float(at))
    points = history.points()
    assert len(points) == MOST_POINTS
    assert list(points)[-1] == str(2 * MOST_POINTS)
