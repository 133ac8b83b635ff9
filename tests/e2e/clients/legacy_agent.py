"""The official SDK's 1.x client as one agent that lives long: one session, a call for each line it is given.

    python legacy_agent.py URL KEY

Prints {"version", "tools"} first; then for each line ["tool", {arguments}] on stdin one line: {"text": [...]} of a
result, {"code", "message", "data"} of an error, {"broken": ...} where the session object cannot go on. Ends with stdin.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from typing import Any

from mcp import ClientSession, McpError
from mcp.client.streamable_http import streamablehttp_client

PATIENCE = timedelta(seconds=20)


async def live(url: str, key: str) -> None:
    async with (
        streamablehttp_client(url, headers={"Authorization": f"Bearer {key}"}) as (read, write, _),
        ClientSession(read, write, read_timeout_seconds=PATIENCE) as session,
    ):
        opened = await session.initialize()
        listed = await session.list_tools()
        say({"version": opened.protocolVersion, "tools": [tool.name for tool in listed.tools]})
        while line := await asyncio.to_thread(sys.stdin.readline):
            say(await called(session, *json.loads(line)))


async def called(session: ClientSession, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        result = await session.call_tool(tool, arguments)
    except McpError as wrong:
        return wrong.error.model_dump()
    except Exception as wrong:
        return {"broken": repr(wrong)}
    return {"text": [part.text for part in result.content if part.type == "text"]}


def say(words: dict[str, Any]) -> None:
    print(json.dumps(words), flush=True)


if __name__ == "__main__":
    asyncio.run(live(sys.argv[1], sys.argv[2]))
