"""Filters before an MCP server of every revision: one era passes, the other is refused as such servers refuse it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_MODERN_VERSION
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

INVALID_REQUEST, HEADER_MISMATCH, UNSUPPORTED_VERSION = -32600, -32020, -32022


def only_legacy(app: ASGIApp) -> ASGIApp:
    """The app as a server of 2025-11-25 or earlier: 400 to every revision it never heard of."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        version = _version(scope)
        if version is None or version in HANDSHAKE_PROTOCOL_VERSIONS:
            await app(scope, receive, send)
            return
        known = ", ".join(HANDSHAKE_PROTOCOL_VERSIONS)
        words = f"Bad Request: Unsupported protocol version: {version}. Supported versions: {known}"
        # a server of that era says this before it has read a body, so it knows no id
        await _error("server-error", INVALID_REQUEST, words)(scope, receive, send)

    return served


def only_modern(app: ASGIApp) -> ASGIApp:
    """The app as a server of 2026-07-28 alone (basic/versioning: the error to `initialize` names the revisions)."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        version = _version(scope)
        if scope["type"] != "http" or (version is not None and version not in HANDSHAKE_PROTOCOL_VERSIONS):
            await app(scope, receive, send)
        elif scope["method"] != "POST":
            await Response(status_code=405, headers={"allow": "POST"})(scope, receive, send)
        else:
            await _too_old(version, await Request(scope, receive).body())(scope, receive, send)

    return served


FILTERS: dict[str, Callable[[ASGIApp], ASGIApp]] = {
    "legacy": only_legacy,
    "modern": only_modern,
    "both": lambda app: app,
}


def _version(scope: Scope) -> str | None:
    return Request(scope).headers.get("mcp-protocol-version") if scope["type"] == "http" else None


def _too_old(version: str | None, body: bytes) -> Response:
    try:
        message = json.loads(body)
        asked = version or message.get("params", {}).get("protocolVersion")
    except (ValueError, AttributeError):
        message, asked = {}, version
    if asked is None:
        words = "Header mismatch: MCP-Protocol-Version header is missing"
        return _error(message.get("id"), HEADER_MISMATCH, words)
    data = {"supported": [LATEST_MODERN_VERSION], "requested": asked}
    return _error(message.get("id"), UNSUPPORTED_VERSION, "Unsupported protocol version", data=data)


def _error(identity: object, code: int, message: str, **more: Any) -> Response:
    error = {"code": code, "message": message, **more}
    return JSONResponse({"jsonrpc": "2.0", "id": identity, "error": error}, 400)
