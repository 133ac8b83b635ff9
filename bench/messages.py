"""What an agent sends and must hear back, in both eras, as prepared bytes.

A request is three constant pieces with an id and a nonce between them, so that making one costs a concatenation.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
ID_DIGITS = 10
"""Every id has as many digits, and every nonce `NONCE_DIGITS`, so that `Content-Length` is a constant."""
NONCE_DIGITS = 16
BODY = 390
"""Bytes of a `tools/call` body; a typical call."""

_ID, _NONCE = "1" * ID_DIGITS, "f" * NONCE_DIGITS


@dataclass(frozen=True, slots=True)
class Target:
    """Where calls go and in whose words.

    Args:
        port: on 127.0.0.1.
        era: `modern` or `legacy`, the agent's.
        path: of the endpoint.
        tool: the tool's name as this agent sees it.
        key: API key, empty for none.
        size: bytes of text the backend was told to add to every result.
        body: bytes of a `tools/call`, padded by an argument that the tool ignores.
        sessions: legacy only: ids that `bench.handshake` opened, given to connections in turn.
        method: `tools/call`, or a list method; then `items` is what must be listed, the JSON array as it is sent.
        streams: whether answers may come as event streams of one event.
    """

    port: int
    era: str = "modern"
    path: str = "/mcp"
    tool: str = "echo"
    key: str = ""
    size: int = 0
    body: int = BODY
    sessions: tuple[str, ...] = field(default=())
    method: str = "tools/call"
    items: bytes = field(default=b"", repr=False)
    streams: bool = False

    @classmethod
    def at(cls, url: str, era: str, tool: str) -> Target:
        """How an agent without a key calls a tool at `url`.

        Raises:
            ValueError: it is not http on 127.0.0.1.
        """
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname not in ("127.0.0.1", "localhost") or not parts.port:
            raise ValueError(f"{url}: no http://127.0.0.1:PORT")
        return cls(parts.port, era, parts.path or "/", tool)


def modern_meta() -> dict[str, Any]:
    """`_meta` of every modern request (2026-07-28, Basic, Request metadata)."""
    reserved = "io.modelcontextprotocol/"
    return {
        reserved + "protocolVersion": MODERN,
        reserved + "clientInfo": {"name": "bench", "version": "1"},
        reserved + "clientCapabilities": {},
    }


def headers(target: Target, method: str, name: str = "", session: str = "") -> dict[str, str]:
    """The headers of one POST of this agent, less `Content-Length`."""
    lines = {
        "Host": f"127.0.0.1:{target.port}",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
    }
    if target.key:
        lines["Authorization"] = f"Bearer {target.key}"
    if target.era == "modern":
        lines |= {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
        if name:
            lines["Mcp-Name"] = name
    elif method != "initialize":
        lines["MCP-Protocol-Version"] = LEGACY
        if session:
            lines["Mcp-Session-Id"] = session
    return lines


@dataclass(frozen=True, slots=True)
class Template:
    """One connection's request: `before + id + between + nonce + after` is HTTP head and body."""

    before: bytes
    between: bytes
    after: bytes

    def fill(self, id: int, nonce: str) -> bytes:
        """The request's bytes. `id` must have `ID_DIGITS` digits, `nonce` `NONCE_DIGITS` characters of 0-9a-f."""
        return b"%b%d%b%b%b" % (self.before, id, self.between, nonce.encode(), self.after)


def template(target: Target, session: str = "") -> Template:
    """The request of this agent, in this session where it has one."""
    arguments = {"nonce": _NONCE, "text": ""}
    calls = target.method == "tools/call"
    # In a list nobody heeds arguments; they stand there so that all requests are alike.
    params: dict[str, Any] = {"name": target.tool, "arguments": arguments} if calls else {"arguments": arguments}
    if target.era == "modern":
        params["_meta"] = modern_meta()
    message = {"jsonrpc": "2.0", "id": int(_ID), "method": target.method, "params": params}
    arguments["text"] = "x" * max(0, target.body - len(_text(message)))
    body = _text(message)
    lines = headers(target, target.method, target.tool if calls else "", session) | {"Content-Length": str(len(body))}
    head = f"POST {target.path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    before, rest = body.split(_ID, 1)
    between, after = rest.split(_NONCE, 1)
    return Template(f"{head}\r\n{before}".encode(), between.encode(), after.encode())


def _text(message: dict[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))


class _Content(msgspec.Struct):
    type: str
    text: str


class _Result(msgspec.Struct, rename="camel"):
    content: list[_Content]
    is_error: bool = False
    result_type: str | None = None


class _Reply(msgspec.Struct):
    jsonrpc: str
    id: int
    result: _Result | None = None
    error: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Reply).decode


@dataclass(frozen=True, slots=True)
class Expectation:
    """What every answer to this agent must be: compared in full, for every call."""

    result_type: str | None
    padding: str

    @classmethod
    def of(cls, target: Target) -> Expectation:
        """A legacy agent must not see `resultType`, a modern one must (2026-07-28, Basic, Results)."""
        return cls("complete" if target.era == "modern" else None, "x" * target.size)

    def fault(self, id: int, nonce: str, body: bytes) -> str | None:
        """What is wrong with this answer to the call `id` with `nonce`; None where it is right."""
        try:
            reply = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            return f"not the reply of a tool call: {exc}: {body[:200]!r}"
        if reply.id != id:
            return f"id {reply.id} instead of {id}"
        if reply.result is None:
            return f"an error: {body[:300]!r}"
        content = reply.result.content
        if len(content) != 1 or content[0].text != nonce + self.padding:
            return f"foreign or altered content: {body[:200]!r} instead of nonce {nonce}"
        if reply.result.is_error or reply.result.result_type != self.result_type:
            return f"resultType {reply.result.result_type!r}, isError {reply.result.is_error}"
        return None


@dataclass(frozen=True, slots=True)
class ListExpectation:
    """What every answer to a list must hold: the items, byte for byte, and the id unless the peer knows but one."""

    items: bytes
    echoes: bool = True

    def fault(self, id: int, nonce: str, body: bytes) -> str | None:
        """See `Expectation.fault`."""
        if self.echoes and b'"id":%d,' % id not in body[:64]:
            return f"not the answer to {id}: {body[:200]!r}"
        return None if self.items in body else f"another list: {len(body)} bytes, {body[:200]!r}"


def expectation(target: Target) -> Expectation | ListExpectation:
    """What this agent must hear. A peer without a key answers lists with what it was given, whatever the id."""
    if target.method == "tools/call":
        return Expectation.of(target)
    return ListExpectation(target.items, bool(target.key))
