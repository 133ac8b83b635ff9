"""Answers made here, without a server: discover, initialize, ping, lists.

Knows: the view of who asks, encoded ahead; cursors. Refuses to know: how a view came about.
"""

from __future__ import annotations

import os
import time
import zlib
from typing import Any

import orjson

from fastgw.config.snapshot import Endpoint, Page, Snapshot, View
from fastgw.faults import Fault, Kind
from fastgw.gateway.exchange import Exchange
from fastgw.gateway.lift.face import Recognised
from fastgw.gateway.lift.modern import SUPPORTED
from fastgw.mcp import names
from fastgw.mcp.envelope import NotAMessage, string
from fastgw.mcp.sealing import NONCE, Sealer

_CAPABILITIES: dict[str, dict[str, bool]] = {"tools": {}}
"""What is offered. No `listChanged`: nobody could listen for it yet."""


def server_info(snapshot: Snapshot) -> bytes:
    """Our `serverInfo` as JSON text."""
    return orjson.dumps({"name": snapshot.server_name, "version": snapshot.server_version})


def discover(exchange: Exchange) -> bytes:
    """The result of `server/discover` (2026-07-28, Discovery)."""
    found: dict[str, Any] = {
        "resultType": "complete",
        "supportedVersions": SUPPORTED,
        "capabilities": _CAPABILITIES,
        "ttlMs": _ttl_ms(exchange.endpoint),
        "cacheScope": "private",
        "_meta": {names.META_SERVER: orjson.Fragment(server_info(exchange.snapshot))},
    }
    if exchange.endpoint.instructions:
        found["instructions"] = exchange.endpoint.instructions
    return orjson.dumps(found)


def initialize(exchange: Exchange, version: str) -> bytes:
    """The result of `initialize` (2025-11-25, Lifecycle)."""
    found: dict[str, Any] = {
        "protocolVersion": version,
        "capabilities": _CAPABILITIES,
        "serverInfo": orjson.Fragment(server_info(exchange.snapshot)),
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
        plain = orjson.dumps([page.start + _count(view, page), _fingerprint(view)])
        following = sealer.seal(plain, _bond(exchange), os.urandom(NONCE))
    face = recognised.face
    return face.page(page.tools[face.dialect], following, _ttl_ms(exchange.endpoint), server_info(exchange.snapshot))


def _page(exchange: Exchange, cursor: bytes | None, view: View, sealer: Sealer) -> Page:
    if cursor is None or cursor == b"null":
        return view.pages[0]
    try:
        plain = sealer.open(string(cursor, "cursor"), _bond(exchange))
    except NotAMessage:
        plain = None
    if plain is not None:
        start, fingerprint = orjson.loads(plain)
        for page in view.pages:
            if page.start == start and fingerprint == _fingerprint(view):
                return page
    raise Fault(Kind.BAD_PARAMS, "Invalid params: unknown cursor")


def _count(view: View, page: Page) -> int:
    following = view.pages.index(page) + 1
    return view.pages[following].start - page.start


def _fingerprint(view: View) -> int:
    """Which list a cursor continues: another one in its place would skip tools or repeat them."""
    return zlib.crc32("\n".join(view.grants).encode())


def _bond(exchange: Exchange) -> bytes:
    return f"{exchange.endpoint.path}\n{exchange.principal.agent}".encode()


def _ttl_ms(endpoint: Endpoint) -> int:
    """Milliseconds the lists stay fresh: what the least patient server granted, less the age of our copy."""
    return max(0, int((endpoint.fresh_until - time.monotonic()) * 1000))
