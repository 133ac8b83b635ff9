"""What each of the demo's servers is made of: the SDK's server with two gaps closed, and how it becomes a process."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resources import Resource, TextResource
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    Completion,
    CompletionArgument,
    CompletionContext,
    GetPromptResult,
    InputRequiredResult,
    PromptReference,
    ResourceTemplateReference,
)
from mcp_types import Resource as Listed

from fastgw.demo.eras import FILTERS

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

    async def list_resources(self) -> list[Listed]:
        """The SDK's list, with `size` where it is known."""
        return [one.model_copy(update={"size": self._sizes.get(one.uri)}) for one in await super().list_resources()]

    async def get_prompt(
        self, name: str, arguments: dict[str, Any] | None = None, context: Context[Any, Any] | None = None
    ) -> GetPromptResult | InputRequiredResult:
        """As the SDK does, but invalid params where the SDK has an internal error (2026-07-28, server/prompts).

        Raises:
            MCPError: -32602; the prompt is unknown or a required argument is missing.
        """
        prompt = next((one for one in await self.list_prompts() if one.name == name), None)
        if prompt is None:
            raise MCPError(code=INVALID_PARAMS, message=f"Unknown prompt: {name}", data={"name": name})
        needed = [one.name for one in prompt.arguments or () if one.required]
        if missing := [one for one in needed if one not in (arguments or {})]:
            raise MCPError(code=INVALID_PARAMS, message=f"Missing arguments: {', '.join(missing)}")
        return await super().get_prompt(name, arguments, context)

    def complete_from(self, propose: Propose) -> None:
        """Complete arguments from what `propose` knows: those values that begin with what was typed."""

        async def answer(
            ref: PromptReference | ResourceTemplateReference,
            argument: CompletionArgument,
            context: CompletionContext | None,
        ) -> Completion:
            asked = ref.name if isinstance(ref, PromptReference) else ref.uri
            others = (context.arguments if context else None) or {}
            found = [one for one in propose(asked, argument.name, others) if one.startswith(argument.value)]
            return Completion(values=found[:MOST_VALUES], total=len(found), has_more=len(found) > MOST_VALUES)

        self.completion()(answer)  # type: ignore[no-untyped-call]  # the SDK gives it no types


def serve(make: Callable[[Path], MCPServer]) -> None:
    """Serve what `make(state folder)` returns until SIGTERM, SIGINT or, with `--lifeline`, the end of standard input.

    Prints one line as soon as the port is open: the URL.
    """
    parser = argparse.ArgumentParser(description="One of the demo's MCP servers.")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--era", choices=sorted(FILTERS), default="both", help="protocol revisions it speaks")
    parser.add_argument("--state", type=Path, required=True, help="folder for its database")
    parser.add_argument("--lifeline", action="store_true", help="end when standard input ends: it dies with its parent")
    asked = parser.parse_args()
    asked.state.mkdir(parents=True, exist_ok=True)
    app = FILTERS[asked.era](make(asked.state).streamable_http_app(host="127.0.0.1"))
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=DRAIN, lifespan="on")
    )
    # Streams that are open to the end are cut off then, which is nothing to report; uvicorn would, at great length.
    logging.getLogger("uvicorn.error").addFilter(lambda _: not server.should_exit)
    with socket.create_server(("127.0.0.1", asked.port)) as listening:
        if asked.lifeline:
            threading.Thread(target=_end_with_standard_input, args=(server,), daemon=True).start()
        print(f"http://127.0.0.1:{listening.getsockname()[1]}/mcp", flush=True)
        server.run(sockets=[listening])


def _end_with_standard_input(server: uvicorn.Server) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    server.should_exit = True
