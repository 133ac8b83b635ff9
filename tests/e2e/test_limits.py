"""Rate limits of the whole gateway: two workers, every request on a fresh connection, both eras and plain HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway import KEY, Gateway, fingerprint, running_beside, until
from tests.e2e.http import Asked, Reply, exchange, legacy, modern, open_session
from tests.e2e.library import Library
from tests.e2e.servers import Call, serving
from tests.e2e.test_survival import agent

OTHER = "fgw_test_other"
SECOND = "fgw_test_everything_too"
BATCHING = "2025-03-26"
RATE_LIMITED, FULL = -31029, -31004
CONNECTIONS = 40
"""Of one agent at the same time."""


async def echo(call: Call) -> None:
    await call.text("here")


@asynccontextmanager
async def limited(
    folder: Path, *limits: dict[str, Any], box: dict[str, Any] | None = None, **more: Any
) -> AsyncIterator[tuple[Gateway, Library]]:
    """A gateway with these limits in front of a server with tools `echo` and `deploy`, a prompt and a resource."""
    library = Library(
        "both",
        box or {"echo": echo, "deploy": echo, "heavy": echo},
        prompts={"hello": b'{"messages":[]}'},
        resources={"a:b": b'[{"uri":"a:b","text":"x"}]'},
        values={"hello": b'{"values":["v"]}'},
    )
    async with serving(library) as server, running_beside(settings(server.url, limits, more), folder) as gateway:

        async def lists_tools() -> bool:
            reply = await exchange(gateway.url, modern("tools/list", {}, key=KEY))
            return bool(reply.json().get("result", {}).get("tools"))

        await until(lists_tools)  # on a busy machine the server may be late for the first look at it
        yield gateway, library


def settings(url: str, limits: tuple[dict[str, Any], ...], more: dict[str, Any]) -> dict[str, Any]:
    """The configuration; `more` are keys of the top level."""
    agents = {
        "tester": {"key": [fingerprint(KEY), fingerprint(SECOND)], "claims": {"team": "test"}},
        "other": {"key": fingerprint(OTHER), "claims": {"team": "test", "tier": "gold"}},
    }
    return {"servers": {"main": {"url": url}}, "agents": agents, "limits": list(limits), **more}


def calling(tool: str = "echo", key: str = KEY, id: int | str = 1) -> Asked:
    return modern("tools/call", {"name": tool, "arguments": {}}, key=key, id=id)


async def many(gateway: Gateway, asked: Callable[[int], Asked], count: int, path: str = "") -> list[Reply]:
    """So many requests, each on a connection of its own, some of them at the same time."""
    turn = asyncio.Semaphore(CONNECTIONS)

    async def one(number: int) -> Reply:
        async with turn:
            return await exchange(gateway.url + path, asked(number))

    return list(await asyncio.gather(*map(one, range(count))))


async def admitted(gateway: Gateway, count: int, key: str = KEY, tool: str = "echo") -> int:
    """How many of so many calls get through."""
    replies = await many(gateway, lambda _: calling(tool, key), count)
    assert {reply.status for reply in replies} <= {200, 429}
    return sum(reply.status == 200 for reply in replies)


async def events(gateway: Gateway, count: int) -> list[dict[str, Any]]:
    async def written() -> bool:
        return len(gateway.events()) >= count

    await until(written)
    return gateway.events()


def test_of_150_calls_60_get_through_and_90_hear_why(tmp_path: Path) -> None:
    async def story() -> None:
        async with limited(tmp_path, {"name": "per-agent", "by": ["agent"], "rate": "60/hour"}) as (gateway, box):
            replies = await many(gateway, lambda at: calling(id=f"call-{at}"), 150)
            assert Counter(reply.status for reply in replies) == {200: 60, 429: 90}
            assert len(box.ledger) == 60
            for at, reply in enumerate(replies):
                assert reply.json()["id"] == f"call-{at}"
                assert reply.header("ratelimit-policy") == '"per-agent";q=60;w=3600'
                if reply.status == 429:
                    refused(reply)
            left = [int(found[1]) for reply in replies if (found := re.search(r";r=(\d+);", told(reply)))]
            assert sorted(left) == [0] * 90 + list(range(60)), "each admitted call leaves one less"
            await in_the_events(gateway)

    asyncio.run(story())


def told(reply: Reply) -> str:
    return reply.header("ratelimit") or ""


def refused(reply: Reply) -> None:
    """A modern agent's refusal, as docs/errors.md says."""
    error = reply.json()["error"]
    assert error["code"] == RATE_LIMITED
    data = error["data"]
    assert data.pop("requestId") == reply.header("x-request-id")
    wait = data.pop("retryAfter")
    assert data == {"mayHaveRun": False, "limit": "per-agent", "by": ["agent"]}
    assert 55 <= wait <= 60  # one comes back each minute, the first a minute after the first call
    assert reply.header("retry-after") == str(wait)
    assert told(reply).startswith('"per-agent";r=0;t=')


async def in_the_events(gateway: Gateway) -> None:
    found = await events(gateway, 150)
    kinds = Counter((one["outcome"], one["statusCode"], one["errorCode"], one["refusedBy"]) for one in found)
    assert kinds == {("ok", 200, None, None): 60, ("rate_limited", 429, RATE_LIMITED, "per-agent"): 90}
    assert {one["attempts"] for one in found if one["outcome"] != "ok"} == {0}
    assert sorted(one["rateLimitRemaining"] for one in found if one["outcome"] == "ok") == list(range(60))
    assert {one["rateLimitRemaining"] for one in found if one["outcome"] != "ok"} == {None}


def test_with_one_worker_and_its_memory_too(tmp_path: Path) -> None:
    async def story() -> None:
        limit = {"name": "per-agent", "by": ["agent"], "rate": "60/hour"}
        async with limited(tmp_path, limit, workers=1) as (gateway, _):
            assert len(gateway.children()) == 3, "controller, usage process and worker: no store"
            assert await admitted(gateway, 150) == 60
            assert await admitted(gateway, 70, OTHER) == 60

    asyncio.run(story())


def test_a_legacy_agent_hears_it_inside_200_whatever_session_it_opens(tmp_path: Path) -> None:
    async def story() -> None:
        async with limited(tmp_path, {"name": "l", "by": ["agent"], "rate": "5/hour"}) as (gateway, _):
            seen = []
            for _ in range(4):
                session = await open_session(gateway.url, key=KEY)
                for key in (KEY, KEY, SECOND):  # another key of the same agent, and a forged address
                    params = {"name": "echo", "arguments": {}}
                    asked = legacy("tools/call", params, key=key, session=session).having("X-Forwarded-For", "9.9.9.9")
                    if key == KEY:
                        seen.append(await exchange(gateway.url, asked))
            assert {reply.status for reply in seen} == {200}
            codes = [reply.json().get("error", {}).get("code") for reply in seen]
            assert codes == [None] * 5 + [RATE_LIMITED] * 3
            last = seen[-1]
            assert (last.header("retry-after"), told(last)[:8]) == (None, '"l";r=0;')
            assert last.json()["error"]["data"]["retryAfter"] > 600
            assert (await exchange(gateway.url, calling(key=SECOND))).status == 429
            assert (await exchange(gateway.url, calling(key=OTHER))).status == 200

    asyncio.run(story())


@pytest.mark.legacy_client
def test_a_session_of_the_1_x_sdk_survives_its_refusals(tmp_path: Path) -> None:
    async def story() -> None:
        limit = {"name": "l", "by": ["agent"], "rate": "3/second"}
        async with limited(tmp_path, limit) as (gateway, _), agent(gateway) as sdk:
            await sdk.heard()
            heard = [await sdk.call("echo") for _ in range(3)]
            while "code" not in heard[-1]:
                heard.append(await sdk.call("echo"))
            assert (heard[-1]["code"], heard[-1]["data"]["limit"]) == (RATE_LIMITED, "l")
            assert heard[-1]["data"]["retryAfter"] == 1

            async def lets_in() -> bool:
                return await sdk.call("echo") == {"text": ["here"]}

            await until(lets_in)

    asyncio.run(story())


def test_plain_http_hears_it_in_its_own_form(tmp_path: Path) -> None:
    async def story() -> None:
        async with limited(tmp_path, {"name": "l", "by": ["tool"], "rate": "3/hour"}) as (gateway, _):
            head = [("Authorization", f"Bearer {KEY}"), ("Content-Type", "application/json")]
            replies = await many(gateway, lambda _: Asked(b"{}", head), 5, "/tools/echo/invoke")
            assert Counter(reply.status for reply in replies) == {200: 3, 429: 2}
            reply = next(reply for reply in replies if reply.status == 429)
            said = reply.json()
            assert said["code"] == RATE_LIMITED
            assert isinstance(said["error"], str)
            assert (said["limit"], said["by"], said["mayHaveRun"]) == ("l", ["tool"], False)
            assert reply.header("retry-after") == str(said["retryAfter"])

    asyncio.run(story())


def test_each_element_of_a_batch_counts(tmp_path: Path) -> None:
    async def story() -> None:
        async with limited(tmp_path, {"name": "l", "by": ["agent"], "rate": "3/hour"}) as (gateway, box):
            session = await open_session(gateway.url, key=KEY, version=BATCHING)
            one = legacy("tools/call", {"name": "echo", "arguments": {}}, key=KEY, session=session, version=BATCHING)
            messages = [{**json.loads(one.body), "id": at} for at in range(5)] + [
                {"jsonrpc": "2.0", "id": "p", "method": "ping"}
            ]
            reply = await exchange(gateway.url, Asked(json.dumps(messages).encode(), one.headers))
            assert reply.status == 200
            codes = Counter(answer.get("error", {}).get("code") for answer in reply.json())
            assert codes == {None: 4, RATE_LIMITED: 2}
            assert len(box.ledger) == 3
            assert told(reply).startswith('"l";r=0;')

    asyncio.run(story())


COUNTED: list[tuple[str, dict[str, Any]]] = [
    ("tools/call", {"name": "echo", "arguments": {}}),
    ("prompts/get", {"name": "hello"}),
    ("resources/read", {"uri": "a:b"}),
    ("completion/complete", {"ref": {"type": "ref/prompt", "name": "hello"}, "argument": {"name": "x", "value": ""}}),
]
FREE: list[tuple[str, dict[str, Any]]] = [("tools/list", {}), ("prompts/list", {}), ("server/discover", {})]


def test_calls_to_servers_count_lists_and_unknown_names_do_not(tmp_path: Path) -> None:
    async def story() -> None:
        async with limited(tmp_path, {"name": "l", "rate": "4/hour"}) as (gateway, _):
            for method, params in [*FREE, ("tools/call", {"name": "nothing", "arguments": {}})] * 3:
                reply = await exchange(gateway.url, modern(method, params, key=KEY))
                assert reply.header("ratelimit") is None
            left = [told(await exchange(gateway.url, modern(*one, key=KEY))) for one in COUNTED]
            assert [text.partition(";t=")[0] for text in left] == [f'"l";r={at}' for at in (3, 2, 1, 0)]
            for method, params in COUNTED:
                assert (await exchange(gateway.url, modern(method, params, key=KEY))).status == 429
            for method, params in FREE:
                assert (await exchange(gateway.url, modern(method, params, key=KEY))).status == 200

    asyncio.run(story())


def test_limits_decide_together_and_a_refusal_charges_none(tmp_path: Path) -> None:
    async def story() -> None:
        both = {"name": "both", "by": ["agent"], "rate": "10/hour"}
        few = {"name": "few", "by": ["agent", "tool"], "tools": ["dep*"], "rate": "2/hour"}
        async with limited(tmp_path, both, few) as (gateway, _):
            assert await admitted(gateway, 6, tool="deploy") == 2
            reply = await exchange(gateway.url, calling("deploy"))
            assert reply.json()["error"]["data"]["limit"] == "few"
            assert await admitted(gateway, 12) == 8, "the refused ones were charged to nobody"
            reply = await exchange(gateway.url, calling("deploy"))
            assert reply.json()["error"]["data"]["limit"] == "few", "of two the one that gives way last"

    asyncio.run(story())


def test_weights_overrides_exceptions_and_shadows(tmp_path: Path) -> None:
    async def story() -> None:
        limits = [
            {
                "name": "team",
                "by": ["claims.team"],
                "match": {"claims": {"team": "t*"}},
                "rate": "10/hour",
                "burst": 6,
                "overrides": [{"match": {"claims": {"tier": "gold"}}, "rate": "20/hour", "burst": 9}],
            },
            {"name": "watched", "by": ["agent"], "rate": "1/hour", "mode": "shadow"},
            {"name": "strangers", "rate": "5/hour", "except": {"claims": {"team": "test"}}},
        ]  # fmt: skip
        weights = {"heavy": {"weight": 3}}
        async with limited(tmp_path, *limits, tools=weights) as (gateway, _):
            assert await admitted(gateway, 3, tool="heavy") == 2
            assert await admitted(gateway, 3) == 0
            assert await admitted(gateway, 12, OTHER) == 9, "another rate, and buckets of its own"

            async def counted() -> bool:
                shadow = gateway.metric('fastgw_limit_refusals_total{limit="watched",mode="shadow"}')
                return shadow >= 1 + 8

            await until(counted)

    asyncio.run(story())


def test_calls_at_the_same_time_over_both_workers_and_a_dead_ones_come_back(tmp_path: Path) -> None:
    async def story() -> None:
        gate, inside = asyncio.Event(), asyncio.Semaphore(0)

        async def held(call: Call) -> None:
            inside.release()
            await gate.wait()
            await call.text("out")

        limit = {"name": "few", "by": ["agent"], "in_flight": 6}
        async with limited(tmp_path, limit, box={"echo": echo, "held": held}) as (gateway, _):
            calls = [asyncio.create_task(exchange(gateway.url, calling("held"))) for _ in range(6)]
            for _ in calls:
                await inside.acquire()
            reply = await exchange(gateway.url, calling())
            assert reply.status == 429
            assert reply.json()["error"]["data"] | {"requestId": 0} == {
                "requestId": 0, "mayHaveRun": False, "retryAfter": 1, "limit": "few", "by": ["agent"],
            }  # fmt: skip
            assert await admitted(gateway, 3, OTHER) == 3
            for role in ("worker-1", "worker-2"):
                os.kill(gateway.child(role), signal.SIGKILL)
            await asyncio.gather(*calls, return_exceptions=True)
            await until(lambda: all_get_in(gateway, 6), within=8.0)
            gate.set()
            assert await admitted(gateway, 30) >= 6

    asyncio.run(story())


async def all_get_in(gateway: Gateway, count: int) -> bool:
    try:
        return await admitted(gateway, count) == count
    except OSError:  # no worker is back yet
        return False


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_that_changes_a_rate_keeps_what_part_of_a_bucket_is_left(tmp_path: Path, workers: int) -> None:
    async def story() -> None:
        limit = {"name": "l", "by": ["agent"], "rate": "20/hour"}
        async with limited(tmp_path, limit, workers=workers) as (gateway, _):
            assert await admitted(gateway, 10) == 10
            configured = json.loads((tmp_path / "fastgw.yaml").read_text())
            configured["limits"][0]["rate"] = "60/hour"
            gateway.configure(configured)
            gateway.process.send_signal(signal.SIGHUP)

            async def applied() -> bool:
                reply = await exchange(gateway.url, calling("nothing"))
                return gateway.metric('fastgw_reloads_total{outcome="applied"}') >= 1 and reply.status == 400

            await until(applied)
            await until(lambda: has_policy(gateway, '"l";q=60;w=3600'))
            assert await admitted(gateway, 60) == 30, "half of 60"

    asyncio.run(story())


async def has_policy(gateway: Gateway, policy: str) -> bool:
    """Whether both workers count by it, as far as a few calls of another agent tell."""
    replies = [await exchange(gateway.url, calling(key=OTHER)) for _ in range(4)]
    return {reply.header("ratelimit-policy") for reply in replies} == {policy}


def test_wrong_credentials_are_throttled_for_their_address_and_right_ones_are_not(tmp_path: Path) -> None:
    async def story() -> None:
        async with limited(tmp_path, failed_credentials="20/hour") as (gateway, _):
            replies = await many(gateway, lambda _: calling(key="fgw_wrong"), 50)
            assert Counter(reply.status for reply in replies) == {401: 20, 429: 30}
            reply = next(reply for reply in replies if reply.status == 429)
            error = reply.json()["error"]
            assert (error["code"], error["data"]["limit"], error["data"]["by"]) == (
                RATE_LIMITED, "failed-credentials", ["address"],
            )  # fmt: skip
            assert reply.header("retry-after") == str(error["data"]["retryAfter"])
            assert (await exchange(gateway.url, calling())).status == 200
            assert (await exchange(gateway.url, modern("tools/list", key=None))).status == 401
            assert all(event["agentId"] == "tester" for event in await events(gateway, 1))

    asyncio.run(story())


def test_once_however_many_instances_are_tried(tmp_path: Path) -> None:
    async def story() -> None:
        async with limited(tmp_path, {"name": "l", "rate": "6/hour"}) as (gateway, _):
            configured = json.loads((tmp_path / "fastgw.yaml").read_text())
            alive = configured["servers"]["main"]["url"]
            configured["servers"]["main"]["url"] = ["http://127.0.0.1:9/mcp", "http://127.0.0.1:10/mcp", alive]
            gateway.configure(configured)
            gateway.process.send_signal(signal.SIGHUP)

            async def applied() -> bool:
                return gateway.metric('fastgw_reloads_total{outcome="applied"}') >= 1

            await until(applied)
            assert await admitted(gateway, 9) == 6

    asyncio.run(story())
