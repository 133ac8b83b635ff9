"""Several endpoints on one gateway: each has its own names, agents, pages and words, and nothing of another's."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.aside import Aside, aside
from tests.e2e.asking import ERAS, Agent, agent
from tests.e2e.gateway import KEY, Gateway, fingerprint, running_beside, until
from tests.e2e.http import META, Asked, Reply, exchange, initialize, modern, streaming
from tests.e2e.library import Library, said, text
from tests.e2e.servers import Call, Tool, Toolbox, answer, serving

OTHER = "fgw_test_other"
UNKNOWN, NO_RESOURCE, TIMEOUT = -32602, -32002, -31002
MANY = 1100
"""Tools: more than stand on one page."""
APP, EVIL = "https://app.example", "https://evil.example"
AGENTS = {"tester": {"key": fingerprint(KEY)}, "other": {"key": fingerprint(OTHER)}}
FEW = ["run", "slow", "beta/*al*", "beta/shared", "prompt:greet", "prompt:beta/both", "resource:help://*"]
ENDPOINTS: dict[str, Any] = {
    "/mcp": {"servers": ["alpha", "beta"]},
    "/mcp/plain": {"servers": ["alpha", "beta"], "naming": "none", "instructions": "Plain names.", "auth": "keys"},
    "/full": {"servers": ["beta"], "naming": "always"},
    "/few": {"servers": ["alpha", "beta"], "tools": FEW, "instructions": "Few.", "origins": [APP], "timeout": "600ms"},
    "/open": {"servers": ["alpha"], "tools": ["run", "ask", "resource:*"], "auth": "none", "origins": []},
    "/many": {"servers": ["many"]},
    "/again": {"servers": ["many"]},
}
KEYED = [path for path, one in ENDPOINTS.items() if one.get("auth") != "none"]
A, B = "alpha", "beta"
TOOLS: dict[str, dict[str, tuple[str, str]]] = {
    "/mcp": {"run": (A, "run"), "slow": (A, "slow"), "ask": (A, "ask"), "walk": (B, "walk"),
             "alpha__shared": (A, "shared"), "beta__shared": (B, "shared")},
    "/mcp/plain": {"run": (A, "run"), "slow": (A, "slow"), "ask": (A, "ask"), "walk": (B, "walk"),
                   "shared": (A, "shared")},
    "/full": {"beta__walk": (B, "walk"), "beta__shared": (B, "shared")},
    "/few": {"run": (A, "run"), "slow": (A, "slow"), "walk": (B, "walk"), "beta__shared": (B, "shared")},
    "/open": {"run": (A, "run"), "ask": (A, "ask")},
}  # fmt: skip
PROMPTS: dict[str, dict[str, tuple[str, str]]] = {
    "/mcp": {"greet": (A, "greet"), "alpha__both": (A, "both"), "part": (B, "part"), "beta__both": (B, "both")},
    "/mcp/plain": {"greet": (A, "greet"), "both": (A, "both"), "part": (B, "part")},
    "/full": {"beta__part": (B, "part"), "beta__both": (B, "both")},
    "/few": {"greet": (A, "greet"), "beta__both": (B, "both")},
    "/open": {},
}
RESOURCES: dict[str, dict[str, tuple[str, str]]] = {
    "/mcp": {"help://a": (A, "help://a"), "alpha+doc://both": (A, "doc://both"), "help://b": (B, "help://b"),
             "beta+doc://both": (B, "doc://both")},
    "/mcp/plain": {"help://a": (A, "help://a"), "doc://both": (A, "doc://both"), "help://b": (B, "help://b")},
    "/full": {"beta+help://b": (B, "help://b"), "beta+doc://both": (B, "doc://both")},
    "/few": {"help://a": (A, "help://a"), "help://b": (B, "help://b")},
    "/open": {"help://a": (A, "help://a"), "doc://both": (A, "doc://both")},
}  # fmt: skip
TEMPLATES = {
    "/mcp": ["help://page/{n}"],
    "/mcp/plain": ["help://page/{n}"],
    "/full": ["beta+help://page/{n}"],
    "/few": ["help://page/{n}"],
    "/open": [],
}
"""By endpoint what agents see, and whose it is under which name of its own."""
NAMES = [(path, era) for path in TOOLS for era in ERAS]
FORM = {"method": "elicitation/create", "params": {"message": "Who?", "requestedSchema": {"type": "object"}}}


def says(server: str) -> Tool:
    """A tool that tells whose it is."""

    async def tell(call: Call) -> None:
        await call.text(f"{server} {call.name}")

    return tell


async def slow(call: Call) -> None:
    await call.left()


async def ask(call: Call) -> None:
    """Ask who calls, and hear the answer with the state that went along."""
    if call.params.get("requestState") is None:
        result = {"resultType": "input_required", "inputRequests": {"who": FORM}, "requestState": "inner"}
        await call.send(answer(json.dumps({"jsonrpc": "2.0", "id": call.id, "result": result}).encode()))
    else:
        await call.text(call.params["requestState"])


def boxes() -> dict[str, Toolbox]:
    shared = ("doc://both",)
    return {
        A: Library(
            "modern",
            {"run": says(A), "slow": slow, "ask": ask, "shared": says(A)},
            prompts={name: said(f"{A} {name}") for name in ("greet", "both")},
            resources={uri: text(uri, f"{A} {uri}") for uri in ("help://a", *shared)},
        ),
        B: Library(
            "legacy",
            {"walk": says(B), "shared": says(B)},
            prompts={name: said(f"{B} {name}") for name in ("part", "both")},
            resources={uri: text(uri, f"{B} {uri}") for uri in ("help://b", *shared)},
            templates=["help://page/{n}"],
        ),
        "many": Toolbox("modern", {f"tool-{number:04d}": says("many") for number in range(MANY)}),
    }


@dataclass
class Scene:
    """The gateway, and the servers behind it."""

    gateway: Gateway
    boxes: dict[str, Toolbox]
    loop: Aside

    def reached(self) -> int:
        """How many calls, prompts and reads have reached a server."""
        heard = sum(len(box.heard) for box in self.boxes.values() if isinstance(box, Library))
        return heard + len(self.boxes["many"].ledger)

    def library(self, name: str) -> Library:
        box = self.boxes[name]
        assert isinstance(box, Library)
        return box

    async def who(self, era: str, path: str, key: str = KEY) -> Agent:
        """An agent at this endpoint."""
        return await agent(era, self.gateway.root + path, key if path in KEYED else "")


def settings(urls: dict[str, str], endpoints: dict[str, Any]) -> dict[str, Any]:
    servers = {name: {"url": url} for name, url in urls.items()}
    return {"servers": servers, "agents": AGENTS, "endpoints": endpoints, "timeout": "1200ms"}


@asynccontextmanager
async def served(
    folder: Path, found: dict[str, Toolbox], endpoints: dict[str, Any]
) -> AsyncIterator[tuple[Gateway, dict[str, str]]]:
    """A gateway before these three, and their URLs; each endpoint lists all it has on both workers."""
    async with serving(found[A]) as alpha, serving(found[B]) as beta, serving(found["many"]) as many:
        urls = {A: alpha.url, B: beta.url, "many": many.url}
        async with running_beside(settings(urls, endpoints), folder) as gateway:
            for path in endpoints.keys() & TOOLS.keys():
                await until(lambda path=path: lists(gateway, path, set(TOOLS[path]), set(RESOURCES[path])))
            yield gateway, urls


async def lists(gateway: Gateway, path: str, tools: set[str], resources: set[str]) -> bool:
    """Whether several fresh connections, so both workers, list exactly these."""
    seen = []
    for _ in range(4):
        who = Agent(gateway.root + path)
        reply = await who.ask("resources/list")
        if reply.status != 200:
            return False
        uris = {one["uri"] for one in reply.json()["result"]["resources"]}
        seen.append((set(await who.names()), uris))
    return all(one == (tools, resources) for one in seen)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    @asynccontextmanager
    async def scene(loop: Aside) -> AsyncIterator[Scene]:
        found = boxes()
        async with served(tmp_path_factory.mktemp("endpoints"), found, ENDPOINTS) as (gateway, _):
            yield Scene(gateway, found, loop)

    with aside() as loop:
        yield loop.enter(scene(loop))


def error(reply: Reply) -> int:
    """The code of a refusal; 0 where there is none."""
    return int(reply.json().get("error", {"code": 0})["code"])


# -- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "era"), NAMES)
def test_each_lists_and_calls_its_own_tools(stage: Scene, path: str, era: str) -> None:
    async def story() -> None:
        who = await stage.who(era, path)
        assert set(await who.names()) == set(TOOLS[path])
        everywhere = set().union(*TOOLS.values()) | {"alpha/run", "run "}
        for name in sorted(everywhere - {"slow", "ask"}):
            before = stage.reached()
            reply = await who.call(name)
            if name in TOOLS[path]:
                server, own = TOOLS[path][name]
                assert reply.json()["result"]["content"][0]["text"] == f"{server} {own}"
            else:
                assert (error(reply), stage.reached()) == (UNKNOWN, before), name

    stage.loop.run(story())


@pytest.mark.parametrize(("path", "era"), NAMES)
def test_each_lists_and_gets_its_own_prompts(stage: Scene, path: str, era: str) -> None:
    async def story() -> None:
        who = await stage.who(era, path)
        listed = (await who.ask("prompts/list")).json()["result"]["prompts"]
        assert {prompt["name"] for prompt in listed} == set(PROMPTS[path])
        for name in sorted(set().union(*PROMPTS.values())):
            before = stage.reached()
            reply = await who.ask("prompts/get", {"name": name})
            if name in PROMPTS[path]:
                server, own = PROMPTS[path][name]
                assert reply.json()["result"]["messages"][0]["content"]["text"] == f"{server} {own}"
            else:
                assert (error(reply), stage.reached()) == (UNKNOWN, before), name

    stage.loop.run(story())


@pytest.mark.parametrize(("path", "era"), NAMES)
def test_each_lists_and_reads_its_own_resources(stage: Scene, path: str, era: str) -> None:
    async def story() -> None:
        who = await stage.who(era, path)
        listed = (await who.ask("resources/list")).json()["result"]["resources"]
        assert {one["uri"] for one in listed} == set(RESOURCES[path])
        templates = (await who.ask("resources/templates/list")).json()["result"]["resourceTemplates"]
        assert [one["uriTemplate"] for one in templates] == TEMPLATES[path]
        for uri, (server, own) in RESOURCES[path].items():
            [content] = (await who.ask("resources/read", {"uri": uri})).json()["result"]["contents"]
            assert (content["uri"], content["text"]) == (uri, f"{server} {own}")
        # What `tools` leaves out is nowhere, listed or not, whatever it is called; nor is what no server of it has.
        beyond = ["many+help://a", "gone://x"]
        beyond += ["doc://both", "alpha+doc://both", "beta+doc://both"] if path == "/few" else []
        beyond += ["help://b", "beta+help://b", "beta+doc://both"] if path == "/open" else []
        beyond += ["help://a", "alpha+help://a"] if path == "/full" else []
        elsewhere = [stage.library(server) for server in (A, B) if server not in ENDPOINTS[path]["servers"]]
        before = [len(box.heard) for box in elsewhere]
        for uri in beyond:
            reply = await who.ask("resources/read", {"uri": uri})
            told = reply.json()["error"]
            assert (told["code"], told["data"]["uri"]) == (NO_RESOURCE if who.session else UNKNOWN, uri)
        assert [len(box.heard) for box in elsewhere] == before

    stage.loop.run(story())


def test_words_about_an_endpoint(stage: Scene) -> None:
    async def story() -> None:
        for path in TOOLS:
            expected = ENDPOINTS[path].get("instructions")
            key = KEY if path in KEYED else None
            opened = await exchange(stage.gateway.root + path, initialize(key=key))
            found = (await exchange(stage.gateway.root + path, modern("server/discover", key=key))).json()["result"]
            for told in (opened.json()["result"], found):
                assert told.get("instructions") == expected
                assert ("prompts" in told["capabilities"]) is bool(PROMPTS[path])

    stage.loop.run(story())


@pytest.mark.parametrize("era", ERAS)
def test_an_endpoints_own_timeout(stage: Scene, era: str) -> None:
    async def waited(path: str) -> int:
        told = (await (await stage.who(era, path)).call("slow")).json()["error"]
        assert told["code"] == TIMEOUT
        return int(told["data"]["timeoutMs"])

    async def story() -> None:
        assert await asyncio.gather(waited("/few"), waited("/mcp")) == [600, 1200]

    stage.loop.run(story())


# -- who comes in ---------------------------------------------------------------------------------------------------


def test_anonymous_beside_keyed(stage: Scene) -> None:
    async def story() -> None:
        root, call = stage.gateway.root, {"name": "run", "arguments": {}}
        for key in (None, KEY, "fgw_nobody"):
            reply = await exchange(f"{root}/open", modern("tools/call", call, key=key))
            assert reply.json()["result"]["content"][0]["text"] == "alpha run"
            number = reply.header("x-request-id")

            async def told(number: str | None = number) -> list[dict[str, Any]]:
                return [event for event in stage.gateway.events() if event["requestId"] == number]

            [event] = await until(told)
            assert (event["agentId"], event["credential"], event["endpoint"]) == ("anonymous", None, "/open")
        for path in KEYED:
            for key in (None, "fgw_nobody"):
                before = stage.reached()
                reply = await exchange(root + path, modern("tools/call", call, key=key))
                assert (reply.status, stage.reached()) == (401, before)
                assert (await exchange(root + path, initialize(key=key))).status == 401

    stage.loop.run(story())


def test_a_session_belongs_to_one_endpoint_and_agent(stage: Scene) -> None:
    async def story() -> None:
        sessions = {path: (await stage.who("legacy", path)).session for path in ENDPOINTS}
        for ours in ENDPOINTS:
            for path, session in sessions.items():
                for key in (KEY, OTHER) if ours in KEYED else ("",):
                    reply = await Agent(stage.gateway.root + ours, key, session).ask("ping")
                    known = ours == path and key != OTHER
                    assert reply.status == (200 if known else 404), (ours, path, key)

    stage.loop.run(story())


@pytest.mark.parametrize("era", ERAS)
def test_a_cursor_belongs_to_one_endpoint_agent_and_list(stage: Scene, era: str) -> None:
    async def story() -> None:
        ours = await stage.who(era, "/many")
        cursor = (await ours.page())["nextCursor"]
        for _ in range(3):  # either worker
            assert len((await ours.page(cursor))["tools"]) == MANY - 1000
        for stranger in (await stage.who(era, "/again"), await stage.who(era, "/many", OTHER)):
            assert len(await stranger.names()) == MANY
            assert error(await stranger.ask("tools/list", {"cursor": cursor})) == UNKNOWN
        assert error(await ours.ask("prompts/list", {"cursor": cursor})) == UNKNOWN
        for altered in (cursor[:-1] + ("A" if cursor[-1] != "A" else "B"), cursor[1:], "", "1000", "x" * 5000):
            assert error(await ours.ask("tools/list", {"cursor": altered})) == UNKNOWN, altered

    stage.loop.run(story())


def test_a_request_state_belongs_to_one_endpoint_and_agent(stage: Scene) -> None:
    meta = {f"{META}clientCapabilities": {"elicitation": {}}}

    async def asked(path: str, key: str | None, state: str | None = None) -> Reply:
        params: dict[str, Any] = {"name": "ask", "arguments": {}}
        if state is not None:
            params |= {"requestState": state, "inputResponses": {"who": {"action": "decline"}}}
        return await exchange(stage.gateway.root + path, modern("tools/call", params, key=key, meta=meta))

    async def story() -> None:
        places: list[tuple[str, str | None]] = [("/mcp", KEY), ("/mcp", OTHER), ("/mcp/plain", KEY), ("/open", None)]
        states = {}
        for path, key in places:
            found = (await asked(path, key)).json()["result"]
            assert (found["resultType"], "inner" in found["requestState"]) == ("input_required", False)
            states[path, key] = found["requestState"]
        for place in places:
            for owner, state in states.items():
                before = stage.reached()
                reply = await asked(*place, state)
                if owner == place:
                    assert reply.json()["result"]["content"][0]["text"] == "inner"
                else:
                    assert (error(reply), stage.reached()) == (UNKNOWN, before)

    stage.loop.run(story())


# -- browsers -------------------------------------------------------------------------------------------------------


def preflight(origin: str) -> Asked:
    fields = [("Origin", origin), ("Access-Control-Request-Method", "POST"),
              ("Access-Control-Request-Headers", "authorization,mcp-session-id,mcp-param-x,x-evil")]  # fmt: skip
    return Asked(b"", fields, "OPTIONS")


def test_pages_may_call_the_endpoints_that_name_them(stage: Scene) -> None:
    async def story() -> None:
        root = stage.gateway.root
        local = root.replace("127.0.0.1", "localhost")
        before = stage.reached()
        for path in TOOLS:
            admitted = {"/few": {APP}, "/open": set()}.get(path, {local, root})
            key = KEY if path in KEYED else None
            for origin in (APP, APP.upper(), APP + ":444", APP + ".evil", EVIL, local, root, "null", ""):
                is_admitted = origin.lower() in admitted
                first = await exchange(root + path, preflight(origin))
                then = await exchange(root + path, modern("tools/list", key=key).having("Origin", origin))
                rest = await exchange(f"{root}{path}/tools", Asked(b"", bearer(key), "GET").having("Origin", origin))
                for reply, status in ((first, 204), (then, 200), (rest, 200)):
                    assert reply.status == (status if is_admitted else 403), (path, origin)
                    shown = reply.header("access-control-allow-origin")
                    assert shown == (origin if is_admitted else None)
                    assert (reply.header("vary") == "Origin") is is_admitted
                if is_admitted:
                    allowed = str(first.header("access-control-allow-headers")).split(", ")
                    assert {"authorization", "mcp-session-id", "mcp-param-x"} <= set(allowed)
                    assert "x-evil" not in allowed
                    stranger = await exchange(root + path, modern("tools/list").having("Origin", origin))
                    assert (stranger.status, stranger.header("access-control-allow-origin")) == (401, origin)
            assert (await exchange(root + path, modern("tools/list", key=key))).status == 200, "no browser"
        assert stage.reached() == before

    stage.loop.run(story())


def bearer(key: str | None) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {key}")] if key else []


# -- REST beside each -----------------------------------------------------------------------------------------------


def test_rest_stands_beside_each(stage: Scene) -> None:
    async def story() -> None:
        root = stage.gateway.root
        for path, tools in TOOLS.items():
            fields = bearer(KEY if path in KEYED else None)
            listed = (await exchange(f"{root}{path}/tools", Asked(b"", fields, "GET"))).json()["tools"]
            assert {tool["name"] for tool in listed} == set(tools)
            document = (await exchange(f"{root}{path}/openapi.json", Asked(b"", fields, "GET"))).json()
            assert document["servers"] == [{"url": path}]
            assert document["security"] == ([{"bearer": []}] if path in KEYED else [])
            assert document["info"].get("description") == ENDPOINTS[path].get("instructions")
            for name in sorted(set().union(*TOOLS.values()) - {"slow", "ask"}):
                before = stage.reached()
                asked = Asked(b"{}", [*fields, ("Content-Type", "application/json")])
                reply = await exchange(f"{root}{path}/tools/{name}/invoke", asked)
                if name in tools:
                    assert reply.json()["content"][0]["text"] == " ".join(tools[name])
                else:
                    assert (reply.status, reply.json()["code"], stage.reached()) == (404, UNKNOWN, before)
            if path in KEYED:
                for below in ("tools", "openapi.json"):
                    assert (await exchange(f"{root}{path}/{below}", Asked(b"", [], "GET"))).status == 401

    stage.loop.run(story())


# -- reload ---------------------------------------------------------------------------------------------------------


def test_a_reload_adds_and_removes_endpoints_and_drops_no_call(tmp_path: Path) -> None:
    release, entered, over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def held(call: Call) -> None:
        entered.set()
        await release.wait()
        await call.text("held")

    async def keep_calling(who: Agent) -> int:
        done = 0
        while not over.is_set():
            assert (await who.call("run")).json()["result"]["content"][0]["text"] == "alpha run"
            done += 1
        return done

    async def reload(gateway: Gateway, more: dict[str, Any]) -> None:
        line = 'fastgw_reloads_total{outcome="applied"}'
        before = await asyncio.to_thread(gateway.metric, line)

        async def heeded() -> bool:
            return await asyncio.to_thread(gateway.metric, line) > before

        gateway.configure(more)
        gateway.process.send_signal(signal.SIGHUP)
        await until(heeded)

    async def status(gateway: Gateway, path: str) -> set[int]:
        asked = modern("tools/list", key=KEY)
        return {(await exchange(gateway.root + path, asked)).status for _ in range(6)}

    async def story() -> None:
        found = boxes()
        found[A].tools["slow"] = held
        first = {"/mcp": ENDPOINTS["/mcp"], "/few": {**ENDPOINTS["/few"], "timeout": "30s"}}
        async with served(tmp_path, found, first) as (gateway, urls):
            staying = [await agent(era, gateway.url) for era in ERAS]
            leaving = await agent("legacy", gateway.root + "/few")
            load = [asyncio.create_task(keep_calling(who)) for who in staying]
            call = modern("tools/call", {"name": "slow", "arguments": {}}, key=KEY)
            async with streaming_later(gateway.root + "/few", call) as waiting:
                await entered.wait()
                assert await status(gateway, "/full") == {404}
                await reload(gateway, settings(urls, {"/mcp": ENDPOINTS["/mcp"], "/full": ENDPOINTS["/full"]}))

                async def is_everywhere() -> bool:  # each worker takes the new endpoint by itself
                    return await status(gateway, "/full") == {200} == await status(gateway, "/full")

                await until(is_everywhere)
                await until(lambda: lists(gateway, "/full", set(TOOLS["/full"]), set(RESOURCES["/full"])))
                assert await status(gateway, "/few") == {404}
                for reply in [await leaving.call("run") for _ in range(4)]:
                    assert reply.status == 404
                assert (await exchange(gateway.root + "/few/tools", Asked(b"", bearer(KEY), "GET"))).status == 404
                release.set()
                assert (await waiting).json()["result"]["content"][0]["text"] == "held"
            await reload(gateway, settings(urls, first))
            await until(lambda: lists(gateway, "/few", set(TOOLS["/few"]), set(RESOURCES["/few"])))
            assert await status(gateway, "/full") == {404}
            assert (await leaving.call("run")).status == 200, "its session was not ended, it opens again"
            over.set()
            assert min(await asyncio.gather(*load)) > 5
            assert gateway.metric("fastgw_worker_restarts_total") == 0

    asyncio.run(story())


@asynccontextmanager
async def streaming_later(url: str, asked: Asked) -> AsyncIterator[asyncio.Task[Reply]]:
    """A request in flight, as the task of its answer."""

    async def whole() -> Reply:
        async with streaming(url, asked) as stream:
            return await stream.rest()

    task = asyncio.create_task(whole())
    try:
        yield task
    finally:
        task.cancel()


# -- open to all ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "[::]:8080", "192.0.2.7:8080"])
@pytest.mark.parametrize("verb", ["check", "run"])
def test_anonymous_beyond_loopback_is_refused(tmp_path: Path, verb: str, listen: str) -> None:
    file = tmp_path / "fastgw.yaml"
    endpoints = "endpoints:\n  /mcp: {}\n  /open: {auth: none}\n"
    file.write_text(f"listen: '{listen}'\npublic_url: https://fastgw.example\nservers: {{}}\n{endpoints}")
    order = [sys.executable, "-m", "fastgw", verb, "--config", str(file)]
    found = subprocess.run(order, env=os.environ, capture_output=True, text=True, timeout=30, check=False)
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr.startswith(f"{file}:6:17: "), found.stderr
    assert "loopback" in found.stderr
