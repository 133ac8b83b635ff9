"""Every field is there, in the words of schema 1."""

from __future__ import annotations

import json
from typing import Any

from fastgw.policy.match import Principal
from fastgw.usage.event import UsageEvent, attribution, encode, millis, stamp

FIELDS = [
    "schema", "requestId", "timestamp", "gateway", "endpoint", "agentId", "userId",
    "credential", "team", "project", "billingAccount", "labels", "method", "tool",
    "mcpServer", "instance", "outcome", "statusCode", "errorCode", "refusedBy", "attempts",
    "failover", "cached", "latencyMs", "overheadMs", "bytesIn", "bytesOut", "tokensIn",
    "tokensOut", "cost", "currency", "rateLimitRemaining", "protocolVersion", "traceId",
]  # fmt: skip
AGENT = Principal(
    "agent-engineering-deploy-bot",
    {"team": "engineering", "project": "checkout", "billing_account": "acme-eng", "tier": "internal", "other": "x"},
    "key:f784e848",
    user="a person",
)


def event(principal: Principal = AGENT, labels: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    made = UsageEvent(
        request_id="req\n1",
        timestamp=stamp(1772116321.4451),
        gateway="gw-1",
        endpoint="/mcp",
        method="tools/call",
        protocol_version="2026-07-28",
        **attribution(principal, labels),
        **more,
    )
    line = encode(made)
    assert b"\n" not in line
    return dict(json.loads(line))


def test_all_fields_in_their_order() -> None:
    assert list(event()) == FIELDS


def test_what_is_not_known_is_null_and_what_was_measured_is_not() -> None:
    said = event()
    assert {name for name, value in said.items() if value is None} == {
        "userId", "tool", "mcpServer", "instance", "errorCode", "refusedBy", "tokensIn", "tokensOut", "cost",
        "rateLimitRemaining", "traceId",
    }  # fmt: skip
    assert said["bytesIn"] == 0


def test_claims_and_labels() -> None:
    said = event(labels=("tier", "missing"))
    assert (said["team"], said["project"], said["billingAccount"]) == ("engineering", "checkout", "acme-eng")
    assert said["labels"] == {"tier": "internal"}
    assert "a person" not in json.dumps(said)


def test_a_claim_that_is_a_list_counts_as_its_values() -> None:
    assert event(Principal("a", {"team": ("x", "y")}))["team"] == "x,y"


def test_times_have_three_decimals() -> None:
    said = event(latency_ms=millis(0.3421184), overhead_ms=millis(0.00021149))
    assert (said["latencyMs"], said["overheadMs"]) == (342.118, 0.211)
    assert said["timestamp"] == "2026-02-26T14:32:01.445Z"
    assert stamp(0.0) == "1970-01-01T00:00:00.000Z"
