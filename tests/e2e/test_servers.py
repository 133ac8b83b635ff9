"""The hand-written servers are servers: the official client gets along with them, in both eras, without a gateway."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mcp import Client
from mcp_types import CallToolResult, TextContent

from tests.e2e.http import exchange, legacy, modern, open_session, streaming
from tests.e2e.servers import STREAM, STREAM_END, Call, Toolbox, event, serving


async def echo(call: Call) -> None:
    await call.text(str(call.arguments.get("word")))


async def streamed(call: Call) -> None:
    await call.send(STREAM)
    await call.send(event(call.envelope(b'{"content":[]}')) + STREAM_END)


async def said(client: Client, tool: str, arguments: dict[str, Any]) -> list[str]:
    result = await client.call_tool(tool, arguments)
    assert isinstance(result, CallToolResult)
    return [part.text for part in result.content if isinstance(part, TextContent)]


@pytest.mark.parametrize(
    ("era", "spoken"), [("legacy", "2025-11-25"), ("modern", "2026-07-28"), ("both", "2026-07-28")]
)
def test_the_official_client_gets_along(era: str, spoken: str) -> None:
    toolbox = Toolbox(era, {"echo": echo, "streamed": streamed})

    async def story() -> None:
        async with serving(toolbox) as server, Client(server.url) as client:
            assert client.protocol_version == spoken
            assert [tool.name for tool in (await client.list_tools()).tools] == ["echo", "streamed"]
            assert await said(client, "echo", {"word": "hello"}) == ["hello"]
            assert await said(client, "streamed", {}) == []

    asyncio.run(story())
    assert [tool for _, tool in toolbox.ledger] == ["echo", "streamed"]
    assert toolbox.ended == toolbox.opened
    assert len(toolbox.opened) == (1 if era == "legacy" else 0)


def test_a_forgotten_session_is_unknown() -> None:
    toolbox = Toolbox("legacy", {"echo": echo})

    async def story() -> list[int]:
        async with serving(toolbox) as server:
            session = await open_session(server.url)
            asked = legacy("tools/call", {"name": "echo", "arguments": {"word": "x"}}, session=session)
            known = await exchange(server.url, asked)
            toolbox.forget()
            return [known.status, (await exchange(server.url, asked)).status]

    assert asyncio.run(story()) == [200, 404]


def test_events_are_read_one_by_one() -> None:
    read = asyncio.Event()

    async def two_steps(call: Call) -> None:
        await call.send(STREAM + event(b'{"first":1}'))
        await read.wait()
        await call.send(event(call.envelope(b'{"content":[]}')) + STREAM_END)

    async def story() -> list[Any]:
        asked = modern("tools/call", {"name": "two"}, id="a")
        async with serving(Toolbox("modern", {"two": two_steps})) as server, streaming(server.url, asked) as stream:
            first = await stream.event()
            read.set()
            second = await stream.event()
            end = await stream.event()
        assert first is not None
        assert second is not None
        return [first.json(), second.json(), end]

    assert asyncio.run(story()) == [
        {"first": 1},
        {"jsonrpc": "2.0", "id": "a", "result": {"resultType": "complete", "content": []}},
        None,
    ]
