"""`max_in_flight` and `queue` with two workers, each of which has its part; a server that holds calls until told."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.gateway import KEY, Gateway, fingerprint, running_beside, until
from tests.e2e.http import Asked, Reply, exchange, legacy, modern, open_session, streaming
from tests.e2e.servers import STREAM, STREAM_END, Call, Server, Toolbox, event, serving

OTHER = "fgw_test_another_team"
MANY = 30
"""Calls on connections of their own, of which either of two workers gets at least four, but once in 100,000 times."""
IN_FLIGHT, WAITING = 'fastgw_bulkhead_in_flight{server="slow"}', 'fastgw_bulkhead_waiting{server="slow"}'
REFUSALS = 'fastgw_bulkhead_refusals_total{server="slow"}'


@dataclass
class Holding:
    """A server whose calls wait inside; `came` are all that were ever there, by the `who` of their arguments."""

    inside: list[asyncio.Event] = field(default_factory=list)
    came: list[str] = field(default_factory=list)
    most: int = 0
    is_open: bool = False

    async def hold(self, call: Call) -> None:
        await self._stay(call)
        await call.text("held")

    async def stream(self, call: Call) -> None:
        token = call.params["_meta"]["progressToken"]
        said = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}}
        await call.send(STREAM + event(json.dumps(said).encode()))
        await self._stay(call)
        await call.send(event(call.envelope(b'{"content":[]}')) + STREAM_END)

    async def _stay(self, call: Call) -> None:
        released = asyncio.Event()
        self.came.append(call.arguments.get("who", ""))
        self.inside.append(released)
        self.most = max(self.most, len(self.inside))
        leaving = asyncio.ensure_future(call.left())
        waiting = asyncio.ensure_future(released.wait())
        if not self.is_open:
            await asyncio.wait((leaving, waiting), return_when=asyncio.FIRST_COMPLETED)
        self.inside.remove(released)
        has_left = leaving.done()
        waiting.cancel()
        leaving.cancel()
        await asyncio.gather(leaving, waiting, return_exceptions=True)
        if has_left:
            raise ConnectionResetError

    def open(self) -> None:
        """Nobody is held any more."""
        self.is_open = True
        for released in self.inside:
            released.set()

    async def holds(self, count: int) -> None:
        async def so_many() -> bool:
            return len(self.inside) == count

        await until(so_many)


def settings(server: Server, more: dict[str, Any], **servers: Any) -> dict[str, Any]:
    return {
        "servers": {"slow": {"url": server.url, **more}, **servers},
        "agents": {
            "first": {"key": fingerprint(KEY), "claims": {"team": "greedy"}},
            "second": {"key": fingerprint(OTHER), "claims": {"team": "modest"}},
        },
        "drain": "3s",
    }


@asynccontextmanager
async def held(folder: Path, more: dict[str, Any], **servers: Any) -> AsyncIterator[tuple[Gateway, Holding, Server]]:
    """A gateway in front of a server that holds its calls; at the end all of them are let go."""
    holding = Holding()
    tools = {"hold": holding.hold, "stream": holding.stream}
    async with (
        serving(Toolbox("modern", tools)) as server,
        running_beside(settings(server, more, **servers), folder) as gateway,
    ):
        yield gateway, holding, server
        holding.open()


def hold(key: str = KEY, who: str = "", tool: str = "hold") -> Asked:
    params = {"name": tool, "arguments": {"who": who}}
    return modern("tools/call", params, key=key, meta={"progressToken": "t"})


def calls(gateway: Gateway, count: int, key: str = KEY, who: str = "") -> list[asyncio.Task[Reply]]:
    return [asyncio.ensure_future(exchange(gateway.url, hold(key, who))) for _ in range(count)]


async def shows(gateway: Gateway, line: str, value: float) -> None:
    async def it_does() -> bool:
        return await asyncio.to_thread(gateway.metric, line) == value

    await until(it_does)


async def answered(tasks: list[asyncio.Task[Reply]], count: int) -> list[Reply]:
    async def so_many() -> bool:
        return sum(task.done() for task in tasks) >= count

    await until(so_many)
    return [task.result() for task in tasks if task.done()]


def assert_busy(reply: Reply, status: int = 503) -> None:
    told = reply.json()
    error = told if isinstance(told["error"], str) else told["error"]  # REST, or JSON-RPC
    data = error.get("data", told)
    assert (reply.status, error["code"], data["reason"], data["mayHaveRun"]) == (status, -31001, "busy", False)
    assert 1 <= data["retryAfter"] <= 60
    assert reply.header("retry-after") == (str(data["retryAfter"]) if status == 503 else None)


def rest(gateway: Gateway) -> Asked:
    usual = [("Content-Type", "application/json"), ("Authorization", f"Bearer {KEY}")]
    return Asked(b"{}", usual)


def test_so_many_are_there_so_many_wait_and_the_others_hear_so_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with held(tmp_path, {"max_in_flight": 5, "queue": 3}) as (gateway, holding, _):
            tasks = calls(gateway, MANY)
            for reply in await answered(tasks, MANY - 8):
                assert_busy(reply)
            await holding.holds(5)
            await shows(gateway, IN_FLIGHT, 5)
            await shows(gateway, WAITING, 3)
            await shows(gateway, REFUSALS, MANY - 8)

            session = await open_session(gateway.url, key=KEY)
            params = {"name": "hold", "arguments": {}}
            began = time.monotonic()
            assert_busy(await exchange(gateway.url, legacy("tools/call", params, key=KEY, session=session)), 200)
            assert_busy(await exchange(f"{gateway.url}/tools/hold/invoke", rest(gateway)))
            assert time.monotonic() - began < 5.0, "on a busy machine; whoever waits has 55 seconds"

            holding.open()
            replies = await asyncio.gather(*tasks)
            assert sorted(reply.status for reply in replies) == [200] * 8 + [503] * (MANY - 8)
            assert (holding.most, len(holding.came)) == (5, 8)
            for line in (IN_FLIGHT, WAITING):
                await shows(gateway, line, 0)

    asyncio.run(story())


def test_a_team_with_few_calls_has_its_turn(tmp_path: Path) -> None:
    async def story() -> None:
        async with held(tmp_path, {"max_in_flight": 2, "queue": 8}) as (gateway, holding, _):
            greedy = calls(gateway, MANY, who="greedy")
            await answered(greedy, MANY - 10)
            modest = calls(gateway, 2, OTHER, who="modest")
            for reply in await answered(greedy, MANY - 8):  # two gave way
                assert_busy(reply)
            for expected in range(3, 11):
                holding.inside[0].set()  # one worker after the other has a place free
                await until(lambda expected=expected: came(holding, expected))
            # Each worker has had a greedy one and then a turn of the other team, at least.
            assert holding.came.index("modest") < 6, holding.came
            assert holding.came.count("modest") == 2
            holding.open()
            assert {reply.status for reply in await asyncio.gather(*modest)} == {200}
            assert sorted(reply.status for reply in await asyncio.gather(*greedy)) == [200] * 8 + [503] * (MANY - 8)

    asyncio.run(story())


async def came(holding: Holding, count: int) -> bool:
    return len(holding.came) >= count


def test_who_leaves_gives_place_and_turn_back(tmp_path: Path) -> None:
    async def story() -> None:
        async with held(tmp_path, {"max_in_flight": 2, "queue": 2}) as (gateway, holding, _):
            for _ in range(2):
                tasks = calls(gateway, MANY)
                await answered(tasks, MANY - 4)
                await holding.holds(2)
                await shows(gateway, WAITING, 2)
                for task in tasks:
                    task.cancel()  # closes its connection
                await shows(gateway, WAITING, 0)
                await shows(gateway, IN_FLIGHT, 0)
                await holding.holds(0)
            assert holding.most == 2

    asyncio.run(story())


def test_a_stream_has_its_place_until_it_ends(tmp_path: Path) -> None:
    async def story() -> None:
        async with held(tmp_path, {"max_in_flight": 2, "queue": 0}) as (gateway, holding, _):
            async with streaming(gateway.url, hold(tool="stream")) as stream:
                found = await stream.event()
                assert found is not None and "progress" in found.data
                await shows(gateway, IN_FLIGHT, 1)
                await answered(calls(gateway, MANY), MANY - 1)  # the other worker's place
                await holding.holds(2)
                holding.open()
                assert (await stream.rest()).events()[-1].data.count("content") == 1
            await shows(gateway, IN_FLIGHT, 0)
            assert holding.most == 2

    asyncio.run(story())


def test_a_backup_with_room_is_asked_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        beside = Toolbox("modern", {"hold": quick, "stream": quick})
        async with serving(beside) as spare:
            more = {"max_in_flight": 2, "queue": 10, "backup": ["spare"]}
            async with held(tmp_path, more, spare={"url": spare.url}) as (gateway, holding, _):
                tasks = calls(gateway, MANY)
                replies = await answered(tasks, MANY - 2)
                assert {reply.json()["result"]["content"][0]["text"] for reply in replies} == {"quick"}
                await holding.holds(2)
                assert (len(beside.ledger), await asyncio.to_thread(gateway.metric, WAITING)) == (MANY - 2, 0)
                holding.open()
                assert {reply.status for reply in await asyncio.gather(*tasks)} == {200}

    asyncio.run(story())


async def quick(call: Call) -> None:
    await call.text("quick")


def test_a_reload_changes_the_bound_with_calls_in_flight(tmp_path: Path) -> None:
    async def story() -> None:
        async with held(tmp_path, {"max_in_flight": 2, "queue": 6}) as (gateway, holding, server):
            tasks = calls(gateway, MANY)
            await answered(tasks, MANY - 8)
            await shows(gateway, WAITING, 6)
            await reload(gateway, settings(server, {"max_in_flight": 6, "queue": 6}), 1)
            await holding.holds(6)
            await reload(gateway, settings(server, {"max_in_flight": 2, "queue": 6}), 2)
            await shows(gateway, WAITING, 2)
            for expected in (5, 4):
                holding.inside[0].set()
                await holding.holds(expected)  # nobody comes while there are more than two
            await reload(gateway, settings(server, {}), 3)
            await holding.holds(6)
            holding.open()
            assert sorted(reply.status for reply in await asyncio.gather(*tasks)) == [200] * 8 + [503] * (MANY - 8)
            await shows(gateway, IN_FLIGHT, 0)

    asyncio.run(story())


async def reload(gateway: Gateway, more: dict[str, Any], number: int) -> None:
    gateway.configure(more)
    gateway.process.send_signal(signal.SIGHUP)
    await shows(gateway, 'fastgw_reloads_total{outcome="applied"}', number)
