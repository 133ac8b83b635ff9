"""Answers made here, without a server: discover, initialize, ping, lists."""

from __future__ import annotations

import os
import time
from typing import Any

import orjson

from fastgw.errors import Fault, Kind
from fastgw.gateway import grants
from fastgw.gateway.context import RequestContext
from fastgw.gateway.dialects.dialect import ParsedRequest
from fastgw.gateway.dialects.modern import SUPPORTED
from fastgw.protocol import names
from fastgw.protocol.envelope import NotAMessage, string
from fastgw.protocol.sealing import NONCE, Sealer
from fastgw.snapshot.model import EMPTY_LISTING, PAGE, Endpoint, Listing, Page, View


def capabilities(endpoint: Endpoint, view: View) -> dict[str, dict[str, bool]]:
    """What is offered to whoever has this view. No `listChanged` and no `subscribe`: nobody could listen for it yet."""
    found: dict[str, dict[str, bool]] = {"logging": {}, "tools": {}}
    more = {"prompts": view.prompts, "resources": grants.reads(view), "completions": grants.completes(endpoint, view)}
    return found | {name: {} for name, offers in more.items() if offers}


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
    _add_instructions(context, found)
    return orjson.dumps(found)


def initialize(context: RequestContext, view: View, version: str) -> bytes:
    """The result of `initialize` (2025-11-25, Lifecycle)."""
    found: dict[str, Any] = {
        "protocolVersion": version,
        "capabilities": capabilities(context.endpoint, view),
        "serverInfo": orjson.Fragment(context.snapshot.server_info),
    }
    _add_instructions(context, found)
    return orjson.dumps(found)


def _add_instructions(context: RequestContext, found: dict[str, Any]) -> None:
    guide = context.endpoint.guide(context.principal)
    if guide:
        found["instructions"] = guide


def list_page(context: RequestContext, request: ParsedRequest, view: View, sealer: Sealer) -> tuple[bytes, ...]:
    """The result of a list as JSON text in pieces, for it can be large: a page that was encoded with the snapshot.

    Raises:
        Fault: BAD_PARAMS for a cursor that is foreign, altered, or of a list that has changed since.
    """
    call, dialect = request.call, request.dialect
    listing = view.lists.get(call.method, EMPTY_LISTING)
    bond = f"{context.endpoint.path}\n{context.principal.agent}\n{call.method}".encode()
    page = _page(listing, call.params.get("cursor"), bond, sealer)
    following = b""
    if page.more:
        plain = orjson.dumps([page.start + PAGE, listing.fingerprint])
        following = b',"nextCursor":"%s"' % sealer.seal(plain, bond, os.urandom(NONCE)).encode()
    tail = dialect.list_tail(_ttl_ms(context.endpoint), context.snapshot.server_info)
    member = names.LISTS[call.method].encode()
    return b'{"', member, b'":', page.items[dialect.list_form], following, tail, b"}"


def _page(listing: Listing, cursor: bytes | None, bond: bytes, sealer: Sealer) -> Page:
    if cursor is None or cursor == b"null":
        return listing.pages[0]
    try:
        plain = sealer.open(string(cursor, "cursor"), bond)
    except NotAMessage:
        plain = None
    if plain is not None:
        start, fingerprint = orjson.loads(plain)
        page = listing.page_at(start) if fingerprint == listing.fingerprint else None
        if page is not None:
            return page
    raise Fault(Kind.BAD_PARAMS, "Invalid params: unknown cursor")


def _ttl_ms(endpoint: Endpoint) -> int:
    """Milliseconds the lists stay fresh: what the least patient server granted, less the age of our copy."""
    return max(0, int((endpoint.fresh_until - time.monotonic()) * 1000))
