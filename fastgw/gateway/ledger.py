"""Settle's book-keeping: every finished request counted, every call written down.

Knows: which requests get an event, and what an event says of them. Refuses to know: where counts and events go.
"""

from __future__ import annotations

import time

from fastgw.config.instances import place
from fastgw.gateway.exchange import Exchange
from fastgw.gateway.rates import remaining
from fastgw.mcp import names
from fastgw.ports import Keeper
from fastgw.telemetry.counters import Counters
from fastgw.usage import event
from fastgw.usage.event import Event

_CALLS = frozenset((names.TOOLS_CALL, names.PROMPTS_GET, names.RESOURCES_READ, names.COMPLETE))
"""Methods whose requests get an event each."""
_METHODS = _CALLS | frozenset((*names.LISTS, names.DISCOVER, names.INITIALIZE, names.PING, names.SET_LEVEL))
"""Methods that metrics name; all others are `other`, for agents write what they like."""


class Ledger:
    """Records requests in one worker's counters and hands events to the keeper."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def record(self, exchange: Exchange, keeper: Keeper) -> None:
        """The request is over: count it, and write its event if it was a call and its agent is known."""
        method = exchange.method if exchange.method in _METHODS else "other" if exchange.method else "none"
        counters = self._counters
        counters.inc("fastgw_requests_total", exchange.endpoint.path, method, exchange.outcome)
        if method not in _CALLS:
            return
        latency = time.monotonic() - exchange.started
        overhead = max(0.0, latency - exchange.waited)
        counters.record(latency, "fastgw_request_seconds")
        counters.record(overhead, "fastgw_overhead_seconds")
        if exchange.instance is not None and exchange.attempts:
            counters.inc("fastgw_upstream_requests_total", exchange.instance.server, exchange.outcome)
        if exchange.identified:
            keeper.usage(event.encode(_event(exchange, latency, overhead)))


def _event(exchange: Exchange, latency: float, overhead: float) -> Event:
    instance = exchange.instance
    snapshot = exchange.snapshot
    return Event(
        request_id=exchange.request_id,
        started=exchange.timestamp,
        gateway=snapshot.gateway,
        endpoint=exchange.endpoint.path,
        principal=exchange.principal,
        method=exchange.method,
        protocol_version=exchange.face.version if exchange.face is not None else names.MODERN_VERSION,
        tool=exchange.tool,
        server=instance.server if instance is not None else None,
        instance=place(instance.url) if instance is not None else None,
        outcome=exchange.outcome,
        status=exchange.status,
        error_code=exchange.error_code,
        refused_by=exchange.refused_by,
        attempts=exchange.attempts,
        latency=latency,
        overhead=overhead,
        bytes_in=exchange.bytes_in,
        bytes_out=exchange.bytes_out,
        currency=snapshot.currency,
        remaining=remaining(exchange.verdict),
        labels=snapshot.labels,
    )
