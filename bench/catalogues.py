"""What thirty servers offer, made up: 10,000 tools, 2,000 resources and 500 prompts that look like real ones."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

NAMES = {"tools/list": "tools", "resources/list": "resources", "prompts/list": "prompts"}
"""List method to the member of its result that holds the items."""
VERBS = ("list", "get", "create", "update", "delete", "search", "export", "assign", "merge", "archive")
NOUNS = ("issue", "pull_request", "invoice", "customer", "ticket", "deployment", "document", "calendar_event")
_WORDS = "the of a caller may give further fields and an identifier as it stands in an earlier answer by this server"
_FIELDS = ("id", "query", "limit", "include_archived", "labels", "assignee", "updated_after")


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is in all, dealt out evenly."""

    servers: int = 30
    tools: int = 10_000
    resources: int = 2_000
    prompts: int = 500

    def of(self, number: int) -> Size:
        """The share of one server, counted from 0."""
        shares = {name: len(range(number, getattr(self, name), self.servers)) for name in NAMES.values()}
        return replace(self, servers=1, **shares)


Lists = dict[str, list[dict[str, Any]]]
"""List method to its items."""


def offered(size: Size, number: int) -> Lists:
    """What server `number` lists."""
    share = size.of(number)
    return {
        "tools/list": [_tool(number, at) for at in range(share.tools)],
        "resources/list": [_resource(number, at) for at in range(share.resources)],
        "prompts/list": [_prompt(number, at) for at in range(share.prompts)],
    }


def changed(lists: Lists, times: int) -> Lists:
    """The same after one tool was described anew and one more had come; other ones for each `times`."""
    tools = list(lists["tools/list"])
    at = times % len(tools)
    tools[at] = {**tools[at], "description": f"{tools[at]['description']} Revised {times} times."}
    tools.append({**tools[at], "name": f"{tools[at]['name']}_{times}"})
    return {**lists, "tools/list": tools}


def text(items: list[dict[str, Any]]) -> bytes:
    """The JSON array of these items."""
    return json.dumps(items, separators=(",", ":")).encode()


def _sentence(seed: int, words: int) -> str:
    known = _WORDS.split()
    return " ".join(known[(seed * 7 + at * 5) % len(known)] for at in range(words)).capitalize() + "."


def _tool(server: int, at: int) -> dict[str, Any]:
    """About 1,200 bytes, as tools with half a dozen described arguments are."""
    name = f"{VERBS[at % 10]}_{NOUNS[at // 10 % 8]}_{server:02d}_{at:03d}"
    fields = {
        field: {"type": "integer" if field == "limit" else "string", "description": _sentence(at + seed, 9)}
        for seed, field in enumerate(_FIELDS)
    }
    return {
        "name": name,
        "title": name.replace("_", " ").title(),
        "description": _sentence(at, 40),
        "inputSchema": {"type": "object", "properties": fields, "required": ["id"], "additionalProperties": False},
        "annotations": {"readOnlyHint": at % 10 < 2, "destructiveHint": at % 10 == 4},
    }


def _resource(server: int, at: int) -> dict[str, Any]:
    return {
        "uri": f"docs-{server:02d}://handbook/chapter-{at:03d}.md",
        "name": f"chapter-{at:03d}",
        "title": f"Chapter {at} of handbook {server}",
        "description": _sentence(at, 20),
        "mimeType": "text/markdown",
        "size": 4096 + at,
    }


def _prompt(server: int, at: int) -> dict[str, Any]:
    arguments = [
        {"name": name, "description": _sentence(at, 8), "required": name == "topic"} for name in ("topic", "tone")
    ]
    return {"name": f"draft_{server:02d}_{at:02d}", "description": _sentence(at, 15), "arguments": arguments}
