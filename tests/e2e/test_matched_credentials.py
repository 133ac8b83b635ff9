"""Credentials of a server that are chosen by who calls: the first that matches, and nothing ever meets another's."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.asking import ERAS, agent, listed
from tests.e2e.gateway import Gateway, fingerprint, running_beside
from tests.e2e.http import Reply
from tests.e2e.servers import Call, Toolbox, serving
from tests.e2e.test_reload import APPLIED, reload

KEYS = {"red": "fgw_test_red", "blue": "fgw_test_blue", "own": "fgw_test_own"}
TEAMS = {"red": "red", "blue": "blue", "own": "none"}
SECRETS = {"RED": "secret-of-red", "BLUE": "secret-of-blue", "REST": "secret-of-the-rest"}
LIST = [
    {"bearer": "${env:RED}", "match": {"claims": {"team": "red"}}},
    {"header": {"X-Key": "${env:BLUE}"}, "match": {"claims": {"team": "blue"}}},
    {"bearer": "${env:REST}"},
]


def agents(**moved: str) -> dict[str, Any]:
    teams = {**TEAMS, **moved}
    return {name: {"key": fingerprint(key), "claims": {"team": teams[name]}} for name, key in KEYS.items()}


def shown(headers: list[tuple[str, str]]) -> str:
    """Whose secret a request brings."""
    found = [value for name, value in headers if name in ("authorization", "x-key")]
    assert len(found) == 1, headers
    return found[0].rpartition("-")[2]


async def whose(call: Call) -> None:
    await call.text(shown(call.got.headers))


def text(reply: Reply) -> str:
    assert "result" in reply.json(), reply
    return str(reply.json()["result"]["content"][0]["text"])


async def whose_is_it(gateway: Gateway, name: str, era: str) -> str:
    one = await agent(era, gateway.url, KEYS[name])
    return text(await one.call("whose"))


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_each_shows_its_own_in_sessions_of_its_own(tmp_path: Path, era: str) -> None:
    box = Toolbox(era, {"whose": whose})

    async def play() -> None:
        async with serving(box) as server:
            settings = {"servers": {"main": {"url": server.url, "credential": LIST}}, "agents": agents()}
            async with running_beside(settings, tmp_path, SECRETS) as gateway:
                await listed(gateway, "whose", key=KEYS["own"])
                order = [(name, asks) for _ in range(6) for name in KEYS for asks in ERAS]
                found = await asyncio.gather(*[whose_is_it(gateway, name, asks) for name, asks in order])
                expected = {"red": "red", "blue": "blue", "own": "rest"}
                assert found == [expected[name] for name, _ in order]
                # Moved to another team, an agent shows the other secret, and not in the session it had.
                gateway.configure({**settings, "agents": agents(red="blue")})
                await reload(gateway, APPLIED)
                assert [await whose_is_it(gateway, "red", asks) for asks in ERAS] == ["blue", "blue"]
        assert all(shown(got.headers) == "rest" for got in box.got if is_of_the_gateway(got.body))
        in_session = defaultdict(set)
        for got in box.got:
            if (session := got.header("mcp-session-id")) is not None:
                in_session[session].add(shown(got.headers))
        assert bool(in_session) == (era == "legacy")
        assert all(len(secrets) == 1 for secrets in in_session.values()), in_session

    asyncio.run(play())


def is_of_the_gateway(body: bytes) -> bool:
    method = json.loads(body or b"{}").get("method", "")
    return method.endswith("/list") or method == "server/discover"


def test_for_whom_there_is_none_the_server_cannot_be_called_and_the_next_one_can(tmp_path: Path) -> None:
    main, spare = Toolbox("modern", {"whose": whose, "alone": whose}), Toolbox("legacy", {"whose": whose})

    async def play() -> None:
        async with serving(main) as first, serving(spare) as second:
            servers = {
                "main": {"url": first.url, "credential": LIST[:2]},
                "spare": {"url": second.url, "credential": {"bearer": "${env:REST}"}},
            }
            tools = {"any": {"to": ["main/whose", "spare/whose"]}}
            settings = {"servers": servers, "agents": agents(), "tools": tools}
            async with running_beside(settings, tmp_path, SECRETS) as gateway:
                await listed(gateway, "alone", "any", key=KEYS["own"])
                for era in ERAS:
                    one = await agent(era, gateway.url, KEYS["own"])
                    reply = await one.call("alone")
                    error = reply.json()["error"]
                    assert (reply.status, error["code"]) == (503 if era == "modern" else 200, -31001)
                    assert {**error["data"], "requestId": ""} == {
                        "requestId": "", "mayHaveRun": False, "reason": "credential",
                    }  # fmt: skip
                    assert text(await one.call("any")) == "rest"
                    other = await agent(era, gateway.url, KEYS["red"])
                    assert [text(await other.call(tool)) for tool in ("alone", "any")] == ["red", "red"]
                state = json.loads(gateway.ask_admin("/backends")[1])["main"]["instances"][0]
                assert (state["breaker"]["state"], state["breaker"]["failures"]) == ("closed", 0)
                assert gateway.logs("no credential of main is for this agent")

    asyncio.run(play())


def test_what_was_kept_for_one_credential_answers_no_other(tmp_path: Path) -> None:
    box = Toolbox("modern", {"whose": whose})

    async def play() -> None:
        async with serving(box) as server:
            settings = {
                "servers": {"main": {"url": server.url, "credential": LIST}},
                "agents": agents(),
                "tools": {"whose": {"cache": "1h", "repeatable": True}},
            }
            async with running_beside(settings, tmp_path, SECRETS) as gateway:
                await listed(gateway, "whose", key=KEYS["own"])
                for name, expected in (("red", "red"), ("blue", "blue"), ("own", "rest")):
                    found = {await whose_is_it(gateway, name, era) for era in ERAS for _ in range(4)}
                    assert found == {expected}
                swapped = [{**LIST[0], "bearer": "${env:REST}"}, *LIST[1:]]
                settings["servers"]["main"]["credential"] = swapped
                gateway.configure(settings)
                await reload(gateway, APPLIED)
                assert {await whose_is_it(gateway, "red", era) for era in ERAS for _ in range(4)} == {"rest"}

    asyncio.run(play())
