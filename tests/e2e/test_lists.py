"""`tools/list`: alike on both workers and never ahead of them, in pages with sealed cursors, as fresh as it says."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.asking import ERAS, Agent, agent, listed
from tests.e2e.gateway import KEY, Gateway, fingerprint, running_beside, until
from tests.e2e.http import exchange, legacy, modern
from tests.e2e.servers import STREAM, Call, Got, Toolbox, event, serving

OTHER = "fgw_test_other"
AGENTS = {
    "tester": {"key": fingerprint(KEY), "claims": {"team": "test"}},
    "other": {"key": fingerprint(OTHER), "claims": {"team": "test"}},
}
CHANGES = 10
MANY = 2500
BOTH = 40  # fresh connections reach both workers; that they do not has a chance of 2 in 10**12
CHANGED = event(b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}')


async def done(call: Call) -> None:
    await call.text(call.name)


@dataclass
class Growing(Toolbox):
    """A legacy server that keeps the stream of its GET open and announces changes on it."""

    listening: list[asyncio.StreamWriter] = field(default_factory=list)
    fetched: int = 0

    async def handle(self, got: Got, writer: asyncio.StreamWriter) -> None:
        if got.verb == "GET":
            self.listening.append(writer)
            writer.write(STREAM)
            return
        if b'"tools/list"' in got.body:
            self.fetched += 1
        await super().handle(got, writer)

    def bring(self, *tools: str) -> None:
        """Have more tools, and say so."""
        self.tools.update(dict.fromkeys(tools, done))
        for writer in self.listening:
            writer.write(CHANGED)

    async def listened_to(self) -> bool:
        return bool(self.listening)


def worker_of(number: str | None) -> str:
    """Which worker answered, by the beginning its request ids share."""
    return str(number)[:-8]


async def from_both(who: Agent, method: str, params: dict[str, Any]) -> list[Any]:
    """The bodies, less the worker, of so many equal requests that both workers answered some."""
    replies = [await who.ask(method, params) for _ in range(BOTH)]
    assert len({worker_of(reply.header("x-request-id")) for reply in replies}) == 2
    return [reply.json() for reply in replies]


@pytest.mark.parametrize("era", ERAS)
def test_a_tool_that_needs_tasks_does_not_exist_and_operators_are_told(tmp_path: Path, era: str) -> None:
    async def story() -> None:
        needing = {name: {"execution": {"taskSupport": name}} for name in ("required", "optional")}
        box = Toolbox(era, dict.fromkeys(needing, done), needing)
        async with (
            serving(box) as server,
            running_beside({"servers": {"box": {"url": server.url}}}, tmp_path) as gateway,
        ):
            await listed(gateway, "optional")
            for theirs in ERAS:
                who = await agent(theirs, gateway.url)
                assert await who.names() == ["optional"]
                assert (await who.call("required")).json()["error"]["code"] == -32602
            told = (await asyncio.to_thread(gateway.ask_admin, "/catalogue"))[1].decode()
            assert "left out: needs tasks, which are not supported" in told

    asyncio.run(story())


@asynccontextmanager
async def growing(folder: Path) -> AsyncIterator[tuple[Gateway, Growing]]:
    box = Growing("legacy", {"first": done})
    async with serving(box) as server:
        more = {"servers": {"box": {"url": server.url}}, "agents": AGENTS}
        async with running_beside(more, folder) as gateway:
            await listed(gateway, "first")
            await until(box.listened_to)
            yield gateway, box


def test_a_tool_that_a_list_names_can_be_called_at_once(tmp_path: Path) -> None:
    """While the list changes twenty times: whoever lists, whoever takes the call."""
    workers: set[tuple[str, str]] = set()

    async def story() -> None:
        async with growing(tmp_path) as (gateway, box):
            agents = [await agent(era, gateway.url) for era in ERAS]

            async def look(who: Agent) -> list[str]:
                page = await who.ask("tools/list", {})
                names = [tool["name"] for tool in page.json()["result"]["tools"]]
                calls = await asyncio.gather(*(who.call(names[-1]) for _ in range(4)))
                for reply in calls:
                    assert "result" in reply.json(), (names[-1], reply.body)
                    workers.add((worker_of(page.header("x-request-id")), worker_of(reply.header("x-request-id"))))
                return names

            for number in range(CHANGES):
                box.bring(f"tool-{number}")
                while not all(f"tool-{number}" in names for names in await asyncio.gather(*map(look, agents))):
                    pass

    asyncio.run(asyncio.wait_for(story(), 60))
    assert len({worker for pair in workers for worker in pair}) == 2
    assert len(workers) == 4


def test_no_list_names_a_tool_before_every_worker_takes_its_calls(tmp_path: Path) -> None:
    """One worker is stopped. The other one takes calls of the new tool, but lists it only when both do."""

    async def attempt(who: Agent, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """What the running worker answers; a connection that the stopped one got is given up."""
        while True:
            try:
                async with asyncio.timeout(0.2):
                    found: dict[str, Any] = (await who.ask(method, params)).json()
                    return found
            except TimeoutError:
                continue

    async def story() -> None:
        async with growing(tmp_path) as (gateway, box):
            who, stopped = Agent(gateway.url), gateway.child("worker-2")
            os.kill(stopped, signal.SIGSTOP)
            try:
                box.bring("new")
                while "error" in await attempt(who, "tools/call", {"name": "new", "arguments": {}}):
                    pass
                page = await attempt(who, "tools/list", {})
                assert [tool["name"] for tool in page["result"]["tools"]] == ["first"]
            finally:
                os.kill(stopped, signal.SIGCONT)
            await listed(gateway, "new")

    asyncio.run(asyncio.wait_for(story(), 60))


def many(tools: int = MANY) -> dict[str, Any]:
    return {f"tool-{number:04}": done for number in range(tools)}


@asynccontextmanager
async def crowded(folder: Path) -> AsyncIterator[tuple[Gateway, Growing]]:
    """More tools than a page holds, at two endpoints."""
    box = Growing("legacy", many())
    async with serving(box) as server:
        endpoints = {"/mcp": {}, "/mcp/second": {}}
        more = {"servers": {"box": {"url": server.url}}, "agents": AGENTS, "endpoints": endpoints}
        async with running_beside(more, folder) as gateway:
            await listed(gateway, "tool-0000")
            await until(box.listened_to)
            yield gateway, box


def altered(cursor: str, at: int) -> str:
    return cursor[:at] + ("A" if cursor[at] != "A" else "B") + cursor[at + 1 :]


def test_a_long_list_has_pages_with_sealed_cursors(tmp_path: Path) -> None:
    async def sizes(who: Agent) -> list[int]:
        page = await who.page()
        found = [len(page["tools"])]
        while cursor := page.get("nextCursor"):
            assert "tool" not in cursor
            page = await who.page(cursor)
            found.append(len(page["tools"]))
        return found

    async def refused(who: Agent, cursor: Any) -> None:
        reply = await who.ask("tools/list", {"cursor": cursor})
        assert reply.status == (200 if who.session else 400), cursor
        assert reply.json()["error"]["code"] == -32602, cursor

    async def story() -> None:
        async with crowded(tmp_path) as (gateway, box):
            for era in ERAS:
                who, other = await agent(era, gateway.url), await agent(era, gateway.url, OTHER)
                elsewhere = await agent(era, f"{gateway.url}/second")
                assert await sizes(who) == [1000, 1000, 500]
                assert await who.names() == list(box.tools)
                cursor = (await who.page())["nextCursor"]
                for reply in await from_both(who, "tools/list", {"cursor": cursor}):
                    assert [tool["name"] for tool in reply["result"]["tools"]] == list(box.tools)[1000:2000]
                for stranger in (other, elsewhere):
                    await refused(stranger, cursor)
                strange = [altered(cursor, at) for at in (0, len(cursor) // 2, len(cursor) - 2)]
                strange += [cursor[:-4], cursor + "AAAA", f"{cursor}==", cursor.lower(), "", "1000", "é", " " + cursor]
                for wrong in (*strange, who.session or "x", 1000, True, {}, [cursor]):
                    await refused(who, wrong)
                assert len((await who.ask("tools/list", {"cursor": None})).json()["result"]["tools"]) == 1000
            old = {era: (await (await agent(era, gateway.url)).page())["nextCursor"] for era in ERAS}
            box.bring("one-more")

            async def changed() -> bool:
                return "one-more" in await Agent(gateway.url).names()

            await until(changed_without(gateway, changed))
            for era, cursor in old.items():
                await refused(await agent(era, gateway.url), cursor)

    asyncio.run(asyncio.wait_for(story(), 60))


def changed_without(gateway: Gateway, changed: Any) -> Any:
    """`changed`, but a list that changes between two of its pages is begun anew."""

    async def look() -> bool:
        try:
            return bool(await changed())
        except AssertionError:
            return False

    return look


def test_lists_are_the_same_everywhere_and_always(tmp_path: Path) -> None:
    boxes = [Toolbox("modern", {f"{server}-{tool}": done for tool in "zayb"}) for server in ("two", "one")]

    async def story() -> None:
        async with serving(boxes[0]) as two, serving(boxes[1]) as one:
            servers = {"two": {"url": two.url}, "one": {"url": one.url}}
            async with running_beside({"servers": servers, "agents": AGENTS}, tmp_path) as gateway:
                await listed(gateway, *boxes[0].tools, *boxes[1].tools)
                for era in ERAS:
                    for key in (KEY, OTHER):
                        who = await agent(era, gateway.url, key)
                        found = await from_both(who, "tools/list", {})
                        texts = {json.dumps(reply["result"]["tools"]) for reply in found}
                        assert len(texts) == 1
                        assert await who.names() == [*boxes[0].tools, *boxes[1].tools]

    asyncio.run(story())


def test_freshness_is_the_least_patient_servers_and_grows_old(tmp_path: Path) -> None:
    """`ttlMs` is what is left of the shortest hint; where a server gives none, the list is stale at once."""
    short, long, silent = (
        Toolbox("modern", {"short": done}, ttl_ms=20_000),
        Toolbox("modern", {"long": done}, ttl_ms=3_000_000),
        Toolbox("legacy", {"silent": done}),
    )
    named = {"short": short, "long": long, "silent": silent}

    async def story() -> None:
        async with serving(short) as one, serving(long) as two, serving(silent) as three:
            servers = {name: {"url": s.url} for name, s in zip(named, (one, two, three), strict=True)}
            endpoints = {"/mcp": {}, "/mcp/both": {"servers": ["short", "long"]}, "/mcp/long": {"servers": ["long"]}}
            async with running_beside({"servers": servers, "endpoints": endpoints}, tmp_path) as gateway:
                await listed(gateway, *named)
                everything, both, patient = (Agent(gateway.root + path) for path in endpoints)
                assert (await everything.page())["ttlMs"] == 0
                first = (await both.page())["ttlMs"]
                assert 0 < first <= 20_000
                assert 2_900_000 < (await patient.page())["ttlMs"] <= 3_000_000

                async def older() -> bool:
                    return bool((await both.page())["ttlMs"] < first - 100)

                await until(older)
                page = await both.page()
                assert (page["cacheScope"], page["resultType"]) == ("private", "complete")
                old = await agent("legacy", both.url)
                assert set(await old.page()) == {"tools"}

    asyncio.run(story())


def test_a_server_fresh_for_a_second_keeps_the_list_fresh_and_brings_no_other_snapshot(tmp_path: Path) -> None:
    box = Toolbox("modern", {"short": done}, ttl_ms=1000)

    async def story() -> None:
        async with serving(box) as one, running_beside({"servers": {"box": {"url": one.url}}}, tmp_path) as gateway:
            who = await agent("modern", gateway.url)
            await listed(gateway, "short")
            generation = json.loads((await asyncio.to_thread(gateway.ask_admin, "/readyz"))[1])["generation"]
            fetched = len(box.got)

            async def fetched_twice_more() -> bool:
                return len(box.got) >= fetched + 2

            async def fresh() -> bool:
                return all(reply["result"]["ttlMs"] > 0 for reply in await from_both(who, "tools/list", {}))

            await until(fetched_twice_more)
            await until(fresh)
            assert json.loads((await asyncio.to_thread(gateway.ask_admin, "/readyz"))[1])["generation"] == generation

    asyncio.run(story())


REGION = {"type": "string", "x-mcp-header": "Region"}
SCHEMA = {
    "type": "object",
    "properties": {
        "region": REGION,
        "deep": {"type": "object", "properties": {"count": {"type": "integer", "x-mcp-header": "Count"}}},
        "flag": {"type": "boolean", "x-mcp-header": "Flag"},
        "plain": {"type": "string"},
    },
}
BAD = {
    "bad-space": {"properties": {"a": {"type": "string", "x-mcp-header": "two words"}}},
    "bad-empty": {"properties": {"a": {"type": "string", "x-mcp-header": ""}}},
    "bad-type": {"properties": {"a": {"type": "array", "x-mcp-header": "A"}}},
    "bad-twice": {"properties": {"a": REGION, "b": {"type": "string", "x-mcp-header": "REGION"}}},
    "bad-place": {"properties": {"a": {"type": "array", "items": REGION}}},
    "bad-break": {"properties": {"a": {"type": "string", "x-mcp-header": "A\r\nB"}}},
}
SHAPES = {"object": {"type": "object", "properties": {}}, "array": {"type": "array"}, "either": {"type": ["object"]}}


def headed() -> Toolbox:
    box = Toolbox("modern", dict.fromkeys(("headed", *BAD, *SHAPES, "no-schema"), done))
    box.definitions["headed"] = {"inputSchema": SCHEMA}
    box.definitions.update({name: {"inputSchema": {"type": "object", **schema}} for name, schema in BAD.items()})
    box.definitions.update({name: {"outputSchema": schema, "title": name} for name, schema in SHAPES.items()})
    box.definitions["no-schema"] = {"inputSchema": None}
    return box


def test_what_a_revision_does_not_know_is_not_in_its_list(tmp_path: Path) -> None:
    """Definitions that would make an SDK refuse the whole list are left out alone; the operator is told."""
    shapes = {
        "2025-03-26": {},
        "2025-06-18": {"object": SHAPES["object"]},
        "2025-11-25": {"object": SHAPES["object"]},
        "2026-07-28": SHAPES,
    }

    async def story() -> None:
        async with (
            serving(headed()) as server,
            running_beside({"servers": {"box": {"url": server.url}}}, tmp_path) as gateway,
        ):
            await listed(gateway, "headed")
            for version, expected in shapes.items():
                who = await agent("modern" if version > "2026" else "legacy", gateway.url, version=version)
                tools = await who.tools()
                assert [tool["name"] for tool in tools] == ["headed", *SHAPES]
                found = {tool["name"]: tool["outputSchema"] for tool in tools if "outputSchema" in tool}
                assert found == expected, version
                assert ("title" in tools[1]) == (version > "2025-03-26")
                for name in (*BAD, "no-schema"):
                    assert (await who.call(name)).json()["error"]["code"] == -32602
            notices = json.loads(gateway.ask_admin("/catalogue")[1])["notices"]
            assert {f"box/{name}" for name in (*BAD, "no-schema")} <= {notice["subject"] for notice in notices}

    asyncio.run(story())


ARGUMENTS: dict[str, Any] = {"region": "us-west", "deep": {"count": 42}, "flag": True, "plain": "x"}
MIRRORED = {"Mcp-Param-Region": "us-west", "Mcp-Param-Count": "42", "Mcp-Param-Flag": "true"}


def mirrored(got: Got) -> dict[str, str]:
    return {name: value for name, value in got.headers if name.startswith("mcp-param-")}


def test_mirrored_arguments_are_checked_and_written_anew(tmp_path: Path) -> None:
    right: list[tuple[dict[str, Any], dict[str, str], dict[str, str]]] = [
        (ARGUMENTS, MIRRORED, {name.lower(): value for name, value in MIRRORED.items()}),
        ({"region": "日本"}, {"Mcp-Param-Region": "=?base64?5pel5pys?="}, {"mcp-param-region": "=?base64?5pel5pys?="}),
        ({"region": " "}, {"Mcp-Param-Region": "=?base64?IA==?="}, {"mcp-param-region": "=?base64?IA==?="}),
        ({"deep": {"count": 42.0}}, {"mcp-param-count": "42"}, {"mcp-param-count": "42"}),
        ({"region": None}, {}, {}),
        (
            {"region": "us"},
            {"Mcp-Param-Region": "us", "Mcp-Param-Unknown": "x"},
            {"mcp-param-region": "us", "mcp-param-unknown": "x"},
        ),
    ]
    wrong: list[dict[str, str]] = [
        {name: value for name, value in MIRRORED.items() if name != "Mcp-Param-Region"},
        {**MIRRORED, "Mcp-Param-Region": "us-east"},
        {**MIRRORED, "Mcp-Param-Region": "US-WEST"},
        {**MIRRORED, "Mcp-Param-Count": "43"},
        {**MIRRORED, "Mcp-Param-Flag": "True"},
        {**MIRRORED, "Mcp-Param-Region": "=?base64?####?="},
        {**MIRRORED, "mcp-param-region": "us-west"},
    ]

    async def story() -> None:
        box = headed()
        async with (
            serving(box) as server,
            running_beside({"servers": {"box": {"url": server.url}}}, tmp_path) as gateway,
        ):
            await listed(gateway, "headed")

            async def asked(arguments: dict[str, Any], headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
                request = modern("tools/call", {"name": "headed", "arguments": arguments}, key=KEY)
                request.headers.extend(headers.items())
                reply = await exchange(gateway.url, request)
                return reply.status, reply.json()

            for headers in wrong:
                status, body = await asked(ARGUMENTS, headers)
                assert (status, body["error"]["code"]) == (400, -32020), headers
            status, body = await asked({"plain": "x"}, {"Mcp-Param-Region": "us"})
            assert (status, body["error"]["code"]) == (400, -32020)
            assert box.ledger == []
            old = await agent("legacy", gateway.url)
            for arguments, headers, arrived in right:
                assert (await asked(arguments, headers))[0] == 200, arguments
                assert mirrored(box.last_call()) == arrived
                # A legacy agent knows no such headers, so a lie in them means nothing; the server gets true ones.
                request = legacy("tools/call", {"name": "headed", "arguments": arguments}, key=KEY)
                request = request.having("Mcp-Session-Id", old.session).having("Mcp-Param-Region", "a lie")
                reply = await exchange(gateway.url, request.having("MCP-Protocol-Version", old.version))
                assert "result" in reply.json(), reply
                assert mirrored(box.last_call()) == {name: arrived[name] for name in arrived if "unknown" not in name}

    asyncio.run(story())
