"""The fixture: an MCP server of its own, legacy, modern or both, for the official conformance suite and for our tests.

Knows: which face a request is for. Everything here is written against the specification and not against the gateway, of
which it imports nothing. Refuses to know: sessions (`legacy.py`), headers that mirror the body (`modern.py`), tools
(`tools.py`), lists (`catalogue.py`).

A legacy server here behaves as the SDKs' do: it issues session ids, answers 404 for dead ones, answers requests by
server-sent events with a priming event, and lets a client resume by GET. A modern one answers in JSON unless a tool has
something to say before its result.

    python -m tests.conformance.fixture --era legacy|modern|dual [--port 0] [--offer suite|decoy]

The first line it prints is its port.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

from tests.conformance import headers, legacy, modern
from tests.conformance.server import Server
from tests.conformance.turn import Json

Send = Callable[[Any], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]


class Fixture:
    """The server as an ASGI application. `era` and `offer` are those of the command line."""

    def __init__(self, era: str, offer: str) -> None:
        server = Server(era, offer)
        self.era = era
        self.modern = modern.ModernFace(server)
        self.legacy = legacy.LegacyFace(server)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        reply = headers.Reply(receive, send)
        if (status := headers.foreign(scope)) is not None:
            await reply.error(status, None, -32600, "Host or Origin is not local")
            return
        if scope["path"] != "/mcp":
            await reply.plain(404)
            return
        if scope["method"] == "POST":
            await self._post(scope, reply)
            return
        version = headers.one(scope, "mcp-protocol-version")
        if self.era == "modern" or (self.era == "dual" and version == modern.VERSION):
            await reply.plain(405, {"allow": "POST"})
            return
        if scope["method"] == "GET":
            await self.legacy.get(scope, reply)
            return
        if scope["method"] == "DELETE":
            await self.legacy.delete(scope, reply)
            return
        await reply.plain(405, {"allow": "GET, POST, DELETE"})

    async def _post(self, scope: Any, reply: headers.Reply) -> None:
        kind = headers.one(scope, "content-type") or ""
        if kind.split(";")[0].strip().lower() != "application/json":
            await reply.error(400, None, -32600, "Content-Type must be application/json")
            return
        try:
            message = json.loads(await reply.body())
        except ValueError:
            await reply.error(400, None, -32700, "Parse error")
            return
        if not isinstance(message, dict):
            await reply.error(400, None, -32600, "one message at a time")
            return
        if self._is_modern(scope, message):
            await self.modern.post(scope, reply, message)
            return
        accept = headers.one(scope, "accept") or ""
        if "application/json" not in accept or "text/event-stream" not in accept:
            await reply.error(406, None, -32600, "Not Acceptable: both json and event-stream are needed")
            return
        await self.legacy.post(scope, reply, message)

    def _is_modern(self, scope: Any, message: Json) -> bool:
        """The era of one POST (2026-07-28, basic/versioning, servers that speak both)."""
        if self.era != "dual":
            return self.era == "modern"
        version = headers.one(scope, "mcp-protocol-version")
        if version is None:
            return f"{headers.META}protocolVersion" in ((message.get("params") or {}).get("_meta") or {})
        return version not in legacy.VERSIONS


def serve(era: str, offer: str, port: int) -> None:
    """Serves until it is stopped by a signal. Prints the port on a line of its own first."""
    listener = socket.create_server(("127.0.0.1", port))
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(Fixture(era, offer), lifespan="off", log_level="warning", access_log=False, http="h11",
                            timeout_graceful_shutdown=1)  # fmt: skip
    asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.fixture", description="An MCP server to test on")
    parser.add_argument("--era", choices=("legacy", "modern", "dual"), default="dual")
    parser.add_argument("--offer", choices=("suite", "decoy"), default="suite")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    given = parser.parse_args(argv)
    serve(given.era, given.offer, given.port)


if __name__ == "__main__":
    main()
