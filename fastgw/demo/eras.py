"""A filter before an MCP server that speaks every revision: lets one era through, refuses the other as such servers
do.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_MODERN_VERSION
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_LIMIT = 64 * 1024  # bytes of a refused request that are read to find its id
INVALID_REQUEST, HEADER_MISMATCH, UNSUPPORTED_VERSION = -32600, -32020, -32022

Refusal = tuple[int, dict[str, Any]]


def only_legacy(app: ASGIApp) -> ASGIApp:
    """The app as a server of 2025-11-25 or earlier: 400 to every revision it never heard of."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        version = _version(scope)
        if scope["type"] != "http" or version is None or version in HANDSHAKE_PROTOCOL_VERSIONS:
            await app(scope, receive, send)
        else:
            await _refuse(_unheard_of(version), scope, receive, send)

    return served


def only_modern(app: ASGIApp) -> ASGIApp:
    """The app as a server of 2026-07-28 alone (basic/versioning: the error to `initialize` names the revisions)."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        version = _version(scope)
        if scope["type"] != "http" or (version is not None and version not in HANDSHAKE_PROTOCOL_VERSIONS):
            await app(scope, receive, send)
        elif scope["method"] == "POST":
            await _refuse(_too_old(version), scope, receive, send)
        else:
            await _answer(405, b"", [(b"allow", b"POST")], send)

    return served


FILTERS: dict[str, Callable[[ASGIApp], ASGIApp]] = {
    "legacy": only_legacy,
    "modern": only_modern,
    "both": lambda app: app,
}


def _version(scope: Scope) -> str | None:
    if scope["type"] != "http":
        return None
    said = [value for name, value in scope["headers"] if name == b"mcp-protocol-version"]
    return said[0].decode("latin-1") if said else None


def _unheard_of(version: str) -> Callable[[dict[str, Any]], Refusal]:
    known = ", ".join(HANDSHAKE_PROTOCOL_VERSIONS)
    words = f"Bad Request: Unsupported protocol version: {version}. Supported versions: {known}"
    # a server of that era says this before it has read a body, so it knows no id
    return lambda body: (400, _error("server-error", INVALID_REQUEST, words))


def _too_old(version: str | None) -> Callable[[dict[str, Any]], Refusal]:
    def refusal(body: dict[str, Any]) -> Refusal:
        params = body.get("params")
        asked = version or (params.get("protocolVersion") if isinstance(params, dict) else None)
        if asked is None:
            words = "Header mismatch: MCP-Protocol-Version header is missing"
            return 400, _error(body.get("id"), HEADER_MISMATCH, words)
        data = {"supported": [LATEST_MODERN_VERSION], "requested": asked}
        return 400, _error(body.get("id"), UNSUPPORTED_VERSION, "Unsupported protocol version", data)

    return refusal


def _error(identity: object, code: int, message: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "id": identity, "error": error}


async def _refuse(refusal: Callable[[dict[str, Any]], Refusal], scope: Scope, receive: Receive, send: Send) -> None:
    try:
        body = json.loads(await _body(receive))
    except ValueError:
        body = {}
    status, answer = refusal(body if isinstance(body, dict) else {})
    await _answer(status, json.dumps(answer).encode(), [(b"content-type", b"application/json")], send)


async def _body(receive: Receive) -> bytes:
    read = bytearray()
    while len(read) < BODY_LIMIT:
        message: Message = await receive()
        read += message.get("body", b"")
        if not message.get("more_body"):
            break
    return bytes(read)


async def _answer(status: int, body: bytes, headers: list[tuple[bytes, bytes]], send: Send) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
