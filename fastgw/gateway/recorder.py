"""Settle's book-keeping: every finished request counted, every call written down."""

from __future__ import annotations

import time

from fastgw.config.instance_urls import place
from fastgw.gateway.context import RequestContext
from fastgw.gateway.rate_headers import remaining
from fastgw.ports import Controller
from fastgw.protocol import names
from fastgw.telemetry.counters import Counters
from fastgw.usage.event import UsageEvent, attribution, encode, millis, stamp

_CALLS = frozenset((names.TOOLS_CALL, names.PROMPTS_GET, names.RESOURCES_READ, names.COMPLETE))
"""Methods whose requests get an event each."""
_METHODS = _CALLS | frozenset((*names.LISTS, names.DISCOVER, names.INITIALIZE, names.PING, names.SET_LEVEL))
"""Methods that metrics name; all others are `other`, for agents write what they like."""


class Recorder:
    """Records requests in one worker's counters and hands events to the controller."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def record(self, context: RequestContext, controller: Controller) -> None:
        """The request is over: count it, and write its event if it was a call and its agent is known."""
        method = context.method if context.method in _METHODS else "other" if context.method else "none"
        counters = self._counters
        counters.inc("fastgw_requests_total", context.endpoint.path, method, context.outcome)
        if method not in _CALLS:
            return
        latency = time.monotonic() - context.started
        overhead = max(0.0, latency - context.waited)
        counters.record(latency, "fastgw_request_seconds")
        counters.record(overhead, "fastgw_overhead_seconds")
        if context.instance is not None and context.attempts:
            counters.inc("fastgw_upstream_requests_total", context.instance.server, context.outcome)
        if context.identified:
            controller.usage(encode(_event(context, latency, overhead)))


def _event(context: RequestContext, latency: float, overhead: float) -> UsageEvent:
    instance = context.instance
    snapshot = context.snapshot
    return UsageEvent(
        request_id=context.request_id,
        timestamp=stamp(context.timestamp),
        gateway=snapshot.gateway,
        endpoint=context.endpoint.path,
        **attribution(context.principal, snapshot.labels),
        method=context.method,
        protocol_version=context.dialect.version,
        tool=context.tool,
        mcp_server=instance.server if instance is not None else None,
        instance=place(instance.url) if instance is not None else None,
        outcome=context.outcome,
        status_code=context.status,
        error_code=context.error_code,
        refused_by=context.refused_by,
        attempts=context.attempts,
        latency_ms=millis(latency),
        overhead_ms=millis(overhead),
        bytes_in=context.bytes_in,
        bytes_out=context.bytes_out,
        currency=snapshot.currency,
        rate_limit_remaining=remaining(context.verdict),
    )
