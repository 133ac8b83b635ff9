"""Policies in shadow, of the whole gateway: two workers, every request on a fresh connection."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.e2e.gateway import KEY, Gateway, until
from tests.e2e.http import Reply, exchange, legacy, modern, open_session
from tests.e2e.test_limits import calling, limited, many

UNKNOWN, DENIED = -32602, -31040
PRODUCTION, STAGING = {"env": "production"}, {"env": "staging"}
IN_SHADOW: list[dict[str, Any]] = [
    {"name": "stop", "match": {"claims": {"team": "test"}}, "deny": ["heavy", "prompt:hello", "resource:a:*"]},
    {"name": "production", "match": {"arguments": {"env": "production"}}, "allow": "deploy", "deny": "echo"},
]
POLICIES = [
    {"name": "all", "allow": ["echo", "heavy", "prompt:*", "resource:*"]},
    {"name": "staging", "match": {"arguments": {"env": "staging"}}, "allow": "deploy"},
    *({**one, "mode": "shadow"} for one in IN_SHADOW),
]


def count(gateway: Gateway, policy: str, would: str) -> float:
    return gateway.metric(f'fastgw_policy_shadow_calls_total{{policy="{policy}",would="{would}"}}')


async def called(gateway: Gateway, name: str, arguments: dict[str, Any]) -> Reply:
    return await exchange(gateway.url, modern("tools/call", {"name": name, "arguments": arguments}, key=KEY))


def test_calls_go_on_and_what_would_become_of_them_is_counted_by_both_workers(tmp_path: Path) -> None:
    async def story() -> None:
        async with limited(tmp_path, policies=POLICIES) as (gateway, box):
            heavy = await many(gateway, lambda at: calling("heavy", id=at), 20)
            assert {reply.status for reply in heavy} == {200}
            for method, params in (("prompts/get", {"name": "hello"}), ("resources/read", {"uri": "a:b"})):
                reply = await exchange(gateway.url, modern(method, params, key=KEY))
                assert "result" in reply.json(), reply.json()
            assert (await called(gateway, "echo", PRODUCTION)).status == 200
            assert (await called(gateway, "echo", STAGING)).status == 200
            session = await open_session(gateway.url, key=KEY)
            older = legacy("tools/call", {"name": "heavy", "arguments": {}}, key=KEY, session=session)
            assert "result" in (await exchange(gateway.url, older)).json()
            sent = len(box.ledger)
            assert (await called(gateway, "deploy", PRODUCTION)).json()["error"]["code"] == DENIED
            assert (await called(gateway, "deploy", {"env": "x"})).json()["error"]["code"] == DENIED
            assert (await called(gateway, "nothing", PRODUCTION)).json()["error"]["code"] == UNKNOWN
            assert len(box.ledger) == sent

            async def counted() -> bool:
                return count(gateway, "stop", "refuse") == 23 and count(gateway, "production", "allow") == 1

            await until(counted)
            assert count(gateway, "production", "refuse") == 1
            assert gateway.logs(r"policy stop, in shadow, would refuse tools/call of 'heavy' by agent 'tester'")
            assert 1 <= gateway.log().count("policy stop, in shadow") <= 2, "once a minute by each worker"
            explained = json.loads(gateway.ask_admin("/explain?agent=tester&tool=heavy")[1])
            assert explained["shadow"] == {"policy": "stop", "would": "refuse"}
            assert explained["sent"]

    asyncio.run(story())


def test_where_all_policies_are_in_shadow_nothing_is_refused_or_hidden(tmp_path: Path) -> None:
    async def story() -> None:
        trial = [{"name": "trial", "allow": ["echo", "resource:x:*"], "mode": "shadow"}]
        async with limited(tmp_path, policies=trial) as (gateway, _):
            replies = await many(gateway, lambda at: calling(("echo", "heavy")[at % 2], id=at), 10)
            assert {reply.status for reply in replies} == {200}
            read = await exchange(gateway.url, modern("resources/read", {"uri": "a:b"}, key=KEY))
            assert "result" in read.json()

            async def counted() -> bool:
                return count(gateway, "(none allows)", "refuse") == 5 + 1

            await until(counted)
            assert count(gateway, "trial", "refuse") == 0

    asyncio.run(story())
