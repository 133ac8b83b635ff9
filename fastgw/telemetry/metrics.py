"""The metrics, and the sums over all workers: a dead worker's counts stay and its gauges go.

The names are documented in docs/metrics.md; a test compares.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from fastgw.telemetry.busiest import BusiestRows, RecentAgents
from fastgw.telemetry.counters import Counters, Exemplar, Series
from fastgw.telemetry.exposition import Family, Readings
from fastgw.telemetry.histogram import add_counts
from fastgw.telemetry.latencies import PERCENTS, Latencies
from fastgw.telemetry.refusals import RecentRefusals

FAMILIES: Final[dict[str, Family]] = {
    "fastgw_requests_total": Family("counter", "Requests of agents.", ("endpoint", "method", "outcome")),
    "fastgw_agent_requests_total": Family("counter", "Requests of the busiest agents.", ("agent", "outcome")),
    "fastgw_tool_calls_total": Family("counter", "Calls of the busiest tools.", ("tool", "server", "outcome")),
    "fastgw_upstream_requests_total": Family("counter", "Requests sent to servers.", ("server", "outcome")),
    "fastgw_request_seconds": Family("histogram", "Whole time of a call."),
    "fastgw_upstream_seconds": Family("histogram", "Time of a call spent waiting for servers."),
    "fastgw_overhead_seconds": Family("histogram", "Time of a call not spent waiting for servers."),
    "fastgw_call_quantile_seconds": Family(
        "summary", "Percentiles of the last minute.", ("tool", "server", "outcome", "stage", "quantile")
    ),
    "fastgw_attempts_failed_total": Family("counter", "Attempts at servers that failed.", ("server", "failure")),
    "fastgw_failovers_total": Family("counter", "Calls that another instance or server answered.", ("server", "to")),
    "fastgw_retries_total": Family("counter", "Calls that were sent once more.", ("server",)),
    "fastgw_retry_budget": Family("gauge", "Calls that might be sent once more now.", ("server",)),
    "fastgw_retries_refused_total": Family("counter", "Repeats for which the retry budget had no room.", ("server",)),
    "fastgw_instance_healthy": Family("gauge", "Whether checks find an instance in order.", ("server", "instance")),
    "fastgw_breaker_open": Family("gauge", "Whether an instance's breaker is open.", ("server", "instance")),
    "fastgw_breaker_transitions_total": Family(
        "counter", "Times that an instance's breaker went into a state.", ("server", "instance", "to")
    ),
    "fastgw_instance_drained": Family("gauge", "Whether an operator wants no calls there.", ("server", "instance")),
    "fastgw_health_checks_total": Family("counter", "Checks of instances by their outcome.", ("server", "outcome")),
    "fastgw_bulkhead_in_flight": Family("gauge", "Calls that have a place at a server.", ("server",)),
    "fastgw_bulkhead_waiting": Family("gauge", "Calls that wait for a place at a server.", ("server",)),
    "fastgw_bulkhead_refusals_total": Family("counter", "Calls that a full server's queue refused.", ("server",)),
    "fastgw_upstream_in_flight": Family("gauge", "Calls that a server is working on.", ("server",)),
    "fastgw_pool_connections": Family("gauge", "Connections to a server, by state.", ("server", "state")),
    "fastgw_pool_max_connections": Family("gauge", "Connections to a server that there may be.", ("server",)),
    "fastgw_pool_waiting": Family("gauge", "Calls that wait for a connection to a server.", ("server",)),
    "fastgw_untrusted_headers_total": Family(
        "counter", "Requests whose header names an agent, and that come from no proxy of it.", ("identity",)
    ),
    "fastgw_tokens_refused_total": Family("counter", "Access tokens that were not taken.", ("reason",)),
    "fastgw_admin_refused_total": Family("counter", "Requests of the admin port that were refused.", ("reason",)),
    "fastgw_issuer_keys": Family("gauge", "Keys of an issuer that are known.", ("issuer",)),
    "fastgw_issuer_keys_age_seconds": Family("gauge", "Since when its keys are known as they are.", ("issuer",)),
    "fastgw_issuer_key_fetches_total": Family("counter", "Times an issuer was asked for keys.", ("issuer", "outcome")),
    "fastgw_introspections_total": Family("counter", "Times an issuer was asked about a token.", ("issuer", "outcome")),
    "fastgw_in_flight": Family("gauge", "Requests being served now."),
    "fastgw_cache_total": Family("counter", "Calls of tools whose results are kept.", ("outcome",)),
    "fastgw_cache_bytes": Family("gauge", "Bytes of results that workers keep."),
    "fastgw_limit_decisions_total": Family("counter", "Calls that limits decided.", ("how", "outcome")),
    "fastgw_limit_refusals_total": Family("counter", "Refusals by a limit, shadow ones too.", ("limit", "mode")),
    "fastgw_policy_shadow_calls_total": Family(
        "counter", "Calls that policies in shadow would decide otherwise.", ("policy", "would")
    ),
    "fastgw_limit_fail_open_total": Family("counter", "Calls let through unchecked, the store away.", ("limit",)),
    "fastgw_limit_held": Family("gauge", "Tokens that workers hold in advance.", ("limit",)),
    "fastgw_quota_refusals_total": Family("counter", "Refusals by a quota, shadow ones too.", ("quota", "mode")),
    "fastgw_quota_warnings_total": Family("counter", "Accounts of a quota that reached its warn_at.", ("quota",)),
    "fastgw_quota_remaining_ratio": Family(
        "gauge", "What is left of the fullest accounts of each quota.", ("quota", "subject")
    ),
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
    "fastgw_spans_total": Family("counter", "Spans of recorded requests, by what became of them.", ("outcome",)),
    "fastgw_alerts_total": Family("counter", "Alerts for the webhook, by what became of them.", ("outcome",)),
    "fastgw_anomalies_total": Family("counter", "What was found to be unusual in an hour of usage.", ("kind",)),
    "fastgw_event_loop_lag_seconds": Family("histogram", "How late a process's event loop is.", ("process",)),
    "fastgw_gc_pause_seconds": Family("histogram", "Time of one garbage collection.", ("process",)),
    "fastgw_process_cpu_seconds_total": Family("counter", "CPU time of processes.", ("process",)),
    "fastgw_process_resident_memory_bytes": Family("gauge", "Resident memory of processes.", ("process",)),
    "fastgw_worker_restarts_total": Family("counter", "Workers that ended and were started again."),
    "fastgw_controller_restarts_total": Family("counter", "Controllers that ended and were started again."),
    "fastgw_workers": Family("gauge", "Connected workers by state.", ("state",)),
    "fastgw_snapshot_generation": Family("gauge", "Generation of the snapshot that workers were last given."),
    "fastgw_snapshot_failures_total": Family("counter", "Compiles that failed; the snapshot before was kept."),
    "fastgw_reloads_total": Family("counter", "Reloads of the configuration, by outcome.", ("outcome",)),
    "fastgw_config_last_reload_successful": Family("gauge", "Whether the newest reading of the configuration applies."),
    "fastgw_config_last_reload_success_timestamp_seconds": Family("gauge", "When a reading last applied."),
    "fastgw_listener_certificate_expiry_timestamp_seconds": Family(
        "gauge", "When a certificate of the listener of agents expires.", ("kind",)
    ),
    "fastgw_certificate_expiry_timestamp_seconds": Family(
        "gauge", "When the first certificate in a file expires.", ("server", "kind")
    ),
    "fastgw_agent_key_expiry_timestamp_seconds": Family("gauge", "When an agent's key expires.", ("agent",)),
    "fastgw_build_info": Family("info", "Which fastgw this is.", ("version", "python", "revisions")),
    "fastgw_sessions_ended": Family("gauge", "Ended agent sessions that are remembered."),
    "fastgw_server_tokens_total": Family(
        "counter", "Tokens that token endpoints were asked for.", ("server", "outcome")
    ),
    "fastgw_server_tools": Family("gauge", "Tools in the last catalogue of a server.", ("server",)),
    "fastgw_server_tool_changes": Family("gauge", "Tools of a server that are not as pinned.", ("server", "kind")),
    "fastgw_server_prompts": Family("gauge", "Prompts in the last catalogue of a server.", ("server",)),
    "fastgw_server_resources": Family("gauge", "Resources in the last catalogue of a server.", ("server",)),
    "fastgw_server_templates": Family("gauge", "Resource templates in the last catalogue of a server.", ("server",)),
}
MOST_SHOWN = 200
"""Tools, servers and outcomes whose percentiles are shown: those of the last minute that were called most. As many
pairs of tool and server have rows of `fastgw_tool_calls_total`.
"""
MOST_AGENTS = 100
"""Agents that have rows of `fastgw_agent_requests_total`."""
CALLS: Final = ("tools/call", "prompts/get", "resources/read", "completion/complete")
"""Methods whose requests are calls."""
_REQUESTS: Final = "fastgw_requests_total"
_FROM_NOUGHT: Final[tuple[Series, ...]] = (
    ("fastgw_usage_events_lost_total", "spool"),
    ("fastgw_usage_events_lost_total", "sink"),
    ("fastgw_reloads_total", "applied"),
    ("fastgw_reloads_total", "refused"),
)
"""Counters with labels that are there from the start: of one that begins with 1 `increase` says nothing."""
_HISTOGRAMS: Final = {
    "total": "fastgw_request_seconds",
    "upstream": "fastgw_upstream_seconds",
    "overhead": "fastgw_overhead_seconds",
}
"""By stage."""


class Sums(Counters):
    """What all workers have counted, and the controller itself. `clock` gives seconds that never go back.

    Attributes:
        agents: who has called most of late.
        refusals: what was refused of late.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.counts.update(dict.fromkeys(_FROM_NOUGHT, 0))
        self.latencies = Latencies(clock)
        self.agents = RecentAgents(clock)
        self.refusals = RecentRefusals()
        self._agent_rows = BusiestRows(1, MOST_AGENTS, clock)
        self._tool_rows = BusiestRows(2, MOST_SHOWN, clock)
        self._seen: dict[tuple[str, int], Exemplar] = {}
        self._of_workers: dict[int, dict[Series, float]] = {}

    def merge(self, worker: int, delta: Counters) -> None:
        """Add what worker number `worker` counted."""
        for series, count in delta.counts.items():
            if series[0] == _REQUESTS:
                self._add_requests(series, int(count))
            else:
                self.add(series, count)
        for (tool, server, outcome), times in delta.calls.items():
            self._tool_rows.add((tool or "", server or ""), outcome, sum(times.total.values()))
            if times.sent:
                self.add(("fastgw_upstream_requests_total", server or "", outcome), times.sent)
            for stage, counts in (("total", times.total), ("upstream", times.upstream), ("overhead", times.overhead)):
                add_counts(self.times.setdefault((_HISTOGRAMS[stage],), {}), counts)
        for series, counts in delta.times.items():
            add_counts(self.times.setdefault(series, {}), counts)
        if delta.calls:
            self.latencies.merge(delta.calls)
        self.refusals.merge(delta.noted_refusals)
        self._seen |= {(_HISTOGRAMS[stage], at): one for (stage, at), one in delta.exemplars.items()}
        self._of_workers[worker] = delta.gauges
        self._agent_rows.turn()
        self._tool_rows.turn()

    def _add_requests(self, series: Series, count: int) -> None:
        """Requests by endpoint, method, outcome and agent: any number of agents must not become as many series."""
        self.add(series[:4], count)
        for agent in series[4:]:
            _, _, method, outcome = series[:4]
            self._agent_rows.add((agent,), outcome, count)
            if method in CALLS:
                self.agents.add(agent, outcome, count)

    def forget(self, worker: int) -> None:
        """The worker has gone: what it had in hand is no more, what it counted stays."""
        self._of_workers.pop(worker, None)

    def put(self, value: int, *series: str) -> None:
        """Set a counter to what somebody else has summed."""
        self.counts[series] = value

    def read(self, now: Mapping[Series, float]) -> Readings:
        """All values; `now` holds those that only the asker knows."""
        values: dict[Series, float] = {**self.counts, **now}
        for told in (self.gauges, *self._of_workers.values()):
            for series, value in told.items():
                values[series] = values.get(series, 0) + value
        for name, rows in (
            ("fastgw_agent_requests_total", self._agent_rows),
            ("fastgw_tool_calls_total", self._tool_rows),
        ):
            values |= {(name, *labels, outcome): count for labels, outcome, count in rows}
        times = {series: counts.copy() for series, counts in self.times.items()}
        return Readings(values, times, self._seen.copy())


def quantiles(latencies: Latencies) -> dict[Series, float]:
    """The percentiles of the last minute; takes a while where many tools are called."""
    name = "fastgw_call_quantile_seconds"
    return {
        (name, row.tool or "", row.server or "", row.outcome, row.stage, f"{percent / 100:g}"): value / 1000
        for row in latencies.busiest("1m", MOST_SHOWN)
        for percent, value in zip(PERCENTS, row.times, strict=True)
    }
