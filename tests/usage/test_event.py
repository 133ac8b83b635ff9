"""What an event says of an agent, of a call, and of time."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fastgw.policy.match import Principal
from fastgw.usage.event import agent_fields, amount, call_fields, to_the_second

AGENT = Principal(
    "agent-engineering-deploy-bot",
    {"team": "engineering", "project": "checkout", "billing_account": "acme-eng", "tier": "internal", "other": "x"},
    "key:f784e848",
    user="a person",
)
OTHER = replace(AGENT, user="another")


def of_agent(principal: Principal, labels: tuple[str, ...] = ()) -> dict[str, Any]:
    return dict(json.loads("{" + agent_fields("gw-1", "/mcp", principal, labels, b"key") + "}"))


def test_claims_and_labels() -> None:
    found = of_agent(AGENT, ("tier", "missing"))
    assert (found["team"], found["project"], found["billingAccount"]) == ("engineering", "checkout", "acme-eng")
    assert found["labels"] == {"tier": "internal"}


def test_persons_are_told_apart_and_not_named() -> None:
    found = of_agent(AGENT)["userId"]
    assert "a person" not in found and found == of_agent(AGENT)["userId"]
    others = [agent_fields("gw-1", "/mcp", AGENT, (), b"another key"), agent_fields("gw-1", "/mcp", OTHER, (), b"key")]
    assert all(found not in one for one in others)
    assert of_agent(Principal("a"))["userId"] is None


def test_persons_are_named_where_that_is_asked_for() -> None:
    assert '"userId":"a person"' in agent_fields("gw-1", "/mcp", AGENT, (), None)


@pytest.mark.parametrize(
    ("billionths", "text"),
    [
        (0, "0"),
        (12_055_000, "0.012055"),
        (1, "0.000000001"),
        (10**9, "1"),
        (12_345_678_123_456_789, "12345678.123456789"),
    ],
)
def test_money_is_a_decimal_without_an_exponent(billionths: int, text: str) -> None:
    assert amount(billionths) == text


def test_a_claim_that_is_a_list_counts_as_its_values() -> None:
    assert of_agent(Principal("a", {"team": ("x", "y")}))["team"] == "x,y"


def test_names_are_escaped() -> None:
    found = json.loads(
        "{" + call_fields(("tools/call", 'a"\n', None, None, "ok", 200, None, 'x"', 1, False, True)) + "}"
    )
    assert found["tool"] == 'a"\n' and found["refusedBy"] == 'x"' and found["mcpServer"] is found["instance"] is None


def test_times_are_in_utc() -> None:
    assert to_the_second(1772116321) == "2026-02-26T14:32:01"
    assert to_the_second(0) == "1970-01-01T00:00:00"
