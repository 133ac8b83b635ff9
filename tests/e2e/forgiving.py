"""A gateway before a whole table of servers (see `manners`), and one agent of each era that asks them all.

    async with forgiving(folder, {"gzip": Coded("gzip")}, {"gzip": {"refresh": "1s"}}) as world:
        await world.listed("gzip__count")
        heard = await world.ask("modern", "gzip")

A table is walked once, in `told`; each of its rows is a test that looks at what was written down then.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from tests.e2e.asking import ERAS, Agent, agent
from tests.e2e.gateway import Gateway, running_beside, until
from tests.e2e.http import Reply, exchange, modern
from tests.e2e.manners import Polite, street

T = TypeVar("T")
AT_ONCE = 24
LOOK_EVERY = 0.15
WITHIN = 12.0
"""Seconds until what must be listed is listed: only a test that fails waits so long."""
_numbers = count(1)


@dataclass(frozen=True)
class Heard:
    """What an agent heard: the text of a result, or an error. `who` is the word it asked with."""

    who: str
    reply: Reply
    text: str | None = None
    error: dict[str, Any] = field(default_factory=dict)

    @property
    def may_have_run(self) -> Any:
        """What the gateway's own error says; None where it says nothing of it."""
        return (self.error.get("data") or {}).get("mayHaveRun")


def heard(who: str, reply: Reply) -> Heard:
    """An answer taken apart."""
    said = reply.json()
    if "error" in said:
        return Heard(who, reply, None, said["error"])
    result = said["result"]
    if "messages" in result:
        return Heard(who, reply, result["messages"][0]["content"]["text"])
    return Heard(who, reply, (result.get("contents") or result["content"])[0]["text"])


@dataclass
class World:
    """The gateway, the servers by name, an agent of each era, and what the newest list names."""

    gateway: Gateway
    servers: Mapping[str, Polite]
    agents: dict[str, Agent]
    tools: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def ask(self, era: str, server: str, tool: str = "count") -> Heard:
        """Call a tool."""
        who = f"{era}-{next(_numbers)}"
        return heard(who, await self.agents[era].call(f"{server}__{tool}", {"who": who}))

    async def get(self, era: str, server: str) -> Heard:
        """Get the prompt `greet`."""
        who = f"{era}-{next(_numbers)}"
        return heard(who, await self.agents[era].get(f"{server}__greet", {"who": who}))

    async def read(self, era: str, server: str) -> Heard:
        """Read a resource of the template `note://all/{who}`."""
        who = f"{era}-{next(_numbers)}"
        return heard(who, await self.agents[era].read(f"{server}+note://all/{who}"))

    async def listed(self, tool: str, within: float = WITHIN) -> None:
        """Return when the list names this tool: every worker takes its calls then."""

        async def there() -> bool:
            return tool in self.tools

        await until(there, within)

    async def backends(self) -> dict[str, Any]:
        """The page of the admin port."""
        status, body = await asyncio.to_thread(self.gateway.ask_admin, "/backends")
        assert status == 200
        found: dict[str, Any] = json.loads(body)
        return found

    async def backend(self, server: str) -> dict[str, Any]:
        """What the page says of one server."""
        found: dict[str, Any] = (await self.backends())[server]
        return found

    async def look(self) -> None:
        """Keep `tools` new until cancelled."""
        while True:
            found = {tool["name"]: tool for tool in await self.agents["modern"].tools()}
            self.tools = found
            await asyncio.sleep(LOOK_EVERY)


def notes(backend: Mapping[str, Any]) -> list[str]:
    """What is noted of a server, be it of the server or of its instances."""
    return [*backend.get("notes", []), *(note for one in backend["instances"] for note in one.get("notes", []))]


def errors(backend: Mapping[str, Any]) -> str:
    """The errors of a server's instances."""
    return " ".join(one["error"] for one in backend["instances"])


@asynccontextmanager
async def forgiving(
    folder: Path,
    servers: Mapping[str, Polite],
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    **more: Any,
) -> AsyncIterator[World]:
    """The servers on one socket, and the gateway before them. `settings` are the servers', `more` the gateway's."""
    async with street(servers) as urls:
        entries = {name: {"url": url, **(settings or {}).get(name, {})} for name, url in urls.items()}
        around = {"servers": entries, "endpoints": {"/mcp": {"naming": "always"}}, **more}
        async with running_beside(around, folder) as gateway:
            agents = {era: await agent(era, gateway.url) for era in ERAS}
            world = World(gateway, servers, agents)
            looking = asyncio.create_task(world.look())
            pids = gateway.children()
            try:
                yield world
            finally:
                looking.cancel()
            assert gateway.children() == pids, gateway.log()
            assert "Traceback" not in gateway.log(), gateway.log()


Outcome = dict[str, Any]
"""What was seen, by a word; `failed` says why a story ended early."""


async def told(
    names: Iterable[str], story: Callable[[str, Outcome], Awaitable[None]], at_once: int = AT_ONCE
) -> dict[str, Outcome]:
    """The story of each name, some at a time; what one writes down outlives its failure."""
    gate = asyncio.Semaphore(at_once)

    async def one(name: str) -> Outcome:
        seen: Outcome = {}
        async with gate:
            try:
                await story(name, seen)
            except Exception as wrong:
                seen["failed"] = f"{type(wrong).__name__}: {wrong}"
        return seen

    each = list(names)
    return dict(zip(each, await asyncio.gather(*map(one, each)), strict=True))


def of(seen: Outcome, word: str) -> Any:
    """What was written down under this word; where the story ended before, why."""
    assert word in seen, seen.get("failed", f"nothing was written down as {word!r}")
    return seen[word]


async def alive(world: World) -> bool:
    """Whether the gateway answers."""
    return (await exchange(world.gateway.url, modern("server/discover", key=world.agents["modern"].key))).status == 200
