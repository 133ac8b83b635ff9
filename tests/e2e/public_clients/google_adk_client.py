"""Google ADK's toolset: python google_adk_client.py URL KEY."""

from __future__ import annotations

from typing import Any

from answers import ARGUMENTS, TOOL, tell
from google.adk.agents import LlmAgent
from google.adk.agents.invocation_context import InvocationContext
from google.adk.sessions import InMemorySessionService
from google.adk.tools import ToolContext
from google.adk.tools.mcp_tool import McpToolset, StreamableHTTPConnectionParams


async def ask(url: str, key: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {key}"}
    toolset = McpToolset(connection_params=StreamableHTTPConnectionParams(url=url, headers=headers))
    try:
        tools = {tool.name: tool for tool in await toolset.get_tools()}
        return {"tools": list(tools), "result": await tools[TOOL].run_async(args=ARGUMENTS, tool_context=await turn())}
    finally:
        await toolset.close()


async def turn() -> ToolContext:
    """An agent's turn, in which alone the ADK calls tools."""
    sessions = InMemorySessionService()
    session = await sessions.create_session(app_name="tour", user_id="tester")
    agent = LlmAgent(name="tester")
    return ToolContext(InvocationContext(session_service=sessions, invocation_id="first", agent=agent, session=session))


if __name__ == "__main__":
    tell(ask)
