"""Servers that are silent, dead, late or gone: the rest is whole, names stay, and a call in vain fails alone."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.e2e.gateway import KEY, Gateway, running_beside, start, until
from tests.e2e.http import Reply, exchange, legacy, modern, open_session
from tests.e2e.ports import free_port
from tests.e2e.servers import Call, Toolbox, serving

READY_WITHIN = 2.5
"""Seconds from the first word of the gateway, when its imports are done and its ports taken, to /readyz 200. It takes
0.6, on a busy machine over 1; whoever waits for a silent server takes 3 at least.
"""
ENOUGH = 4
"""Connections that meet both of two workers in all but one of eight cases; every answer must be right on either."""


async def echo(call: Call) -> None:
    await call.text(f"{call.arguments.get('word')}")


def toolbox(era: str, *tools: str) -> Toolbox:
    return Toolbox(era, dict.fromkeys(tools, echo))


def servers(**ports: int) -> dict[str, Any]:
    return {"servers": {name: {"url": f"http://127.0.0.1:{port}/mcp"} for name, port in ports.items()}}


@asynccontextmanager
async def silent(port: int) -> AsyncIterator[None]:
    """A socket that accepts and never says a word."""
    with socket.create_server(("127.0.0.1", port), backlog=64):
        yield


@asynccontextmanager
async def started(more: dict[str, Any], folder: Path) -> AsyncIterator[Gateway]:
    """A gateway that has just been started, ready or not."""
    gateway = start(more, folder)
    try:
        yield gateway
    finally:
        await asyncio.to_thread(gateway.stop)
        gateway.kill()


async def readied(gateway: Gateway) -> float:
    """Seconds from the gateway's first word to its being ready."""
    said = len(gateway.log())

    async def opened() -> bool:
        return "operators: http://" in gateway.log()[said:]

    async def ready() -> bool:
        return (await asyncio.to_thread(gateway.ask_admin, "/readyz"))[0] == 200

    await until(opened)
    begun = time.monotonic()
    await until(ready)
    return time.monotonic() - begun


async def listed(gateway: Gateway) -> list[str]:
    reply = await exchange(gateway.url, modern("tools/list", key=KEY))
    assert reply.status == 200, reply
    return sorted(tool["name"] for tool in reply.json()["result"]["tools"])


async def lists(gateway: Gateway, names: list[str]) -> None:
    """Wait until the list is this one, then demand it of several connections."""

    async def there() -> bool:
        return await listed(gateway) == names

    await until(there)
    for _ in range(ENOUGH):
        assert await listed(gateway) == names


async def call(gateway: Gateway, tool: str) -> Reply:
    return await exchange(gateway.url, modern("tools/call", {"name": tool, "arguments": {"word": "hi"}}, key=KEY))


async def answered(gateway: Gateway, tool: str) -> bool:
    reply = await call(gateway, tool)
    return reply.status == 200 and reply.json()["result"]["content"][0]["text"] == "hi"


def assert_down(reply: Reply, status: int) -> None:
    error = reply.json()["error"]
    assert (reply.status, error["code"], error["data"]["reason"]) == (status, -31001, "down")
    assert error["data"]["mayHaveRun"] is False
    assert error["data"]["retryAfter"] >= 1
    assert reply.header("retry-after") == (str(error["data"]["retryAfter"]) if status == 503 else None)
    assert "127.0.0.1" not in reply.body.decode()


def test_a_silent_and_a_dead_server_delay_neither_the_start_nor_the_list(tmp_path: Path) -> None:
    mute, dead = free_port(), free_port()

    async def story() -> None:
        async with serving(toolbox("both", "fine")) as fine, AsyncExitStack() as silence:
            await silence.enter_async_context(silent(mute))
            # The silent one stands first: whoever went through them in order would wait for it.
            more = servers(mute=mute, dead=dead, fine=fine.port)
            async with started(more, tmp_path) as gateway:
                assert await readied(gateway) < READY_WITHIN
                begun = time.monotonic()
                await lists(gateway, ["fine"])
                for _ in range(ENOUGH):
                    assert await listed(gateway) == ["fine"]
                    assert await answered(gateway, "fine")
                assert time.monotonic() - begun < READY_WITHIN
                await silence.aclose()
                async with serving(toolbox("legacy", "woken"), mute), serving(toolbox("modern", "risen"), dead):
                    await lists(gateway, ["fine", "risen", "woken"])
                    for tool in ("fine", "risen", "woken"):
                        assert await answered(gateway, tool)

    asyncio.run(story())


def test_tools_of_a_server_that_dies_stay_and_no_name_changes(tmp_path: Path) -> None:
    """Both servers bring `echo`: the names it goes by must not depend on who is up, over a restart too."""
    port = free_port()
    mortal = toolbox("legacy", "echo", "only")

    async def story() -> None:
        async with serving(toolbox("both", "echo")) as fine, AsyncExitStack() as life:
            await life.enter_async_context(serving(mortal, port))
            async with running_beside(servers(fine=fine.port, mortal=port), tmp_path) as gateway:
                await until(lambda: has_listed(gateway, 3))
                names = await listed(gateway)
                session = await open_session(gateway.url, key=KEY)
                assert await answered(gateway, "only")
                await life.aclose()
                await stays_listed(gateway, names, session)
                assert await asyncio.to_thread(gateway.stop) == 0
                gateway.start_again()
                assert await readied(gateway) < READY_WITHIN
                await stays_listed(gateway, names, session)
                mortal.forget()
                async with serving(mortal, port):
                    for _ in range(ENOUGH):
                        assert await answered(gateway, "only")
                await stays_listed(gateway, names, session)

    asyncio.run(story())


async def has_listed(gateway: Gateway, count: int) -> bool:
    return len(await listed(gateway)) == count


async def stays_listed(gateway: Gateway, names: list[str], session: str) -> None:
    """With `mortal` dead: the list is as before, its call fails in both eras, the other server's go on."""
    ours = next(name for name in names if name not in ("only", "mortal__echo"))
    for _ in range(ENOUGH):
        assert await listed(gateway) == names
        assert_down(await call(gateway, "only"), 503)
        asked = legacy("tools/call", {"name": "only", "arguments": {}}, key=KEY, session=session)
        assert_down(await exchange(gateway.url, asked), 200)
        assert await answered(gateway, ours)
