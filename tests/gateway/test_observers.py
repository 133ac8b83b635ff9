"""Every field of a usage event is there, in the words of schema 1."""

from __future__ import annotations

import json
from typing import Any

from fastgw.gateway.access import Access
from fastgw.gateway.context import RequestContext
from fastgw.gateway.dialects import modern
from fastgw.gateway.observers import event
from fastgw.policy.limits import BucketCharge, Limit, LimitVerdict
from fastgw.policy.match import Principal
from fastgw.snapshot.model import Endpoint, Snapshot, View
from fastgw.usage.event import agent_fields

FIELDS = [
    "schema", "requestId", "timestamp", "gateway", "endpoint", "agentId", "userId",
    "credential", "team", "project", "billingAccount", "labels", "method", "tool",
    "mcpServer", "instance", "outcome", "statusCode", "errorCode", "refusedBy", "attempts",
    "failover", "cached", "latencyMs", "overheadMs", "bytesIn", "bytesOut", "tokensIn",
    "tokensOut", "cost", "currency", "rateLimitRemaining", "protocolVersion", "traceId",
]  # fmt: skip
ENDPOINT = Endpoint("/mcp", {}, (View(),), {}, False, 0.0, (), "")
SNAPSHOT = Snapshot(1, {}, {}, {}, frozenset(), frozenset(), 1, 1, (b"s",), "fastgw", "0", "gw-1")
AGENT = Principal("bot", {"team": "engineering"}, "key:f784e848")


def read(**more: Any) -> dict[str, Any]:
    context = RequestContext("req_1", SNAPSHOT, ENDPOINT, modern.DIALECT, {}, frozenset(), 0.0)
    context.access = Access(AGENT, View(), 0.0, agent_fields("gw-1", "/mcp", AGENT, ()))
    context.method, context.outcome, context.status = "tools/call", "ok", 200
    for name, value in more.items():
        setattr(context, name, value)
    line = event(context)
    assert "\n" not in line
    return dict(json.loads(line))


def test_all_fields_in_their_order() -> None:
    assert list(read()) == FIELDS


def test_what_is_not_known_is_null_and_what_was_measured_is_not() -> None:
    found = read()
    assert {name for name, value in found.items() if value is None} == {
        "userId", "project", "billingAccount", "tool", "mcpServer", "instance", "errorCode", "refusedBy", "tokensIn",
        "tokensOut", "cost", "rateLimitRemaining", "traceId",
    }  # fmt: skip
    assert found["bytesIn"] == 0


def test_times_have_three_decimals() -> None:
    found = read(latency=0.3421184, overhead=0.00021149, timestamp=1772116321.0451)
    assert (found["latencyMs"], found["overheadMs"]) == (342.118, 0.211)
    assert found["timestamp"] == "2026-02-26T14:32:01.045Z"


def test_a_refusal_says_by_what() -> None:
    found = read(refused_by='a "limit"\n', error_code=-31029, status=429, outcome="rate_limited")
    assert (found["refusedBy"], found["errorCode"], found["statusCode"]) == ('a "limit"\n', -31029, 429)


def test_what_is_left_is_counted_in_calls_like_this_one() -> None:
    charge = BucketCharge(Limit("l"), ("l", "bot"), None, cost=3)
    assert read(verdict=LimitVerdict(tightest=charge, left=10))["rateLimitRemaining"] == 3
    assert read(verdict=LimitVerdict(tightest=charge, left=0, refused=charge))["rateLimitRemaining"] is None
