"""One usage event: who asked for what, how it ended, what it took.

Every field is always there: null is unknown or not applicable, 0 is measured nought. Fields are added, never renamed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from time import gmtime, strftime

import orjson

from fastgw.policy.principal import Claim, Principal


@dataclass(slots=True)
class UsageEvent:
    """What the path of a call knows at its end.

    Args:
        request_id: unique for each event; the id that agents see in errors.
        started: Unix seconds when the request had been read.
        tool: the exposed name; None where the name does not exist, so that agents cannot write into reports.
        server, instance: who answered or was tried last; `instance` is host:port.
        outcome, status: `Told.outcome`, `Told.rest` of the fault, or `ok` and 200.
        latency, overhead: seconds; of the first, the second was not spent waiting for servers.
        remaining: whole calls left in the tightest rate limit that counted this one; None where none did.
        labels: names of the claims to be carried.
    """

    request_id: str
    started: float
    gateway: str
    endpoint: str
    principal: Principal
    method: str
    protocol_version: str
    tool: str | None = None
    server: str | None = None
    instance: str | None = None
    outcome: str = "ok"
    status: int = 200
    error_code: int | None = None
    refused_by: str | None = None
    attempts: int = 0
    failover: bool = False
    cached: bool = False
    latency: float = 0.0
    overhead: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    tokens_in: int | None = None
    tokens_out: int | None = None
    currency: str = "USD"
    remaining: int | None = None
    trace_id: str | None = None
    labels: tuple[str, ...] = field(default=())


def encode(event: UsageEvent) -> bytes:
    """The event as one line of JSON, without the line break."""
    principal = event.principal
    claims = principal.claims
    return orjson.dumps(
        {
            "schema": 1,
            "requestId": event.request_id,
            "timestamp": stamp(event.started),
            "gateway": event.gateway,
            "endpoint": event.endpoint,
            "agentId": principal.agent,
            # A person's name goes out as a keyed hash only; until there is one to make it with, not at all.
            "userId": None,
            "credential": principal.credential,
            "team": _text(claims.get("team")),
            "project": _text(claims.get("project")),
            "billingAccount": _text(claims.get("billing_account")),
            "labels": {name: _text(claims[name]) for name in event.labels if name in claims},
            "method": event.method,
            "tool": event.tool,
            "mcpServer": event.server,
            "instance": event.instance,
            "outcome": event.outcome,
            "statusCode": event.status,
            "errorCode": event.error_code,
            "refusedBy": event.refused_by,
            "attempts": event.attempts,
            "failover": event.failover,
            "cached": event.cached,
            "latencyMs": round(event.latency * 1000, 3),
            "overheadMs": round(event.overhead * 1000, 3),
            "bytesIn": event.bytes_in,
            "bytesOut": event.bytes_out,
            "tokensIn": event.tokens_in,
            "tokensOut": event.tokens_out,
            "cost": None,
            "currency": event.currency,
            "rateLimitRemaining": event.remaining,
            "protocolVersion": event.protocol_version,
            "traceId": event.trace_id,
        }
    )


def stamp(seconds: float) -> str:
    """Unix seconds as RFC 3339, UTC, with milliseconds."""
    whole, millis = divmod(int(seconds * 1000), 1000)
    return f"{_to_the_second(whole)}.{millis:03d}Z"


@lru_cache(maxsize=4)
def _to_the_second(whole: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(whole))


def _text(claim: Claim | None) -> str | None:
    return ",".join(claim) if isinstance(claim, tuple) else claim
