"""The SDK's server with two gaps closed: resources tell their size, a prompt without its arguments is a clear
refusal.
"""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resources import Resource, TextResource
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, GetPromptResult, InputRequiredResult
from mcp_types import Resource as Listed


class DemoServer(MCPServer):
    """What the demo's servers are made of; settings as the SDK's."""

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
        needed = {
            one.name: [each.name for each in one.arguments or () if each.required] for one in await self.list_prompts()
        }
        if name not in needed:
            raise MCPError(code=INVALID_PARAMS, message=f"Unknown prompt: {name}", data={"name": name})
        if missing := [each for each in needed[name] if each not in (arguments or {})]:
            raise MCPError(code=INVALID_PARAMS, message=f"Missing arguments: {', '.join(missing)}")
        return await super().get_prompt(name, arguments, context)
