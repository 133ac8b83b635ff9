"""The sums over all workers, and their text for Prometheus: a dead worker's counts stay and its gauges go.

The names are documented in docs/metrics.md; a test compares.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Final, NamedTuple

from fastgw.telemetry.counters import Delta, Series
from fastgw.telemetry.histogram import Histogram
from fastgw.telemetry.latencies import PERCENTS, Latencies


class Family(NamedTuple):
    """One metric: its kind (`counter`, `gauge`, `histogram`), what it says, its label names."""

    kind: str
    help: str
    labels: tuple[str, ...] = ()


FAMILIES: Final[dict[str, Family]] = {
    "fastgw_requests_total": Family(
        "counter", "Requests of agents, by endpoint, method and outcome.", ("endpoint", "method", "outcome")
    ),
    "fastgw_upstream_requests_total": Family(
        "counter", "Requests sent to servers, by server and outcome.", ("server", "outcome")
    ),
    "fastgw_request_seconds": Family("histogram", "Whole time of a call."),
    "fastgw_upstream_seconds": Family("histogram", "Time of a call spent waiting for servers."),
    "fastgw_overhead_seconds": Family("histogram", "Time of a call not spent waiting for servers."),
    "fastgw_call_quantile_seconds": Family(
        "gauge",
        "Percentiles of the calls of the last minute.",
        ("tool", "server", "outcome", "stage", "quantile"),
    ),
    "fastgw_in_flight": Family("gauge", "Requests being served now."),
    "fastgw_limit_decisions_total": Family(
        "counter", "Calls that limits decided, by who decided and outcome.", ("how", "outcome")
    ),
    "fastgw_limit_refusals_total": Family("counter", "Refusals by a limit, shadow ones too.", ("limit", "mode")),
    "fastgw_limit_fail_open_total": Family(
        "counter", "Calls let through unchecked while the store was away.", ("limit",)
    ),
    "fastgw_limit_held": Family("gauge", "Tokens that workers hold in advance.", ("limit",)),
    "fastgw_store_up": Family("gauge", "Workers for which the shared store is in use."),
    "fastgw_store_seconds": Family("histogram", "Time of one question to the store, however many calls it carries."),
    "fastgw_store_errors_total": Family("counter", "Questions that the store did not answer.", ("kind",)),
    "fastgw_store_restarts_total": Family("counter", "Stores of this machine that ended and were started again."),
    "fastgw_usage_events_total": Family("counter", "Usage events handed to the writer."),
    "fastgw_usage_events_lost_total": Family("counter", "Usage events that reached no sink.", ("where",)),
    "fastgw_worker_restarts_total": Family("counter", "Workers that ended and were started again."),
    "fastgw_controller_restarts_total": Family("counter", "Controllers that ended and were started again."),
    "fastgw_workers": Family("gauge", "Connected workers by state.", ("state",)),
    "fastgw_snapshot_generation": Family("gauge", "Generation of the snapshot that workers were last given."),
    "fastgw_snapshot_failures_total": Family("counter", "Compiles that failed; the snapshot before was kept."),
    "fastgw_reloads_total": Family("counter", "Reloads of the configuration, by outcome.", ("outcome",)),
    "fastgw_sessions_ended": Family("gauge", "Ended agent sessions that are remembered."),
    "fastgw_server_tools": Family("gauge", "Tools in the last catalogue of a server.", ("server",)),
    "fastgw_server_prompts": Family("gauge", "Prompts in the last catalogue of a server.", ("server",)),
    "fastgw_server_resources": Family("gauge", "Resources in the last catalogue of a server.", ("server",)),
    "fastgw_server_templates": Family("gauge", "Resource templates in the last catalogue of a server.", ("server",)),
}
BOUNDS: Final = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0),
)
"""Upper bounds of the buckets shown, in seconds: from what the gateway itself takes to what an agent waits for."""
MOST_SHOWN = 200
"""Tools, servers and outcomes whose percentiles are shown: those of the last minute that were called most."""


class Sums:
    """What all workers have counted."""

    def __init__(self) -> None:
        self.latencies = Latencies()
        self._counts: dict[Series, int] = {}
        self._times: dict[Series, Histogram] = {}
        self._gauges: dict[int, dict[Series, float]] = {}

    def merge(self, worker: int, delta: Delta) -> None:
        """Add what worker number `worker` counted."""
        for series, count in delta.counts.items():
            self._counts[series] = self._counts.get(series, 0) + count
        for (_, server, outcome), times in delta.calls.items():
            if times.sent:
                self.add(("fastgw_upstream_requests_total", server or "", outcome), times.sent)
            for stage, counts, total in (
                ("request", times.total, times.sum_total),
                ("upstream", times.upstream, times.sum_total - times.sum_overhead),
                ("overhead", times.overhead, times.sum_overhead),
            ):
                self._times.setdefault((f"fastgw_{stage}_seconds",), Histogram()).merge(counts, total)
        for series, (counts, total) in delta.times.items():
            self._times.setdefault(series, Histogram()).merge(counts, total)
        if delta.calls:
            self.latencies.merge(delta.calls)
        if delta.gauges:
            self._gauges[worker] = delta.gauges

    def forget(self, worker: int) -> None:
        """The worker has gone: what it had in hand is no more, what it counted stays."""
        self._gauges.pop(worker, None)

    def inc(self, *series: str) -> None:
        """Count one in the controller itself."""
        self._counts[series] = self._counts.get(series, 0) + 1

    def add(self, series: Series, count: int) -> None:
        """Count `count` in the controller itself."""
        self._counts[series] = self._counts.get(series, 0) + count

    def put(self, value: int, *series: str) -> None:
        """Set a counter to what somebody else has summed."""
        self._counts[series] = value

    def render(self, now: Mapping[Series, float]) -> str:
        """The text, Prometheus exposition format 0.0.4; `now` holds gauges that only the asker knows."""
        gauges: dict[Series, float] = dict(now)
        for told in self._gauges.values():
            for series, value in told.items():
                gauges[series] = gauges.get(series, 0) + value
        tables = {"counter": _by_name(self._counts), "gauge": _by_name(gauges), "histogram": _by_name(self._times)}
        return "".join(_lines(name, family, tables[family.kind].get(name)) for name, family in FAMILIES.items())


def quantiles(latencies: Latencies) -> dict[Series, float]:
    """The percentiles of the last minute as gauges; takes a while where many tools are called."""
    name = "fastgw_call_quantile_seconds"
    return {
        (name, row.tool or "", row.server or "", row.outcome, row.stage, f"{percent / 100:g}"): value / 1000
        for row in latencies.percentiles("1m")[: MOST_SHOWN * 3]
        for percent, value in zip(PERCENTS, row.times, strict=True)
    }


def _by_name(table: Mapping[Series, object]) -> dict[str, list[tuple[Series, object]]]:
    grouped: dict[str, list[tuple[Series, object]]] = defaultdict(list)
    for series in sorted(table):
        grouped[series[0]].append((series[1:], table[series]))
    return grouped


def _lines(name: str, family: Family, rows: list[tuple[Series, object]] | None) -> str:
    text = f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}\n"
    if family.kind == "histogram":
        rows = rows or [((), Histogram())]
        return text + "".join(_histogram(name, family, values, found) for values, found in rows)
    rows = rows or ([((), 0)] if not family.labels else [])
    return text + "".join(f"{name}{_labels(family.labels, values)} {value}\n" for values, value in rows)


def _histogram(name: str, family: Family, values: Series, found: object) -> str:
    assert isinstance(found, Histogram)
    names = (*family.labels, "le")
    rows = [
        f"{name}_bucket{_labels(names, (*values, f'{bound:g}'))} {count}\n"
        for bound, count in zip(BOUNDS, found.at_most(BOUNDS), strict=True)
    ]
    plain = _labels(family.labels, values)
    rows.append(f"{name}_bucket{_labels(names, (*values, '+Inf'))} {found.count}\n")
    rows.append(f"{name}_sum{plain} {found.total / 1e6:.6f}\n{name}_count{plain} {found.count}\n")
    return "".join(rows)


def _labels(names: tuple[str, ...], values: Series) -> str:
    if not names:
        return ""
    pairs = (f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True))
    return "{" + ",".join(pairs) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
