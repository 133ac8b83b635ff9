"""Tools with `cache`: what is answered without their servers, for whom, and for how long.

Each of the two workers has a cache of its own, and every request comes on a fresh connection to either: calls that can
be answered alike run twice at most.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.asking import ERAS, Agent, agent, listed
from tests.e2e.gateway import KEY, WORKERS, Gateway, fingerprint, running_beside, until
from tests.e2e.http import META, PATIENCE, Asked, Connection, connected, exchange, modern
from tests.e2e.servers import STREAM, STREAM_END, Call, Toolbox, answer, event, failure, serving
from tests.e2e.sockets import accepted_by
from tests.e2e.test_reload import APPLIED, reload

OTHER = "fgw_test_other"
AGENTS = {"tester": KEY, "other": OTHER}
LONG = {"cache": "1h"}
MANY = 16
"""Calls that reach both workers, as good as certainly: 2 in 2**16 do not."""


@dataclass
class Ledger:
    """Tools that number their runs, and hold them where the test says so."""

    runs: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    arrived: asyncio.Queue[Call] = field(default_factory=asyncio.Queue)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    def run(self, call: Call) -> str:
        self.runs.append((call.name, call.arguments))
        return f"run {len(self.runs)} of {call.name} with {json.dumps(call.arguments)}"

    def of(self, name: str) -> int:
        """How often it ran."""
        return sum(tool == name for tool, _ in self.runs)

    async def find(self, call: Call) -> None:
        await call.text(self.run(call))

    async def held(self, call: Call) -> None:
        words = self.run(call)
        self.arrived.put_nowait(call)
        await self.release.wait()
        await call.text(words)

    async def works(self, call: Call) -> None:
        """Report progress until it may be done."""
        words = self.run(call)
        self.arrived.put_nowait(call)
        await call.send(STREAM)
        params = {"progressToken": call.params["_meta"].get("progressToken"), "progress": 1}
        while not self.release.is_set():
            note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
            await call.send(event(json.dumps(note).encode()))
            params["progress"] += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await self.release.wait()
        await call.send(event(call.envelope(b'{"content":[{"type":"text","text":"%s"}]}' % words[:5].encode())))
        await call.send(STREAM_END)

    async def fails(self, call: Call) -> None:
        await call.result(b'{"content":[{"type":"text","text":"%s"}],"isError":true}' % self.run(call).encode()[:5])

    async def breaks(self, call: Call) -> None:
        self.run(call)
        await call.send(failure(call.id, -32050, "broken"))

    async def fresh(self, call: Call) -> None:
        self.run(call)
        await call.result(b'{"content":[],"ttlMs":0,"cacheScope":"private"}')

    async def asks(self, call: Call) -> None:
        """Ask who it is, and greet."""
        self.run(call)
        if "inputResponses" in call.params:
            await call.text(call.params["inputResponses"]["who"]["content"]["name"])
            return
        form = {"method": "elicitation/create", "params": {"message": "Who?", "requestedSchema": {"type": "object"}}}
        result = {"resultType": "input_required", "inputRequests": {"who": form}, "requestState": "s"}
        await call.send(answer(json.dumps({"jsonrpc": "2.0", "id": call.id, "result": result}).encode()))

    async def arrival(self) -> Call:
        async with asyncio.timeout(PATIENCE):
            return await self.arrived.get()


TOOLS = ("find", "write", "held", "works", "fails", "breaks", "fresh", "asks")


@asynccontextmanager
async def caching(
    folder: Path, tools: dict[str, Any] | None = None, era: str = "both", refresh: str = "1m", **more: Any
) -> AsyncIterator[tuple[Gateway, Ledger, Toolbox]]:
    """A gateway with these `tools:` (all of them cached for an hour where nothing is said) before a server of `era`."""
    ledger = Ledger()
    box = Toolbox(era, {name: getattr(ledger, name, ledger.find) for name in TOOLS}, ttl_ms=0)
    box.definitions["find"] = {"annotations": {"readOnlyHint": True}}
    box.definitions["write"] = {"annotations": {"readOnlyHint": False, "idempotentHint": True}}
    agents = {name: {"key": fingerprint(key), "claims": {"team": "test"}} for name, key in AGENTS.items()}
    if tools is None:
        tools = dict.fromkeys(TOOLS, LONG)
    async with serving(box) as server:
        servers = {"main": {"url": server.url, "refresh": refresh}}
        settings = {"servers": servers, "agents": agents, "tools": tools, **more}
        async with running_beside(settings, folder) as gateway:
            await listed(gateway, *TOOLS)
            yield gateway, ledger, box


async def said(agent: Agent, tool: str, **arguments: Any) -> str:
    """What the tool says to this agent."""
    reply = await agent.call(tool, arguments)
    assert reply.status == 200, reply
    result = reply.json()["result"]
    assert ("resultType" in result) is (agent.session == ""), result
    return str(result["content"][0]["text"])


async def invoked(gateway: Gateway, tool: str, body: bytes) -> str:
    """What it says over plain HTTP."""
    fields = [("Authorization", f"Bearer {KEY}"), ("Content-Type", "application/json")]
    reply = await exchange(f"{gateway.url}/tools/{tool}/invoke", Asked(body, fields))
    assert reply.status == 200, reply
    return str(reply.json()["content"][0]["text"])


async def both(gateway: Gateway, key: str = KEY) -> list[Agent]:
    return [await agent(era, gateway.url, key) for era in ERAS]


# -- what is answered so --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
def test_equal_calls_of_agents_of_every_era_run_once_for_each_worker(tmp_path: Path, era: str) -> None:
    async def story() -> None:
        async with caching(tmp_path, era=era) as (gateway, ledger, _):
            words = [await said(one, "find", n=1) for _ in range(MANY) for one in await both(gateway)]
            words += [await invoked(gateway, "find", b'{"n": 1}') for _ in range(MANY)]
            assert 1 <= ledger.of("find") <= WORKERS
            assert len(set(words)) == ledger.of("find")
            await until(lambda: all_told(gateway, len(words)))
            events = [event for event in gateway.events() if event["method"] == "tools/call"]
            cached = [event for event in events if event["cached"]]
            assert len(cached) == len(words) - ledger.of("find")
            told = {(event["outcome"], event["statusCode"], event["attempts"], event["mcpServer"]) for event in cached}
            assert told == {("ok", 200, 0, None)}
            assert {event["protocolVersion"] for event in cached} == {"2026-07-28", "2025-11-25", "rest"}

            async def counted() -> bool:
                hits, misses = [
                    await asyncio.to_thread(gateway.metric, f'fastgw_cache_total{{outcome="{outcome}"}}')
                    for outcome in ("hit", "miss")
                ]
                return (hits, misses) == (len(cached), ledger.of("find"))

            await until(counted)
            assert await asyncio.to_thread(gateway.metric, "fastgw_cache_bytes") > 0

    async def all_told(gateway: Gateway, calls: int) -> bool:
        return len([event for event in gateway.events() if event["method"] == "tools/call"]) == calls

    asyncio.run(story())


def test_other_arguments_are_another_call(tmp_path: Path) -> None:
    async def story() -> None:
        async with caching(tmp_path) as (gateway, ledger, _):
            one = await agent("modern", gateway.url)
            values: list[Any] = [1, 2, "1", True, None, [1], {"n": 1}, 1.0]
            for _ in range(MANY // 2):
                for value in values:
                    assert (await said(one, "find", n=value)).endswith(f"with {json.dumps({'n': value})}")
            counts = Counter(json.dumps(arguments) for _, arguments in ledger.runs)
            assert len(counts) == len(values)
            assert set(counts.values()) <= {1, WORKERS}

    asyncio.run(story())


def test_nothing_crosses_from_one_agent_to_another(tmp_path: Path) -> None:
    endpoints = {"/mcp": {}, "/mcp/too": {}, "/open": {"auth": "none"}}

    async def story() -> None:
        async with caching(tmp_path, endpoints=endpoints) as (gateway, ledger, _):
            places = [(path, key) for path in ("/mcp", "/mcp/too") for key in (KEY, OTHER)] + [("/open", "")]
            heard: dict[Any, set[str]] = {place: set() for place in places}
            for _ in range(MANY):
                for path, key in places:
                    heard[path, key].add(await said(Agent(gateway.root + path, key), "find", n=1))
            assert all(1 <= len(words) <= WORKERS for words in heard.values())
            assert len(set.union(*heard.values())) == sum(map(len, heard.values())) == ledger.of("find")

    asyncio.run(story())


def test_what_is_answered_so_counts_in_no_limit(tmp_path: Path) -> None:
    limits = [{"name": "few", "by": "agent", "rate": f"{WORKERS}/day", "exact": True}]

    async def story() -> None:
        async with caching(tmp_path, limits=limits) as (gateway, ledger, _):
            for _ in range(MANY):
                for one in await both(gateway):
                    await said(one, "find", n=1)
            for _ in range(WORKERS - ledger.of("find")):  # what is left
                assert (await (await agent("modern", gateway.url)).call("find", {"n": 2})).status == 200
            for number in range(3, 6):
                assert (await (await agent("modern", gateway.url)).call("find", {"n": number})).status == 429

    asyncio.run(story())


# -- for how long ---------------------------------------------------------------------------------------------------


def test_it_expires(tmp_path: Path) -> None:
    async def story() -> None:
        async with caching(tmp_path, {"find": {"cache": "300ms"}}) as (gateway, ledger, _):
            one = await agent("modern", gateway.url)

            async def ran_again() -> bool:
                await said(one, "find", n=1)
                return ledger.of("find") > 2 * WORKERS

            await until(ran_again)
            asked = len([event for event in gateway.events() if event["method"] == "tools/call"])
            assert asked > ledger.of("find"), "nothing was kept"

    asyncio.run(story())


def test_a_reload_keeps_what_is_there_and_another_time_does_not(tmp_path: Path) -> None:
    async def story() -> None:
        async with caching(tmp_path) as (gateway, ledger, _):
            one = await agent("modern", gateway.url)

            async def runs() -> int:
                for _ in range(MANY):
                    await said(one, "find", n=1)
                return ledger.of("find")

            before = await runs()
            written = json.loads((tmp_path / "fastgw.yaml").read_text())
            more = {name: written[name] for name in ("servers", "agents", "tools")}
            gateway.configure({**more, "timeout": "40s"})
            await reload(gateway, APPLIED)
            assert before <= await runs() <= WORKERS
            gateway.configure({**more, "tools": {"find": {"cache": "30m"}}})
            await reload(gateway, APPLIED)

            async def ran_again() -> bool:
                return await runs() > WORKERS

            await until(ran_again)
            assert await runs() <= 2 * WORKERS

    asyncio.run(story())


# -- what is not ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["fails", "breaks", "fresh"])
def test_an_error_and_what_is_stale_at_once_are_not_kept(tmp_path: Path, tool: str) -> None:
    async def story() -> None:
        async with caching(tmp_path) as (gateway, ledger, _):
            for _ in range(4):
                for one in await both(gateway):
                    assert (await one.call(tool)).status == 200
            assert ledger.of(tool) == 8
            await said(await agent("modern", gateway.url), "find")
            assert ledger.of("find") == 1

    asyncio.run(story())


def test_a_dialogue_is_had_each_time(tmp_path: Path) -> None:
    async def story() -> None:
        async with caching(tmp_path) as (gateway, _, _):
            for name in ("ann", "bob", "cid") * 3:
                meta = {f"{META}clientCapabilities": {"elicitation": {}}}
                params: dict[str, Any] = {"name": "asks", "arguments": {}}
                first = (await exchange(gateway.url, modern("tools/call", params, key=KEY, meta=meta))).json()["result"]
                assert first["resultType"] == "input_required", first
                response = {"who": {"action": "accept", "content": {"name": name}}}
                params |= {"requestState": first["requestState"], "inputResponses": response}
                last = (await exchange(gateway.url, modern("tools/call", params, key=KEY, meta=meta))).json()["result"]
                assert last["content"][0]["text"] == name

    asyncio.run(story())


def test_a_pattern_is_for_tools_that_call_themselves_read_only(tmp_path: Path) -> None:
    async def story() -> None:
        async with caching(tmp_path, {"*": LONG}, refresh="200ms") as (gateway, ledger, box):
            one = await agent("modern", gateway.url)
            for _ in range(MANY):
                await said(one, "find")
                await said(one, "write")
            assert ledger.of("find") <= WORKERS
            assert ledger.of("write") == MANY
            box.definitions["find"], box.definitions["write"] = box.definitions["write"], box.definitions["find"]

            async def heard() -> bool:
                return all([told(await one.tools()) for _ in range(MANY)])

            def told(tools: list[dict[str, Any]]) -> bool:
                return "write" in [tool["name"] for tool in tools if tool.get("annotations", {}).get("readOnlyHint")]

            await until(heard)
            before = Counter({tool: ledger.of(tool) for tool in ("find", "write")})
            for _ in range(MANY):
                await said(one, "find")
                await said(one, "write")
            assert ledger.of("write") <= before["write"] + WORKERS
            assert ledger.of("find") == before["find"] + MANY

    asyncio.run(story())


# -- at the same time -----------------------------------------------------------------------------------------------


async def in_flight(gateway: Gateway, number: int) -> None:
    """Return when so many calls are being carried."""

    async def so_many() -> bool:
        return await asyncio.to_thread(gateway.metric, "fastgw_in_flight") == number

    await until(so_many)


@pytest.mark.parametrize("era", ERAS)
def test_equal_calls_at_the_same_time_share_one(tmp_path: Path, era: str) -> None:
    async def story() -> None:
        async with caching(tmp_path, era=era) as (gateway, ledger, _):
            agents = await both(gateway)
            calls = [asyncio.create_task(said(one, "held", n=1)) for _ in range(MANY) for one in agents]
            await in_flight(gateway, len(calls))
            assert 1 <= ledger.of("held") <= WORKERS
            ledger.release.set()
            assert len(set(await asyncio.gather(*calls))) == ledger.of("held") <= WORKERS

            async def counted() -> bool:
                shared = await asyncio.to_thread(gateway.metric, 'fastgw_cache_total{outcome="shared"}')
                return shared == len(calls) - ledger.of("held")

            await until(counted)

    asyncio.run(story())


async def at_one_worker(gateway: Gateway, stack: AsyncExitStack, count: int) -> list[Connection]:
    """So many connections that one worker has accepted."""
    found: dict[int, list[Connection]] = {}
    for _ in range(64):
        connection = await stack.enter_async_context(connected(gateway.url))
        worker = await accepted_by(gateway, connection.port)
        found.setdefault(worker, []).append(connection)
        if len(found[worker]) == count:
            return found[worker]
    raise AssertionError("64 connections, and no worker has enough")


@pytest.mark.parametrize("era", ERAS)
def test_one_of_those_who_wait_takes_over_from_an_agent_that_leaves(tmp_path: Path, era: str) -> None:
    async def story() -> None:
        async with caching(tmp_path, era=era) as (gateway, ledger, box), AsyncExitStack() as stack:
            first, *others = await at_one_worker(gateway, stack, 5)
            asked = modern("tools/call", {"name": "held", "arguments": {"n": 1}}, key=KEY)
            first.send(asked)
            begun = await ledger.arrival()
            for connection in others:
                connection.send(asked)
            await in_flight(gateway, 5)
            assert ledger.of("held") == 1
            others.pop().writer.close()  # one that only waits: nobody is told
            await in_flight(gateway, 4)
            assert (ledger.of("held"), begun.has_left(), box.cancelled) == (1, False, [])
            first.writer.close()
            await ledger.arrival()
            await in_flight(gateway, 3)
            if era == "modern":
                async with asyncio.timeout(PATIENCE):
                    await begun.left()
            ledger.release.set()
            for connection in others:
                reply = await (await connection.answer()).rest()
                assert reply.json()["result"]["content"][0]["text"].startswith("run 2 of held")
            assert ledger.of("held") == 2

    asyncio.run(story())


def test_who_waits_is_answered_when_its_time_is_up(tmp_path: Path) -> None:
    """The one it waits for reports progress to its agent, and so has longer."""

    async def story() -> None:
        tools = {"works": {"cache": "1h", "timeout": "2s", "max_timeout": "1m"}}
        async with caching(tmp_path, tools) as (gateway, ledger, _), AsyncExitStack() as stack:
            first, second = await at_one_worker(gateway, stack, 2)
            params = {"name": "works", "arguments": {}}
            first.send(modern("tools/call", params, key=KEY, meta={"progressToken": "p"}))
            await ledger.arrival()
            second.send(modern("tools/call", params, key=KEY))
            error = (await (await second.answer()).rest()).json()["error"]
            assert (error["code"], error["data"]["mayHaveRun"], error["data"]["timeoutMs"]) == (-31002, False, 2000)
            ledger.release.set()
            reply = await (await first.answer()).rest()
            assert reply.json()["result"]["content"][0]["text"] == "run 1"
            assert ledger.of("works") == 1

    asyncio.run(story())
