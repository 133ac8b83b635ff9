"""A very cheap MCP server of one era with one useful tool, `echo`, which returns the nonce it was given.

It answers synchronously from prepared bytes, so that what is measured in front of it is not hidden by it.
`python -m bench backend --era modern --tools 10` prints `port=N` when it listens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

import httptools
import msgspec
import uvloop

from bench.messages import LEGACY, MODERN

PAGE = 1000
"""Tools on one page of `tools/list`."""
TTL_MS = 3_600_000
USAGE = b',"_meta":{"usage":{"input_tokens":212,"output_tokens":48}}'
"""What every result says it took, for gateways that count tokens."""
INFO = {"name": "bench-backend", "version": "1"}


class _Arguments(msgspec.Struct):
    nonce: msgspec.Raw = msgspec.Raw(b'""')


class _Params(msgspec.Struct):
    name: str = ""
    cursor: str = ""
    arguments: _Arguments = msgspec.field(default_factory=_Arguments)


class _Request(msgspec.Struct):
    method: str
    id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    params: _Params = msgspec.field(default_factory=_Params)


_decode = msgspec.json.Decoder(_Request).decode


@dataclass(slots=True)
class Server:
    """What one backend serves.

    Args:
        era: `modern` or `legacy`.
        tool: name of the echo tool; further tools are called `<tool>-00001` and so on and do the same.
        tools: how many tools there are in all.
        size: bytes of padding behind the nonce in every result.
    """

    era: str = "modern"
    tool: str = "echo"
    tools: int = 1
    size: int = 0
    names: tuple[str, ...] = ()
    sessions: set[str] = field(default_factory=set)
    known: frozenset[str] = frozenset()
    tail: bytes = b""

    def __post_init__(self) -> None:
        self.names = (self.tool, *(f"{self.tool}-{number:05d}" for number in range(1, self.tools)))
        self.known = frozenset(self.names)
        complete = b',"resultType":"complete"' if self.era == "modern" else b""
        self.tail = b"x" * self.size + b'"}],"isError":false' + complete + USAGE + b"}}"

    def answer(self, headers: dict[bytes, bytes], body: bytes) -> tuple[int, bytes, bytes]:
        """Status, further header lines, body of the answer to one POST."""
        try:
            request = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return 400, b"", error(b"null", -32700, "Parse error")
        if isinstance(request.id, msgspec.UnsetType):
            return 202, b"", b""
        refusal = self.refusal(headers, request)
        if refusal is not None:
            return refusal
        if request.method == "tools/call":
            return self.call(bytes(request.id), request.params)
        return self.rest(bytes(request.id), request)

    def refusal(self, headers: dict[bytes, bytes], request: _Request) -> tuple[int, bytes, bytes] | None:
        """What the transport refuses before anything is run: a header that lies (modern), a session (legacy)."""
        id = b"null" if isinstance(request.id, msgspec.UnsetType) else bytes(request.id)
        if self.era == "modern":
            if headers.get(b"mcp-protocol-version") != MODERN.encode():
                return 400, b"", error(id, -32022, "Unsupported protocol version", supported=[MODERN])
            if headers.get(b"mcp-method") != request.method.encode():
                return 400, b"", error(id, -32020, "Mcp-Method does not match the body")
            if request.method == "tools/call" and headers.get(b"mcp-name") != request.params.name.encode():
                return 400, b"", error(id, -32020, "Mcp-Name does not match the body")
            return None
        if request.method == "initialize":
            return None
        session = headers.get(b"mcp-session-id")
        if session is None:
            return 400, b"", error(id, -32600, "Mcp-Session-Id is required")
        return (
            None if session.decode("latin-1") in self.sessions else (404, b"", error(id, -32600, "Session not found"))
        )

    def call(self, id: bytes, params: _Params) -> tuple[int, bytes, bytes]:
        """The nonce as text. Its JSON string is copied as it came, less the closing quote, which `tail` brings."""
        if params.name not in self.known:
            return (400 if self.era == "modern" else 200), b"", error(id, -32602, "Unknown tool")
        nonce = bytes(params.arguments.nonce)[:-1]
        body = b'{"jsonrpc":"2.0","id":%b,"result":{"content":[{"type":"text","text":%b%b' % (id, nonce, self.tail)
        return 200, b"", body

    def rest(self, id: bytes, request: _Request) -> tuple[int, bytes, bytes]:
        """Everything that is not a call."""
        if request.method == "tools/list":
            return 200, b"", reply(id, self.page(request.params.cursor))
        if self.era == "modern" and request.method == "server/discover":
            return 200, b"", reply(id, self.cached({"supportedVersions": [MODERN], "capabilities": {"tools": {}}}))
        if self.era == "legacy" and request.method == "ping":
            return 200, b"", reply(id, {})
        if self.era == "legacy" and request.method == "initialize":
            session = secrets.token_hex(16)
            self.sessions.add(session)
            result = {"protocolVersion": LEGACY, "capabilities": {"tools": {}}, "serverInfo": INFO}
            return 200, b"Mcp-Session-Id: " + session.encode() + b"\r\n", reply(id, result)
        return (404 if self.era == "modern" else 200), b"", error(id, -32601, "Method not found")

    def page(self, cursor: str) -> dict[str, Any]:
        """One page of tools from the index that the cursor is; an unreadable cursor starts at the beginning."""
        start = int(cursor) if cursor.isdigit() else 0
        tools = [definition(name) for name in self.names[start : start + PAGE]]
        more = {"nextCursor": str(start + PAGE)} if start + PAGE < len(self.names) else {}
        return self.cached({"tools": tools, **more})

    def cached(self, result: dict[str, Any]) -> dict[str, Any]:
        """The result with what a modern one must carry beside (2026-07-28, Server, Utilities, Caching)."""
        if self.era == "legacy":
            return result
        meta = {"io.modelcontextprotocol/serverInfo": INFO}
        return {**result, "resultType": "complete", "ttlMs": TTL_MS, "cacheScope": "public", "_meta": meta}


def definition(name: str) -> dict[str, Any]:
    """A tool as `tools/list` shows it."""
    text = {"type": "string"}
    return {
        "name": name,
        "description": "Returns the nonce it was given.",
        "inputSchema": {"type": "object", "properties": {"nonce": text, "text": text}, "required": ["nonce"]},
        "annotations": {"readOnlyHint": True},
    }


def reply(id: bytes, result: dict[str, Any]) -> bytes:
    """A JSON-RPC reply; `id` is the JSON text of the request's."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (id, json.dumps(result).encode())


def error(id: bytes, code: int, message: str, **data: Any) -> bytes:
    """A JSON-RPC error; `data` only where there is any."""
    fields: dict[str, Any] = {"code": code, "message": message}
    if data:
        fields["data"] = data
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (id, json.dumps(fields).encode())


class Connection(asyncio.Protocol):
    """One keep-alive connection; pipelined requests are answered in order because nothing waits."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.parser = httptools.HttpRequestParser(self)
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()

    def on_message_begin(self) -> None:
        self.headers = {}
        self.body = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        verb = self.parser.get_method()
        if verb == b"POST":
            self.write(*self.server.answer(self.headers, self.body))
        elif verb == b"DELETE" and self.server.era == "legacy":
            self.server.sessions.discard(self.headers.get(b"mcp-session-id", b"").decode("latin-1"))
            self.write(200, b"", b"")
        else:
            self.write(405, b"Allow: POST\r\n", b"")
        if not self.parser.should_keep_alive():
            self.transport.close()

    def write(self, status: int, lines: bytes, body: bytes) -> None:
        """One answer, head and body in one write."""
        head = b"HTTP/1.1 %d OK\r\n%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self.transport.write(head % (status, lines, len(body)) + body)


async def serve(server: Server, port: int) -> asyncio.Server:
    """Listen on 127.0.0.1; port 0 takes a free one."""
    return await asyncio.get_running_loop().create_server(lambda: Connection(server), "127.0.0.1", port, backlog=4096)


async def _forever(server: Server, port: int) -> None:
    listener = await serve(server, port)
    print(f"port={listener.sockets[0].getsockname()[1]}", flush=True)
    await listener.serve_forever()


def main(argv: list[str]) -> int:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m bench backend", description=__doc__.split("\n")[0])
    parser.add_argument("--era", choices=("modern", "legacy"), default="modern")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--name", default="echo", help="name of the tool; the others are called after it")
    parser.add_argument("--tools", type=int, default=1)
    parser.add_argument("--size", type=int, default=0, metavar="BYTES", help="padding of every result")
    args = parser.parse_args(argv)
    uvloop.run(_forever(Server(args.era, args.name, args.tools, args.size), args.port))
    return 0
