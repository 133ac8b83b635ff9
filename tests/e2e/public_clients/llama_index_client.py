"""LlamaIndex's tools for MCP: python llama_index_client.py URL KEY."""

from __future__ import annotations

from typing import Any

from answers import ARGUMENTS, TOOL, tell
from llama_index.tools.mcp import BasicMCPClient, McpToolSpec


async def ask(url: str, key: str) -> dict[str, Any]:
    client = BasicMCPClient(url, headers={"Authorization": f"Bearer {key}"})
    tools = {tool.metadata.name: tool for tool in await McpToolSpec(client).to_tool_list_async()}
    return {"tools": list(tools), "result": (await tools[TOOL].acall(**ARGUMENTS)).content}


if __name__ == "__main__":
    tell(ask)
