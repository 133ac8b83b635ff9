"""The *openai* and *anthropic* servers: one tool under two names, as two vendors would have it. No model is asked.

`python -m fastgw.demo.codegen openai|anthropic [PORT]`. The first is overloaded whenever it is asked for much.
"""

from __future__ import annotations

import sys
from typing import Annotated

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import Field

from fastgw.demo.serving import serve

MUCH = "whole"
"""A word for which the first model is overloaded."""

openai = MCPServer("openai", log_level="WARNING", instructions="Writes code.")
anthropic = MCPServer("anthropic", log_level="WARNING", instructions="Writes code, too.")


def code(model: str, task: str) -> CallToolResult:
    """What a model might have written, and said of its tokens: a word is one."""
    text = f"# {task}\n# by {model}\nraise NotImplementedError\n"
    usage = {"input_tokens": len(task.split()), "output_tokens": len(text.split())}
    return CallToolResult(content=[TextContent(type="text", text=text)], _meta={"usage": usage})


@openai.tool("generate_code", annotations=ToolAnnotations(read_only_hint=True))
def generate_code(prompt: Annotated[str, Field(min_length=1, max_length=1000)]) -> CallToolResult:
    """Write code for a task; it is overloaded where a whole program is wanted."""
    if MUCH in prompt:
        raise ToolError("The model is overloaded, try again later")
    return code("openai", prompt)


@anthropic.tool("write_code", annotations=ToolAnnotations(read_only_hint=True))
def write_code(instructions: Annotated[str, Field(min_length=1, max_length=1000)]) -> CallToolResult:
    """Write code as instructed."""
    return code("anthropic", instructions)


if __name__ == "__main__":
    serve("modern", {"openai": openai, "anthropic": anthropic}[sys.argv[1]], int(sys.argv[2]) if sys.argv[2:] else 0)
