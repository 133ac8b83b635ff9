"""How each of the demo's servers runs: as a process of its own, on any free port, in its era of the protocol."""

from __future__ import annotations

import socket
from typing import Literal

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp_types import INVALID_REQUEST, UNSUPPORTED_PROTOCOL_VERSION
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

Era = Literal["legacy", "modern", "both"]


def of_era(era: Era, server: MCPServer) -> ASGIApp:
    """The server's app, which speaks every revision, as one that refuses those of the other era."""
    app = server.streamable_http_app()
    known = list(HANDSHAKE_PROTOCOL_VERSIONS if era == "legacy" else MODERN_PROTOCOL_VERSIONS)

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        version = Headers(scope=scope).get("mcp-protocol-version") if scope["type"] == "http" else None
        is_legacy = version is None or version in HANDSHAKE_PROTOCOL_VERSIONS
        if scope["type"] != "http" or era == "both" or is_legacy == (era == "legacy"):
            await app(scope, receive, send)
            return
        error = {
            "code": INVALID_REQUEST if era == "legacy" else UNSUPPORTED_PROTOCOL_VERSION,
            "message": f"Unsupported protocol version: {version}. Supported versions: {', '.join(known)}",
            "data": {"supported": known, "requested": version},
        }
        await JSONResponse({"jsonrpc": "2.0", "id": None, "error": error}, 400)(scope, receive, send)

    return served


def serve(era: Era, server: MCPServer, port: int = 0) -> None:
    """Serve until SIGTERM or SIGINT, on any free port or this one. Prints one line as soon as it is open: the URL."""
    config = uvicorn.Config(of_era(era, server), log_level="critical", timeout_graceful_shutdown=1)
    with socket.create_server(("127.0.0.1", port)) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}/mcp", flush=True)
        uvicorn.Server(config).run(sockets=[listening])
