"""FastMCP's client: python fastmcp_client.py URL KEY."""

from __future__ import annotations

from typing import Any

from answers import ARGUMENTS, TOOL, tell
from fastmcp import Client


async def ask(url: str, key: str) -> dict[str, Any]:
    async with Client(url, auth=key) as client:
        tools = [tool.name for tool in await client.list_tools()]
        return {"tools": tools, "result": (await client.call_tool(TOOL, ARGUMENTS)).structured_content}


if __name__ == "__main__":
    tell(ask)
