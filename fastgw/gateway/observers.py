"""What observes every request that is over: counters and histograms, usage events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from fastgw.config.instance_urls import place
from fastgw.gateway.access import Access
from fastgw.gateway.context import RequestContext
from fastgw.protocol import names
from fastgw.telemetry.counters import Counters
from fastgw.usage.event import amount, call_fields, quoted, to_the_second

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
        method = context.method
        if method not in _METHODS:
            method = "other" if method else "none"
        counters = self._counters
        counters.inc("fastgw_requests_total", context.endpoint.path, method, context.outcome)
        if method not in _CALLS:
            return
        server = context.attempts[-1].address.server if context.attempts else None
        counters.call((context.tool, server, context.outcome), context.latency, context.overhead, context.sent)


class UsageEvents:
    """Hands over an event, encoded and without a line break, for every call of an agent that is known."""

    def __init__(self) -> None:
        self.write: Callable[[bytes], object] = len  # nowhere, until a worker says where

    def observe(self, context: RequestContext) -> None:
        if context.access is not None and context.method in _CALLS:
            self.write(event(context, context.access).encode())


def event(context: RequestContext, access: Access) -> str:
    """The usage event of a request of a known agent, one line of JSON without the line break."""
    server = instance = None
    is_failover = "false"
    if context.attempts:
        last = context.attempts[-1]
        address = last.address
        server, instance = address.server, place(address.url)
        if context.arm is not None and context.arm.targets:
            first = context.arm.targets[0]
            if first.server != server or first.tool != last.target.tool:
                is_failover = "true"
    seconds = int(context.timestamp)
    verdict, left = context.verdict, "null"
    if verdict is not None and verdict.refused is None and verdict.tightest is not None:
        # Whole calls like this one that are left in the tightest rate that counted it; null where none did.
        left = f"{verdict.left // (verdict.tightest.cost or 1)}"
    error, refused_by = context.error_code, context.refused_by
    tokens_in, tokens_out, cost = context.tokens_in, context.tokens_out, context.cost
    return (
        f'{{"schema":1,"requestId":"{context.request_id}","timestamp":"{to_the_second(seconds)}'
        f'.{int(context.timestamp * 1000) - seconds * 1000:03d}Z",'
        f"{access.event},{call_fields(context.method, context.tool, server, instance)},"
        f'"outcome":"{context.outcome}","statusCode":{context.status},'
        f'"errorCode":{"null" if error is None else error},'
        f'"refusedBy":{"null" if refused_by is None else quoted(refused_by)},'
        f'"attempts":{context.sent},"failover":{is_failover},"cached":{"true" if context.cached else "false"},'
        f'"latencyMs":{context.latency * 1000:.3f},"overheadMs":{context.overhead * 1000:.3f},'
        f'"bytesIn":{context.bytes_in},"bytesOut":{context.bytes_out},'
        f'"tokensIn":{"null" if tokens_in is None else tokens_in},'
        f'"tokensOut":{"null" if tokens_out is None else tokens_out},'
        f'"cost":{"null" if cost is None else amount(cost)},"currency":"{context.snapshot.currency}",'
        f'"rateLimitRemaining":{left},'
        f'"protocolVersion":"{context.dialect.version}","traceId":null}}'
    )
