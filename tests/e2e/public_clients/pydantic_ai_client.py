"""Pydantic AI's toolset: python pydantic_ai_client.py URL KEY."""

from __future__ import annotations

from typing import Any

from answers import ARGUMENTS, TOOL, tell
from pydantic_ai.mcp import MCPToolset


async def ask(url: str, key: str) -> dict[str, Any]:
    async with MCPToolset(url, headers={"Authorization": f"Bearer {key}"}) as toolset:
        tools = [tool.name for tool in await toolset.list_tools()]
        return {"tools": tools, "result": await toolset.direct_call_tool(TOOL, ARGUMENTS)}


if __name__ == "__main__":
    tell(ask)
