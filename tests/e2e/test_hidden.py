"""A tool that is not for an agent is, to every byte, a tool that does not exist; and no other name leads to it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.aside import Aside, aside
from tests.e2e.asking import ERAS, Agent, agent, listed
from tests.e2e.gateway import KEY, Gateway, fingerprint, running_beside, until
from tests.e2e.http import Asked, Reply, exchange, in_base64, legacy, modern, send_raw
from tests.e2e.servers import Call, Toolbox, serving

STAFF, QA, OLD, GONE = "fgw_test_staff", "fgw_test_qa", "fgw_test_old", "fgw_test_gone"
BOTH_WORKERS = 40  # fresh connections; that one worker takes them all has a chance of 2 in 10**12
NAMES = 12  # letters of every name that is compared, so that lengths agree too
OWN = {
    "alpha": ("open-to-all1", "hidden-one-a", "hidden-own-a", "denied-expos", "denied-own-a", "never-allowe",
              "pointed-at-a", "only-staff-a", "by-arguments", "elsewhere-to", "behind-ship-", "plain-deploy",
              "shared-names", "secret-share", "shadowed-one"),
    "beta": ("shared-names", "secret-share", "beta-has-one"),
}  # fmt: skip
AGENTS = {
    "tester": {"key": fingerprint(KEY), "claims": {"team": "test"}},
    "staff": {"key": fingerprint(STAFF), "claims": {"team": "staff"}},
    "qa": {"key": fingerprint(QA), "claims": {"team": "qa", "role": ["reader", "tester"]}},
    "old": {"key": {"sha256": fingerprint(OLD).removeprefix("sha256:"), "expires": "2020-01-31"}},
    "gone": {"key": fingerprint(GONE), "disabled": True},
}
TOOLS: dict[str, Any] = {
    "hidden-one-a": {"hidden": True},
    "alpha/hidden-own-a": {"hidden": True},
    "front": {"to": "alpha/pointed-at-a", "description": "The way to it"},
    "ship": {"to": "alpha/behind-ship-"},
    "staff-route-": {"route": [{"match": {"claims": {"team": "staff"}}, "to": "alpha/elsewhere-to"}]},
    "fitting-only": {"route": [{"match": {"arguments": {"kind": "small"}}, "to": "alpha/by-arguments"}]},
}
POLICIES: list[dict[str, Any]] = [
    {
        "name": "everyone",
        "except": {"claims": {"team": "qa"}},
        "allow": ["open-*", "hidden-*", "denied-*", "front", "ship", "staff-*", "fitting-*", "plain-*", "*secret-share",
                  "*shared-names", "shadowed-*"],
        "deny": ["denied-expos", "alpha/denied-own-a", "alpha/behind-ship-", "secret-share"],
    },
    {"name": "staff", "match": {"claims": {"team": "staff"}}, "allow": ["only-staff-a", "ship"]},
    {"name": "qa", "match": {"claims": {"team": "qa"}, "arguments": {"environment": "staging"}}, "allow": ["plain-*"]},
    {"name": "qa-reads", "match": {"claims": {"role": "tester"}}, "allow": ["only-staff-a", "shadowed-*"]},
    {
        "name": "qa-not-large",
        "match": {"claims": {"team": "qa"}, "arguments": {"rows": {"more_than": 100}}},
        "except": {"arguments": {"reason": "audit"}},
        "deny": ["only-staff-a"],
    },
    {"name": "someday", "mode": "shadow", "deny": ["shadowed-one"], "allow": ["never-allowe"]},
]  # fmt: skip
ENDPOINTS: dict[str, Any] = {
    "/mcp": {},
    "/mcp/alpha": {"servers": ["alpha"]},
    "/mcp/small": {"tools": ["open-*"]},
}
TESTERS = {"open-to-all1", "front", "fitting-only", "plain-deploy", "alpha__shared-names", "beta__shared-names",
           "shadowed-one"}  # fmt: skip
HIDDEN = ("hidden-one-a", "hidden-own-a", "denied-expos", "denied-own-a", "never-allowe", "pointed-at-a",
          "only-staff-a", "by-arguments", "behind-ship-", "secret-share", "staff-route-", "shared-names",
          "beta-has-one", "elsewhere-to")  # fmt: skip
MISSING = "no-such-tool"


@dataclass
class Scene:
    """A running gateway and the servers behind it."""

    gateway: Gateway
    boxes: dict[str, Toolbox]
    loop: Aside

    @property
    def called(self) -> list[str]:
        """Every tool that any server was asked to run, since the last look."""
        found = [tool for box in self.boxes.values() for _, tool in box.ledger]
        for box in self.boxes.values():
            box.ledger.clear()
        return found


async def done(call: Call) -> None:
    await call.text(call.name)


@asynccontextmanager
async def scene(folder: Path, loop: Aside) -> AsyncIterator[Scene]:
    """Two servers, one of each era, and agents with different rights."""
    eras = {"alpha": "modern", "beta": "legacy"}
    boxes = {name: Toolbox(era, dict.fromkeys(OWN[name], done)) for name, era in eras.items()}
    async with serving(boxes["alpha"]) as alpha, serving(boxes["beta"]) as beta:
        more = {
            "servers": {"alpha": {"url": alpha.url}, "beta": {"url": beta.url}},
            "agents": AGENTS, "tools": TOOLS, "policies": POLICIES, "endpoints": ENDPOINTS,
        }  # fmt: skip
        async with running_beside(more, folder) as gateway:
            await listed(gateway, "alpha__shared-names", "beta__shared-names")
            yield Scene(gateway, boxes, loop)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with aside() as loop:
        yield loop.enter(scene(tmp_path_factory.mktemp("hidden"), loop))


def worker_of(reply: Reply) -> str:
    """Which worker answered, by the beginning its request ids share."""
    return str(reply.header("x-request-id"))[:-8]


def plain(reply: Reply, name: str) -> tuple[int, list[tuple[str, str]], bytes]:
    """All of a reply, with the id of the request and the name taken out."""
    number = str(reply.header("x-request-id"))
    assert re.fullmatch("req_[0-9a-f]+", number)
    assert name.encode() in reply.body
    headers = [(key, value.replace(number, "ID")) for key, value in reply.headers if key != "date"]
    return reply.status, headers, reply.body.replace(number.encode(), b"ID").replace(name.encode(), b"NAME")


@pytest.mark.parametrize("era", ERAS)
def test_a_hidden_tool_answers_byte_for_byte_as_a_missing_one(era: str, stage: Scene) -> None:
    variants: list[dict[str, Any]] = [{"arguments": {}}, {}, {"arguments": {"environment": "x", "rows": 1e9}}]

    async def story() -> None:
        url = stage.gateway.url
        who = await agent(era, url)
        assert set(await who.names()) == TESTERS
        for more in variants:
            missing = plain(await who.ask("tools/call", {"name": MISSING, **more}), MISSING)
            assert missing[0] == (400 if era == "modern" else 200)
            for name in HIDDEN:
                assert plain(await who.ask("tools/call", {"name": name, **more}), name) == missing, name
        small = await agent(era, f"{url}/small")
        assert await small.names() == ["open-to-all1"]
        at_small = plain(await small.call(MISSING), MISSING)
        for name in ("plain-deploy", "shadowed-one", "fitting-only"):
            assert plain(await small.call(name), name) == at_small
        assert stage.called == []

    stage.loop.run(story())


@pytest.mark.parametrize("era", ERAS)
def test_both_workers_hide_alike(era: str, stage: Scene) -> None:
    async def story() -> None:
        who = await agent(era, stage.gateway.url)
        asked = [MISSING, *HIDDEN] * (BOTH_WORKERS // len(HIDDEN) + 1)
        replies = [await who.call(name) for name in asked]
        assert len({worker_of(reply) for reply in replies}) == 2
        shapes = {json.dumps(str(plain(reply, name))) for reply, name in zip(replies, asked, strict=True)}
        assert len(shapes) == 1
        assert stage.called == []

    stage.loop.run(story())


@pytest.mark.parametrize("era", ERAS)
def test_arguments_that_take_no_arm_of_a_route_find_no_tool(era: str, stage: Scene) -> None:
    async def story() -> None:
        who = await agent(era, stage.gateway.url)
        missing = plain(await who.call(MISSING), MISSING)
        for arguments in ({}, {"kind": "large"}, {"kind": ["small"]}, {"Kind": "small"}):
            assert plain(await who.call("fitting-only", arguments), "fitting-only") == missing
        assert stage.called == []
        assert (await who.call("fitting-only", {"kind": "small"})).json()["result"]["content"]
        assert stage.called == ["by-arguments"]

    stage.loop.run(story())


def test_a_denied_tool_stays_denied_when_a_collision_renames_it(stage: Scene) -> None:
    """At /mcp both servers bring it and `alpha__secret-share` is allowed by its pattern; at /mcp/alpha it is alone."""

    async def story() -> None:
        url = stage.gateway.url
        for era in ERAS:
            for path, names in ((url, ("alpha__secret-share", "beta__secret-share")), (f"{url}/alpha", ())):
                who = await agent(era, path)
                assert not any("secret-share" in name for name in await who.names())
                for name in (*names, "secret-share"):
                    assert (await who.call(name)).json()["error"]["code"] == -32602
                assert [name for name in await who.names() if "shared-names" in name] == (
                    ["alpha__shared-names", "beta__shared-names"] if path == url else ["shared-names"]
                )
        assert stage.called == []

    stage.loop.run(story())


def test_a_denied_tool_stays_denied_when_another_server_comes_to_bring_it(tmp_path: Path) -> None:
    """The same while it runs: the collision is born by a change of a server's list."""
    alpha, beta = Toolbox("modern", {"wipe": done, "look": done}), Toolbox("modern", {"other": done}, ttl_ms=1000)
    policies = [{"name": "all", "allow": ["*"], "deny": ["wipe"]}]

    names = ("wipe", "alpha__wipe", "beta__wipe", "alpha/wipe", "beta/wipe")

    async def story() -> None:
        async with serving(alpha) as one, serving(beta) as two:
            more = {"servers": {"alpha": {"url": one.url}, "beta": {"url": two.url}}, "policies": policies}
            async with running_beside(more, tmp_path) as gateway:
                await listed(gateway, "look", "other")
                who = await agent("modern", gateway.url)

                async def moved() -> bool:
                    assert {(await who.call(name)).status for name in names} == {400}
                    return "beta__look" in await who.names()

                assert not await moved()
                beta.tools.update({"wipe": done, "look": done})
                await until(moved)
                assert await moved()
                assert await who.names() == ["alpha__look", "other", "beta__look"]

    asyncio.run(story())
    assert alpha.ledger + beta.ledger == []


WAYS_ROUND = (
    "pointed-at-a", "alpha/pointed-at-a", "alpha__pointed-at-a", "Front", "FRONT", "front ", " front", "front\t",
    "front\u0000", "front\u200b", "\ufefffront", "\uff46ront", "fr\u043ent", "fron\u1e97", "front/", "./front",
    "front%20", "alpha/front", "alpha__front", "beta__front", "/front", "alpha/elsewhere-to", "ALPHA__SHARED-NAMES",
    "alpha__shared_names", "alpha/shared-names", "alpha__", "__shared-names", "beta/alpha__shared-names", "",
    "alpha__behind-ship-", "ship", "alpha/behind-ship-", "denied-expos\u00a0", "deni\u00e9d-expos", "x" * 5000,
)  # fmt: skip


@pytest.mark.parametrize("era", ERAS)
def test_a_route_cannot_be_walked_round(era: str, stage: Scene) -> None:
    def asked(name: str, who: Agent) -> Asked:
        if era == "legacy":
            return legacy("tools/call", {"name": name}, key=KEY, session=who.session)
        return modern("tools/call", {"name": name}, key=KEY).having("Mcp-Name", in_base64(name))

    async def story() -> None:
        who = await agent(era, stage.gateway.url)
        for name in WAYS_ROUND:
            reply = await exchange(who.url, asked(name, who))
            error = reply.json()["error"]
            assert (error["code"], error["data"]["name"]) == (-32602, name[:128]), name
        assert stage.called == []
        assert (await exchange(who.url, asked("front", who))).json()["result"]["content"]
        assert stage.called == ["pointed-at-a"]

    stage.loop.run(story())


def test_headers_do_not_deceive(stage: Scene) -> None:
    """What is called is what the body says; a header that says otherwise refuses the request before any server."""
    denied = modern("tools/call", {"name": "denied-expos", "arguments": {}}, key=KEY)
    allowed = modern("tools/call", {"name": "front", "arguments": {}}, key=KEY)
    sentinels = ("=?base64?ZnJvbnQ?=", "=?base64?####?=", "=?base64?/w==?=", "=?base64?ZnJvbnR4?=")
    lies = [
        denied.having("Mcp-Name", "front"),
        allowed.having("Mcp-Name", "denied-expos"),
        allowed.having("Mcp-Name", "Front"),
        allowed.having("Mcp-Name", "front,front"),
        allowed.without("Mcp-Name"),
        allowed.having("Mcp-Method", "tools/list"),
        Asked(allowed.body, [*allowed.headers, ("Mcp-Name", "denied-expos")]),
        Asked(allowed.body, [*allowed.headers, ("mcp-name", "front")]),
        *(allowed.having("Mcp-Name", sentinel) for sentinel in sentinels),
    ]

    async def story() -> None:
        for lie in lies:
            reply = await exchange(stage.gateway.url, lie)
            assert (reply.status, reply.json()["error"]["code"]) == (400, -32020), lie.headers
        assert stage.called == []
        told = await exchange(stage.gateway.url, allowed.having("Mcp-Name", "=?base64?ZnJvbnQ=?="))
        assert told.status == 200
        assert stage.called == ["pointed-at-a"]

    stage.loop.run(story())


def test_headers_of_another_revision_decide_nothing(stage: Scene) -> None:
    async def story() -> None:
        who = await agent("legacy", stage.gateway.url)
        denied = legacy("tools/call", {"name": "denied-expos"}, key=KEY, session=who.session)
        allowed = legacy("tools/call", {"name": "front"}, key=KEY, session=who.session)
        reply = await exchange(who.url, denied.having("Mcp-Name", "front").having("Mcp-Method", "tools/call"))
        assert reply.json()["error"]["code"] == -32602
        assert stage.called == []
        reply = await exchange(who.url, allowed.having("Mcp-Name", "denied-expos").having("Mcp-Method", "ping"))
        assert "result" in reply.json()
        assert stage.called == ["pointed-at-a"]

    stage.loop.run(story())


def test_in_a_batch_too_a_hidden_tool_is_a_missing_one(stage: Scene) -> None:
    async def story() -> None:
        who = await agent("legacy", stage.gateway.url, version="2025-03-26")
        names = [MISSING, *HIDDEN]
        single = legacy("tools/call", {"name": "@"}, key=KEY, session=who.session, version=who.version)
        elements = [single.body.replace(b'"@"', json.dumps(name).encode()) for name in names]
        reply = await exchange(who.url, Asked(b"[" + b",".join(elements) + b"]", single.headers))
        answers = reply.json()
        assert len(answers) == len(names)
        for name, answer in zip(names, answers, strict=True):
            assert answer["error"]["data"].pop("requestId")
            assert answer["error"]["data"].pop("name") == name
            assert answer["error"].pop("message") == f"Unknown tool: {name}"
        assert len({json.dumps(answer) for answer in answers}) == 1
        assert stage.called == []

    stage.loop.run(story())


@pytest.mark.parametrize("era", ERAS)
def test_a_second_name_in_the_body_deceives_nobody(era: str, stage: Scene) -> None:
    twins = (
        b'"name": "front", "name": "denied-expos"',
        b'"name": "denied-expos", "name": "front"',
        b'"name": "front", "n\\u0061me": "denied-expos"',
        b'"name": "front", "Name": "denied-expos"',
        b'"name": "front", "NAME": "denied-expos"',
        b'"name": "front", "arguments": {}, "Arguments": {}',
    )

    async def story() -> None:
        who = await agent(era, stage.gateway.url)
        if era == "modern":
            usual = modern("tools/call", {"name": "front"}, key=KEY)
        else:
            usual = legacy("tools/call", {"name": "front"}, key=KEY, session=who.session)
        for twin in twins:
            body = usual.body.replace(b'"name": "front"', twin)
            assert body != usual.body
            reply = await exchange(who.url, Asked(body, usual.headers))
            assert reply.status == (400 if era == "modern" else 200)
            assert reply.json()["error"]["code"] in (-32600, -32602), twin
        assert stage.called == []

    stage.loop.run(story())


@pytest.mark.parametrize("era", ERAS)
def test_arguments_decide(era: str, stage: Scene) -> None:
    """The tool is listed; what these arguments may not do is told by a code of its own, and every doubt denies."""
    refused: list[tuple[str, str]] = [
        ("plain-deploy", "{}"),
        ("plain-deploy", '{"environment": "production"}'),
        ("plain-deploy", '{"environment": ["staging"]}'),
        ("plain-deploy", '{"environment": "staging", "environment": "production"}'),
        ("plain-deploy", '{"environment": "staging", "Environment": "production"}'),
        ("only-staff-a", '{"rows": 101}'),
        ("only-staff-a", '{"rows": 1E400}'),
        ("only-staff-a", '{"rows": "many"}'),
        ("only-staff-a", '{"rows": [1]}'),
        ("only-staff-a", '{"rows": 1, "rows": 101}'),
        ("only-staff-a", '{"rows": 101, "reason": "fun"}'),
    ]
    allowed = [
        ("plain-deploy", '{"environment": "st\\u0061ging"}'),
        ("only-staff-a", "{}"),
        ("only-staff-a", '{"rows": 100.0}'),
        ("only-staff-a", '{"rows": 100000, "reason": "audit"}'),
    ]

    numbers: set[str] = set()

    async def story() -> Any:
        who = await agent(era, stage.gateway.url, QA)
        assert set(await who.names()) == {"plain-deploy", "only-staff-a", "shadowed-one"}

        async def tried(tool: str, arguments: str) -> Reply:
            params = {"name": tool, "arguments": "@"}
            asked = modern("tools/call", params, key=QA)
            if era == "legacy":
                asked = legacy("tools/call", params, key=QA, session=who.session)
            reply = await exchange(who.url, Asked(asked.body.replace(b'"@"', arguments.encode()), asked.headers))
            numbers.add(str(reply.header("x-request-id")))
            return reply

        for tool, arguments in refused:
            reply = await tried(tool, arguments)
            error = reply.json()["error"]
            assert (reply.status, error["code"], error["data"]["mayHaveRun"]) == (200, -31040, False), arguments
            assert set(error["data"]) == {"requestId", "mayHaveRun"}
        assert stage.called == []
        for tool, arguments in allowed:
            assert "result" in (await tried(tool, arguments)).json(), arguments
        assert stage.called == [tool for tool, _ in allowed]
        return await until(lambda: written(stage.gateway, numbers, len(refused) + len(allowed)))

    events = stage.loop.run(story())
    denied = [event for event in events if event["outcome"] == "denied"]
    assert sorted(event["refusedBy"] for event in denied) == ["qa"] * 5 + ["qa-not-large"] * 6
    assert {(event["statusCode"], event["errorCode"], event["attempts"]) for event in denied} == {(403, -31040, 0)}
    assert len(denied) == len(refused)


async def written(gateway: Gateway, asked: set[str], number: int) -> list[dict[str, Any]]:
    """The usage events of these requests, as soon as so many are there."""
    found = [event for event in gateway.events() if event["requestId"] in asked]
    return found if len(found) >= number else []


def test_a_policy_in_shadow_changes_nothing(stage: Scene) -> None:
    async def story() -> None:
        who = await agent("modern", stage.gateway.url)
        assert (await who.call("shadowed-one")).status == 200
        assert (await who.call("never-allowe")).status == 400
        assert stage.called == ["shadowed-one"]

    stage.loop.run(story())


def test_what_one_agent_may_is_not_what_another_may(stage: Scene) -> None:
    async def story() -> None:
        url = stage.gateway.url
        for era in ERAS:
            seen = {key: set(await (await agent(era, url, key)).names()) for key in (KEY, STAFF, QA)}
            assert seen[KEY] == TESTERS
            assert seen[STAFF] == TESTERS | {"only-staff-a", "staff-route-"}
            assert seen[QA] == {"plain-deploy", "only-staff-a", "shadowed-one"}
            staff = await agent(era, url, STAFF)
            assert (await staff.call("staff-route-")).json()["result"]["content"]
            # Allowed under its own name, denied under its server's: one deny beats every allow.
            assert (await staff.call("ship")).json()["error"]["code"] == -32602
        assert stage.called == ["elsewhere-to"] * 2

    stage.loop.run(story())


def test_who_is_not_let_in_hears_one_answer(stage: Scene) -> None:
    """No token, or a bad one; what is wrong with it, and what the body says, makes no difference."""
    asked = modern("tools/list")
    token = "Authorization"
    bad = [
        f"Bearer {OLD}",
        f"Bearer {GONE}",
        "Bearer fgw_unknown",
        "bearer fgw_unknown",
        "fgw_unknown",
        f"Bearer {KEY} x",
    ]
    numbers: set[str] = set()
    none = [None, "", "Bearer", f"Basic {KEY}"]

    async def refused(url: str, request: Asked) -> tuple[str | None, Any]:
        reply = await exchange(url, request)
        number = reply.header("x-request-id") or "?"
        assert reply.status == 401
        numbers.add(reply.header("x-request-id") or "")
        return reply.header("www-authenticate"), reply.body.replace(number.encode(), b"ID")

    async def story() -> None:
        url = stage.gateway.url
        told = {await refused(url, asked.having(token, value)) for value in bad}
        told |= {await refused(url, Asked(b"{not json", asked.having(token, bad[0]).headers))}
        assert {challenge for challenge, _ in told} == {'Bearer error="invalid_token"'}
        strangers = {await refused(url, asked if value is None else asked.having(token, value)) for value in none}
        twice = Asked(asked.body, [*asked.headers, (token, f"Bearer {KEY}"), (token, f"Bearer {KEY}")])
        strangers.add(await refused(url, twice))
        assert {challenge for challenge, _ in strangers} == {"Bearer"}
        assert len({body for _, body in told | strangers}) == 1
        # Nor is its body waited for.
        head = f"POST /mcp HTTP/1.1\r\nHost: {url.split('/')[2]}\r\nContent-Length: 1000\r\nConnection: close\r\n\r\n"
        assert b" 401 " in (await send_raw(url, head.encode())).splitlines()[0]
        assert numbers - {""}
        # Nor does it leave an event: the next request's stands there without theirs.
        last = await Agent(url).call("front")
        number = str(last.header("x-request-id"))
        assert [event["requestId"] for event in await until(lambda: written(stage.gateway, numbers | {number}, 1))] == [
            number
        ]

    stage.loop.run(story())
