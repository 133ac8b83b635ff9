"""What observes every request that is over: counters and histograms, usage events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from fastgw.errors import REFUSED_OUTCOMES
from fastgw.gateway.access import Access
from fastgw.gateway.context import RequestContext
from fastgw.protocol import names
from fastgw.telemetry.counters import Counters
from fastgw.usage.event import THOUSANDTHS, amount, call_fields, to_the_second

_CALLS = frozenset((names.TOOLS_CALL, names.PROMPTS_GET, names.RESOURCES_READ, names.COMPLETE))
"""Methods whose requests get an event each."""
_METHODS = _CALLS | frozenset((*names.LISTS, names.DISCOVER, names.INITIALIZE, names.PING, names.SET_LEVEL))
"""Methods that metrics name; all others are `other`, for agents write what they like."""


_REFUSALS = frozenset((*REFUSED_OUTCOMES, "overloaded", "unknown", "invalid"))
"""Outcomes that operators find among the refusals, where no server has said so."""


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
        counters, outcome = self._counters, context.outcome
        # `counters.inc` written out: a function call less for each request.
        counters.counts["fastgw_requests_total", context.endpoint.path, method, outcome, context.principal.agent] += 1
        if context.error_code is not None and outcome in _REFUSALS and not context.sent and counters.room:
            self._note(context, method)
        if method not in _CALLS:
            return
        server = context.attempts[-1].address.server if context.attempts else None
        counters.call((context.tool, server, outcome), context.latency_us, context.overhead_us, context.sent)
        trace = context.trace
        if trace is not None and trace.sampled:
            counters.trace(trace.trace_id, context.latency_us, context.overhead_us, context.timestamp)

    def _note(self, context: RequestContext, method: str) -> None:
        """Note a refusal for operators. Of what an agent wrote only the name of a tool that exists is kept."""
        tool, call = context.tool, context.call
        if tool is None and call is not None and method == names.TOOLS_CALL:
            for view in context.endpoint.views:
                if call.name in view.grants:  # it is there, for others
                    tool = call.name
        self._counters.room -= 1
        self._counters.noted_refusals.append(
            (
                context.timestamp, context.request_id, context.endpoint.path,
                None if context.access is None else context.principal.agent, tool, method, context.outcome,
                context.status, context.error_code, context.refused_by,
            )
        )  # fmt: skip


class UsageEvents:
    """Hands over an event, encoded and without a line break, for every call of an agent that is known."""

    def __init__(self) -> None:
        self.write: Callable[[bytes], object] = len  # nowhere, until a worker says where

    def observe(self, context: RequestContext) -> None:
        if context.access is not None and context.method in _CALLS:
            self.write(event(context, context.access).encode())


def event(context: RequestContext, access: Access) -> str:
    """The usage event of a request of a known agent, one line of JSON without the line break."""
    server = url = None
    is_failover = False
    if context.attempts:
        last = context.attempts[-1]
        server, url = last.address.server, last.address.url
        if context.arm is not None and context.arm.targets:
            first = context.arm.targets[0]
            is_failover = first.server != server or first.tool != last.target.tool
    verdict, left = context.verdict, "null"
    if verdict is not None and verdict.refused is None and verdict.tightest is not None:
        # Whole calls like this one that are left in the tightest rate that counted it; null where none did.
        left = f"{verdict.left // (verdict.tightest.cost or 1)}"
    fields = call_fields(
        (
            context.method, context.tool, server, url,
            context.outcome, context.status, context.error_code, context.refused_by,
            context.sent, is_failover, context.cached,
        )
    )  # fmt: skip
    seconds = int(context.timestamp)
    millis = THOUSANDTHS[int((context.timestamp - seconds) * 1000)]
    took, over = context.latency_us, context.overhead_us
    tokens_in, tokens_out, cost = context.tokens_in, context.tokens_out, context.cost
    trace_id = "null" if context.trace is None else f'"{context.trace.trace_id}"'
    return (
        f'{{"schema":1,"requestId":"{context.request_id}","timestamp":"{to_the_second(seconds)}{millis}Z",'
        f"{access.event},{fields},"
        f'"latencyMs":{took // 1000}{THOUSANDTHS[took % 1000]},"overheadMs":{over // 1000}{THOUSANDTHS[over % 1000]},'
        f'"bytesIn":{context.bytes_in},"bytesOut":{context.bytes_out},'
        f'"tokensIn":{"null" if tokens_in is None else tokens_in},'
        f'"tokensOut":{"null" if tokens_out is None else tokens_out},'
        f'"cost":{"null" if cost is None else amount(cost)},"currency":"{context.snapshot.currency}",'
        f'"rateLimitRemaining":{left},'
        f'"protocolVersion":"{context.dialect.version}","traceId":{trace_id}}}'
    )
