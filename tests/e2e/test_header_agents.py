"""Agents that a proxy names, through a whole gateway: 127.0.0.1 is the proxy, 127.0.0.2 is anybody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fastgw.cli.main import main
from tests.e2e.aside import aside
from tests.e2e.asking import listed
from tests.e2e.gateway import KEY, Gateway, fingerprint, running_beside, until
from tests.e2e.http import Asked, Reply, exchange, initialize, legacy, modern
from tests.e2e.servers import Call, Toolbox, serving

HEADER = "X-Client-Cert-Subject"
BOT, OTHER = "CN=bot,O=Acme", "CN=other,O=Acme"
SETTINGS: dict[str, Any] = {
    "agents": {"tester": {"key": fingerprint(KEY), "claims": {"team": "test"}}},
    "identity": {"machines": {"header": {"name": HEADER, "from": "127.0.0.1"}, "set": {"team": "machines"}}},
    "policies": [
        {"name": "testers", "match": {"claims": {"team": "test"}}, "allow": ["*"]},
        {"name": "machines", "match": {"claims": {"team": "machines"}}, "allow": ["echo"]},
        {"name": "other", "match": {"agent": f"machines:{OTHER.replace('O=Acme', '*')}"}, "allow": ["deploy"]},
        {"name": "trial", "match": {"claims": {"team": "machines"}}, "deny": ["echo"], "mode": "shadow"},
    ],
    "limits": [
        {"name": "slow", "match": {"agent": "machines:*"}, "tools": ["deploy"], "by": "agent", "rate": "1/hour"}
    ],
    "failed_credentials": "2/hour",
}


async def echo(call: Call) -> None:
    await call.text("here")


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Gateway]:
    async with serving(Toolbox("both", {"echo": echo, "deploy": echo})) as server:
        more = {**SETTINGS, "servers": {"shop": {"url": server.url}}}
        async with running_beside(more, folder) as gateway:
            await listed(gateway, "echo", "deploy")
            yield gateway


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with aside() as loop:
        yield loop, loop.enter(scene(tmp_path_factory.mktemp("proxy")))


def ask(world: Any, asked: Asked, *, as_: str = "", peer: str = "127.0.0.1", forwarded: str = "") -> Reply:
    """The answer to a request that a proxy sends for this agent, or somebody at another address."""
    loop, gateway = world
    for name, value in ((HEADER, as_), ("X-Forwarded-For", forwarded)):
        asked = asked.having(name, value) if value else asked
    found = loop.run(exchange(gateway.url, asked, local_addr=(peer, 0)))
    assert isinstance(found, Reply)
    return found


def call(tool: str, key: str | None = None) -> Asked:
    return modern("tools/call", {"name": tool, "arguments": {}}, key=key)


def tools(reply: Reply) -> list[str]:
    assert reply.status == 200, reply
    return [one["name"] for one in reply.json()["result"]["tools"]]


def event(world: Any, agent: str, outcome: str) -> dict[str, Any]:
    loop, gateway = world

    async def written() -> list[dict[str, Any]]:
        return [one for one in gateway.events() if (one["agentId"], one["outcome"]) == (agent, outcome)]

    found: dict[str, Any] = loop.run(until(written))[-1]
    return found


def test_a_modern_agent_is_let_in_by_the_word_of_its_proxy(world: Any) -> None:
    for _ in range(4):  # both workers
        assert tools(ask(world, modern("tools/list"), as_=BOT)) == ["echo"]
        assert ask(world, call("echo"), as_=BOT).json()["result"]["content"][0]["text"] == "here"
    assert ask(world, call("deploy"), as_=BOT).json()["error"]["code"] == -32602
    found = event(world, f"machines:{BOT}", "ok")
    assert (found["credential"], found["team"], found["tool"]) == ("machines", "machines", "echo")


def test_a_session_is_bound_to_whom_it_was_opened_for(world: Any) -> None:
    opened = ask(world, initialize(), as_=BOT)
    session = opened.header("mcp-session-id")
    assert (opened.status, bool(session)) == (200, True)
    asked = legacy("tools/list", session=session)
    assert tools(ask(world, asked, as_=BOT)) == ["echo"]
    assert ask(world, asked, as_=OTHER).status == 404
    assert ask(world, asked).status == 401
    assert ask(world, asked, as_=BOT, peer="127.0.0.2").status == 401


def test_policies_and_limits_know_each_by_name(world: Any) -> None:
    for agent, status in ((OTHER, 200), (OTHER, 429)):
        assert sorted(tools(ask(world, modern("tools/list"), as_=agent))) == ["deploy", "echo"]
        reply = ask(world, call("deploy"), as_=agent)
        assert (reply.status == 200) is (status == 200), reply
    assert event(world, f"machines:{OTHER}", "rate_limited")["refusedBy"] == "slow"


def test_nobody_else_s_word_counts(world: Any) -> None:
    loop, gateway = world
    for peer, as_ in (("127.0.0.2", BOT), ("127.0.0.1", "")):
        reply = ask(world, call("echo"), as_=as_, peer=peer)
        assert (reply.status, reply.header("www-authenticate")) == (401, "Bearer")
    # With a key of its own it is who that says, whatever stands beside it.
    for peer in ("127.0.0.1", "127.0.0.2"):
        assert tools(ask(world, modern("tools/list", key=KEY), as_=BOT, peer=peer)) == ["echo", "deploy"]
    line = 'fastgw_untrusted_headers_total{identity="machines"}'

    async def counted() -> bool:
        return await asyncio.to_thread(gateway.metric, line) >= 1

    loop.run(until(counted))


def test_wrong_credentials_count_for_who_is_behind_the_proxy(world: Any) -> None:
    wrong = call("echo", "fgw_wrong")

    def heard(forwarded: str, peer: str = "127.0.0.1") -> int:
        return ask(world, wrong, forwarded=forwarded, peer=peer).status

    assert [heard("198.51.100.1") for _ in range(3)] == [401, 401, 429]
    assert heard("7.7.7.7, 198.51.100.1") == 429  # written by the stranger itself
    assert heard("198.51.100.2") == 401
    # By way of no proxy nothing of it is believed.
    assert [heard(f"192.0.2.{number}", "127.0.0.2") for number in range(3)] == [401, 401, 429]


def test_shadow_policies_are_counted_for_them(world: Any) -> None:
    loop, gateway = world
    ask(world, call("echo"), as_=BOT)

    async def counted() -> bool:
        text = (await asyncio.to_thread(gateway.ask_admin, "/metrics"))[1].decode()
        return 'fastgw_policy_shadow_calls_total{policy="trial"' in text

    loop.run(until(counted))


@pytest.mark.parametrize(("agent", "status"), [(f"machines:{BOT}", 1), (f"machines:{OTHER}", 0), ("nobody:x", 2)])
def test_explain_knows_them(
    world: Any, agent: str, status: int, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    _, gateway = world
    monkeypatch.setenv("FASTGW_SECRET", "a secret for tests, 32 bytes long")
    file = str(gateway.folder / "fastgw.yaml")
    assert main(["explain", "--config", file, "--agent", agent, "--tool", "deploy", "--json"]) == status
    said = capsys.readouterr().out
    assert not said or (json.loads(said)["agent"], json.loads(said)["claims"]) == (agent, {"team": "machines"})
