"""API keys of a running gateway: a new one takes over without a gap, and an old one stops at once, at every worker."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fastgw.cli.main import main
from tests.e2e.asking import ERAS, Agent, agent, listed
from tests.e2e.gateway import WORKERS, Gateway, fingerprint, running_beside, until
from tests.e2e.http import Asked, Connection, connected, legacy, modern
from tests.e2e.servers import Call, Toolbox, serving
from tests.e2e.test_reload import APPLIED

OLD, NEW, OTHER = "fgw_test_old_key", "fgw_test_new_key", "fgw_test_other_agent"
CONNECTIONS = 4 * WORKERS
"""Kept alive: both workers have some of them."""


async def echo(call: Call) -> None:
    await call.text("here")


def settings(*keys: Any) -> dict[str, Any]:
    """The agent `bot` with these keys, and another one."""
    return {"bot": {"key": list(keys)}, "other": {"key": fingerprint(OTHER)}}


@asynccontextmanager
async def standing(folder: Path, *keys: Any) -> AsyncIterator[tuple[Gateway, dict[str, Any]]]:
    """A gateway that lets these keys in, and what its configuration says of servers."""
    async with AsyncExitStack() as stack:
        servers = {}
        for era in ERAS:
            server = await stack.enter_async_context(serving(Toolbox(era, {f"echo-{era}": echo})))
            servers[f"box-{era}"] = {"url": server.url}
        more = {"servers": servers, "agents": settings(*keys)}
        gateway = await stack.enter_async_context(running_beside(more, folder))
        await listed(gateway, *[f"echo-{era}" for era in ERAS], key=OTHER)
        yield gateway, servers


async def applied(gateway: Gateway, times: float) -> None:
    async def look() -> bool:
        return await asyncio.to_thread(gateway.metric, APPLIED) >= times

    await until(look)


async def says(connection: Connection, asked: Asked) -> int:
    """The status of the answer, on a connection that stays."""
    return (await (await connection.ask(asked.having("Connection", "keep-alive"))).rest()).status


def calls(one: Agent) -> list[Asked]:
    """A call of a tool behind each server."""
    every = [{"name": f"echo-{era}", "arguments": {}} for era in ERAS]
    if one.session:
        return [legacy("tools/call", params, key=one.key, session=one.session) for params in every]
    return [modern("tools/call", params, key=one.key) for params in every]


async def ways_in(gateway: Gateway, stack: AsyncExitStack) -> tuple[list[Connection], list[Asked], list[Asked]]:
    """Connections to both workers on which the old key has called, all its calls, and those of another agent."""
    olds = [await agent(era, gateway.url, OLD) for era in ERAS]
    others = [await agent(era, gateway.url, OTHER) for era in ERAS]
    every = [[asked for one in ones for asked in calls(one)] for ones in (olds, others)]
    connections = [await stack.enter_async_context(connected(gateway.url)) for _ in range(CONNECTIONS)]
    for connection in connections:
        assert {await says(connection, asked) for asked in every[0] + every[1]} == {200}
    return connections, *every  # type: ignore[return-value]


async def nobody_but_the_other(gateway: Gateway, connections: list[Connection], own: list[Asked]) -> None:
    """The old key is refused, the first time already, where it has called before and on new connections."""
    async with AsyncExitStack() as stack:
        fresh = [await stack.enter_async_context(connected(gateway.url)) for _ in range(CONNECTIONS)]
        for connection in connections + fresh:
            for asked in own:
                assert await says(connection, asked) == 401


@pytest.mark.parametrize("how", ["removed", "revoked"])
def test_a_revoked_key_stops_at_once_at_every_worker(tmp_path: Path, how: str) -> None:
    """Connections are kept alive, as most agents keep them: what they have been let in by counts no more."""

    async def story() -> None:
        keys = fingerprint(OLD), fingerprint(NEW)
        async with asyncio.timeout(60), standing(tmp_path, *keys) as (gateway, servers), AsyncExitStack() as stack:
            connections, own, others = await ways_in(gateway, stack)
            before = await asyncio.to_thread(gateway.metric, APPLIED)
            if how == "removed":
                gateway.configure({"servers": servers, "agents": settings(fingerprint(NEW))})
            else:
                name = f"key:{fingerprint(OLD).removeprefix('sha256:')[:8]}"
                order = ["keys", "revoke", name, "--write", "--config", str(tmp_path / "fastgw.yaml")]
                assert await asyncio.to_thread(main, order) == 0
            await applied(gateway, before + 1)
            await nobody_but_the_other(gateway, connections, own)
            for asked in others:
                assert {await says(connection, asked) for connection in connections} == {200}
            assert (await (await agent("legacy", gateway.url, NEW)).call("echo-modern")).status == 200
            assert gateway.metric("fastgw_worker_restarts_total") == 0

    asyncio.run(story())


async def until_refused(connection: Connection, asked: Asked, ends: float) -> None:
    """Call all the time: who is answered before `ends` is let in, who asks after it is not."""
    while True:
        begun = time.time()
        status = await says(connection, asked)
        if begun >= ends:
            assert status == 401
            return
        assert status == 200 or time.time() >= ends
        await asyncio.sleep(0.02)


def test_a_key_stops_when_its_time_is_over(tmp_path: Path) -> None:
    """By the clock alone, in the middle of calls that it had been remembered for."""

    async def story() -> None:
        only = fingerprint(OLD)
        async with asyncio.timeout(60), standing(tmp_path, only) as (gateway, servers), AsyncExitStack() as stack:
            connections, own, others = await ways_in(gateway, stack)
            ends = int(time.time()) + 4
            key = {"sha256": fingerprint(OLD), "expires": datetime.fromtimestamp(ends, UTC).isoformat()}
            before = await asyncio.to_thread(gateway.metric, APPLIED)
            gateway.configure({"servers": servers, "agents": settings(key)})
            await applied(gateway, before + 1)
            asking = [until_refused(one, own[at % len(own)], ends) for at, one in enumerate(connections)]
            await asyncio.gather(*asking)
            await nobody_but_the_other(gateway, connections, own)
            assert {await says(connection, others[0]) for connection in connections} == {200}
            assert await asyncio.to_thread(gateway.metric, APPLIED) == before + 1

    asyncio.run(story())


async def keep_calling(agents: dict[str, Agent], over: asyncio.Event) -> int:
    """Call with the key of the moment; every answer is demanded to be the tool's."""
    done = 0
    while not over.is_set():
        reply = await agents["now"].call(f"echo-{ERAS[done % 2]}")
        assert reply.status == 200 and "result" in reply.json(), reply
        done += 1
    return done


def test_keys_rotate_under_load_and_no_call_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The new one is added, agents take it in their sessions, the old one is revoked; `used` says when it can be."""

    def used() -> dict[str, int]:
        """Calls by key."""
        capsys.readouterr()
        assert main(["keys", "used", "--config", str(tmp_path / "fastgw.yaml"), "--agent", "bot", "--json"]) == 0
        return {row["key"]: row["calls"] for row in json.loads(capsys.readouterr().out)}

    old, new = (f"key:{fingerprint(key).removeprefix('sha256:')[:8]}" for key in (OLD, NEW))

    async def story() -> None:
        file = tmp_path / "fastgw.yaml"
        async with asyncio.timeout(60), standing(tmp_path, fingerprint(OLD)) as (gateway, servers):
            over = asyncio.Event()
            every = [{"now": await agent(era, gateway.url, OLD)} for era in ERAS for _ in range(3)]
            load = [asyncio.create_task(keep_calling(agents, over)) for agents in every]
            before = await asyncio.to_thread(gateway.metric, APPLIED)
            gateway.configure({"servers": servers, "agents": settings(fingerprint(OLD), fingerprint(NEW))})
            await applied(gateway, before + 1)
            for agents in every:  # in their sessions, which are the agent's, not the key's
                agents["now"] = replace(agents["now"], key=NEW)

            async def have_changed() -> bool:
                return {one["credential"] for one in (await asyncio.to_thread(gateway.events))[-20:]} == {new}

            await until(have_changed)
            order = ["keys", "revoke", old, "--write", "--config", str(file)]
            assert await asyncio.to_thread(main, order) == 0
            await applied(gateway, before + 2)
            counts = len(gateway.events())

            async def go_on() -> bool:
                return len(await asyncio.to_thread(gateway.events)) > counts + 50

            await until(go_on)
            over.set()
            assert min(await asyncio.gather(*load)) > 1
            by_old = sum(event["credential"] == old for event in gateway.events())

            async def counted() -> bool:
                calls = await asyncio.to_thread(used)
                return calls[old] == by_old > 0 and calls[new] > 50

            await until(counted)

    asyncio.run(story())
