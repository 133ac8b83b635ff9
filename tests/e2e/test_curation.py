"""What the operator settled about a tool, in all four pairs of eras: what is sent, shown, refused and checked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.asking import Agent, agent, listed
from tests.e2e.gateway import KEY, fingerprint, running_beside
from tests.e2e.pairs import PAIRS, Pair
from tests.e2e.servers import Call, Toolbox, serving

BAD_PARAMS, DENIED, LOST = -32602, -31040, -31003
BIG = "123456789012345678901234567890"
SCHEMA = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "text": {"type": "string", "maxLength": 5},
        "limit": {"type": "integer"},
        "id": {"type": "integer"},
    },
    "required": ["region", "text", "limit", "id"],
    "additionalProperties": False,
}
PROMISED = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TOOLS = {
    "find": {
        "to": {"server": "box", "tool": "find", "arguments": {"words": "text"}},
        "fixed": {"region": "eu", "id": int(BIG)},
        "defaults": {"limit": 10},
        "validate": ["arguments", "results"],
    },
    "box/remote": {"validate": "arguments"},
}
REMOTE = {"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1:9/x"}}}
POLICIES = [
    {"name": "all", "allow": ["*"]},
    {"name": "eu", "match": {"agent": "abroad", "arguments": {"region": "eu"}}, "deny": ["find"]},
]
ABROAD = "fgw_test_abroad"
ANSWERS = (
    b'{"content":[],"structuredContent":{"n":1}}',
    b'{"content":[],"structuredContent":{"n":1}}',
    b'{"content":[]}',
    b'{"content":[],"structuredContent":{"n":"hunter2"}}',
    b'{"content":[],"isError":true}',
)


@asynccontextmanager
async def behind(folder: Path, box: Toolbox) -> AsyncIterator[str]:
    """A gateway before the box, both workers ready; its URL."""
    agents = {"tester": {"key": fingerprint(KEY)}, "abroad": {"key": fingerprint(ABROAD)}}
    async with serving(box) as server:
        more = {"servers": {"box": {"url": server.url}}, "tools": TOOLS, "policies": POLICIES, "agents": agents}
        async with running_beside(more, folder) as gateway:
            await listed(gateway, "find")
            yield gateway.url


def told(reply: Any) -> tuple[int, str]:
    error = reply.json()["error"]
    return error["code"], error["message"]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_a_curated_tool(tmp_path: Path, pair: Pair) -> None:
    results = iter(ANSWERS)

    async def find(call: Call) -> None:
        await call.result(next(results))

    box = Toolbox(
        pair.server,
        {"find": find, "remote": find},
        {"find": {"inputSchema": SCHEMA, "outputSchema": PROMISED}, "remote": {"inputSchema": REMOTE}},
    )

    async def story() -> None:
        async with behind(tmp_path, box) as url:
            it = await agent(pair.agent, url)
            await _shown(it)
            await _sent(it, box)
            await _refused(it, box, await agent(pair.agent, url, ABROAD))
            await _checked(it)

    asyncio.run(story())


async def _shown(it: Agent) -> None:
    tools = await it.tools()
    assert [tool["name"] for tool in tools] == ["find"]  # `remote` cannot be validated against, so it is not there
    schema = tools[0]["inputSchema"]
    assert (list(schema["properties"]), schema["required"]) == (["words", "limit"], ["words"])
    assert schema["properties"]["limit"] == {"type": "integer", "default": 10}


async def _sent(it: Agent, box: Toolbox) -> None:
    for arguments, limit in (({"words": "x"}, "10"), ({"words": "x", "limit": 3}, "3")):
        assert (await it.call("find", arguments)).json()["result"]["structuredContent"] == {"n": 1}
        got = box.got[-1]
        sent = json.loads(got.body, parse_int=str)["params"]["arguments"]
        assert sent == {"text": "x", "limit": limit, "region": "eu", "id": BIG}
        if box.era == "modern":
            assert got.header("mcp-param-region") == "eu"


async def _refused(it: Agent, box: Toolbox, abroad: Agent) -> None:
    before = len(box.ledger)
    for arguments, words in (
        ({"words": "too long"}, "arguments.words: the value is longer than 5 characters"),
        ({}, 'arguments: "words" is a required property'),
        ({"words": "x", "region": "us"}, "'region' was unexpected"),
        ({"words": "x", "limit": "3"}, 'arguments.limit: the value is not of type "integer"'),
    ):
        code, message = told(await it.call("find", arguments))
        assert code == BAD_PARAMS
        assert words in message
        assert "box" not in message
    assert told(await it.call("remote"))[1] == "Unknown tool: remote"
    assert told(await abroad.call("find", {"words": "x"}))[0] == DENIED  # for what would be sent: region eu
    assert len(box.ledger) == before


async def _checked(it: Agent) -> None:
    for _ in ("missing", "of a wrong type"):
        code, message = told(await it.call("find", {"words": "x"}))
        assert code == LOST
        assert "hunter2" not in message
    assert (await it.call("find", {"words": "x"})).json()["result"]["isError"] is True
