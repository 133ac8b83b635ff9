"""mcp-remote as the bridge of a client on stdio, the Python SDK's: python mcp_remote.py PACKAGES URL KEY."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any, TextIO

from answers import ARGUMENTS, TOOL, tell
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

PACKAGES = Path(sys.argv[1])
PROGRAM = PACKAGES / "node_modules" / "mcp-remote" / "dist" / "proxy.js"
PATIENCE = 45.0  # seconds; its own for somebody at a browser are 30


class Refused(Exception):
    """The bridge ended; the text is its log."""


async def ask(url: str, key: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as home, Path(home, "log").open("w+") as log:
        try:
            return await asyncio.wait_for(through(url, key, home, log), PATIENCE)
        except Exception as wrong:
            log.seek(0)
            raise Refused(log.read()) from wrong


async def through(url: str, key: str, home: str, log: TextIO) -> dict[str, Any]:
    args = [str(PROGRAM), url, "--header", "Authorization:${AUTH_HEADER}"]
    env = {"AUTH_HEADER": f"Bearer {key}", "HOME": home}
    bridge = StdioServerParameters(command=str(PACKAGES / "node"), args=args, env=env)
    async with Client(stdio_client(bridge, errlog=log), mode="legacy") as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        return {"tools": tools, "result": (await client.call_tool(TOOL, ARGUMENTS)).structured_content}


if __name__ == "__main__":
    tell(ask)
