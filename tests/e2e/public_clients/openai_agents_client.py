"""The OpenAI Agents SDK's server object: python openai_agents_client.py URL KEY."""

from __future__ import annotations

from typing import Any

from agents.mcp import MCPServerStreamableHttp
from answers import ARGUMENTS, TOOL, tell


async def ask(url: str, key: str) -> dict[str, Any]:
    params: Any = {"url": url, "headers": {"Authorization": f"Bearer {key}"}}
    async with MCPServerStreamableHttp(params) as server:
        tools = [tool.name for tool in await server.list_tools()]
        return {"tools": tools, "result": (await server.call_tool(TOOL, ARGUMENTS)).model_dump(mode="json")}


if __name__ == "__main__":
    tell(ask)
