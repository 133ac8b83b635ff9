"""The official SDK's 1.x client, in an environment of its own: lists the tools, makes the calls it is told.

    python legacy_client.py URL KEY '[["tool", {"argument": 1}], ...]'

Prints {"version": ..., "tools": [...], "results": [{"isError", "text", "structured", "resources", "progress"}]}.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client


async def story(url: str, key: str, calls: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    async with (
        streamablehttp_client(url, headers={"Authorization": f"Bearer {key}"}) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        opened = await session.initialize()
        listed = await session.list_tools()
        results = [await call(session, tool, arguments) for tool, arguments in calls]
    return {"version": opened.protocolVersion, "tools": [tool.name for tool in listed.tools], "results": results}


async def call(session: ClientSession, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    steps: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        steps.append(progress)

    result = await session.call_tool(tool, arguments, progress_callback=note)
    return {
        "isError": bool(result.isError),
        "text": [part.text for part in result.content if part.type == "text"],
        "resources": [part.resource.text for part in result.content if part.type == "resource"],
        "structured": result.structuredContent,
        "progress": steps,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(story(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))))
