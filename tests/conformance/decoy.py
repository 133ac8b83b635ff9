"""The decoy: a second server with three tools of other names, so that who stands in front has two to bring together.

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


async def listed(turn: Turn) -> Json:
    return {"tools": TOOLS}


async def call(turn: Turn) -> Json:
    words = str(turn.arguments.get("words", ""))
    answers = {"decoy_echo": words, "decoy_count": str(len(words.split())), "decoy_shout": words.upper()}
    answer = answers.get(str(turn.params.get("name")))
    if answer is None:
        raise RpcError(-32602, f"Unknown tool: {turn.params.get('name')}")
    return {"content": [{"type": "text", "text": answer}]}


def handlers() -> dict[str, Callable[[Turn], Awaitable[Json]]]:
    """By method; prompts and resources it has none."""
    return {"tools/list": listed, "tools/call": call}
