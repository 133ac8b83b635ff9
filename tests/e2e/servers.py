"""MCP servers for end-to-end tests, in the test's own loop, by hand: a test rules each byte and each moment.

    async with serving(Toolbox("modern", {"echo": echo})) as server:    # an MCP server: server.url
    async with scripted(handler) as server:                              # anything at all on a socket

The SDK's servers, in threads, are `tests.demo.sdk.server`.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

LEGACY = ("2025-03-26", "2025-06-18", "2025-11-25")
MODERN = "2026-07-28"
BACKLOG = 2048
ENVELOPE = "io.modelcontextprotocol/protocolVersion"


@dataclass(frozen=True)
class Got:
    """One request as a server got it: header names in lower case, in order."""

    verb: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    reader: asyncio.StreamReader | None = field(default=None, repr=False, compare=False)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name.lower()), None)

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Server:
    """Something that listens on 127.0.0.1."""

    port: int
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/mcp"


Handler = Callable[[Got, asyncio.StreamWriter], Awaitable[None]]


async def read_request(reader: asyncio.StreamReader) -> Got | None:
    """The next request of a connection, None at its end."""
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = [line.partition(":") for line in lines[1:] if line]
        headers = [(name.lower(), value.strip()) for name, _, value in pairs]
        length = int(dict(headers).get("content-length", "0"))
        verb, target, _ = lines[0].split(" ")
        return Got(verb, target, headers, await reader.readexactly(length), reader)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


@asynccontextmanager
async def scripted(
    handler: Handler, port: int = 0, certificates: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """A socket on which `handler` answers every request, writing raw bytes; it may close the writer itself."""
    tasks: set[asyncio.Task[None]] = set()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            while not writer.is_closing() and (got := await read_request(reader)):
                await handler(got, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the gateway left, or the test is over
        finally:
            writer.close()
            tasks.discard(task)

    # However late this loop is: whoever finds the backlog full tries again in a second, and gives up after three.
    server = await asyncio.start_server(connection, "127.0.0.1", port, limit=1 << 26, backlog=BACKLOG, ssl=certificates)
    try:
        yield Server(server.sockets[0].getsockname()[1], "http" if certificates is None else "https")
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answer(body: bytes, *, status: str = "200 OK", headers: dict[str, str] | None = None) -> bytes:
    """A whole HTTP answer with a JSON body."""
    said = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in said.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM_END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """`data` as one chunk of a chunked body."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def event(message: bytes) -> bytes:
    """A message (JSON on one line) as one event in one chunk."""
    return chunk(b"event: message\ndata: " + message + b"\n\n")


@dataclass
class Call:
    """One tools/call as a `Toolbox` got it, and the way to answer it byte by byte."""

    id: Any
    name: str
    arguments: dict[str, Any]
    params: dict[str, Any]
    session: str | None
    got: Got
    writer: asyncio.StreamWriter
    result_extra: str

    async def text(self, words: str) -> None:
        """Answer with one text."""
        content = json.dumps([{"type": "text", "text": words}])
        await self.result(f'{{"content":{content},"isError":false}}'.encode())

    async def result(self, result: bytes) -> None:
        """Answer with these bytes as the `result` object; what the revision demands is put before its members."""
        await self.send(answer(self.envelope(result)))

    async def send(self, data: bytes) -> None:
        """Write bytes to the connection as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def left(self) -> None:
        """Return when the other side has closed the connection."""
        assert self.got.reader is not None
        with suppress(ConnectionError):
            assert await self.got.reader.read(1) == b"", "another request before the answer"

    def has_left(self) -> bool:
        """Whether the other side has closed the connection."""
        return self.got.reader is not None and (self.got.reader.at_eof() or self.got.reader.exception() is not None)

    def envelope(self, result: bytes) -> bytes:
        """The JSON-RPC answer around a result."""
        inner = result.strip().removeprefix(b"{")
        opening = b"{" + self.result_extra.encode() + (b"," if self.result_extra and inner.strip() != b"}" else b"")
        return b'{"jsonrpc":"2.0","id":' + json.dumps(self.id).encode() + b',"result":' + opening + inner + b"}"


Tool = Callable[[Call], Awaitable[None]]


@dataclass
class Toolbox:
    """An MCP server with tools, of one era or both, that keeps a ledger.

    `era` is "legacy", "modern" or "both". `ledger` holds (session, tool) for each call, `opened` and `ended` the
    sessions, `cancelled` the params of each notifications/cancelled. `forget()` makes every session unknown, as a
    restart would.
    """

    era: str
    tools: dict[str, Tool]
    definitions: dict[str, dict[str, Any]] = field(default_factory=dict)
    sessions: set[str] = field(default_factory=set)
    opened: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    ledger: list[tuple[str | None, str]] = field(default_factory=list)
    cancelled: list[dict[str, Any]] = field(default_factory=list)
    got: list[Got] = field(default_factory=list)
    numbers: count[int] = field(default_factory=lambda: count(1))
    ttl_ms: int = 60_000

    def forget(self) -> None:
        self.sessions.clear()

    def last_call(self) -> Got:
        """The last call of a tool: a health check may have come since."""
        return next(got for got in reversed(self.got) if got.verb == "POST" and got.json()["method"] == "tools/call")

    async def handle(self, got: Got, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        self.got.append(got)
        if got.verb == "DELETE" and (session := got.header("mcp-session-id")) in self.sessions:
            self.sessions.discard(str(session))
            self.ended.append(str(session))
            writer.write(answer(b""))
        elif got.verb != "POST":
            writer.write(answer(b"", status="405 Method Not Allowed", headers={"Allow": "POST"}))
        else:
            await self._post(got, got.json(), writer)

    async def _post(self, got: Got, message: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        is_modern = got.header("mcp-protocol-version") == MODERN
        if refused := self._refusal(got, message, is_modern):
            writer.write(refused)
        elif "id" not in message:
            if message["method"] == "notifications/cancelled":
                self.cancelled.append(message.get("params", {}))
            writer.write(answer(b"", status="202 Accepted"))
        elif message["method"] == "tools/call":
            await self._call(got, message, writer, is_modern)
        else:
            writer.write(self._answer(message, is_modern))

    def _refusal(self, got: Got, message: dict[str, Any], is_modern: bool) -> bytes | None:
        if is_modern and self.era == "legacy":
            return failure("server-error", -32600, "Bad Request: Unsupported protocol version", "400 Bad Request")
        if not is_modern and self.era == "modern":
            data = {"supported": [MODERN], "requested": "2025-11-25"}
            return failure(message.get("id"), -32022, "Unsupported protocol version", "400 Bad Request", data)
        if is_modern or message.get("method") == "initialize":
            return None
        if got.header("mcp-session-id") not in self.sessions:
            return failure(None, -32600, "Session not found", "404 Not Found")
        return None

    def _answer(self, message: dict[str, Any], is_modern: bool) -> bytes:
        about = {"name": "toolbox", "version": "1"}
        identity, method = message["id"], message["method"]
        if method == "initialize" and not is_modern:
            session = f"session-{next(self.numbers)}"
            self.sessions.add(session)
            self.opened.append(session)
            asked = message["params"]["protocolVersion"]
            version = asked if asked in LEGACY else LEGACY[-1]
            result: dict[str, Any] = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": about}
            return success(identity, result, {"Mcp-Session-Id": session})
        hints = {"resultType": "complete", "ttlMs": self.ttl_ms, "cacheScope": "public"} if is_modern else {}
        if method == "server/discover" and is_modern:
            return success(identity, {**hints, "supportedVersions": [MODERN], "capabilities": {"tools": {}}})
        if method == "tools/list":
            return success(identity, {**hints, "tools": [self._definition(name) for name in self.tools]})
        if method == "ping" and not is_modern:
            return success(identity, {})
        return failure(identity, -32601, "Method not found", "404 Not Found" if is_modern else "200 OK")

    def _definition(self, name: str) -> dict[str, Any]:
        return {"name": name, "inputSchema": {"type": "object"}, **self.definitions.get(name, {})}

    async def _call(self, got: Got, message: dict[str, Any], writer: asyncio.StreamWriter, is_modern: bool) -> None:
        params, session = message["params"], None if is_modern else got.header("mcp-session-id")
        self.ledger.append((session, params["name"]))
        extra = '"resultType":"complete"' if is_modern else ""
        tool = self.tools.get(params["name"])
        if tool is None:
            writer.write(failure(message["id"], -32602, "Unknown tool"))
            return
        arguments = params.get("arguments") or {}
        await tool(Call(message["id"], params["name"], arguments, params, session, got, writer, extra))


def success(identity: Any, result: dict[str, Any], headers: dict[str, str] | None = None) -> bytes:
    """A whole HTTP answer with a result."""
    return answer(json.dumps({"jsonrpc": "2.0", "id": identity, "result": result}).encode(), headers=headers)


def failure(identity: Any, code: int, words: str, status: str = "200 OK", data: Any = None) -> bytes:
    """A whole HTTP answer with an error."""
    error = {"code": code, "message": words} | ({"data": data} if data is not None else {})
    return answer(json.dumps({"jsonrpc": "2.0", "id": identity, "error": error}).encode(), status=status)


@asynccontextmanager
async def serving(toolbox: Toolbox, port: int = 0) -> AsyncIterator[Server]:
    """The toolbox on a socket."""
    async with scripted(toolbox.handle, port) as server:
        yield server
