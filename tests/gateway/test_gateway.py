"""What one worker holds: whose session a call may use, and how fresh its lists are."""

from __future__ import annotations

import time

import pytest

from fastgw.upstream.sessions import agent_of, is_of
from tests.gateway.fakes import BUY, META, MODERN, MODERN_BUY, FakeAgent, Stage, bought, request, staged
from tests.upstream.fakes import FakeAnswer, Sent, run


def sells(sent: Sent) -> FakeAnswer:
    return FakeAnswer(body=bought(sent))


def test_an_identity_names_the_agent_and_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells, "legacy") as stage:
            await stage.ask(FakeAgent(MODERN_BUY), MODERN)
            for fields in (await stage.initialize(), await stage.initialize()):
                await stage.ask(FakeAgent(request("tools/call", BUY)), fields)
            modern, *sessions = [identity for _, identity, _ in stage.controller.opened]
            assert modern == "agent:anonymous"
            assert len(set(sessions)) == 2
            assert {agent_of(identity) for identity in (modern, *sessions)} == {"anonymous"}
            assert is_of(sessions[0], sessions[0].split(":")[2])
            assert not is_of(sessions[1], sessions[0].split(":")[2])

    run(story())


async def ttl_ms(stage: Stage, method: str) -> int:
    agent = FakeAgent(request(method, {"_meta": META}))
    await stage.ask(agent, {"mcp-protocol-version": MODERN["mcp-protocol-version"], "mcp-method": method})
    return int(agent.json()["result"]["ttlMs"])


@pytest.mark.parametrize("method", ["tools/list", "server/discover"])
def test_lists_stay_fresh_as_their_servers_do_without_another_snapshot(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            assert await ttl_ms(stage, method) == 0
            stage.gateway.freshened({"shop": time.monotonic() + 60, "another": 0.0})
            assert 50_000 < await ttl_ms(stage, method) <= 60_000
            stage.gateway.freshened({"another": time.monotonic() + 60})
            assert await ttl_ms(stage, method) == 0

    run(story())
