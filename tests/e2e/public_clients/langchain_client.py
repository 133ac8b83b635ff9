"""LangChain's MCP adapters: python langchain_client.py URL KEY."""

from __future__ import annotations

from typing import Any

from answers import ARGUMENTS, TOOL, tell
from langchain_mcp_adapters.client import MultiServerMCPClient


async def ask(url: str, key: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {key}"}
    client = MultiServerMCPClient({"fastgw": {"transport": "streamable_http", "url": url, "headers": headers}})
    tools = {tool.name: tool for tool in await client.get_tools()}
    return {"tools": list(tools), "result": await tools[TOOL].ainvoke(ARGUMENTS)}


if __name__ == "__main__":
    tell(ask)
