"""The sums over all workers, and their text for Prometheus: a dead worker's counts stay and its gauges go.

The names are documented in docs/metrics.md; a test compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Final, NamedTuple

from fastgw.telemetry.counters import Counters, Series
from fastgw.telemetry.histogram import Counts, add_counts, at_most, seconds_in
from fastgw.telemetry.latencies import PERCENTS, Latencies


class Family(NamedTuple):
    """One metric: its kind (`counter`, `gauge`, `histogram`), what it says, its label names."""

    kind: str
    help: str
    labels: tuple[str, ...] = ()


FAMILIES: Final[dict[str, Family]] = {
    "fastgw_requests_total": Family("counter", "Requests of agents.", ("endpoint", "method", "outcome")),
    "fastgw_upstream_requests_total": Family("counter", "Requests sent to servers.", ("server", "outcome")),
    "fastgw_request_seconds": Family("histogram", "Whole time of a call."),
    "fastgw_upstream_seconds": Family("histogram", "Time of a call spent waiting for servers."),
    "fastgw_overhead_seconds": Family("histogram", "Time of a call not spent waiting for servers."),
    "fastgw_call_quantile_seconds": Family(
        "gauge", "Percentiles of the last minute.", ("tool", "server", "outcome", "stage", "quantile")
    ),
    "fastgw_attempts_failed_total": Family("counter", "Attempts at servers that failed.", ("server", "failure")),
    "fastgw_failovers_total": Family("counter", "Calls that another instance or server answered.", ("server", "to")),
    "fastgw_retries_refused_total": Family("counter", "Repeats for which the retry budget had no room.", ("server",)),
    "fastgw_instance_healthy": Family("gauge", "Whether checks find an instance in order.", ("server", "instance")),
    "fastgw_breaker_open": Family("gauge", "Whether an instance's breaker is open.", ("server", "instance")),
    "fastgw_instance_drained": Family("gauge", "Whether an operator wants no calls there.", ("server", "instance")),
    "fastgw_health_checks_total": Family("counter", "Checks of instances by their outcome.", ("server", "outcome")),
    "fastgw_bulkhead_in_flight": Family("gauge", "Calls that have a place at a server.", ("server",)),
    "fastgw_bulkhead_waiting": Family("gauge", "Calls that wait for a place at a server.", ("server",)),
    "fastgw_bulkhead_refusals_total": Family("counter", "Calls that a full server's queue refused.", ("server",)),
    "fastgw_in_flight": Family("gauge", "Requests being served now."),
    "fastgw_cache_total": Family("counter", "Calls of tools whose results are kept.", ("outcome",)),
    "fastgw_cache_bytes": Family("gauge", "Bytes of results that workers keep."),
    "fastgw_limit_decisions_total": Family("counter", "Calls that limits decided.", ("how", "outcome")),
    "fastgw_limit_refusals_total": Family("counter", "Refusals by a limit, shadow ones too.", ("limit", "mode")),
    "fastgw_limit_fail_open_total": Family("counter", "Calls let through unchecked, the store away.", ("limit",)),
    "fastgw_limit_held": Family("gauge", "Tokens that workers hold in advance.", ("limit",)),
    "fastgw_quota_refusals_total": Family("counter", "Refusals by a quota, shadow ones too.", ("quota", "mode")),
    "fastgw_quota_warnings_total": Family("counter", "Accounts of a quota that reached its warn_at.", ("quota",)),
    "fastgw_quota_store_errors_total": Family("counter", "Questions about quotas without an answer.", ("kind",)),
    "fastgw_quota_journal_errors_total": Family("counter", "Writes to the journal of quotas that failed."),
    "fastgw_store_up": Family("gauge", "Workers for which the shared store is in use."),
    "fastgw_store_seconds": Family("histogram", "Time of one question to the store, however many calls it carries."),
    "fastgw_store_errors_total": Family("counter", "Questions that the store did not answer.", ("kind",)),
    "fastgw_store_restarts_total": Family("counter", "Stores of this machine that ended and were started again."),
    "fastgw_usage_events_total": Family("counter", "Usage events written to the spool."),
    "fastgw_usage_events_lost_total": Family("counter", "Usage events that are nowhere, or not at a sink.", ("where",)),
    "fastgw_usage_write_errors_total": Family("counter", "Times that the spool could not be written."),
    "fastgw_usage_archive_errors_total": Family("counter", "Times that the spool could not be archived."),
    "fastgw_usage_archive_spoiled_total": Family("counter", "Lines of the spool that are no events."),
    "fastgw_usage_spool_bytes": Family("gauge", "Size of the spool."),
    "fastgw_usage_sink_lag_seconds": Family("gauge", "For how long events have been waiting for a sink.", ("sink",)),
    "fastgw_usage_sink_errors_total": Family("counter", "Deliveries that a sink did not take.", ("sink",)),
    "fastgw_usage_restarts_total": Family("counter", "Usage processes that ended and were started again."),
    "fastgw_alerts_total": Family("counter", "Alerts for the webhook, by what became of them.", ("outcome",)),
    "fastgw_worker_restarts_total": Family("counter", "Workers that ended and were started again."),
    "fastgw_controller_restarts_total": Family("counter", "Controllers that ended and were started again."),
    "fastgw_workers": Family("gauge", "Connected workers by state.", ("state",)),
    "fastgw_snapshot_generation": Family("gauge", "Generation of the snapshot that workers were last given."),
    "fastgw_snapshot_failures_total": Family("counter", "Compiles that failed; the snapshot before was kept."),
    "fastgw_reloads_total": Family("counter", "Reloads of the configuration, by outcome.", ("outcome",)),
    "fastgw_config_last_reload_successful": Family("gauge", "Whether the newest reading of the configuration applies."),
    "fastgw_config_last_reload_success_timestamp_seconds": Family("gauge", "When a reading last applied."),
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


class Sums(Counters):
    """What all workers have counted, and the controller itself."""

    def __init__(self) -> None:
        super().__init__()
        self.latencies = Latencies()
        self._of_workers: dict[int, dict[Series, float]] = {}

    def merge(self, worker: int, delta: Counters) -> None:
        """Add what worker number `worker` counted."""
        for series, count in delta.counts.items():
            self.add(series, count)
        for (_, server, outcome), times in delta.calls.items():
            if times.sent:
                self.add(("fastgw_upstream_requests_total", server or "", outcome), times.sent)
            for stage, counts in (("request", times.total), ("upstream", times.upstream), ("overhead", times.overhead)):
                add_counts(self.times.setdefault((f"fastgw_{stage}_seconds",), {}), counts)
        for series, counts in delta.times.items():
            add_counts(self.times.setdefault(series, {}), counts)
        if delta.calls:
            self.latencies.merge(delta.calls)
        self._of_workers[worker] = delta.gauges

    def forget(self, worker: int) -> None:
        """The worker has gone: what it had in hand is no more, what it counted stays."""
        self._of_workers.pop(worker, None)

    def put(self, value: int, *series: str) -> None:
        """Set a counter to what somebody else has summed."""
        self.counts[series] = value

    def render(self, now: Mapping[Series, float]) -> str:
        """The text, Prometheus exposition format 0.0.4; `now` holds gauges that only the asker knows."""
        values: dict[Series, float] = {**self.counts, **now}
        for told in self._of_workers.values():
            for series, value in told.items():
                values[series] = values.get(series, 0) + value
        rows = {name: list(found) for name, found in groupby(sorted(values), lambda series: series[0])}
        text = ""
        for name, family in FAMILIES.items():
            text += f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}\n"
            if family.kind == "histogram":
                text += _histogram(name, self.times.get((name,), {}))
            for series in rows.get(name, () if family.labels or family.kind == "histogram" else [(name,)]):
                text += f"{name}{_labels(family.labels, series[1:])} {values.get(series, 0)}\n"
        return text


def quantiles(latencies: Latencies) -> dict[Series, float]:
    """The percentiles of the last minute as gauges; takes a while where many tools are called."""
    name = "fastgw_call_quantile_seconds"
    return {
        (name, row.tool or "", row.server or "", row.outcome, row.stage, f"{percent / 100:g}"): value / 1000
        for row in latencies.percentiles("1m")[: MOST_SHOWN * 3]
        for percent, value in zip(PERCENTS, row.times, strict=True)
    }


def _histogram(name: str, counts: Counts) -> str:
    bounds = (*(f"{bound:g}" for bound in BOUNDS), "+Inf")
    calls = sum(counts.values())
    rows = zip(bounds, (*at_most(counts, BOUNDS), calls), strict=True)
    text = "".join(f'{name}_bucket{{le="{bound}"}} {count}\n' for bound, count in rows)
    return f"{text}{name}_sum {seconds_in(counts):.6f}\n{name}_count {calls}\n"


def _labels(names: tuple[str, ...], values: Series) -> str:
    safe = [value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for value in values]
    pairs = ",".join(f'{name}="{value}"' for name, value in zip(names, safe, strict=True))
    return f"{{{pairs}}}" if pairs else ""
