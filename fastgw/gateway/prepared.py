"""Answers made here, without a server: discover, initialize, ping, lists."""

from __future__ import annotations

import os
import time
from typing import Any

import orjson

from fastgw.catalog.listing import PAGE, page_at
from fastgw.errors import Fault, Kind
from fastgw.gateway import grants
from fastgw.gateway.context import RequestContext
from fastgw.gateway.dialects.dialect import ParsedRequest, ShownPage
from fastgw.gateway.dialects.modern import SUPPORTED
from fastgw.protocol import names
from fastgw.protocol.envelope import NotAMessage, string
from fastgw.protocol.sealing import NONCE, Sealer
from fastgw.snapshot.model import NOTHING, Endpoint, Listing, Page, View


def capabilities(endpoint: Endpoint, view: View) -> dict[str, dict[str, bool]]:
    """What is offered to whoever has this view. No `listChanged` and no `subscribe`: nobody could listen for it yet."""
    found: dict[str, dict[str, bool]] = {"logging": {}, "tools": {}}
    if view.prompts:
        found["prompts"] = {}
    if grants.reads(view):
        found["resources"] = {}
    if grants.completes(endpoint, view):
        found["completions"] = {}
    return found


def discover(context: RequestContext, view: View) -> bytes:
    """The result of `server/discover` (2026-07-28, Discovery)."""
    found: dict[str, Any] = {
        "resultType": "complete",
        "supportedVersions": SUPPORTED,
        "capabilities": capabilities(context.endpoint, view),
        "ttlMs": _ttl_ms(context.endpoint),
        "cacheScope": "private",
        "_meta": {names.META_SERVER: orjson.Fragment(context.snapshot.server_info)},
    }
    _instruct(context, found)
    return orjson.dumps(found)


def initialize(context: RequestContext, view: View, version: str) -> bytes:
    """The result of `initialize` (2025-11-25, Lifecycle)."""
    found: dict[str, Any] = {
        "protocolVersion": version,
        "capabilities": capabilities(context.endpoint, view),
        "serverInfo": orjson.Fragment(context.snapshot.server_info),
    }
    _instruct(context, found)
    return orjson.dumps(found)


def _instruct(context: RequestContext, found: dict[str, Any]) -> None:
    guide = context.endpoint.guide(context.principal)
    if guide:
        found["instructions"] = guide


def listed(context: RequestContext, recognised: ParsedRequest, view: View, sealer: Sealer) -> tuple[bytes, ...]:
    """The result of a list in pieces: one page, encoded when the snapshot was compiled.

    Raises:
        Fault: BAD_PARAMS for a cursor that is foreign, altered, or of a list that has changed since.
    """
    call, dialect = recognised.call, recognised.dialect
    listing, bond = view.lists.get(call.method, NOTHING), _bond(context, call.method)
    page = _page(listing, call.params.get("cursor"), bond, sealer)
    following = None
    if page.more:
        plain = orjson.dumps([page.start + PAGE, listing.fingerprint])
        following = sealer.seal(plain, bond, os.urandom(NONCE))
    shown = ShownPage(names.LISTS[call.method], page.items[dialect.list_form], following, _ttl_ms(context.endpoint))
    return dialect.page(shown, context.snapshot.server_info)


def _page(listing: Listing, cursor: bytes | None, bond: bytes, sealer: Sealer) -> Page:
    if cursor is None or cursor == b"null":
        return listing.pages[0]
    try:
        plain = sealer.open(string(cursor, "cursor"), bond)
    except NotAMessage:
        plain = None
    if plain is not None:
        start, fingerprint = orjson.loads(plain)
        page = page_at(listing, start) if fingerprint == listing.fingerprint else None
        if page is not None:
            return page
    raise Fault(Kind.BAD_PARAMS, "Invalid params: unknown cursor")


def _bond(context: RequestContext, method: str) -> bytes:
    """Whom and what a cursor is for."""
    return f"{context.endpoint.path}\n{context.principal.agent}\n{method}".encode()


def _ttl_ms(endpoint: Endpoint) -> int:
    """Milliseconds the lists stay fresh: what the least patient server granted, less the age of our copy."""
    return max(0, int((endpoint.fresh_until - time.monotonic()) * 1000))
