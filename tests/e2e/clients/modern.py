"""The official SDK's client of the 2.x line, telling what it saw in the words of `legacy_client.py`."""

from __future__ import annotations

from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, EmbeddedResource, TextContent


async def story(url: str, key: str, calls: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """List the tools, make the calls; `version` is the revision that was spoken."""
    http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=30)
    async with http, Client(streamable_http_client(url, http_client=http)) as client:
        listed = await client.list_tools()
        results = [await _call(client, tool, arguments) for tool, arguments in calls]
        return {"version": client.protocol_version, "tools": [tool.name for tool in listed.tools], "results": results}


async def _call(client: Client, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    steps: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        steps.append(progress)

    result = await client.call_tool(tool, arguments, progress_callback=note)
    assert isinstance(result, CallToolResult)
    return {
        "isError": bool(result.is_error),
        "text": [part.text for part in result.content if isinstance(part, TextContent)],
        "resources": [
            getattr(part.resource, "text", None) for part in result.content if isinstance(part, EmbeddedResource)
        ],
        "structured": result.structured_content,
        "progress": steps,
    }
