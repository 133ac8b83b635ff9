"""Sums over workers, and what is shown of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastgw.telemetry.counters import Counters
from fastgw.telemetry.exposition import written
from fastgw.telemetry.metrics import FAMILIES, MOST_AGENTS, MOST_SHOWN, Sums

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def taken(counters: Counters) -> Counters:
    delta = counters.take()
    assert delta is not None
    return delta


def text(sums: Sums) -> str:
    return written(FAMILIES, sums.read({})).decode()


def lines(sums: Sums) -> dict[str, float]:
    rows = (line.rpartition(" ") for line in text(sums).splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


def test_nothing_counted_is_no_delta_and_a_delta_is_taken_once() -> None:
    counters = Counters()
    assert counters.take() is None
    counters.inc("fastgw_requests_total", "/mcp", "ping", "ok")
    assert taken(counters).counts == {("fastgw_requests_total", "/mcp", "ping", "ok"): 1}
    assert counters.take() is None


def test_a_gauge_is_told_when_it_changes_and_with_all_else() -> None:
    counters, gauges = Counters(), {("fastgw_in_flight",): 1}
    counters.gauge(1, "fastgw_in_flight")
    assert taken(counters).gauges == gauges
    counters.gauge(1, "fastgw_in_flight")
    assert counters.take() is None
    counters.inc("fastgw_requests_total", "/mcp", "ping", "ok")
    assert taken(counters).gauges == gauges
    counters.gauge(0, "fastgw_in_flight")
    assert taken(counters).gauges == {("fastgw_in_flight",): 0}


def test_what_is_measured_of_a_server_goes_with_it() -> None:
    counters = Counters()
    counters.gauge(1, "fastgw_in_flight")
    counters.measured({("fastgw_pool_waiting", "a"): 1, ("fastgw_pool_waiting", "b"): 2})
    counters.measured({("fastgw_pool_waiting", "b"): 3})
    assert taken(counters).gauges == {("fastgw_in_flight",): 1, ("fastgw_pool_waiting", "b"): 3}
    counters.measured({("fastgw_pool_waiting", "b"): 3})
    assert counters.take() is None


def test_workers_are_summed_and_a_dead_ones_counts_stay_but_its_gauges_go() -> None:
    sums = Sums()
    for worker in (1, 2):
        counters = Counters()
        counters.inc("fastgw_requests_total", "/mcp", "ping", "ok", f"agent-{worker}")
        counters.record(0.02, "fastgw_request_seconds")
        counters.gauge(5, "fastgw_in_flight")
        sums.merge(worker, taken(counters))
    series = 'fastgw_requests_total{endpoint="/mcp",method="ping",outcome="ok"}'
    both = lines(sums)
    assert (both[series], both["fastgw_in_flight"], both["fastgw_request_seconds_count"]) == (2, 10, 2)
    sums.forget(1)
    left = lines(sums)
    assert (left[series], left["fastgw_in_flight"], left["fastgw_request_seconds_count"]) == (2, 5, 2)
    assert left['fastgw_agent_requests_total{agent="agent-1",outcome="ok"}'] == 1


def test_any_number_of_agents_and_tools_is_so_many_series_and_one_for_the_rest_and_nothing_is_lost() -> None:
    sums, many = Sums(), MOST_SHOWN + 50
    for worker in range(4):
        counters = Counters()
        for number in range(many):
            counters.inc("fastgw_requests_total", "/mcp", "tools/call", "ok", f"agent-{number}")
            counters.call((f"tool-{number}", "s", "ok"), 10_000, 1_000, 1)
        sums.merge(worker, taken(counters))
    found = lines(sums)
    for name, most in (("fastgw_agent_requests_total", MOST_AGENTS), ("fastgw_tool_calls_total", MOST_SHOWN)):
        rows = {row: value for row, value in found.items() if row.startswith(name)}
        assert len(rows) == most + 1
        assert sum(rows.values()) == 4 * many
    assert found['fastgw_tool_calls_total{tool="other",server="other",outcome="ok"}'] == 4 * 50
    assert found['fastgw_requests_total{endpoint="/mcp",method="tools/call",outcome="ok"}'] == 4 * many


def test_only_calls_count_for_the_pace_of_agents() -> None:
    sums, counters = Sums(), Counters()
    counters.inc("fastgw_requests_total", "/mcp", "tools/list", "ok", "bot")
    counters.inc("fastgw_requests_total", "/mcp", "tools/call", "timeout", "bot")
    sums.merge(1, taken(counters))
    (pace,) = sums.agents.top("1m", 10)
    assert (pace.agent, pace.calls, pace.errors, pace.refused) == ("bot", 1, 1, 0)


def test_histograms_are_cumulative_and_end_with_all() -> None:
    counters = Counters()
    for value in (0.0001, 0.003, 0.2, 500.0):
        counters.record(value, "fastgw_overhead_seconds")
    sums = Sums()
    sums.merge(1, taken(counters))
    found = lines(sums)
    assert found['fastgw_overhead_seconds_bucket{le="0.0005"}'] == 1
    assert found['fastgw_overhead_seconds_bucket{le="0.25"}'] == 3
    assert found['fastgw_overhead_seconds_bucket{le="+Inf"}'] == 4
    assert found["fastgw_overhead_seconds_sum"] == pytest.approx(500.2031, rel=0.0005)


def test_label_values_cannot_break_out() -> None:
    sums = Sums()
    sums.inc("fastgw_upstream_requests_total", 'a"} 1\nfake 2', "ok\\")
    found = text(sums)
    assert 'fastgw_upstream_requests_total{server="a\\"} 1\\nfake 2",outcome="ok\\\\"} 1\n' in found
    assert not re.search(r"^fake", found, re.M)


def test_every_metric_is_documented_with_its_labels_and_no_other_is() -> None:
    rows = re.findall(r"^\| `(fastgw_\w+)` \| (\w+) \| ([^|]*)\|", DOCS.read_text(), re.M)
    documented = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert documented == {name: (family.kind, family.labels) for name, family in FAMILIES.items()}


def test_only_documented_names_are_rendered() -> None:
    sums = Sums()
    sums.inc("fastgw_not_a_metric")
    names = set(re.findall(r"^(fastgw_[a-z_]+?)(?:_bucket|_sum|_count)?[{ ]", text(sums), re.M))
    assert names <= set(FAMILIES)
