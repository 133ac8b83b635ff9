"""Prompts, resources, templates and completions for every pair of eras: right answers, byte for byte, own shape."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.aside import Aside, aside
from tests.e2e.asking import Agent, agent
from tests.e2e.gateway import KEY, Gateway, fingerprint
from tests.e2e.http import META, Reply, exchange, legacy, modern
from tests.e2e.library import Library, libraries, offered
from tests.e2e.pairs import PAIRS, Pair

OTHER = "fgw_test_other"
AGENTS = {
    "tester": {"key": fingerprint(KEY), "claims": {"team": "test"}},
    "other": {"key": fingerprint(OTHER), "claims": {"team": "test"}},
}
# What decoding and encoding would change: spaces, escapes, long numbers, 1.0, order, empty members, twins in payloads.
ODD = (
    rb'{ "z":1.0,"a" : 123456789012345678901234567890, "u":"\u00e9\/\ud83d\ude00 ' + "é😀\u2028".encode() + rb'",'
    rb'"e":{},"n":null,"x":1E+2, "twin":1, "twin":2 }'
)
MESSAGES = rb'[ {"role":"user","content":{"type":"text","text":"caf\u00e9 \/ ok" ,"_meta":' + ODD + rb"}} , ]"
MESSAGES = MESSAGES.replace(b" , ]", b"  ]")
VALUES = rb'{"values":["b\/c" , "\u00e9"],"total":1E2, "hasMore" :false}'


def contents(uri: str) -> bytes:
    return b'[ {"uri" : "%s","text":"t\\u0065xt \\/" , "_meta":%s} ]' % (uri.encode(), ODD)


def library(era: str) -> Library:
    def below(uri: str) -> bytes | None:
        return contents(uri) if uri.startswith(f"{era}://pages/") and "nothing" not in uri else None

    return Library(
        era,
        {},
        prompts={f"{era}-hello": b'{"description":"d\\u0065" , "messages":' + MESSAGES + b"}"},
        resources={f"{era}:one": contents(f"{era}:one")},
        templates=[f"{era}://pages/{{page}}/text"],
        unlisted=below,
        values={f"{era}-hello": VALUES, f"{era}://pages/{{page}}/text": VALUES},
        noisy=False,
    )


@dataclass
class Scene:
    gateway: Gateway
    boxes: dict[str, Library]
    loop: Aside

    def heard(self) -> list[tuple[str, str, str]]:
        """Server, method and key of all that was asked since the last look."""
        found = [(era, one.method, one.key) for era, box in self.boxes.items() for one in box.heard]
        for box in self.boxes.values():
            box.heard.clear()
        return found


@asynccontextmanager
async def scene(folder: Path, loop: Aside) -> AsyncIterator[Scene]:
    boxes = {era: library(era) for era in ("modern", "legacy")}
    async with libraries(folder, boxes, agents=AGENTS) as gateway:
        for kind, keys in (
            ("prompts/list", ("modern-hello", "legacy-hello")),
            ("resources/list", ("modern:one", "legacy:one")),
            ("resources/templates/list", ("modern://pages/{page}/text", "legacy://pages/{page}/text")),
        ):
            await offered(gateway.url, kind, keys)
        yield Scene(gateway, boxes, loop)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with aside() as loop:
        yield loop.enter(scene(tmp_path_factory.mktemp("pairs"), loop))


def shaped(reply: Reply, era: str, *, hints: bool) -> dict[str, Any]:
    """The result, which has what its era demands and nothing of another's."""
    assert reply.status == 200
    result: dict[str, Any] = reply.json()["result"]
    if era == "legacy":
        assert {"resultType", "ttlMs", "cacheScope"}.isdisjoint(result)
        assert f"{META}serverInfo" not in result.get("_meta", {})
        return result
    assert result["resultType"] == "complete"
    assert result["_meta"][f"{META}serverInfo"]["name"] == "fastgw"
    if hints:
        assert isinstance(result["ttlMs"], int)
        assert result["cacheScope"] == "private"
    else:
        assert {"ttlMs", "cacheScope"}.isdisjoint(result)
    return result


@pytest.mark.parametrize("pair", PAIRS)
def test_lists_and_gets_and_reads_and_completes(pair: Pair, stage: Scene) -> None:
    era = pair.server

    async def story() -> None:
        who = await agent(pair.agent, stage.gateway.url)
        for method, kind, key in (
            ("prompts/list", "prompts", "name"),
            ("resources/list", "resources", "uri"),
            ("resources/templates/list", "resourceTemplates", "uriTemplate"),
        ):
            listed = shaped(await who.ask(method), pair.agent, hints=True)[kind]
            assert sum(item[key].startswith(era) for item in listed) == 1
            assert len(listed) == 2
        assert stage.heard() == [], "lists are answered here"
        for _ in range(4):
            reply = await who.get(f"{era}-hello", {"word": "x"})
            shaped(reply, pair.agent, hints=False)
            assert b'"messages":' + MESSAGES in reply.body
            assert rb'"description":"d\u0065"' in reply.body
            assert stage.boxes[era].heard[-1].params["arguments"] == {"word": "x"}
            assert stage.heard() == [(era, "prompts/get", f"{era}-hello")]
            for uri in (f"{era}:one", f"{era}://pages/a%20b/text", f"{era}://pages/caf%C3%A9/text"):
                reply = await who.read(uri)
                shaped(reply, pair.agent, hints=True)
                assert b'"contents":' + contents(uri) in reply.body
                assert stage.heard() == [(era, "resources/read", uri)]
            for kind, key in (("ref/prompt", f"{era}-hello"), ("ref/resource", f"{era}://pages/{{page}}/text")):
                reply = await who.complete(kind, key, "b")
                shaped(reply, pair.agent, hints=False)
                assert b'"completion":' + VALUES in reply.body
                assert stage.boxes[era].heard[-1].params["argument"] == {"name": "word", "value": "b"}
                assert stage.heard() == [(era, "completion/complete", key)]

    stage.loop.run(story())


@pytest.mark.parametrize("pair", PAIRS)
def test_what_a_modern_server_says_of_freshness_is_handed_on_to_modern_agents_alone(pair: Pair, stage: Scene) -> None:
    async def story() -> None:
        who = await agent(pair.agent, stage.gateway.url)
        result = shaped(await who.read(f"{pair.server}:one"), pair.agent, hints=True)
        told = {"modern": 1234, "legacy": 0}[pair.server]
        assert result.get("ttlMs") == (told if pair.agent == "modern" else None)

    stage.loop.run(story())
    stage.heard()


@pytest.mark.parametrize("pair", PAIRS)
def test_a_missing_one_is_told_as_each_era_wants_it(pair: Pair, stage: Scene) -> None:
    """One that the server does not know, and one that leads to no server, in the same words."""
    code, status = (-32602, 400) if pair.agent == "modern" else (-32002, 200)

    def plain(reply: Reply, key: str) -> Any:
        error = reply.json()["error"]
        assert error["data"].pop("requestId") == reply.header("x-request-id")
        assert error["data"].pop("uri") == key
        names = [name for name, _ in reply.headers if name != "content-length"]
        return reply.status, error, names

    async def story() -> None:
        who = await agent(pair.agent, stage.gateway.url)
        nowhere = "nowhere:page-that-is-not-here"
        there = f"{pair.server}://pages/nothing/text"
        missing = plain(await who.read(nowhere), nowhere)
        assert stage.heard() == []
        assert (missing[0], missing[1]["code"]) == (status, code)
        unknown = plain(await who.read(there), there)
        assert stage.heard() == [(pair.server, "resources/read", there)]
        assert unknown == missing
        for reply in (await who.get("no-such"), await who.complete("ref/prompt", "no-such")):
            error = reply.json()["error"]
            assert (error["code"], error["data"]["name"], "uri" in error["data"]) == (-32602, "no-such", False)
        assert plain(await who.complete("ref/resource", nowhere), nowhere) == missing
        assert stage.heard() == []

    stage.loop.run(story())


@pytest.mark.parametrize("completing", [True, False])
def test_a_server_that_completes_nothing_is_not_asked(completing: bool, tmp_path: Path) -> None:
    """Where another one completes it knows no values; where none does there is no such method."""
    quiet, other = library("legacy"), library("modern")
    for box in (quiet,) if completing else (quiet, other):
        del box.capabilities["completions"]

    async def story() -> None:
        async with libraries(tmp_path, {"quiet": quiet, "other": other}, agents=AGENTS) as gateway:
            await offered(gateway.url, "prompts/list", ["legacy-hello", "modern-hello"])
            for pair in PAIRS[::2]:
                who = await agent(pair.agent, gateway.url)
                for kind, key in (("ref/prompt", "legacy-hello"), ("ref/resource", "legacy://pages/{page}/text")):
                    reply = await who.complete(kind, key)
                    if completing:
                        values = shaped(reply, pair.agent, hints=False)["completion"]["values"]
                        assert values == []
                    else:
                        assert reply.json()["error"]["code"] == -32601
                        assert reply.status == (404 if pair.agent == "modern" else 200)
        assert quiet.heard == []

    asyncio.run(story())


@pytest.mark.parametrize("agent_era", ["modern", "legacy"])
def test_capabilities_say_what_is_offered(agent_era: str, stage: Scene) -> None:
    async def story() -> None:
        url = stage.gateway.url
        if agent_era == "modern":
            found = (await exchange(url, modern("server/discover", key=KEY))).json()["result"]["capabilities"]
        else:
            client = {"name": "t", "version": "1"}
            params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
            found = (await exchange(url, legacy("initialize", params, key=KEY))).json()["result"]["capabilities"]
        assert set(found) == {"tools", "prompts", "resources", "completions", "logging"}
        assert not any(value.get("listChanged") or value.get("subscribe") for value in found.values())

    stage.loop.run(story())


# -- log levels -----------------------------------------------------------------------------------------------------


async def heard(who: Agent, asked: Any) -> tuple[list[str], list[Any]]:
    """Levels and data of the log messages before an answer."""
    reply = await exchange(who.url, asked)
    assert reply.status == 200
    messages = [event.json() for event in reply.events() if "method" in event.json()] if reply.is_stream else []
    return [one["params"]["level"] for one in messages], [one["params"]["data"] for one in messages]


def asking(who: Agent, era: str, level: str | None) -> dict[str, Any]:
    """One question of each method that goes to a server, by what the server knows it as."""
    meta = {} if level is None else {f"{META}logLevel": level}
    page = f"{era}://pages/{{page}}/text"
    wanted: list[tuple[str, str, dict[str, Any]]] = [
        (f"{era}-hello", "prompts/get", {"name": f"{era}-hello"}),
        (f"{era}:one", "resources/read", {"uri": f"{era}:one"}),
        (page, "completion/complete", {"ref": {"type": "ref/resource", "uri": page},
                                       "argument": {"name": "page", "value": ""}}),
    ]  # fmt: skip
    if who.session:
        return {key: legacy(method, params, key=who.key, session=who.session) for key, method, params in wanted}
    return {key: modern(method, params, key=who.key, meta=meta) for key, method, params in wanted}


LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")


def from_on(level: str) -> list[str]:
    return list(LEVELS[LEVELS.index(level) :])


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_levels_reach_the_server_for_their_agent_alone(era: str, tmp_path: Path) -> None:
    """Four agents, two of each era, each with another level, at the same time, on both workers."""
    box = library(era)
    box.noisy = True
    wishes = {("modern", KEY): "warning", ("modern", OTHER): "error",
              ("legacy", KEY): "notice", ("legacy", OTHER): "critical"}  # fmt: skip

    async def story() -> None:
        async with libraries(tmp_path, {"shelf": box}, agents=AGENTS) as gateway:
            await offered(gateway.url, "prompts/list", [f"{era}-hello"], OTHER)
            agents = {wish: await agent(wish[0], gateway.url, wish[1]) for wish in wishes}
            for (kind, key), who in agents.items():
                if kind == "legacy":
                    params = {"level": wishes[kind, key]}
                    reply = await exchange(who.url, legacy("logging/setLevel", params, key=key, session=who.session))
                    assert reply.json()["result"] == {}
            assert box.told == {}, "a level is told with the next call"

            async def speaks(wish: tuple[str, str]) -> None:
                who, level = agents[wish], wishes[wish]
                for _ in range(5):
                    for key, asked in asking(who, era, level).items():
                        levels, data = await heard(who, asked)
                        assert levels == from_on(level), (wish, key)
                        assert {one["key"] for one in data} == {key}
                        sessions[wish].update(one["session"] for one in data)

            sessions: dict[tuple[str, str], set[str | None]] = {wish: set() for wish in wishes}
            await asyncio.gather(*(speaks(wish) for wish in wishes))
            asked = [one for one in box.heard if one.method != "logging/setLevel"]
            assert len(asked) == 4 * 5 * 3
            if era == "modern":
                assert {one.session for one in asked} == {None}
                for level in wishes.values():
                    assert sum(one.level == level for one in asked) == 5 * 3
                return
            assert all(len(found) == 1 for found in sessions.values()), "one session each"
            own = {wish: found.pop() for wish, found in sessions.items()}
            assert len(set(own.values())) == len(wishes), "no session serves two"
            for wish, level in wishes.items():
                # A modern agent's requests share its session, whatever level each wants: the server says all.
                assert box.told[str(own[wish])] == (level if wish[0] == "legacy" else "debug")
            assert {one.level for one in asked} == {None}

    asyncio.run(story())


def test_who_says_no_level_hears_what_its_era_gives_it(tmp_path: Path) -> None:
    """A session from info on (the gateway's choice; the revision leaves it open), a request without a level nothing."""
    boxes = {era: library(era) for era in ("modern", "legacy")}
    for box in boxes.values():
        box.noisy = True

    async def story() -> None:
        async with libraries(tmp_path, boxes, agents=AGENTS) as gateway:
            await offered(gateway.url, "prompts/list", ["modern-hello", "legacy-hello"])
            for pair in PAIRS:
                who = await agent(pair.agent, gateway.url)
                for asked in asking(who, pair.server, None).values():
                    levels, _ = await heard(who, asked)
                    assert levels == (from_on("info") if pair.agent == "legacy" else []), pair
                    said = boxes[pair.server].heard[-1].level
                    assert said == ("info" if pair == ("legacy", "modern") else None)
        assert boxes["legacy"].told == {}, "nobody has set a level"

    asyncio.run(story())
