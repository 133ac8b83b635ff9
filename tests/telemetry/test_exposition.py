"""The text by the eyes of Prometheus' own parsers, in both formats."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from fastgw.telemetry.counters import STAGES, Counters, Series
from fastgw.telemetry.exposition import UNITS, wants_openmetrics, written
from fastgw.telemetry.metrics import FAMILIES, Sums, quantiles

HOSTILE = 'a"} 1\nfake_total 2\\'
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PARSERS = [(False, read_text), (True, read_openmetrics)]


def counted(tools: Iterable[str] = ("search",), agents: Iterable[str] = ("bot",)) -> Sums:
    """A gateway in which everything has been counted."""
    sums, counters = Sums(), Counters()
    for agent in agents:
        counters.inc("fastgw_requests_total", "/mcp", "tools/call", "ok", agent)
    for tool in tools:
        counters.call((tool, "docs", "ok"), 20_000, 300, 1)
    for name, family in FAMILIES.items():
        series = (name, *("x" for _ in family.labels))
        if name == "fastgw_requests_total" or family.kind == "summary":
            continue
        if family.kind == "histogram":
            counters.record(0.3, *series)
        elif family.kind == "counter":
            counters.add(series, 3)
        else:
            counters.gauge(1 if family.kind == "info" else 2.5, *series)
    sums.merge(1, counters)
    sums.latencies.settle()
    return sums


def text(sums: Sums, *, openmetrics: bool, more: dict[Series, float] | None = None) -> str:
    readings = sums.read({**quantiles(sums.latencies), **(more or {})})
    return written(FAMILIES, readings, openmetrics=openmetrics).decode()


def samples(found: Iterable[Any]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    rows = [((row.name, tuple(sorted(row.labels.items()))), row.value) for one in found for row in one.samples]
    assert len(rows) == len(dict(rows)), "a series stands twice"
    return dict(rows)


def test_both_formats_say_the_same_and_every_metric_has_its_kind_and_its_help() -> None:
    sums = counted()
    plain, modern = (list(read(text(sums, openmetrics=which))) for which, read in PARSERS)
    assert samples(plain) == samples(modern)
    assert {(one.name, one.documentation) for one in plain} == {
        (name.removesuffix("_total"), family.help) for name, family in FAMILIES.items()
    }
    kinds = {family.kind for family in FAMILIES.values()}
    assert {one.type for one in modern} == kinds
    assert {one.type for one in plain} == kinds - {"info"}


def test_openmetrics_ends_as_it_must_and_units_are_those_of_the_names() -> None:
    found = text(counted(), openmetrics=True)
    assert found.endswith("\n# EOF\n")
    families = {one.name: one for one in read_openmetrics(found)}
    assert families["fastgw_request_seconds"].unit == "seconds"
    assert families["fastgw_process_cpu_seconds"].unit == "seconds"
    assert families["fastgw_usage_spool_bytes"].unit == "bytes"
    assert {one.unit for one in families.values()} == {*UNITS, ""}
    assert "# EOF" not in text(counted(), openmetrics=False)


@pytest.mark.parametrize(("which", "read"), PARSERS)
def test_whatever_a_tool_or_an_agent_is_called_comes_back_as_it_is(which: bool, read: Any) -> None:
    names = [
        HOSTILE,
        "<script>alert(1)</script>",
        "../../etc/passwd",
        "\\n",
        "\n",
        '"',
        "\U0001d518 ü",
        "{}",
        'a,b="c"',
        "# EOF",
    ]
    found = samples(read(text(counted(names, names), openmetrics=which)))
    agents = {dict(labels)["agent"] for name, labels in found if name == "fastgw_agent_requests_total"}
    tools = {dict(labels)["tool"] for name, labels in found if name == "fastgw_tool_calls_total"}
    assert set(names) <= agents & tools
    assert not any(name.startswith("fake") for name, _ in found)


def test_a_name_that_is_no_unicode_costs_no_other() -> None:
    found = samples(read_text(text(counted(["\ud800"]), openmetrics=False)))
    assert ("fastgw_request_seconds_count", ()) in found


def test_exemplars_stand_in_openmetrics_alone_in_the_bucket_of_their_call() -> None:
    sums, counters = counted(), Counters()
    counters.call(("search", "docs", "ok"), 20_000, 300, 1)
    counters.trace(TRACE, 20_000, 300, 1772116321.025)
    sums.merge(1, counters)
    found = [row for one in read_openmetrics(text(sums, openmetrics=True)) for row in one.samples if row.exemplar]
    assert {(row.name, row.labels["le"]) for row in found} == {
        ("fastgw_request_seconds_bucket", "0.025"),
        ("fastgw_upstream_seconds_bucket", "0.025"),
        ("fastgw_overhead_seconds_bucket", "0.0005"),
    }
    assert len(found) == len(STAGES)
    for row in found:
        assert row.exemplar.labels == {"trace_id": TRACE}
        assert row.exemplar.value <= float(row.labels["le"])
        assert float(row.exemplar.timestamp) == 1772116321.045
    assert TRACE not in text(sums, openmetrics=False)


@pytest.mark.parametrize(
    ("accept", "wants"),
    [
        ("", False), ("*/*", False), ("text/plain", False), ("text/html,*/*;q=0.8", False),
        ("application/openmetrics-text", True), ("application/openmetrics-text; version=1.0.0; charset=utf-8", True),
        (PROMETHEUS, True),
        ("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;q=0.3", True),
        ("text/plain;version=0.0.4;q=0.9,application/openmetrics-text;q=0.5", False),
        ("application/openmetrics-text;q=0", False), ("application/openmetrics-text;q=x", True), (";;q=,,=", False),
    ],
)  # fmt: skip
def test_who_gets_openmetrics(accept: str, wants: bool) -> None:
    assert wants_openmetrics(accept) is wants


def test_promtool_finds_nothing_to_complain_of() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not there: apt-get install prometheus")
    check = subprocess.run(
        [promtool, "check", "metrics"],
        input=text(counted(), openmetrics=False),
        text=True,
        capture_output=True,
        check=False,
    )
    assert (check.returncode, check.stdout + check.stderr) == (0, "")


def test_two_thousand_series_are_written_in_less_than_50_ms() -> None:
    sums = counted([f"tool-{number}" for number in range(100)], [f"agent-{number}" for number in range(1000)])
    took, found = [], ""
    for _ in range(5):
        begun = time.thread_time()
        found = text(sums, openmetrics=True)
        took.append(time.thread_time() - begun)
    assert len(re.findall(r"^[a-z]", found, re.M)) > 2000
    assert min(took) < 0.05
