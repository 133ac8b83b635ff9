"""What each of the demo's servers is made of: the SDK's server with two gaps closed, its era, its process."""

from __future__ import annotations

import argparse
import json
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import mcp_types as types
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resources import Resource, TextResource
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, INVALID_REQUEST
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_MODERN_VERSION
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

HEADER_MISMATCH, UNSUPPORTED_VERSION = -32020, -32022
DRAIN = 1  # seconds that open requests get at the end
MOST_VALUES = 100  # of a completion (2026-07-28, server/utilities/completion)

Propose = Callable[[str, str, dict[str, str]], Iterable[str]]
"""The name of a prompt or the text of a template, an argument, the other arguments -> everything there is to choose."""


class DemoServer(MCPServer):
    """The SDK's, but resources tell their size, and a prompt without its arguments is a clear refusal."""

    def __init__(self, name: str, instructions: str) -> None:
        super().__init__(name, version="1.0.0", log_level="WARNING", instructions=instructions)
        self._sizes: dict[str, int] = {}

    def add_resource(self, resource: Resource) -> None:
        """As the SDK does; a text's size in bytes is noted."""
        super().add_resource(resource)
        if isinstance(resource, TextResource):
            self._sizes[resource.uri] = len(resource.text.encode())

    async def list_resources(self) -> list[types.Resource]:
        """The SDK's list, with `size` where it is known."""
        return [one.model_copy(update={"size": self._sizes.get(one.uri)}) for one in await super().list_resources()]

    async def get_prompt(
        self, name: str, arguments: dict[str, Any] | None = None, context: Context[Any, Any] | None = None
    ) -> types.GetPromptResult | types.InputRequiredResult:
        """As the SDK does, but invalid params where the SDK has an internal error (2026-07-28, server/prompts).

        Raises:
            MCPError: -32602; the prompt is unknown or a required argument is missing.
        """
        prompt = next((one for one in await self.list_prompts() if one.name == name), None)
        if prompt is None:
            raise MCPError(code=INVALID_PARAMS, message=f"Unknown prompt: {name}", data={"name": name})
        needed = {one.name for one in prompt.arguments or () if one.required}
        if missing := sorted(needed - set(arguments or ())):
            raise MCPError(code=INVALID_PARAMS, message=f"Missing arguments: {', '.join(missing)}")
        return await super().get_prompt(name, arguments, context)

    def complete_from(self, propose: Propose) -> None:
        """Complete arguments from what `propose` knows: those values that begin with what was typed."""

        async def answer(
            ref: types.PromptReference | types.ResourceTemplateReference,
            argument: types.CompletionArgument,
            context: types.CompletionContext | None,
        ) -> types.Completion:
            asked = ref.name if isinstance(ref, types.PromptReference) else ref.uri
            others = (context.arguments if context else None) or {}
            found = [one for one in propose(asked, argument.name, others) if one.startswith(argument.value)]
            return types.Completion(values=found[:MOST_VALUES], total=len(found), has_more=len(found) > MOST_VALUES)

        self.completion()(answer)  # type: ignore[no-untyped-call]  # the SDK gives it no types


def of_era(era: str, app: ASGIApp) -> ASGIApp:
    """The app of every revision as one of an era, `legacy` or `modern`, that refuses the other as such servers do."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive) if scope["type"] == "http" else None
        version = request.headers.get("mcp-protocol-version") if request else None
        is_legacy = version is None or version in HANDSHAKE_PROTOCOL_VERSIONS
        if request is None or era == "both" or is_legacy == (era == "legacy"):
            await app(scope, receive, send)
        elif era == "legacy":
            known = ", ".join(HANDSHAKE_PROTOCOL_VERSIONS)
            words = f"Bad Request: Unsupported protocol version: {version}. Supported versions: {known}"
            # a server of that era says this before it has read a body, so it knows no id
            await _error("server-error", INVALID_REQUEST, words)(scope, receive, send)
        elif request.method != "POST":
            await Response(status_code=405, headers={"allow": "POST"})(scope, receive, send)
        else:
            await _too_old(version, await request.body())(scope, receive, send)

    return served


def _too_old(version: str | None, body: bytes) -> Response:
    """What a server of 2026-07-28 alone says (basic/versioning: the error to `initialize` names the revisions)."""
    try:
        message = json.loads(body)
        asked = version or message.get("params", {}).get("protocolVersion")
    except (ValueError, AttributeError):
        message, asked = {}, version
    if asked is None:
        return _error(message.get("id"), HEADER_MISMATCH, "Header mismatch: MCP-Protocol-Version header is missing")
    data = {"supported": [LATEST_MODERN_VERSION], "requested": asked}
    return _error(message.get("id"), UNSUPPORTED_VERSION, "Unsupported protocol version", data=data)


def _error(identity: object, code: int, message: str, **more: Any) -> Response:
    error = {"code": code, "message": message, **more}
    return JSONResponse({"jsonrpc": "2.0", "id": identity, "error": error}, 400)


def serve(make: Callable[[Path], MCPServer]) -> None:
    """Serve what `make(state folder)` returns until SIGTERM, SIGINT or, with `--lifeline`, the end of standard input.

    Prints one line as soon as the port is open: the URL.
    """
    parser = argparse.ArgumentParser(description="One of the demo's MCP servers.")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument(
        "--era", choices=["both", "legacy", "modern"], default="both", help="protocol revisions it speaks"
    )
    parser.add_argument("--state", type=Path, required=True, help="folder for its database")
    parser.add_argument("--lifeline", action="store_true", help="end when standard input ends: it dies with its parent")
    asked = parser.parse_args()
    asked.state.mkdir(parents=True, exist_ok=True)
    app = of_era(asked.era, make(asked.state).streamable_http_app(host="127.0.0.1"))
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=DRAIN, lifespan="on")
    )
    # Streams that are open to the end are cut off then, which is nothing to report; uvicorn would, at great length.
    logging.getLogger("uvicorn.error").addFilter(lambda _: not server.should_exit)

    def end_with_standard_input() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        server.should_exit = True

    with socket.create_server(("127.0.0.1", asked.port)) as listening:
        if asked.lifeline:
            threading.Thread(target=end_with_standard_input, daemon=True).start()
        print(f"http://127.0.0.1:{listening.getsockname()[1]}/mcp", flush=True)
        server.run(sockets=[listening])
