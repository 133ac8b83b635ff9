"""The decoy: a second server with things of other names, so that who stands in front has two to bring together.

Knows: its own tools. Refuses to know: the conformance suite, which never asks for them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tests.conformance.turn import Json, RpcError, Turn

_WORDS: dict[str, Any] = {"type": "object", "properties": {"words": {"type": "string"}}}
TOOLS: list[Json] = [
    {"name": "decoy_echo", "description": "Gives the words back", "inputSchema": _WORDS},
    {"name": "decoy_count", "description": "Counts the words", "inputSchema": _WORDS},
    {"name": "decoy_shout", "description": "Gives the words back, louder", "inputSchema": _WORDS},
]
PROMPTS: list[Json] = [{"name": "decoy_prompt", "description": "Asks for words"}]
RESOURCES: list[Json] = [{"uri": "decoy://notes", "name": "notes", "mimeType": "text/plain"}]
TEMPLATES: list[Json] = [{"uriTemplate": "decoy://notes/{id}", "name": "note", "mimeType": "text/plain"}]


async def listed(turn: Turn) -> Json:
    return {"tools": TOOLS}


async def prompts(turn: Turn) -> Json:
    return {"prompts": PROMPTS}


async def resources(turn: Turn) -> Json:
    return {"resources": RESOURCES}


async def templates(turn: Turn) -> Json:
    return {"resourceTemplates": TEMPLATES}


async def get(turn: Turn) -> Json:
    if turn.params.get("name") != "decoy_prompt":
        raise RpcError(-32602, f"Unknown prompt: {turn.params.get('name')}")
    return {"messages": [{"role": "user", "content": {"type": "text", "text": "Words, please"}}]}


async def read(turn: Turn) -> Json:
    uri = str(turn.params.get("uri"))
    if not uri.startswith("decoy://notes"):
        raise RpcError(-32602, "Resource not found", {"uri": uri})
    return {"contents": [{"uri": uri, "mimeType": "text/plain", "text": "a note"}]}


async def call(turn: Turn) -> Json:
    words = str(turn.arguments.get("words", ""))
    answers = {"decoy_echo": words, "decoy_count": str(len(words.split())), "decoy_shout": words.upper()}
    answer = answers.get(str(turn.params.get("name")))
    if answer is None:
        raise RpcError(-32602, f"Unknown tool: {turn.params.get('name')}")
    return {"content": [{"type": "text", "text": answer}]}


def handlers() -> dict[str, Callable[[Turn], Awaitable[Json]]]:
    """By method; completions it has none."""
    return {
        "tools/list": listed, "tools/call": call, "prompts/list": prompts, "prompts/get": get,
        "resources/list": resources, "resources/templates/list": templates, "resources/read": read,
    }  # fmt: skip
