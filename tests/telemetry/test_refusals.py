"""What was refused lately, and why, in words that no agent wrote."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fastgw.errors import Kind
from fastgw.telemetry.refusals import MOST_REFUSALS, MOST_STRANGERS, NotedRefusal, RecentRefusals, reason


def noted(**more: Any) -> NotedRefusal:
    usual = NotedRefusal(
        1772116321.0451, "req_1", "/mcp", "bot", "buy", "tools/call", "rate_limited", 429, -31029, "per-agent"
    )
    return usual._replace(**more)


def test_a_refusal_is_shown_as_operators_read_it() -> None:
    refusals = RecentRefusals()
    refusals.merge([tuple(noted())])
    assert msgspec.to_builtins(list(refusals)) == [
        {
            "timestamp": "2026-02-26T14:32:01.045Z", "requestId": "req_1", "endpoint": "/mcp", "agent": "bot",
            "tool": "buy", "method": "tools/call", "outcome": "rate_limited", "errorCode": -31029,
            "refusedBy": "per-agent", "reason": "limit per-agent is used up",
        }
    ]  # fmt: skip


def test_the_newest_come_first_and_strangers_do_not_push_out_those_who_are_known() -> None:
    refusals = RecentRefusals()
    refusals.merge(noted(timestamp=float(at), agent="bot") for at in range(1, 301))
    refusals.merge(noted(timestamp=float(at), agent=None) for at in range(1000, 2000))
    found = list(refusals)
    assert len(found) == len(refusals) == MOST_REFUSALS
    assert [one.agent for one in found].count(None) == MOST_STRANGERS
    assert [one.timestamp for one in found] == sorted((one.timestamp for one in found), reverse=True)
    assert found[MOST_STRANGERS].timestamp == "1970-01-01T00:05:00.000Z"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"outcome": "over_quota", "refused_by": "monthly"}, "quota monthly is used up"),
        ({"outcome": "denied", "refused_by": "no-drops"}, "policy no-drops does not allow these arguments"),
        ({"outcome": "overloaded", "refused_by": "exact"}, "exact could not be checked"),
        ({"outcome": "denied", "refused_by": None, "error_code": -32600, "status": 401}, Kind.UNAUTHENTICATED.message),
        ({"outcome": "unknown", "refused_by": None, "error_code": -32602, "status": 404}, Kind.UNKNOWN_NAME.message),
        ({"outcome": "invalid", "refused_by": None, "error_code": -32600, "status": 421}, Kind.BAD_HOST.message),
        ({"outcome": "invalid", "refused_by": None, "error_code": 12345, "status": 200}, "invalid"),
    ],
)
def test_why(more: dict[str, Any], words: str) -> None:
    assert reason(noted(**more)) == words
