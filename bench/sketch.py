"""What the ten steps could cost: the usual shape of a call taken by hand, all promises of that shape kept.

It knows one shape of request only and hands on everything else, so it is no gateway: it is what `bench steps` compares
the path of a call with.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

import msgspec
from msgspec import Raw, Struct

Wire = Callable[[bytes, bytes], Awaitable[bytes]]


class Params(Struct, rename={"meta": "_meta"}):
    """`params` of `tools/call`."""

    name: str
    arguments: Raw = Raw(b"{}")
    meta: Raw = Raw(b"")


class Request(Struct):
    """A request, in one typed decode."""

    jsonrpc: str
    method: str
    id: Raw = Raw(b"")
    params: Params | None = None


class Reply(Struct):
    """A response."""

    jsonrpc: str
    id: Raw = Raw(b"")
    result: Raw = Raw(b"")
    error: Raw = Raw(b"")


class ResultKind(Struct, rename="camel"):
    """What must be known of a result."""

    result_type: str = ""
    is_error: bool = False


read_message = msgspec.json.Decoder(Request).decode
read_reply = msgspec.json.Decoder(Reply).decode
read_result = msgspec.json.Decoder(ResultKind).decode
FRAME = len(b'{"jsonrpc":"2.0","id":,"method":"tools/call","params":{"name":"","arguments":,"_meta":}}')
"""Bytes of the canonical form that are none of its four values. Equal lengths prove that nothing was doubled, unknown
or spaced."""
VERSION = "2026-07-28"


class SketchGrant:
    """Prepared at load: what one class of agents needs for one tool."""

    def __init__(self, tool: str) -> None:
        head = (
            "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
            f"MCP-Protocol-Version: {VERSION}\r\nMcp-Method: tools/call\r\nMcp-Name: {tool}\r\n"
        )
        self.head = head.encode()
        self.name = json.dumps(tool).encode()
        self.event = b'{"schema":1,"agentId":"a","tool":%b,"mcpServer":"s",' % self.name
        self.total: dict[int, int] = {}
        self.overhead: dict[int, int] = {}
        self.outcomes: dict[str, int] = {}


class Handed(Exception):
    """A request of another shape."""


class Sketch:
    """One agent's key, one endpoint, one tool.

    Args:
        wire: takes header lines and body to the server and gives the body of its answer.
    """

    def __init__(self, key: str, tool: str, hosts: set[bytes], wire: Wire) -> None:
        self.keys = {hashlib.sha256(key.encode()).digest(): "a"}
        self.endpoints = {"/mcp": {"a": {tool: SketchGrant(tool)}}}
        self.hosts = hosts
        self.wire = wire
        self.metas: dict[bytes, str] = {}
        self.running: set[asyncio.Task[Any] | None] = set()
        self.events: list[bytes] = []
        self.number = 0
        self.buckets = [[0, 0.0], [0, 0.0]]
        self.sink = os.open(os.devnull, os.O_WRONLY)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: PLR0915 - in one piece on purpose
        if scope["type"] != "http":
            return
        started = monotonic()
        lines = scope["headers"]
        head = dict(lines)
        endpoint = self.endpoints.get(scope["path"])
        if len(head) != len(lines) or endpoint is None or scope["method"] != "POST" or b"origin" in head:
            raise Handed
        if head[b"host"] not in self.hosts:
            raise Handed
        grants = endpoint[self.keys[hashlib.sha256(head[b"authorization"][7:]).digest()]]
        body = (await receive())["body"]
        if len(body) != int(head[b"content-length"]) or head[b"content-type"] != b"application/json":
            raise Handed
        message = read_message(body)
        params = message.params
        assert params is not None
        id, name, arguments, meta = bytes(message.id), params.name, bytes(params.arguments), bytes(params.meta)
        if len(body) != FRAME + len(id) + len(name) + len(arguments) + len(meta):
            raise Handed
        version = self.metas.get(meta)
        if version is None:
            version = self.metas[meta] = msgspec.json.decode(meta)["io.modelcontextprotocol/protocolVersion"]
        if (
            version != VERSION
            or head[b"mcp-protocol-version"] != b"2026-07-28"
            or head[b"mcp-method"] != b"tools/call"
            or head[b"mcp-name"].decode() != name
        ):
            raise Handed
        grant = grants[name]
        now = int(started * 1e6)
        for bucket in self.buckets:
            bucket[1] = max(0.0, bucket[1] - (now - bucket[0]) * 0.02) + 1
            bucket[0] = now
            if bucket[1] > 1e9:
                raise Handed
        task = asyncio.current_task()
        self.running.add(task)
        self.number += 1
        waited, answer = 0.0, b""
        try:
            upstream_id = b"%d" % self.number
            sent = monotonic()
            reply = await self.wire(
                grant.head,
                b'{"jsonrpc":"2.0","id":%b,"method":"tools/call","params":{"name":%b,"arguments":%b,"_meta":%b}}'
                % (upstream_id, grant.name, arguments, meta),
            )
            waited = monotonic() - sent
            found = read_reply(reply)
            result = bytes(found.result)
            if bytes(found.id) != upstream_id or read_result(result).result_type != "complete":
                raise Handed
            answer = b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (id, result)
            fields = [
                (b"x-request-id", b"req_0a1b2c%06x" % self.number),
                (b"content-type", b"application/json"),
                (b"ratelimit", b'"agents";r=%d;t=1' % self.buckets[0][1]),
                (b"ratelimit-policy", b'"agents";q=20000;w=1'),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": fields})
            await send({"type": "http.response.body", "body": answer})
        finally:
            self.running.discard(task)
            took = monotonic() - started
            grant.outcomes["ok"] = grant.outcomes.get("ok", 0) + 1
            _record(grant.total, int(took * 1e6))
            _record(grant.overhead, int((took - waited) * 1e6))
            self.events.append(
                b'%b"requestId":"req_0a1b2c%06x","timestamp":%.3f,"latencyMs":%.3f,"overheadMs":%.3f,"bytesIn":%d,'
                b'"bytesOut":%d,"statusCode":200,"attempts":1}\n'
                % (
                    grant.event, self.number, time.time(), took * 1e3, (took - waited) * 1e3, len(body), len(answer)
                )
            )  # fmt: skip
            if len(self.events) > 256:
                os.write(self.sink, b"".join(self.events))
                self.events.clear()


def _record(counts: dict[int, int], micros: int) -> None:
    if micros >= 256:
        shift = micros.bit_length() - 8
        micros = (shift << 7) + (micros >> shift)
    counts[micros] = counts.get(micros, 0) + 1
