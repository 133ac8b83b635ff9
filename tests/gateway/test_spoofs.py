"""Ten thousand requests that try to have done what their agent may not: no server hears of one, and each is answered as
if what it is about were not there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import pytest

from fastgw.gateway.pipeline import serve
from tests.e2e.gateway import fingerprint
from tests.e2e.http import LEGACY, Asked, initialize, modern
from tests.gateway.asking import load
from tests.gateway.fakes import FakeAgent, Stage, staged
from tests.gateway.spoofs import CLOSED, KEY, OFFERED, OLDEST, OPEN, RULES, answer_of, spoofs
from tests.snapshot.compiling import compiled
from tests.upstream.fakes import Sent, result

GENERATED = 10_000
SEED = 2026
AGENTS = {
    "tester": {"key": fingerprint(KEY), "claims": {"team": "test"}},
    "staff": {"key": fingerprint("fgw_test_staff"), "claims": {"team": "staff"}},
}


def served(sent: Sent) -> Any:
    """A server that does whatever it is asked."""
    return result(sent, {"resultType": "complete", "content": [], "messages": [], "contents": []})


async def ask(stage: Stage, asked: Asked, path: str = "/mcp") -> FakeAgent:
    """A request as an HTTP server hands it on."""
    agent = FakeAgent(asked.body)
    usual = [("Host", "localhost"), ("Content-Length", str(len(asked.body)))]
    target, _, query = path.partition("?")
    scope = {
        "type": "http", "method": asked.verb, "path": unquote(target, errors="replace"), "raw_path": target.encode(),
        "query_string": query.encode(), "client": ("127.0.0.1", 1),
        "headers": [(name.lower().encode(), value.strip().encode("latin-1")) for name, value in usual + asked.headers],
    }  # fmt: skip
    await stage.tasks.spawn(serve(stage.gateway, stage.life, scope, agent.receive, agent.send), "a request")
    return agent


@asynccontextmanager
async def stage_of(monkeypatch: pytest.MonkeyPatch, **rules: Any) -> AsyncIterator[tuple[Stage, tuple[str, str]]]:
    """A worker before servers that keep a ledger, and the sessions of an agent."""
    async with staged(monkeypatch, served) as stage:
        snapshot = compiled(OFFERED, agents=AGENTS, alpha={"era": "modern"}, beta={"era": "modern"}, **rules)
        load(stage, replace(snapshot, seal_keys=(b"a secret",)))
        opened = [await ask(stage, initialize(key=KEY, version=version)) for version in (LEGACY, OLDEST)]
        sessions = [agent.headers[b"mcp-session-id"].decode() for agent in opened]
        yield stage, (sessions[0], sessions[1])


def told(agent: FakeAgent) -> Any:
    headers = [(name.decode(), value.decode("latin-1")) for name, value in agent.sent[0]["headers"]]
    return answer_of(agent.status, headers, agent.body)


def test_no_server_hears_of_one_of_ten_thousand_spoofs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with stage_of(monkeypatch, **RULES) as (stage, sessions):
            for spoof in spoofs(GENERATED, SEED, sessions):
                first = await ask(stage, spoof.asked, spoof.path)
                second = await ask(stage, spoof.twin, spoof.twin_path)
                assert not stage.wire.sent, (spoof, stage.wire.sent)
                assert told(first) == told(second), spoof
                assert b'"result"' not in first.body, spoof
            for method, name in OPEN.items():  # and what it may do, it still can
                asked = modern(method, {"name": name, "uri": name}, key=KEY).having("Mcp-Name", name)
                assert (await ask(stage, asked)).status == 200
            assert len(stage.wire.sent) == len(OPEN)

    asyncio.run(story())


def test_without_rules_the_names_themselves_are_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the silence of the servers above says something."""

    async def story() -> None:
        async with stage_of(monkeypatch) as (stage, sessions):
            for spoof in spoofs(1000, SEED, sessions):
                await ask(stage, spoof.asked, spoof.path)
            asked_for = [one.json["params"] for one in stage.wire.sent]
        own = {name.removeprefix("alpha__") for names in CLOSED.values() for name in names}
        assert own <= {one.get("name") or one.get("uri") for one in asked_for}

    asyncio.run(story())
