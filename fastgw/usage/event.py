"""One usage event: who asked for what, how it ended, what it took; docs/usage-events.md describes every field."""

from __future__ import annotations

from functools import lru_cache
from time import gmtime, strftime
from typing import Any

import msgspec

from fastgw.policy.match import Claim, Principal


class UsageEvent(msgspec.Struct, kw_only=True, rename="camel"):
    """Schema 1, in its order. Every field is always there: null is unknown or not applicable, 0 is measured nought.
    Fields are added, never renamed.
    """

    schema: int = 1
    request_id: str
    timestamp: str
    gateway: str
    endpoint: str
    agent_id: str
    user_id: str | None = None
    """A person's name goes out as a keyed hash only; until there is one to make it with, not at all."""
    credential: str | None
    team: str | None
    project: str | None
    billing_account: str | None
    labels: dict[str, str | None]
    method: str
    tool: str | None = None
    mcp_server: str | None = None
    instance: str | None = None
    outcome: str = "ok"
    status_code: int = 200
    error_code: int | None = None
    refused_by: str | None = None
    attempts: int = 0
    failover: bool = False
    cached: bool = False
    latency_ms: float = 0.0
    overhead_ms: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost: None = None
    currency: str = "USD"
    rate_limit_remaining: int | None = None
    protocol_version: str
    trace_id: str | None = None


encode = msgspec.json.Encoder().encode
"""The event as one line of JSON, without the line break."""


def attribution(principal: Principal, labels: tuple[str, ...]) -> dict[str, Any]:
    """The fields that say whose a call was; `labels`: names of the claims to be carried."""
    claims = principal.claims
    return {
        "agent_id": principal.agent,
        "credential": principal.credential,
        "team": _text(claims.get("team")),
        "project": _text(claims.get("project")),
        "billing_account": _text(claims.get("billing_account")),
        "labels": {name: _text(claims[name]) for name in labels if name in claims},
    }


def stamp(seconds: float) -> str:
    """Unix seconds as RFC 3339, UTC, with milliseconds."""
    whole, rest = divmod(int(seconds * 1000), 1000)
    return f"{_to_the_second(whole)}.{rest:03d}Z"


@lru_cache(maxsize=4)
def _to_the_second(whole: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(whole))


def millis(seconds: float) -> float:
    """Milliseconds, with three decimals."""
    return round(seconds * 1000, 3)


def _text(claim: Claim | None) -> str | None:
    return ",".join(claim) if isinstance(claim, tuple) else claim
