"""Sums over workers, and their text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastgw.telemetry.counters import Counters
from fastgw.telemetry.metrics import FAMILIES, Sums

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def taken(counters: Counters) -> Counters:
    delta = counters.take()
    assert delta is not None
    return delta


def lines(text: str) -> dict[str, float]:
    rows = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
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


def test_workers_are_summed_and_a_dead_ones_counts_stay_but_its_gauges_go() -> None:
    sums = Sums()
    for worker in (1, 2):
        counters = Counters()
        counters.inc("fastgw_requests_total", "/mcp", "ping", "ok")
        counters.record(0.02, "fastgw_request_seconds")
        counters.gauge(5, "fastgw_in_flight")
        sums.merge(worker, taken(counters))
    series = 'fastgw_requests_total{endpoint="/mcp",method="ping",outcome="ok"}'
    both = lines(sums.render({}))
    assert (both[series], both["fastgw_in_flight"], both["fastgw_request_seconds_count"]) == (2, 10, 2)
    sums.forget(1)
    left = lines(sums.render({}))
    assert (left[series], left["fastgw_in_flight"], left["fastgw_request_seconds_count"]) == (2, 5, 2)


def test_histograms_are_cumulative_and_end_with_all() -> None:
    counters = Counters()
    for value in (0.0001, 0.003, 0.2, 500.0):
        counters.record(value, "fastgw_overhead_seconds")
    sums = Sums()
    sums.merge(1, taken(counters))
    found = lines(sums.render({}))
    assert found['fastgw_overhead_seconds_bucket{le="0.0005"}'] == 1
    assert found['fastgw_overhead_seconds_bucket{le="0.25"}'] == 3
    assert found['fastgw_overhead_seconds_bucket{le="+Inf"}'] == 4
    assert found["fastgw_overhead_seconds_sum"] == pytest.approx(500.2031, rel=0.0005)


def test_label_values_cannot_break_out() -> None:
    sums = Sums()
    sums.inc("fastgw_upstream_requests_total", 'a"} 1\nfake 2', "ok\\")
    text = sums.render({})
    assert 'fastgw_upstream_requests_total{server="a\\"} 1\\nfake 2",outcome="ok\\\\"} 1\n' in text
    assert not re.search(r"^fake", text, re.M)


def test_every_metric_is_documented_with_its_labels_and_no_other_is() -> None:
    rows = re.findall(r"^\| `(fastgw_\w+)` \| (\w+) \| ([^|]*)\|", DOCS.read_text(), re.M)
    documented = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert documented == {name: (family.kind, family.labels) for name, family in FAMILIES.items()}


def test_only_documented_names_are_rendered() -> None:
    sums = Sums()
    sums.inc("fastgw_not_a_metric")
    names = set(re.findall(r"^(fastgw_[a-z_]+?)(?:_bucket|_sum|_count)?[{ ]", sums.render({}), re.M))
    assert names <= set(FAMILIES)
