"""HTTP of the fixture server: reading heads, holding them against the body, writing answers.

Knows: ASGI, the headers that mirror the body (2026-07-28, basic/transports/streamable-http, request headers), the
allowed hosts of a loopback listener. Refuses to know: methods, tools, sessions.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from tests.conformance.stream import Stream
from tests.conformance.turn import Json, RpcError

META = "io.modelcontextprotocol/"
LOCAL = ("localhost", "127.0.0.1", "::1")
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


def one(scope: Any, name: str) -> str | None:
    """The value of a header, its edges trimmed; None where it is missing."""
    for key, value in scope["headers"]:
        if key == name.encode():
            return str(value.decode("latin-1").strip(" \t"))
    return None


def foreign(scope: Any) -> int | None:
    """The status that refuses a request for or from another host: 421 for `Host`, 403 for `Origin`."""
    if urlsplit(f"//{one(scope, 'host')}").hostname not in LOCAL:
        return 421
    origin = one(scope, "origin")
    return 403 if origin is not None and urlsplit(origin).hostname not in LOCAL else None


def plain(value: str) -> str:
    """A header's value with `=?base64?...?=` decoded.

    Raises:
        RpcError: -32020 where what stands between is no base64 of UTF-8.
    """
    if not (value.startswith("=?base64?") and value.endswith("?=")):
        return value
    try:
        return base64.b64decode(value[9:-2], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise RpcError(-32020, f"not base64: {value}") from error


def _same(scope: Any, header: str, expected: Any) -> None:
    found = one(scope, header)
    if found is None or plain(found) != expected:
        raise RpcError(-32020, f"{header} is {found!r}, the body says {expected!r}")


def mirror(scope: Any, method: str, params: Json, versions: list[str]) -> None:
    """Holds the head of a modern request against its body.

    Raises:
        RpcError: -32602 (`_meta` lacks a member), -32020 (they differ), -32022 (a version nobody knows), in that order.
    """
    meta = params.get("_meta")
    for key in ("protocolVersion", "clientCapabilities"):
        if not isinstance(meta, dict) or f"{META}{key}" not in meta:
            raise RpcError(-32602, f"_meta lacks {META}{key}")
    version = (meta or {})[f"{META}protocolVersion"]
    _same(scope, "mcp-protocol-version", version)
    _same(scope, "mcp-method", method)
    if method in NAMED and NAMED[method] in params:
        _same(scope, "mcp-name", params[NAMED[method]])
    if version not in versions:
        raise RpcError(-32022, "Unsupported protocol version", {"supported": versions, "requested": version})


def mirror_arguments(scope: Any, params: Json, schema: Json | None) -> None:
    """Holds `Mcp-Param-*` against the arguments that `schema` marks with `x-mcp-header`.

    Raises:
        RpcError: -32020 where one is missing, differs, or is there without its argument.
    """
    for name, definition in ((schema or {}).get("properties") or {}).items():
        if "x-mcp-header" not in definition:
            continue
        header = f"mcp-param-{definition['x-mcp-header'].lower()}"
        value = (params.get("arguments") or {}).get(name)
        if value is not None:
            _same(scope, header, value if isinstance(value, str) else json.dumps(value))
        elif one(scope, header) is not None:
            raise RpcError(-32020, f"{header} without its argument")


class Reply:
    """The answer to one HTTP request."""

    def __init__(self, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        self._receive = receive
        self._send = send
        self._left: asyncio.Future[None] | None = None

    async def body(self) -> bytes:
        parts: list[bytes] = []
        while True:
            message = await self._receive()
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(parts)

    async def _start(self, status: int, headers: dict[str, str]) -> None:
        encoded = [(key.encode(), value.encode()) for key, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    async def plain(self, status: int, headers: dict[str, str] | None = None) -> None:
        """An empty answer."""
        await self._start(status, {"content-length": "0", **(headers or {})})
        await self._send({"type": "http.response.body"})

    async def json(self, status: int, message: Json) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}, separators=(",", ":")).encode()
        await self._start(status, {"content-type": "application/json", "content-length": str(len(body))})
        await self._send({"type": "http.response.body", "body": body})

    async def error(self, status: int, identity: Any, code: int, message: str) -> None:
        await self.json(status, {"id": identity, "error": {"code": code, "message": message}})

    async def _departure(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def first(self, stream: Stream, task: asyncio.Task[None]) -> None:
        """Waits for the end of the stream or for a message before it. A client that leaves first cancels `task`."""
        self._left = asyncio.ensure_future(self._departure())
        ready = asyncio.ensure_future(stream.opened.wait())
        await asyncio.wait((self._left, ready), return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0)  # a result put right after its stream opened is one answer, not a stream
        if self._left.done():
            task.cancel()
        ready.cancel()

    async def events(
        self, stream: Stream, start: int, headers: dict[str, str], primed: str | None = None, tagged: str | None = None
    ) -> None:
        """`stream` as server-sent events from message `start` on, until it ends or the client leaves.

        Args:
            primed: name for an event id with empty data that opens the stream, and for the ids of what follows.
            tagged: name for event ids alone.
        """
        await self._start(
            200, {"content-type": "text/event-stream", "cache-control": "no-cache, no-transform", **headers}
        )
        name = primed or tagged
        if primed:
            await self._chunk(f"retry: 100\r\nid: {primed}_{start - 1}\r\ndata: \r\n\r\n")
        else:
            await self._chunk(": open\r\n\r\n")
        pump = asyncio.ensure_future(self._pump(stream, start, name))
        left = self._left or asyncio.ensure_future(self._departure())
        await asyncio.wait((pump, left), return_when=asyncio.FIRST_COMPLETED)
        left.cancel()
        if not pump.done():
            pump.cancel()
            return
        await self._send({"type": "http.response.body"})

    async def _pump(self, stream: Stream, start: int, name: str | None) -> None:
        async for index, message in stream.read(start):
            identity = f"id: {name}_{index}\r\n" if name else ""
            await self._chunk(f"event: message\r\n{identity}data: {message}\r\n\r\n")

    async def _chunk(self, piece: str) -> None:
        await self._send({"type": "http.response.body", "body": piece.encode(), "more_body": True})
