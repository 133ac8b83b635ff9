"""The official Python SDK's 2.x client, taking the steps of a tour in the words of `python_1.py`.

python python_2.py URL KEY auto|legacy < steps.json
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp_types import PromptReference, ResourceTemplateReference

PATIENCE = 30.0  # seconds
LISTS = {
    "tools/list": ("list_tools", "tools"),
    "prompts/list": ("list_prompts", "prompts"),
    "resources/list": ("list_resources", "resources"),
    "resources/templates/list": ("list_resource_templates", "resourceTemplates"),
}


async def story(url: str, key: str, mode: Any, steps: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE)
    async with http, Client(streamable_http_client(url, http_client=http), mode=mode) as client:
        outcomes = [await outcome(client, method, params) for method, params in steps]
        return {"version": client.protocol_version, "outcomes": outcomes}


async def outcome(client: Client, method: str, params: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"result": await step(client, method, params)}
    except MCPError as wrong:
        return {"error": wrong.error.model_dump(exclude_none=True)}


async def step(client: Client, method: str, params: dict[str, Any]) -> dict[str, Any]:
    if method in LISTS:
        return await everything(client, *LISTS[method])
    if method == "tools/call":
        return await call(client, params)
    if method == "resources/read":
        result: Any = await client.read_resource(params["uri"])
    elif method == "prompts/get":
        result = await client.get_prompt(params["name"], params.get("arguments"))
    else:
        kind = PromptReference if params["ref"]["type"] == "ref/prompt" else ResourceTemplateReference
        others = params.get("context", {}).get("arguments")
        result = await client.complete(kind(**params["ref"]), params["argument"], others)
    return wire(result)


async def everything(client: Client, function: str, member: str) -> dict[str, Any]:
    found: list[Any] = []
    cursor = None
    while True:
        page = wire(await getattr(client, function)(cursor=cursor, cache_mode="bypass"))
        found += page[member]
        if (cursor := page.get("nextCursor")) is None:
            return {member: found}


async def call(client: Client, params: dict[str, Any]) -> dict[str, Any]:
    steps: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        steps.append(progress)

    result = await client.call_tool(params["name"], params["arguments"], progress_callback=note)
    return {**wire(result), "progress": steps}


def wire(result: Any) -> dict[str, Any]:
    return dict(result.model_dump(mode="json", by_alias=True, exclude_none=True))


if __name__ == "__main__":
    print(json.dumps(asyncio.run(story(sys.argv[1], sys.argv[2], sys.argv[3], json.load(sys.stdin)))))
