"""What observes every request that is over: counters and histograms, usage events."""

from __future__ import annotations

from typing import Protocol

from fastgw.config.instance_urls import place
from fastgw.gateway.context import RequestContext
from fastgw.policy.limits import LimitVerdict
from fastgw.protocol import names
from fastgw.telemetry.counters import Counters
from fastgw.upstream.controller import Controller
from fastgw.usage.event import UsageEvent, attribution, encode, millis, stamp

_CALLS = frozenset((names.TOOLS_CALL, names.PROMPTS_GET, names.RESOURCES_READ, names.COMPLETE))
"""Methods whose requests get an event each."""
_METHODS = _CALLS | frozenset((*names.LISTS, names.DISCOVER, names.INITIALIZE, names.PING, names.SET_LEVEL))
"""Methods that metrics name; all others are `other`, for agents write what they like."""


class Observer(Protocol):
    """One of `Gateway.observers`."""

    def observe(self, context: RequestContext) -> None:
        """A request is over, answered or refused: all that is known of it stands in its context. Must not wait."""


class RequestMetrics:
    """Counts requests in one worker's counters."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def observe(self, context: RequestContext) -> None:
        method = context.method if context.method in _METHODS else "other" if context.method else "none"
        counters = self._counters
        counters.inc("fastgw_requests_total", context.endpoint.path, method, context.outcome)
        if method not in _CALLS:
            return
        counters.record(context.latency, "fastgw_request_seconds")
        counters.record(context.overhead, "fastgw_overhead_seconds")
        if context.times_sent:
            counters.inc("fastgw_upstream_requests_total", context.attempts[-1].target.server, context.outcome)


class UsageEvents:
    """Hands an event to the controller for every call of an agent that is known."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def observe(self, context: RequestContext) -> None:
        if context.identified and context.method in _CALLS:
            self._controller.usage(encode(_event(context)))


def _event(context: RequestContext) -> UsageEvent:
    address = context.attempts[-1].address if context.attempts else None
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
        mcp_server=address.server if address is not None else None,
        instance=place(address.url) if address is not None else None,
        outcome=context.outcome,
        status_code=context.status,
        error_code=context.error_code,
        refused_by=context.refused_by,
        attempts=context.times_sent,
        latency_ms=millis(context.latency),
        overhead_ms=millis(context.overhead),
        bytes_in=context.bytes_in,
        bytes_out=context.bytes_out,
        currency=snapshot.currency,
        rate_limit_remaining=_remaining(context.verdict),
    )


def _remaining(verdict: LimitVerdict | None) -> int | None:
    """Whole calls like this one that are left in the tightest rate that counted it; None where none did."""
    if verdict is None or verdict.refused is not None or verdict.tightest is None:
        return None
    return verdict.left // max(1, verdict.tightest.cost)
