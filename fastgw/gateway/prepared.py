"""Answers made here, without a server: discover, initialize, ping, lists.

Knows: the view of who asks, encoded ahead; cursors. Refuses to know: how a view came about.
"""

from __future__ import annotations

import os
import time
from typing import Any

import orjson

from fastgw.catalog.listing import PAGE, page_at
from fastgw.config.snapshot import Endpoint, Page, View
from fastgw.faults import Fault, Kind
from fastgw.gateway.exchange import Exchange
from fastgw.gateway.lift.face import Recognised
from fastgw.gateway.lift.modern import SUPPORTED
from fastgw.mcp import names
from fastgw.mcp.envelope import NotAMessage, string
from fastgw.mcp.sealing import NONCE, Sealer

_CAPABILITIES: dict[str, dict[str, bool]] = {"logging": {}, "tools": {}}
"""What is offered. No `listChanged`: nobody could listen for it yet."""


def discover(exchange: Exchange) -> bytes:
    """The result of `server/discover` (2026-07-28, Discovery)."""
    found: dict[str, Any] = {
        "resultType": "complete",
        "supportedVersions": SUPPORTED,
        "capabilities": _CAPABILITIES,
        "ttlMs": _ttl_ms(exchange.endpoint),
        "cacheScope": "private",
        "_meta": {names.META_SERVER: orjson.Fragment(exchange.snapshot.server_info)},
    }
    if exchange.endpoint.instructions:
        found["instructions"] = exchange.endpoint.instructions
    return orjson.dumps(found)


def initialize(exchange: Exchange, version: str) -> bytes:
    """The result of `initialize` (2025-11-25, Lifecycle)."""
    found: dict[str, Any] = {
        "protocolVersion": version,
        "capabilities": _CAPABILITIES,
        "serverInfo": orjson.Fragment(exchange.snapshot.server_info),
    }
    if exchange.endpoint.instructions:
        found["instructions"] = exchange.endpoint.instructions
    return orjson.dumps(found)


def tools(exchange: Exchange, recognised: Recognised, view: View, sealer: Sealer) -> bytes:
    """The result of `tools/list`: one page, encoded when the snapshot was compiled.

    Raises:
        Fault: BAD_PARAMS for a cursor that is foreign, altered, or of a list that has changed since.
    """
    page = _page(exchange, recognised.call.params.get("cursor"), view, sealer)
    following = None
    if page.more:
        plain = orjson.dumps([page.start + PAGE, view.fingerprint])
        following = sealer.seal(plain, _bond(exchange), os.urandom(NONCE))
    face = recognised.face
    return face.page(page.tools[face.dialect], following, _ttl_ms(exchange.endpoint), exchange.snapshot.server_info)


def _page(exchange: Exchange, cursor: bytes | None, view: View, sealer: Sealer) -> Page:
    if cursor is None or cursor == b"null":
        return view.pages[0]
    try:
        plain = sealer.open(string(cursor, "cursor"), _bond(exchange))
    except NotAMessage:
        plain = None
    if plain is not None:
        start, fingerprint = orjson.loads(plain)
        page = page_at(view, start) if fingerprint == view.fingerprint else None
        if page is not None:
            return page
    raise Fault(Kind.BAD_PARAMS, "Invalid params: unknown cursor")


def _bond(exchange: Exchange) -> bytes:
    return f"{exchange.endpoint.path}\n{exchange.principal.agent}".encode()


def _ttl_ms(endpoint: Endpoint) -> int:
    """Milliseconds the lists stay fresh: what the least patient server granted, less the age of our copy."""
    return max(0, int((endpoint.fresh_until - time.monotonic()) * 1000))
