"""A server of FastMCP as its users write one: `python fastmcp_server.py PORT stateful|stateless json|sse`."""

from __future__ import annotations

import os
import sys

from fastmcp import Context, FastMCP

mcp = FastMCP("fastmcp", instructions="Adds, counts and keeps notes.")


@mcp.tool(annotations={"readOnlyHint": True, "title": "Sum"})
def add(left: int, right: int = 1) -> int:
    """Add two numbers."""
    return left + right


@mcp.tool
async def count(ctx: Context) -> str:
    """How often this was called in this session."""
    calls = (await ctx.get_state("calls") or 0) + 1
    await ctx.set_state("calls", calls)
    return str(calls)


@mcp.tool
async def steps(ctx: Context, number: int) -> str:
    """Report progress so often, then answer."""
    for step in range(number):
        await ctx.report_progress(step + 1, number, f"step {step + 1}")
    return "done"


@mcp.tool
def fail(reason: str) -> str:
    """Always fail."""
    raise ValueError(reason)


@mcp.prompt
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

    @mcp.tool
    def again() -> str:
        """There after a restart."""
        return "again"


if __name__ == "__main__":
    port, state, form = sys.argv[1:]
    mcp.run(
        transport="http",
        host="127.0.0.1",
        port=int(port),
        stateless_http=state == "stateless",
        json_response=form == "json",
        show_banner=False,
        log_level="warning",
    )
