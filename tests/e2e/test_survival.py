"""Sessions of legacy agents: what they survive, and that one that was ended is over everywhere.

The official client keeps its connections, as SDKs do; everything else here is on a fresh one.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway import KEY, Gateway, running_beside, until
from tests.e2e.http import PATIENCE, Asked, exchange, legacy, modern, open_session
from tests.e2e.ports import free_port
from tests.e2e.servers import Call, Toolbox, serving
from tests.e2e.tour import given

CLIENT = Path(__file__).parent / "clients" / "legacy_agent.py"
CONNECTIONS = 20


async def echo(call: Call) -> None:
    await call.text(str(call.arguments.get("word")))


async def stuck(call: Call) -> None:
    await asyncio.Event().wait()


def settings(**ports: int) -> dict[str, Any]:
    return {
        "servers": {name: {"url": f"http://127.0.0.1:{port}/mcp"} for name, port in ports.items()},
        "policies": [{"name": "all but one", "allow": ["*"], "deny": ["secret"]}],
        "tools": {"stuck": {"timeout": "300ms"}},
        "drain": "2s",
    }


class Agent:
    """A running client of the 1.x SDK."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        assert line, "the client has ended"
        return dict(json.loads(line))

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([tool, arguments]).encode() + b"\n")
        return await self.heard()

    async def goes_on(self) -> None:
        assert await self.call("echo", word="still here") == {"text": ["still here"]}


@asynccontextmanager
async def agent(gateway: Gateway) -> AsyncIterator[Agent]:
    """The client in its environment; it must end by itself, without an error."""
    pipe = asyncio.subprocess.PIPE
    python = given("FASTGW_LEGACY_PYTHON", "Python with mcp 1.x")
    process = await asyncio.create_subprocess_exec(python, str(CLIENT), gateway.url, KEY, stdin=pipe, stdout=pipe)
    try:
        yield Agent(process)
        assert process.stdin is not None
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def names(gateway: Gateway) -> list[str]:
    reply = await exchange(gateway.url, modern("tools/list", key=KEY))
    return sorted(tool["name"] for tool in reply.json()["result"]["tools"])


async def lists(gateway: Gateway, *wanted: str) -> bool:
    return await names(gateway) == sorted(wanted)


async def restart(gateway: Gateway) -> None:
    assert await asyncio.to_thread(gateway.stop) == 0
    gateway.start_again()
    await asyncio.to_thread(gateway.wait_until_ready)


@pytest.mark.legacy_client
@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_a_session_of_the_official_client_survives(tmp_path: Path, era: str) -> None:
    """On the client's own connections: unknown, hidden, dead and late calls fail alone; a restart costs nothing."""
    given("FASTGW_LEGACY_PYTHON", "Python with mcp 1.x")
    mortal = Toolbox(era, {"frail": echo})
    port = free_port()

    async def story() -> None:
        toolbox = Toolbox(era, {"echo": echo, "stuck": stuck, "secret": echo})
        async with serving(toolbox) as server, AsyncExitStack() as life:
            await life.enter_async_context(serving(mortal, port))
            async with running_beside(settings(main=server.port, mortal=port), tmp_path) as gateway:
                await until(lambda: lists(gateway, "echo", "stuck", "frail"))
                async with agent(gateway) as session:
                    opened = await session.heard()
                    assert opened["version"] == "2025-11-25"
                    assert sorted(opened["tools"]) == ["echo", "frail", "stuck"]
                    await session.goes_on()
                    unknown = await session.call("nothing")
                    await session.goes_on()
                    hidden = await session.call("secret")
                    await session.goes_on()
                    assert (unknown["code"], hidden["code"]) == (-32602, -32602)
                    assert hidden["message"] == unknown["message"].replace("nothing", "secret")
                    late = await session.call("stuck")
                    assert (late["code"], late["data"]["mayHaveRun"]) == (-31002, True)
                    await session.goes_on()
                    assert await session.call("frail", word="alive") == {"text": ["alive"]}
                    await life.aclose()
                    dead = await session.call("frail", word="x")
                    assert (dead["code"], dead["data"]["mayHaveRun"], dead["data"]["reason"]) == (-31001, False, "down")
                    await session.goes_on()
                    await restart(gateway)
                    await session.goes_on()
                    mortal.forget()
                    async with serving(mortal, port):
                        assert await session.call("frail", word="back") == {"text": ["back"]}
                        await session.goes_on()
            assert "secret" not in [tool for _, tool in toolbox.ledger]

    asyncio.run(story())


def calling(session: str) -> Asked:
    return legacy("tools/call", {"name": "echo", "arguments": {"word": "w"}}, key=KEY, session=session)


async def statuses(gateway: Gateway, session: str) -> set[int]:
    """What many fresh connections hear in this session: both workers are among them, all but for one in 500,000."""
    return {(await exchange(gateway.url, calling(session))).status for _ in range(CONNECTIONS)}


async def end(gateway: Gateway, session: str) -> int:
    asked = legacy("ping", key=KEY, session=session).without("content-type")
    return (await exchange(gateway.url, Asked(b"", asked.headers, "DELETE"))).status


@asynccontextmanager
async def one_server(folder: Path) -> AsyncIterator[Gateway]:
    async with AsyncExitStack() as both:
        server = await both.enter_async_context(serving(Toolbox("modern", {"echo": echo})))
        gateway = await both.enter_async_context(running_beside(settings(main=server.port), folder))
        await until(lambda: lists(gateway, "echo"))
        yield gateway


def test_an_ended_session_is_over_on_every_worker_at_once_and_for_ever(tmp_path: Path) -> None:
    async def story() -> None:
        async with one_server(tmp_path) as gateway:
            ended, kept = [await open_session(gateway.url, key=KEY) for _ in range(2)]
            assert await statuses(gateway, ended) == {200}
            assert await end(gateway, ended) == 200
            assert await statuses(gateway, ended) == {404}
            assert await end(gateway, ended) == 404
            assert await statuses(gateway, kept) == {200}
            for role in ("controller", "worker-1", "worker-2"):
                await killed(gateway, role)
                assert await statuses(gateway, ended) == {404}
            await restart(gateway)
            assert await statuses(gateway, ended) == {404}
            assert await statuses(gateway, kept) == {200}

    asyncio.run(story())


def test_a_session_ended_while_the_controller_is_away_is_over_everywhere_too(tmp_path: Path) -> None:
    async def story() -> None:
        async with one_server(tmp_path) as gateway:
            for _ in range(3):
                session = await open_session(gateway.url, key=KEY)
                os.kill(gateway.child("controller"), signal.SIGKILL)
                assert await end(gateway, session) == 200
                assert await statuses(gateway, session) == {404}
                await until(lambda: has_child(gateway, "controller", 0))

    asyncio.run(story())


async def has_child(gateway: Gateway, role: str, but: int) -> bool:
    return gateway.child(role) not in (0, but)


async def killed(gateway: Gateway, role: str) -> None:
    """kill -9, and wait until another has taken the place and both workers are active."""
    victim = gateway.child(role)
    os.kill(victim, signal.SIGKILL)

    async def back() -> bool:
        status, text = await asyncio.to_thread(gateway.ask_admin, "/readyz")
        return status == 200 and json.loads(text)["workers"]["active"] == 2

    await until(lambda: has_child(gateway, role, victim))
    await until(back)
