"""HTTP as an agent speaks it, a fresh connection for every request, nothing hidden: status, headers, bytes, events.

reply = await exchange(url, modern("tools/call", {"name": "x", "arguments": {}}, key=key))
async with streaming(url, asked) as stream:
    first = await stream.event()
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
META = "io.modelcontextprotocol/"
PATIENCE = 20.0  # seconds for any single answer: only a test that has failed waits so long
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


@dataclass
class Asked:
    """A request as it will go over the wire. Change what you like before it does."""

    body: bytes = b""
    headers: list[tuple[str, str]] = field(default_factory=list)
    verb: str = "POST"

    def without(self, name: str) -> Asked:
        """The same less one header."""
        kept = [pair for pair in self.headers if pair[0].lower() != name.lower()]
        return Asked(self.body, kept, self.verb)

    def having(self, name: str, value: str) -> Asked:
        """The same with one header added or replaced."""
        return Asked(self.body, [*self.without(name).headers, (name, value)], self.verb)

    def on_wire(self, url: str) -> bytes:
        """The request in HTTP/1.1; `Host`, `Content-Length` and `Connection` are added where they are not given."""
        parts = urlsplit(url)
        given = {name.lower() for name, _ in self.headers}
        usual = {"Host": parts.netloc, "Content-Length": str(len(self.body)), "Connection": "close"}
        if "transfer-encoding" in given or self.verb == "GET":
            del usual["Content-Length"]
        headers = [(name, value) for name, value in usual.items() if name.lower() not in given] + self.headers
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [f"{self.verb} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
        return "\r\n".join(lines).encode("latin-1") + self.body


@dataclass(frozen=True)
class Event:
    """One server-sent event, its fields as they were written."""

    data: str
    name: str | None = None
    id: str | None = None
    retry: str | None = None

    def json(self) -> Any:
        return json.loads(self.data)


@dataclass(frozen=True)
class Reply:
    """A whole answer, its body unchunked."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The only value of a header, None where there is none."""
        values = [value for key, value in self.headers if key == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    def json(self) -> Any:
        """The JSON body, or the last event's data where the answer is a stream."""
        return self.events()[-1].json() if self.is_stream else json.loads(self.body)

    @property
    def is_stream(self) -> bool:
        return (self.header("content-type") or "").startswith("text/event-stream")

    def events(self) -> list[Event]:
        blocks = self.body.decode().replace("\r\n", "\n").split("\n\n")
        return [event for event in map(read_event, blocks) if event]


def read_event(block: str) -> Event | None:
    """One block between blank lines; None for comments alone."""
    fields: dict[str, list[str]] = {}
    for line in block.split("\n"):  # not splitlines: U+2028 and its like end no line
        name, _, value = line.partition(":")
        if name:
            fields.setdefault(name, []).append(value.removeprefix(" "))
    if not fields:
        return None
    last = {name: values[-1] for name, values in fields.items()}
    return Event("\n".join(fields.get("data", [])), last.get("event"), last.get("id"), last.get("retry"))


def in_base64(text: str) -> str:
    """Any text as a header value (2026-07-28, Streamable HTTP, Value Encoding)."""
    return f"=?base64?{b64encode(text.encode()).decode()}?="


def modern(
    method: str,
    params: dict[str, Any] | None = None,
    *,
    key: str | None = None,
    id: int | str | None = 1,
    meta: dict[str, Any] | None = None,
) -> Asked:
    """A request of revision 2026-07-28 with its envelope and mirrored headers; `id=None` makes it a notification."""
    envelope = {
        f"{META}protocolVersion": MODERN,
        f"{META}clientInfo": {"name": "test", "version": "1"},
        f"{META}clientCapabilities": {},
        **(meta or {}),
    }
    filled = {**(params or {}), "_meta": envelope}
    headers = [("MCP-Protocol-Version", MODERN), ("Mcp-Method", method)]
    if method in NAMED and isinstance(name := filled.get(NAMED[method]), str):
        headers.append(("Mcp-Name", name if name.isascii() else in_base64(name)))
    return _asked(method, filled, id, key, headers)


def legacy(
    method: str,
    params: dict[str, Any] | None = None,
    *,
    key: str | None = None,
    id: int | str | None = 1,
    session: str | None = None,
    version: str = LEGACY,
) -> Asked:
    """A request of a revision with sessions; without `session` only `initialize` makes sense."""
    headers = [("MCP-Protocol-Version", version), ("Mcp-Session-Id", session)] if session else []
    return _asked(method, params, id, key, headers)


def initialize(*, key: str | None = None, version: str = LEGACY, capabilities: dict[str, Any] | None = None) -> Asked:
    """The opening request of a legacy agent."""
    client = {"name": "test", "version": "1"}
    params = {"protocolVersion": version, "capabilities": capabilities or {}, "clientInfo": client}
    return legacy("initialize", params, key=key, id="open")


def _asked(
    method: str, params: dict[str, Any] | None, id: int | str | None, key: str | None, headers: list[tuple[str, str]]
) -> Asked:
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if id is not None:
        message["id"] = id
    if params is not None:
        message["params"] = params
    usual = [("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream")]
    if key:
        usual.append(("Authorization", f"Bearer {key}"))
    return Asked(json.dumps(message).encode(), usual + headers)


async def open_session(url: str, *, key: str | None = None, version: str = LEGACY) -> str:
    """Initialize as a legacy agent does, both messages, and return the session's id."""
    reply = await exchange(url, initialize(key=key, version=version))
    assert reply.status == 200, reply
    session = reply.header("mcp-session-id")
    assert session, "no session was given"
    note = legacy("notifications/initialized", key=key, id=None, session=session, version=version)
    assert (await exchange(url, note)).status == 202
    return session


async def exchange(url: str, asked: Asked, **how: Any) -> Reply:
    """Send one request on a connection of its own, opened as `how` says, and read the whole answer."""
    async with streaming(url, asked, **how) as stream:
        return await stream.rest()


async def send_raw(url: str, data: bytes) -> bytes:
    """Send exactly these bytes and read until the other side closes."""
    parts = urlsplit(url)
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            writer.write(data)
            return await reader.read()
        finally:
            writer.close()


class Stream:
    """An answer whose head has come and whose body is coming."""

    def __init__(self, status: int, headers: list[tuple[str, str]], reader: asyncio.StreamReader) -> None:
        self.status = status
        self.headers = headers
        self._reader = reader
        self._pieces = self._body()
        self._text = b""

    def header(self, name: str) -> str | None:
        return Reply(self.status, self.headers, b"").header(name)

    async def event(self) -> Event | None:
        """The next event, read as soon as it is there; None at the end."""
        while True:
            block, found, rest = self._text.replace(b"\r\n", b"\n").partition(b"\n\n")
            if found:
                self._text = rest
                if event := read_event(block.decode()):
                    return event
                continue
            async with asyncio.timeout(PATIENCE):
                piece = await anext(self._pieces, None)
            if piece is None:
                return None
            self._text += piece

    async def comment(self) -> bytes:
        """Read on until a comment has come; the bytes so far, which are no events any more then."""
        async with asyncio.timeout(PATIENCE):
            while not any(line.startswith(b":") for line in self._text.splitlines()):
                self._text += await anext(self._pieces)
        text, self._text = self._text, b""
        return text

    async def rest(self) -> Reply:
        """All that is left, as a reply."""
        async with asyncio.timeout(PATIENCE):
            body = self._text + b"".join([piece async for piece in self._pieces])
        self._text = b""
        return Reply(self.status, self.headers, body)

    async def _body(self) -> AsyncIterator[bytes]:
        headers = dict(self.headers)
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
                yield (await self._reader.readexactly(size + 2))[:-2]
            await self._reader.readuntil(b"\r\n")
        elif "content-length" in headers:
            yield await self._reader.readexactly(int(headers["content-length"]))
        elif self.status not in (202, 204):
            while piece := await self._reader.read(65536):
                yield piece


@dataclass
class Connection:
    """A connection to the gateway on which nothing has been asked yet. `port` is the one on our side."""

    url: str
    port: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, asked: Asked) -> Stream:
        """Send the request and read the head of its answer."""
        self.send(asked)
        return await self.answer()

    def send(self, asked: Asked) -> None:
        """Send the request."""
        self.writer.write(asked.on_wire(self.url))

    async def answer(self) -> Stream:
        """The answer to the request that was sent, its head read."""
        async with asyncio.timeout(PATIENCE):
            status, headers = await _head(self.reader)
        return Stream(status, headers, self.reader)


@asynccontextmanager
async def connected(url: str, **how: Any) -> AsyncIterator[Connection]:
    """A new connection, by the arguments of `asyncio.open_connection` in `how`; leaving the block closes it."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 26, **how)
    try:
        yield Connection(url, writer.get_extra_info("sockname")[1], reader, writer)
    finally:
        writer.close()


@asynccontextmanager
async def streaming(url: str, asked: Asked, **how: Any) -> AsyncIterator[Stream]:
    """Send one request on a connection of its own; leaving the block closes it, answered or not."""
    async with connected(url, **how) as connection:
        yield await connection.ask(asked)


async def _head(reader: asyncio.StreamReader) -> tuple[int, list[tuple[str, str]]]:
    while True:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        if status >= 200:
            break
    pairs = [line.partition(":") for line in lines[1:] if line]
    return status, [(name.lower(), value.strip()) for name, _, value in pairs]
