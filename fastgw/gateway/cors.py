"""Browsers: which pages may call, and what their browser asks before it lets them (Fetch, CORS protocol)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fastgw.errors import Fault, Kind
from fastgw.gateway.context import RequestContext
from fastgw.snapshot.model import Endpoint

Fields = list[tuple[bytes, bytes]]

_EXPOSED = (
    b"Mcp-Session-Id, MCP-Protocol-Version, X-Request-Id, Retry-After, RateLimit, RateLimit-Policy, WWW-Authenticate"
)
"""What scripts may read of an answer beside the few headers they always may."""

_USUAL = (
    "content-type", "authorization", "x-api-key", "accept",
    "mcp-protocol-version", "mcp-session-id", "mcp-method", "mcp-name",
)  # fmt: skip
_MORE = re.compile(r"mcp-[a-z0-9-]{1,64}|last-event-id|traceparent|tracestate")
"""What else a page may send if its browser asks."""
_MOST_ASKED = 64
_MAX_AGE = b"600"
"""Seconds a browser may remember the answer: that long an origin lives on there after it was struck off."""

_ASKED_VERB, _ASKED_HEADERS = b"access-control-request-method", b"access-control-request-headers"


def check_origin(context: RequestContext, endpoint: Endpoint | None) -> Fields:
    """What every answer to this page's request carries. Call it only where there is an `Origin`.

    Args:
        endpoint: None where the path leads nowhere.

    Raises:
        Fault: BAD_ORIGIN.
    """
    origin = context.headers[b"origin"]
    allowed = endpoint.origins if endpoint is not None else None
    if allowed is None:
        allowed = context.snapshot.origins
    if b"origin" in context.twice or origin.decode("latin-1").lower() not in allowed:
        raise Fault(Kind.BAD_ORIGIN)
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", _EXPOSED),
        (b"vary", b"Origin"),
    ]


def is_preflight(context: RequestContext) -> bool:
    """Whether this OPTIONS is a browser's, on behalf of a page, and of no agent yet (Fetch, CORS-preflight request)."""
    return b"origin" in context.headers and _ASKED_VERB in context.headers


def preflight_headers(context: RequestContext, verbs: Iterable[str]) -> Fields:
    """The headers of the answer to a preflight, beside those of every answer."""
    asked = context.headers.get(_ASKED_HEADERS, b"").decode("latin-1").lower().split(",")[:_MOST_ASKED]
    named = context.snapshot.forwarded
    more = [
        name
        for name in map(str.strip, asked)
        if name not in _USUAL and (_MORE.fullmatch(name) or name.encode("latin-1") in named)
    ]
    return [
        (b"access-control-allow-methods", ", ".join(verbs).encode()),
        (b"access-control-allow-headers", ", ".join(dict.fromkeys((*_USUAL, *more))).encode()),
        (b"access-control-max-age", _MAX_AGE),
    ]
