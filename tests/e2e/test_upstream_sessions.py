"""Sessions at a legacy server: one per identity, whichever worker serves the call; opened once, ended when idle."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway import KEY, Gateway, fingerprint, running_beside, until
from tests.e2e.http import PATIENCE, Asked, Reply, exchange, legacy, modern, open_session
from tests.e2e.pairs import whole
from tests.e2e.servers import Call, Toolbox, failure, serving

AGENTS = 20
CALLS = 50
AFTER = 100


@dataclass
class Ledger:
    """A legacy server that writes down who called in which session. `hold` keeps answers back."""

    calls: list[tuple[str, str]] = field(default_factory=list)
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    held: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    def __post_init__(self) -> None:
        self.box = Toolbox("legacy", {"note": self.note, "wait": self.wait})

    async def note(self, call: Call) -> None:
        self.calls.append((str(call.session), call.arguments["who"]))
        await call.text(call.arguments["who"])

    async def wait(self, call: Call) -> None:
        self.held.put_nowait(str(call.session))
        await self.hold.wait()
        await self.note(call)

    def sessions(self) -> dict[str, set[str]]:
        """Who called in each session."""
        found = defaultdict(set)
        for session, who in self.calls:
            found[session].add(who)
        return dict(found)

    def idle(self) -> set[str]:
        """Sessions that were opened and never used: neither for a call nor for the gateway's own lists."""
        used = {got.header("mcp-session-id") for got in self.box.got if got.body and got.json()["method"] in USES}
        return set(self.box.opened) - used


USES = ("tools/call", "tools/list")


@dataclass
class Agent:
    """One agent: a modern one, or a legacy one with its session. Every request has a connection of its own."""

    gateway: Gateway
    name: str
    key: str
    session: str | None = None

    def asked(self, tool: str = "note", ident: int = 1) -> Asked:
        params = {"name": tool, "arguments": {"who": self.name}}
        if self.session is None:
            return modern("tools/call", params, key=self.key, id=ident)
        return legacy("tools/call", params, key=self.key, id=ident, session=self.session)

    async def call(self, tool: str = "note", ident: int = 1) -> Reply:
        return await exchange(self.gateway.url, self.asked(tool, ident))

    async def good(self, ident: int = 1) -> None:
        """Call, and see that the answer is one's own."""
        answer = (await self.call(ident=ident)).json()
        assert answer["id"] == ident
        assert answer["result"]["content"][0]["text"] == self.name, answer


def key_of(name: str) -> str:
    return f"fgw_test_{name}"


@asynccontextmanager
async def standing(folder: Path, ledger: Ledger, **settings: Any) -> AsyncIterator[Gateway]:
    """The server and the gateway before it, with the keys of twenty agents. `settings` are the server's."""
    agents = {f"agent-{n}": {"key": fingerprint(key_of(f"agent-{n}"))} for n in range(AGENTS)}
    async with serving(ledger.box) as server:
        around = {"servers": {"old": {"url": server.url, **settings}}, "agents": agents}
        async with running_beside(around, folder) as gateway:
            await whole(gateway, 2, key_of("agent-0"))
            yield gateway


async def agents_of(era: str, gateway: Gateway) -> list[Agent]:
    """Twenty modern agents with a key each, or ten with two legacy sessions each."""
    if era == "modern":
        return [Agent(gateway, f"agent-{n}", key_of(f"agent-{n}")) for n in range(AGENTS)]
    keys = [key_of(f"agent-{n // 2}") for n in range(AGENTS)]
    return [Agent(gateway, f"session-{n}", key, await open_session(gateway.url, key=key)) for n, key in enumerate(keys)]


async def work(agent: Agent) -> None:
    for number in range(CALLS):
        await agent.good(number)


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_every_identity_has_one_session_and_nobody_elses(tmp_path: Path, era: str) -> None:
    ledger = Ledger()

    async def story() -> None:
        async with standing(tmp_path, ledger) as gateway:
            agents = await agents_of(era, gateway)
            await asyncio.gather(*map(work, agents))
            before = ledger.sessions()
            assert len(ledger.calls) == AGENTS * CALLS
            assert len(before) == AGENTS
            assert sorted(map(sorted, before.values())) == sorted([agent.name] for agent in agents)

            ledger.box.forget()
            ledger.calls.clear()
            await asyncio.gather(*[agents[n % AGENTS].good(n) for n in range(AFTER)])
            after = ledger.sessions()
            assert len(ledger.calls) == AFTER
            assert len(after) == AGENTS
            assert all(len(who) == 1 for who in after.values())
            assert not set(after) & set(before)
            assert ledger.idle() == set(), "opened, and then nobody's"

    asyncio.run(story())


def test_shared_sessions_are_one(tmp_path: Path) -> None:
    ledger = Ledger()

    async def story() -> None:
        async with standing(tmp_path, ledger, shared_session=True) as gateway:
            agents = [*await agents_of("modern", gateway), *await agents_of("legacy", gateway)]
            await asyncio.gather(*[agent.good() for agent in agents])
            assert list(map(len, ledger.sessions().values())) == [2 * AGENTS]
            ledger.box.forget()
            ledger.calls.clear()
            await asyncio.gather(*[agent.good() for agent in agents])
            assert list(map(len, ledger.sessions().values())) == [2 * AGENTS]
            assert ledger.idle() == set()

    asyncio.run(story())


@dataclass
class OneSession(Toolbox):
    """A server that takes one session in its life; DELETE ends it."""

    def _answer(self, message: dict[str, Any], is_modern: bool) -> bytes:
        if message["method"] == "initialize" and self.opened:
            return failure(message["id"], -32600, "Invalid Request: Server already initialized", "400 Bad Request")
        return super()._answer(message, is_modern)


def test_the_one_session_of_a_server_outlives_the_gateway(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.box = OneSession("legacy", ledger.box.tools)

    async def story() -> None:
        async with serving(ledger.box) as server:
            servers = {"one": {"url": server.url, "shared_session": True, "session_idle": "1s", "refresh": "1s"}}
            for _ in range(2):
                async with running_beside({"servers": servers}, tmp_path) as gateway:
                    await whole(gateway, 2)
                    await Agent(gateway, "modern", KEY).good()
                    await Agent(gateway, "legacy", KEY, await open_session(gateway.url, key=KEY)).good()
        assert (len(ledger.box.opened), ledger.box.ended) == (1, [])
        assert list(ledger.sessions()) == ledger.box.opened

    asyncio.run(story())


def test_who_needs_a_shared_session_is_told_so(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.box = OneSession("legacy", ledger.box.tools)

    async def story() -> None:
        async with (
            serving(ledger.box) as server,
            running_beside({"servers": {"one": {"url": server.url, "refresh": "1s"}}}, tmp_path) as gateway,
        ):
            await whole(gateway, 2)
            refused = (await Agent(gateway, "modern", KEY).call()).json()["error"]
            assert (refused["code"], refused["data"]["mayHaveRun"]) == (-31001, False)

            async def noted() -> bool:
                said = json.loads((await asyncio.to_thread(gateway.ask_admin, "/backends"))[1])
                return any("shared_session: true" in note for note in said["one"]["notes"])

            await until(noted)

    asyncio.run(story())


def test_idle_sessions_are_ended_and_busy_ones_are_not(tmp_path: Path) -> None:
    ledger = Ledger()

    async def story() -> None:
        async with standing(tmp_path, ledger, session_idle="3s") as gateway:
            idle, busy, *_ = await agents_of("modern", gateway)
            answer = asyncio.ensure_future(busy.call("wait"))
            in_use = await asyncio.wait_for(ledger.held.get(), PATIENCE)
            # Begun later and ended sooner: the busy one has lasted for longer than an idle one may.
            await idle.good()
            used = ledger.calls[-1][0]
            await until(lambda: ended(ledger, 1))
            assert ledger.box.ended == [used]
            ledger.hold.set()
            assert (await answer).json()["result"]["content"][0]["text"] == busy.name
            await until(lambda: ended(ledger, 2))
            assert ledger.box.ended == [used, in_use]
            await idle.good()
            assert ledger.calls[-1][0] not in (used, in_use)

    asyncio.run(story())


def test_what_was_opened_for_an_agents_session_ends_with_it(tmp_path: Path) -> None:
    ledger = Ledger()

    async def story() -> None:
        async with standing(tmp_path, ledger) as gateway:
            agents = await agents_of("legacy", gateway)
            for agent in agents[:4]:
                await agent.good()
            leaving = agents[1]
            asked = legacy("ping", key=leaving.key, session=leaving.session).without("content-type")
            assert (await exchange(gateway.url, Asked(b"", asked.headers, "DELETE"))).status == 200
            await until(lambda: ended(ledger, 1))
            assert ledger.box.ended == [ledger.calls[1][0]]
            for agent in (agents[0], agents[2], agents[3]):
                await agent.good()
            assert len(ledger.sessions()) == 4

    asyncio.run(story())


async def ended(ledger: Ledger, number: int) -> bool:
    return len(ledger.box.ended) >= number


def test_at_most_so_many_sessions(tmp_path: Path) -> None:
    ledger = Ledger()

    async def story() -> None:
        async with standing(tmp_path, ledger, max_sessions=3) as gateway:
            agents = await agents_of("modern", gateway)
            for agent in agents[:3]:
                await agent.good()
            oldest = ledger.calls[0][0]
            refused = await agents[3].call()
            error = refused.json()["error"]
            assert (refused.status, error["code"]) == (503, -31001)
            assert error["data"]["reason"] == "busy"
            assert error["data"]["mayHaveRun"] is False
            assert int(refused.header("retry-after") or 0) >= 1
            assert len(ledger.sessions()) == 3

            async def has_place() -> bool:
                for agent in agents[1:3]:
                    await agent.good()
                return await succeeds(agents[3])

            # The one that was used longest ago makes room, when it has not been used for a while.
            await until(has_place, within=15)
            assert len(ledger.sessions()) == 4
            assert ledger.box.ended == [oldest]
            await agents[2].good()
            assert len(ledger.sessions()) == 4

    asyncio.run(story())


async def succeeds(agent: Agent) -> bool:
    return "result" in json.loads((await agent.call()).body)


def test_a_legacy_agents_sessions_end_with_the_gateway(tmp_path: Path) -> None:
    ledger = Ledger()

    async def story() -> None:
        async with standing(tmp_path, ledger) as gateway:
            await asyncio.gather(*[agent.good() for agent in await agents_of("legacy", gateway)])
        used = set(ledger.sessions())
        assert len(used) == AGENTS
        assert used <= set(ledger.box.ended)

    asyncio.run(story())
