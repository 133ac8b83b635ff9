"""Calls of the last minute by tool and by server, their histograms merged."""

from __future__ import annotations

import random

from fastgw.admin.paces import RecentPaces, last_hour, times_of
from fastgw.telemetry.counters import CallSeries, CallTimes, Counters
from fastgw.telemetry.histogram import bucket_of
from fastgw.telemetry.latencies import Latencies
from tests.admin.page_world import took


def told(latencies: Latencies, series: CallSeries, *millis: float, waiting: float = 0.001) -> None:
    counters = Counters()
    for one in millis:
        took(counters, series, one / 1000, waiting)
    latencies.merge(counters.calls)
    latencies.settle()


def test_a_tool_is_all_its_outcomes_and_a_server_all_its_tools() -> None:
    latencies = Latencies(lambda: 0.0)
    told(latencies, ("a", "one", "ok"), *[10.0] * 98)
    told(latencies, ("a", "one", "timeout"), 500.0, 500.0)
    told(latencies, ("b", "one", "ok"), *[1.0] * 100)
    told(latencies, ("a", "two", "ok"), 7.0)
    found = RecentPaces(latencies)
    assert found.tools["a", "one"].row == [100, 2, 0, 10.0, 10.0, 500.0]
    assert found.tools["a", "two"].row == [1, 0, 0, 7.0, 7.0, 7.0]
    calls, errors, refused, p50, _, p99 = found.servers["one"].row
    assert (calls, errors, refused) == (200, 2, 0)
    assert (p50, p99) == (0.0, 9.01), "how long it took, which is what agents waited less our own millisecond"
    assert found.everything.calls == 201


def test_refused_calls_count_with_the_server_of_their_tool_and_leave_its_times_alone() -> None:
    latencies = Latencies(lambda: 0.0)
    told(latencies, ("a", "seldom", "ok"), 5.0)
    told(latencies, ("a", "often", "ok"), 5.0, 5.0)
    told(latencies, ("a", None, "rate_limited"), *[0.1] * 7)
    told(latencies, ("never-sent", None, "denied"), 0.1)
    told(latencies, (None, None, "denied"), 0.1)
    found = RecentPaces(latencies)
    assert found.tools["a", "often"].row == [9, 0, 7, 5.0, 5.0, 5.0]
    assert found.tools["a", "seldom"].row[:3] == [1, 0, 0]
    assert found.tools["never-sent", ""].row == [1, 0, 1, None, None, None]
    assert found.everything.row[:3] == [12, 0, 9]
    assert set(found.servers) == {"seldom", "often"}


def test_the_last_hour_of_a_tool_and_of_a_server_minute_by_minute() -> None:
    now = 0.0
    latencies = Latencies(lambda: now)
    for minute in range(5):
        told(latencies, ("a", "one", "ok"), 10.0 * (minute + 1))
        told(latencies, ("b", "one", "timeout"), 100.0)
        told(latencies, ("other", "two", "ok"), 9999.0)
        now += 61.0
    of_tool, of_server = last_hour(latencies, "a", "one"), last_hour(latencies, None, "one")
    assert [row[1:] for row in of_tool] == [[1, 0, 0, *[10.0 * (minute + 1)] * 3] for minute in range(5)]
    assert [row[1:4] for row in of_server] == [[2, 1, 0]] * 5
    agos = [row[0] for row in of_tool]
    assert agos == sorted(agos, reverse=True)
    assert last_hour(latencies, "nothing", None) == []


def test_a_wanted_series_is_found_among_thousands() -> None:
    """What bisection picks out is what reading everything finds."""
    dice, latencies = random.Random(5), Latencies(lambda: 0.0)
    for n in range(300):
        told(latencies, (f"t{n}", f"s{n % 7}", "ok"), *(dice.lognormvariate(1, 2) for _ in range(20)))
    every = [list(rows) for _, _, rows in latencies.intervals("1h")]
    picked = [list(rows) for _, _, rows in latencies.intervals("1h", lambda series: series[1] == "s3")]
    assert picked == [[row for row in rows if row[0][1] == "s3"] for rows in every]
    assert len(picked[0]) == 43 * 3


def test_three_digits() -> None:
    assert times_of({}) == [None, None, None]
    assert times_of({bucket_of(1_234_567): 1}) == [1230.0, 1230.0, 1230.0]
    assert CallTimes().sent == 0
