"""What an event says of an agent, of a call, and of time."""

from __future__ import annotations

import json
from typing import Any

from fastgw.policy.match import Principal
from fastgw.usage.event import agent_fields, call_fields, to_the_second

AGENT = Principal(
    "agent-engineering-deploy-bot",
    {"team": "engineering", "project": "checkout", "billing_account": "acme-eng", "tier": "internal", "other": "x"},
    "key:f784e848",
    user="a person",
)


def of_agent(principal: Principal, labels: tuple[str, ...] = ()) -> dict[str, Any]:
    return dict(json.loads("{" + agent_fields("gw-1", "/mcp", principal, labels) + "}"))


def test_claims_and_labels() -> None:
    found = of_agent(AGENT, ("tier", "missing"))
    assert (found["team"], found["project"], found["billingAccount"]) == ("engineering", "checkout", "acme-eng")
    assert found["labels"] == {"tier": "internal"}
    assert "a person" not in json.dumps(found)


def test_a_claim_that_is_a_list_counts_as_its_values() -> None:
    assert of_agent(Principal("a", {"team": ("x", "y")}))["team"] == "x,y"


def test_names_are_escaped() -> None:
    found = json.loads("{" + call_fields("tools/call", 'a"\n', None, "b:1") + "}")
    assert found == {"method": "tools/call", "tool": 'a"\n', "mcpServer": None, "instance": "b:1"}


def test_times_are_in_utc() -> None:
    assert to_the_second(1772116321) == "2026-02-26T14:32:01"
    assert to_the_second(0) == "1970-01-01T00:00:00"
