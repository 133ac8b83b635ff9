"""A server of the Python SDK with its defaults, of whichever line is installed: `python python_sdk.py PORT`."""

from __future__ import annotations

import os
import sys
from collections import Counter

try:
    from mcp.server.mcpserver import Context, MCPServer
except ImportError:  # 1.x
    from mcp.server.fastmcp import Context
    from mcp.server.fastmcp import FastMCP as MCPServer

PORT = int(sys.argv[1])
IS_1 = MCPServer.__name__ == "FastMCP"
mcp = MCPServer("python-sdk", **({"host": "127.0.0.1", "port": PORT} if IS_1 else {}), log_level="WARNING")
calls: Counter[str] = Counter()


@mcp.tool()
def add(left: int, right: int = 1) -> int:
    """Add two numbers."""
    return left + right


@mcp.tool(structured_output=False)
def count(ctx: Context) -> str:
    """How often this was called in this session."""
    session = ctx.request_context.request.headers.get("mcp-session-id")
    if session is None:
        return "1"
    calls[session] += 1
    return str(calls[session])


@mcp.tool()
async def steps(ctx: Context, number: int) -> str:
    """Report progress so often, then answer."""
    for step in range(number):
        await ctx.report_progress(step + 1, number, f"step {step + 1}")
    return "done"


@mcp.tool()
def fail(reason: str) -> str:
    """Always fail."""
    raise ValueError(reason)


@mcp.prompt()
def greet(name: str, tone: str = "warm") -> str:
    """A greeting."""
    return f"Greet {name} in a {tone} tone."


@mcp.resource("notes://today", mime_type="text/plain")
def today() -> str:
    """What is to be done today."""
    return "Nothing.\n"


@mcp.resource("notes://of/{name}", mime_type="text/plain")
def note(name: str) -> str:
    """Somebody's note."""
    return f"A note of {name}."


if os.environ["STARTS"] != "1":

    @mcp.tool()
    def again() -> str:
        """There after a restart."""
        return "again"


if __name__ == "__main__":
    if IS_1:
        mcp.run(transport="streamable-http")
    else:
        mcp.run(transport="streamable-http", host="127.0.0.1", port=PORT)
