"""Every field is there, in the words of schema 1."""

from __future__ import annotations

import json
from typing import Any

from fastgw.policy.principal import Principal
from fastgw.usage.event import UsageEvent, encode, stamp

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


def event(**more: Any) -> dict[str, Any]:
    made = UsageEvent("req_1", 1772116321.4451, "gw-1", "/mcp", AGENT, "tools/call", "2026-07-28", **more)
    return dict(json.loads(encode(made)))


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
    made = UsageEvent("r", 0.0, "g", "/mcp", Principal("a", {"team": ("x", "y")}), "tools/call", "v")
    assert json.loads(encode(made))["team"] == "x,y"


def test_times_have_three_decimals() -> None:
    said = event(latency=0.3421184, overhead=0.00021149)
    assert (said["latencyMs"], said["overheadMs"]) == (342.118, 0.211)
    assert said["timestamp"] == "2026-02-26T14:32:01.445Z"


def test_an_event_is_one_line() -> None:
    assert b"\n" not in encode(UsageEvent("r\n", 0.0, "g", "/mcp", AGENT, "tools/call", "v"))
    assert stamp(0.0) == "1970-01-01T00:00:00.000Z"
