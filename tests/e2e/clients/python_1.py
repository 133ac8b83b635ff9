"""The official Python SDK's 1.x client, in an environment of its own, taking the steps of a tour.

    python python_1.py URL KEY < steps.json

Steps: [["tools/list", {}], ["resources/read", {"uri": ...}], ...] with the parameters of the protocol. Prints
{"version", "outcomes"}: for each step {"result": as on the wire} (a list with all its pages, a call with `progress`)
or {"error"}.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from typing import Any

from mcp import ClientSession, McpError
from mcp.client.streamable_http import streamablehttp_client
from mcp.types import PaginatedRequestParams, PromptReference, ResourceTemplateReference
from pydantic import AnyUrl

PATIENCE = timedelta(seconds=30)
LISTS = {
    "tools/list": ("list_tools", "tools"),
    "prompts/list": ("list_prompts", "prompts"),
    "resources/list": ("list_resources", "resources"),
    "resources/templates/list": ("list_resource_templates", "resourceTemplates"),
}


async def story(url: str, key: str, steps: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    async with (
        streamablehttp_client(url, headers={"Authorization": f"Bearer {key}"}) as (read, write, _),
        ClientSession(read, write, read_timeout_seconds=PATIENCE) as session,
    ):
        opened = await session.initialize()
        outcomes = [await outcome(session, method, params) for method, params in steps]
    return {"version": opened.protocolVersion, "outcomes": outcomes}


async def outcome(session: ClientSession, method: str, params: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"result": await step(session, method, params)}
    except McpError as wrong:
        return {"error": wrong.error.model_dump(exclude_none=True)}


async def step(session: ClientSession, method: str, params: dict[str, Any]) -> dict[str, Any]:
    if method in LISTS:
        return await everything(session, *LISTS[method])
    if method == "tools/call":
        return await call(session, params)
    if method == "resources/read":
        result: Any = await session.read_resource(AnyUrl(params["uri"]))
    elif method == "prompts/get":
        result = await session.get_prompt(params["name"], params.get("arguments"))
    else:
        kind = PromptReference if params["ref"]["type"] == "ref/prompt" else ResourceTemplateReference
        others = params.get("context", {}).get("arguments")
        result = await session.complete(kind(**params["ref"]), params["argument"], others)
    return wire(result)


async def everything(session: ClientSession, function: str, member: str) -> dict[str, Any]:
    found: list[Any] = []
    cursor = None
    while True:
        page = wire(await getattr(session, function)(params=PaginatedRequestParams(cursor=cursor)))
        found += page[member]
        if (cursor := page.get("nextCursor")) is None:
            return {member: found}


async def call(session: ClientSession, params: dict[str, Any]) -> dict[str, Any]:
    steps: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        steps.append(progress)

    result = await session.call_tool(params["name"], params["arguments"], progress_callback=note)
    return {**wire(result), "progress": steps}


def wire(result: Any) -> dict[str, Any]:
    return dict(result.model_dump(mode="json", by_alias=True, exclude_none=True))


if __name__ == "__main__":
    print(json.dumps(asyncio.run(story(sys.argv[1], sys.argv[2], json.load(sys.stdin)))))
