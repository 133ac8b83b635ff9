"""Public MCP servers behind the gateway: what agents of both eras see and get is what a direct connection has."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.e2e.asking import ERAS
from tests.e2e.gateway import KEY, Gateway, fingerprint, running, until
from tests.e2e.real_servers.asking import Asker, answer, lists, opened, speaks_modern
from tests.e2e.real_servers.launch import SERVERS, Running, launched

pytestmark = pytest.mark.real_servers

Question = tuple[str, dict[str, Any]]
View = dict[str, Any]
ONE = "typescript-sdk-1-one"  # refuses a second `initialize` for as long as it lives
OTHER = "fgw_test_other"
CALLS = 4  # on connections of their own: enough for both workers
NO_SERVER = -31001
DOWN = ["everything", "fastmcp-stateful-sse", "python-sdk-1", "supergateway-stateful", ONE]
TEXTS = {"hello.txt": "Hello,\nworld.\n", "new.txt": ""}
NEVER_CHANGE = {"everything", "mcp-proxy", "supergateway-stateless", "supergateway-stateful"}


def call(tool: str, **arguments: Any) -> Question:
    return "tools/call", {"name": tool, "arguments": arguments}


def get(prompt: str, **arguments: str) -> Question:
    return "prompts/get", {"name": prompt, "arguments": arguments}


def read(uri: str) -> Question:
    return "resources/read", {"uri": uri}


def complete(prompt: str, argument: str, value: str) -> Question:
    ref = {"type": "ref/prompt", "name": prompt}
    return "completion/complete", {"ref": ref, "argument": {"name": argument, "value": value}}


NOTES = [
    call("add", left=2, right=3),
    call("add", left=2),
    call("add", left="two"),
    call("fail", reason="on purpose"),
    get("greet", name="Ann"),
    read("notes://today"),
    read("notes://of/Ann"),
]
COUNTS = [call("count"), call("count")]
STEPS = [call("steps", number=3)]
EVERYTHING = [
    call("echo", message="caf\u00e9 \U0001f600"),
    call("get-sum", a=2, b=3),
    call("get-sum", a="two", b=3),
    call("get-structured-content", location="Chicago"),
    call("get-annotated-message", messageType="error", includeImage=True),
    call("get-tiny-image"),
    call("get-resource-links", count=4),
    call("trigger-long-running-operation", duration=0.2, steps=4),
    get("simple-prompt"),
    get("args-prompt", city="Oslo", state="none"),
    complete("completable-prompt", "department", "S"),
    read("demo://resource/static/document/features.md"),
]
FILES = [
    call("list_allowed_directories"),
    call("list_directory", path="."),
    call("read_text_file", path="hello.txt"),
    call("read_text_file", path="hello.txt", head=1),
    call("read_text_file", path="missing.txt"),
    call("read_text_file"),
    call("write_file", path="new.txt", content="a\nb\n"),
    call("read_multiple_files", paths=["hello.txt", "new.txt"]),
]


def questions(name: str) -> list[Question]:
    """What is asked of a server, in this order."""
    if name == "everything":
        return EVERYTHING
    if name.startswith(("mcp-proxy", "supergateway")):
        return FILES[:4] if name.endswith("stateless") else FILES  # which starts a process for each
    if name == ONE:
        return NOTES
    return NOTES + COUNTS + ([] if name.startswith("typescript") else STEPS)


async def view(asker: Asker, name: str) -> View:
    """Lists and answers as one agent has them."""
    found = await lists(asker)
    return {"lists": found, "answers": [await answer(asker, *question) for question in questions(name)]}


def offered(definitions: View) -> View:
    """What of a server's lists agents see: tools that run as tasks alone are left out."""
    tools = [one for one in definitions["tools"] if one.get("execution", {}).get("taskSupport") != "required"]
    return {**definitions, "tools": tools}


async def direct(server: Running) -> dict[str, View]:
    """The same without the gateway, for each era that the server speaks."""
    eras = ["legacy"] + (["modern"] if await speaks_modern(server.url) else [])
    return {era: await view(await opened(server.url, era), server.name) for era in eras}


@dataclass
class Scene:
    gateway: Gateway
    servers: dict[str, Running]
    views: dict[str, dict[str, View]]
    restarted: dict[str, float] = field(default_factory=dict)

    def restart(self, name: str) -> float:
        """Kill the server and start it again; the moment when it answered, in seconds since the epoch."""
        self.servers[name].restart()
        self.restarted[name] = time.time()
        return self.restarted[name]

    def url(self, name: str) -> str:
        """The endpoint that has this server alone."""
        return f"{self.gateway.root}/mcp/{name}"

    def expected(self, name: str, era: str) -> View:
        """What an agent of that era gets: of a server that does not speak it, what the server's own era has."""
        seen = self.views[name].get(era) or self.views[name]["legacy"]
        return {**seen, "lists": offered(seen["lists"])}

    def backend(self, name: str) -> dict[str, Any]:
        """What the admin port says of a server."""
        found: dict[str, Any] = json.loads(self.gateway.ask_admin("/backends")[1])[name]
        return found

    async def fetched_since(self, name: str, moment: float) -> None:
        """Return when the server's lists have been fetched after `moment`, in seconds since the epoch."""

        async def fetched() -> bool:
            return (self.backend(name)["fetched_at"] or 0) > moment

        await until(fetched, within=15)


async def everybodys(servers: dict[str, Running]) -> dict[str, dict[str, View]]:
    return dict(zip(servers, await asyncio.gather(*map(direct, servers.values())), strict=True))


def settings(servers: dict[str, Running]) -> dict[str, Any]:
    """Each server on an endpoint of its own, where it keeps its names."""
    about = {name: {"url": server.url, "refresh": "3s"} for name, server in servers.items()}
    about[ONE]["shared_session"] = True
    endpoints = {f"/mcp/{name}": {"servers": [name], "naming": "none"} for name in servers}
    agents = {f"agent-{key}": {"key": fingerprint(key)} for key in (KEY, OTHER)}
    return {"servers": about, "endpoints": endpoints, "agents": agents}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder, own = tmp_path_factory.mktemp("real"), tmp_path_factory.mktemp("gateway")
    with launched(list(SERVERS), folder) as servers:
        for server in servers.values():
            for name, text in TEXTS.items():
                (server.place.folder / name).write_text(text)
        views = asyncio.run(everybodys(servers))
        servers[ONE].starts = 0  # as if it were its first
        servers[ONE].restart()
        with running(settings(servers), own) as gateway:
            found = Scene(gateway, servers, views)
            for name in servers:
                asyncio.run(found.fetched_since(name, 0))
            yield found


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("name", SERVERS)
def test_lists_are_those_of_a_direct_connection(name: str, era: str, scene: Scene) -> None:
    async def story() -> None:
        wanted = scene.expected(name, era)["lists"]
        for _ in range(4):  # connections of their own: both workers
            assert await lists(await opened(scene.url(name), era, KEY)) == wanted

    asyncio.run(story())


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("name", SERVERS)
def test_results_are_those_of_a_direct_connection(name: str, era: str, scene: Scene) -> None:
    async def story() -> None:
        agent = await opened(scene.url(name), era, KEY)
        for question, wanted in zip(questions(name), scene.expected(name, era)["answers"], strict=True):
            assert await answer(agent, *question) == wanted, question

    asyncio.run(story())


@pytest.mark.parametrize("name", SERVERS)
def test_a_restarted_server_is_used_again(name: str, scene: Scene) -> None:
    """Killed and started again: at most the first call of each agent is refused, whichever worker it comes to."""

    async def answers(agent: Asker) -> list[dict[str, Any]]:
        return [await answer(agent, *questions(name)[0]) for _ in range(CALLS)]

    async def story() -> None:
        agents = [await opened(scene.url(name), era, OTHER) for era in ERAS]
        for agent in agents:
            assert all("result" in each for each in await answers(agent)), agent
        scene.restart(name)
        for agent in agents:
            found = await answers(agent)
            assert all("result" in each for each in found[1:]), (agent, found)

    asyncio.run(story())


@pytest.mark.parametrize("name", DOWN)
def test_a_server_that_was_down_is_used_again(name: str, scene: Scene) -> None:
    """Calls while it is away say that nothing ran; of those after its return at most each agent's first does."""
    question = questions(name)[0]

    async def story() -> None:
        agents = [await opened(scene.url(name), era, OTHER) for era in ERAS]
        for agent in agents:
            assert "result" in await answer(agent, *question)
        scene.servers[name].kill()
        for agent in agents:
            for _ in range(CALLS):
                error = (await agent.ask(*question)).json()["error"]
                assert (error["code"], error["data"]["mayHaveRun"]) == (NO_SERVER, False), error
        scene.restart(name)
        for agent in agents:
            found = [await answer(agent, *question) for _ in range(CALLS)]
            assert all("result" in each for each in found[1:]), (agent, found)

    asyncio.run(story())


@pytest.mark.parametrize("name", SERVERS)
def test_lists_are_fetched_anew_after_a_restart(name: str, scene: Scene) -> None:
    moment = scene.restarted.get(name) or scene.restart(name)
    more = set() if name in NEVER_CHANGE else {"again"}

    async def story() -> None:
        await scene.fetched_since(name, moment)
        for era in ERAS:
            agent, wanted = await opened(scene.url(name), era, OTHER), scene.expected(name, era)["lists"]

            async def anew(agent: Asker = agent, wanted: View = wanted) -> bool:
                found = await lists(agent)
                tools = {tool["name"] for tool in found["tools"]}
                return tools == more | {tool["name"] for tool in wanted["tools"]}

            await until(anew)
            assert {**await lists(agent), "tools": wanted["tools"]} == wanted

    asyncio.run(story())
