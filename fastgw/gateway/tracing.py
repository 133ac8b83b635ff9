"""Which trace a request is part of, and the spans of those that are recorded.

Attributes follow OpenTelemetry's conventions for MCP (semantic-conventions-genai, docs/gen-ai/mcp.md); `fastgw.` stands
before our own. Arguments, results, URIs of resources and ids of servers' sessions are in none of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise
from random import getrandbits
from urllib.parse import urlsplit

from fastgw.config.instance_urls import DEFAULT_PORTS, place
from fastgw.gateway.context import RequestContext
from fastgw.gateway.dialects import rest
from fastgw.protocol import names, trace_context
from fastgw.protocol.call import Call
from fastgw.protocol.envelope import NotAMessage, string
from fastgw.protocol.names import Era
from fastgw.protocol.trace_context import TraceContext
from fastgw.telemetry.spans import CLIENT, SERVER, Attributes, SpanEvent, SpanRecord
from fastgw.upstream.call_context import Attempt, new_span_id

MOST_BY_AGENTS = 100
"""Traces a second that one worker records because their agents say so, beyond the part that `traces.sample` says."""
LONGEST_ID = 64
"""Letters of a JSON-RPC id that a span carries."""
_FINE = ("ok", "input_required")
_TARGETS = {names.TOOLS_CALL: "gen_ai.tool.name", names.PROMPTS_GET: "gen_ai.prompt.name"}
_HTTP = {"network.transport": "tcp", "network.protocol.name": "http"}


def follow(context: RequestContext, call: Call, spans: RequestSpans) -> None:
    """Find the trace that this request is part of, or begin one, and decide whether it is recorded.

    The agent's own decision holds, while agents ask for no more than `MOST_BY_AGENTS`; of traces that begin here the
    part is recorded that `traces.sample` says, by their ids. Whoever is in no trace begins none where it is not
    recorded.
    """
    sample, meta = context.snapshot.sample, call.meta
    trace = trace_context.read(meta, context.headers, context.twice)
    if trace is not None:
        if sample is not None and trace.sampled and (int(trace.trace_id[16:], 16) < sample or spans.has_room(context)):
            trace.span_id = new_span_id()
    elif sample is not None and (low := getrandbits(64)) < sample:
        # The part of the id that other tracers decide by, too (OpenTelemetry, TraceIdRatioBased).
        trace = TraceContext(f"{getrandbits(64):016x}{low or 1:016x}", baggage=trace_context.baggage(meta))
        trace.span_id = new_span_id()
    context.trace = call.trace = trace
    if trace_context.PARENT in meta or (trace is not None and trace_context.STATE in meta):
        dropped = (trace_context.PARENT, trace_context.STATE)
        call.meta = {name: text for name, text in meta.items() if name not in dropped}


class RequestSpans:
    """Makes the spans of requests that are recorded: one of the request, one of each attempt at a server."""

    def __init__(self) -> None:
        self.write: Callable[[list[SpanRecord]], object] = len  # nowhere, until a worker says where
        self.waiting: list[SpanRecord] = []
        self._second, self._taken = 0, 0

    def has_room(self, context: RequestContext) -> bool:
        """Whether one more trace is recorded in this second because its agent says so; if so it counts as one."""
        if (second := int(context.started)) != self._second:
            self._second, self._taken = second, 0
        self._taken += 1
        return self._taken <= MOST_BY_AGENTS

    def observe(self, context: RequestContext) -> None:
        """See `observers.Observer`; `hand_over` follows."""
        trace, call = context.trace, context.call
        if trace is not None and trace.span_id and call is not None:
            to_unix = time.time() - time.monotonic()
            own = _server_span(context, call, trace, to_unix)
            self.waiting.append(own)
            if context.attempts:
                self.waiting.extend(_client_spans(context, trace, own, to_unix))

    def hand_over(self) -> None:
        """Give away what was made."""
        spans, self.waiting = self.waiting, []
        self.write(spans)


def _server_span(context: RequestContext, call: Call, trace: TraceContext, to_unix: float) -> SpanRecord:
    """`to_unix`: seconds between CLOCK_MONOTONIC and Unix time."""
    method, tool, code, outcome = call.method, context.tool, context.error_code, context.outcome
    start = int((context.started + to_unix) * 1e9)
    error = str(code) if code is not None else "" if outcome in _FINE else outcome
    attributes: Attributes = {
        "mcp.method.name": method,
        **_HTTP,
        "fastgw.request.id": context.request_id,
        "fastgw.endpoint": context.endpoint.path,
        "fastgw.agent": context.principal.agent,
        "fastgw.outcome": outcome,
    }
    if method in _TARGETS and tool is not None:
        attributes[_TARGETS[method]] = tool
    if method == names.TOOLS_CALL:
        attributes["gen_ai.operation.name"] = "execute_tool"
    if context.dialect.version != rest.VERSION:
        attributes["mcp.protocol.version"] = context.dialect.version
        if (id := _shown_id(call.id)) is not None:
            attributes["jsonrpc.request.id"] = id
    if call.session is not None:
        attributes["mcp.session.id"] = call.session
    if error:
        attributes["error.type"] = error
        if code is not None:
            attributes["rpc.response.status_code"] = error
    if context.refused_by is not None:
        attributes["fastgw.refused_by"] = context.refused_by
    if context.cached:
        attributes["fastgw.cached"] = True
    return SpanRecord(
        trace.trace_id, trace.span_id, trace.parent_id, trace.state, SERVER,
        f"{method} {tool}" if method in _TARGETS and tool is not None else method,
        start, start + context.latency_us * 1000,
        attributes, error, _failovers(context, to_unix) if len(context.attempts) > 1 else [],
    )  # fmt: skip


def _failovers(context: RequestContext, to_unix: float) -> list[SpanEvent]:
    """One event for each attempt after another."""
    # Where the first to answer has the last word, it stands last.
    in_order = sorted(context.attempts, key=lambda attempt: attempt.started)
    return [
        SpanEvent(
            "fastgw.failover",
            int((attempt.started + to_unix) * 1e9),
            {
                "error.type": before.failed_with or "unknown",
                "fastgw.server": attempt.address.server,
                "fastgw.instance": place(attempt.address.url),
            },
        )
        for before, attempt in pairwise(in_order)
    ]


def _client_spans(
    context: RequestContext, trace: TraceContext, own: SpanRecord, to_unix: float
) -> Iterator[SpanRecord]:
    method, last = context.method, context.attempts[-1]
    for attempt in context.attempts:
        # A server that answered is to blame for what the request ended with.
        error = attempt.failed_with or (own.error if attempt is last else "")
        attributes = _client_attributes(method, attempt)
        if error:
            attributes["error.type"] = error
            if not attempt.failed_with and context.error_code is not None:
                attributes["rpc.response.status_code"] = error
            if not attempt.sent:
                attributes["fastgw.sent"] = False
        yield SpanRecord(
            trace.trace_id, attempt.span_id or new_span_id(), trace.span_id, trace.state, CLIENT,
            f"{method} {attempt.target.tool}" if method in _TARGETS else method,
            int((attempt.started + to_unix) * 1e9), int((attempt.ended + to_unix) * 1e9), attributes, error,
        )  # fmt: skip


def _client_attributes(method: str, attempt: Attempt) -> Attributes:
    host, port = _host_and_port(attempt.address.url)
    is_modern = attempt.era is Era.MODERN
    found: Attributes = {
        "mcp.method.name": method,
        **_HTTP,
        "mcp.protocol.version": names.MODERN_VERSION if is_modern else attempt.session.version,
        "server.address": host,
        "server.port": port,
        "fastgw.server": attempt.address.server,
    }
    if method in _TARGETS:
        found[_TARGETS[method]] = attempt.target.tool
    if method == names.TOOLS_CALL:
        found["gen_ai.operation.name"] = "execute_tool"
    return found


@lru_cache(maxsize=4096)
def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme, 0)


def _shown_id(id: bytes) -> str | None:
    """A JSON-RPC id as text; None for one that is long or not visible ASCII: agents choose what it says."""
    if len(id) > LONGEST_ID or not id.isascii():
        return None
    try:
        found = string(id, "id") if id[:1] == b'"' else id.decode()
    except NotAMessage:
        return None
    return found if found.isprintable() else None
