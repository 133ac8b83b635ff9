"""What the operator settled about a tool, in all four pairs of eras: what is sent, shown, refused and checked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fastgw.cli.main import main
from fastgw.protocol.envelope import members
from tests.e2e.aside import Aside, aside
from tests.e2e.asking import ERAS, Agent, agent, listed
from tests.e2e.gateway import KEY, Gateway, fingerprint, running_beside, until
from tests.e2e.http import Asked, exchange, legacy, modern, open_session
from tests.e2e.pairs import PAIRS, Pair
from tests.e2e.servers import Call, Got, Toolbox, serving

BAD_PARAMS, DENIED, LOST = -32602, -31040, -31003
BIG = "123456789012345678901234567890"
SCHEMA = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "text": {"type": "string", "maxLength": 5},
        "limit": {"type": "integer"},
        "id": {"type": "integer"},
    },
    "required": ["region", "text", "limit", "id"],
    "additionalProperties": False,
}
PROMISED = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TOOLS = {
    "find": {
        "to": {"server": "box", "tool": "find", "arguments": {"words": "text"}},
        "fixed": {"region": "eu", "id": int(BIG)},
        "defaults": {"limit": 10},
        "validate": ["arguments", "results"],
    },
    "box/remote": {"validate": "arguments"},
}
REMOTE = {"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1:9/x"}}}
POLICIES = [
    {"name": "all", "allow": ["*"]},
    {"name": "eu", "match": {"agent": "abroad", "arguments": {"region": "eu"}}, "deny": ["find"]},
]
ABROAD = "fgw_test_abroad"
ANSWERS = (
    b'{"content":[],"structuredContent":{"n":1}}',
    b'{"content":[],"structuredContent":{"n":1}}',
    b'{"content":[]}',
    b'{"content":[],"structuredContent":{"n":"hunter2"}}',
    b'{"content":[],"isError":true}',
)


@asynccontextmanager
async def behind(folder: Path, box: Toolbox) -> AsyncIterator[str]:
    """A gateway before the box, both workers ready; its URL."""
    agents = {"tester": {"key": fingerprint(KEY)}, "abroad": {"key": fingerprint(ABROAD)}}
    async with serving(box) as server:
        more = {"servers": {"box": {"url": server.url}}, "tools": TOOLS, "policies": POLICIES, "agents": agents}
        async with running_beside(more, folder) as gateway:

            async def fetched() -> bool:  # it is listed before that, for the configuration names it
                tools = await Agent(gateway.url, KEY).tools()
                return "properties" in tools[0]["inputSchema"]

            await until(fetched)
            yield gateway.url


def told(reply: Any) -> tuple[int, str]:
    error = reply.json()["error"]
    return error["code"], error["message"]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_a_curated_tool(tmp_path: Path, pair: Pair) -> None:
    results = iter(ANSWERS)

    async def find(call: Call) -> None:
        await call.result(next(results))

    box = Toolbox(
        pair.server,
        {"find": find, "remote": find},
        {"find": {"inputSchema": SCHEMA, "outputSchema": PROMISED}, "remote": {"inputSchema": REMOTE}},
    )

    async def story() -> None:
        async with behind(tmp_path, box) as url:
            it = await agent(pair.agent, url)
            await _shown(it)
            await _sent(it, box)
            await _refused(it, box, await agent(pair.agent, url, ABROAD))
            await _checked(it)

    asyncio.run(story())


async def _shown(it: Agent) -> None:
    tools = await it.tools()
    assert [tool["name"] for tool in tools] == ["find"]  # `remote` cannot be validated against, so it is not there
    schema = tools[0]["inputSchema"]
    assert (list(schema["properties"]), schema["required"]) == (["words", "limit"], ["words"])
    assert schema["properties"]["limit"] == {"type": "integer", "default": 10}


async def _sent(it: Agent, box: Toolbox) -> None:
    for arguments, limit in (({"words": "x"}, "10"), ({"words": "x", "limit": 3}, "3")):
        assert (await it.call("find", arguments)).json()["result"]["structuredContent"] == {"n": 1}
        got = box.last_call()
        sent = json.loads(got.body, parse_int=str)["params"]["arguments"]
        assert sent == {"text": "x", "limit": limit, "region": "eu", "id": BIG}
        if box.era == "modern":
            assert got.header("mcp-param-region") == "eu"


async def _refused(it: Agent, box: Toolbox, abroad: Agent) -> None:
    before = len(box.ledger)
    for arguments, words in (
        ({"words": "too long"}, "arguments.words: the value is longer than 5 characters"),
        ({}, 'arguments: "words" is a required property'),
        ({"words": "x", "region": "us"}, "'region' was unexpected"),
        ({"words": "x", "limit": "3"}, 'arguments.limit: the value is not of type "integer"'),
    ):
        code, message = told(await it.call("find", arguments))
        assert code == BAD_PARAMS
        assert words in message
        assert "box" not in message
    assert told(await it.call("remote"))[1] == "Unknown tool: remote"
    assert told(await abroad.call("find", {"words": "x"}))[0] == DENIED  # for what would be sent: region eu
    assert len(box.ledger) == before


async def _checked(it: Agent) -> None:
    for _ in ("missing", "of a wrong type"):
        code, message = told(await it.call("find", {"words": "x"}))
        assert code == LOST
        assert "hunter2" not in message
    assert (await it.call("find", {"words": "x"})).json()["result"]["isError"] is True


# -- many tools at once ---------------------------------------------------------------------------------------------

SECRET, KEPT = "a-secret-of-the-tool-5c1", "a-secret-of-a-file-77e"
THIRD = "fgw_test_third"
NO_HEADER = -32020
OTHERS = """
tools:
  {era}_show:
    title: Our title
    description: Our words.
    annotations: {{readOnlyHint: true, idempotentHint: true}}
  {era}-send:
    to: {{server: {era}, tool: {era}_send, arguments: {{place: region, words: text, tongue: language}}}}
    fixed:
      place: eu
      token: "${{env:TOOL_SECRET}}"
      deep: {{list: [1, {{big: 123456789012345678901234567890, secret: "x${{file:secret.txt}}"}}], none: ~, yes: true}}
      price: 1.10
      tiny: 1e-400
    defaults: {{tongue: de, limit: 10000000000000000000000, page: {{size: 5, of: [a]}}}}
  {era}-pick:
    route:
      - match: {{arguments: {{size: large}}}}
        to: {era}/{era}_large
      - match: {{agent: tester}}
        to: {era}/{era}_small
      - to: {{server: {era}, tool: {era}_any, arguments: {{size: width}}}}
  {era}/{era}_large: {{fixed: {{tenant: big}}, description: Large.}}
  {era}/{era}_small: {{defaults: {{size: small}}, fixed: {{tenant: ours}}, description: Small.}}
  {era}/{era}_any: {{defaults: {{size: tiny}}, description: Any.}}
"""
SENT = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "text": {"type": "string"},
        "language": {"type": "string", "x-mcp-header": "Language"},
        "limit": {"type": "integer"},
        "page": {"type": "object"},
        "token": {"type": "string"},
        "deep": {"type": "object"},
        "price": {"type": "number"},
        "tiny": {"type": "number"},
    },
    "required": ["text", "token", "region", "language"],
}
SIZED = {"type": "object", "properties": {"size": {"type": "string"}, "tenant": {"type": "string"}}}
DEFINED: dict[str, dict[str, Any]] = {
    "show": {
        "title": "Their title",
        "description": "Their words.",
        "annotations": {"readOnlyHint": False, "openWorldHint": True},
    },
    "send": {"inputSchema": SENT},
    "large": {"inputSchema": SIZED},
    "small": {"inputSchema": SIZED},
    "any": {"inputSchema": {"type": "object", "properties": {"width": {"type": "string"}}}},
}
FIXED = (
    b'"region":"eu","token":"' + SECRET.encode() + b'","deep":{"list":[1,{"big":123456789012345678901234567890,'
    b'"secret":"x' + KEPT.encode() + b'"}],"none":null,"yes":true},"price":1.10,"tiny":1e-400'
)
RULES = [
    {"name": "most", "match": {"agent": ["tester", "other"]}, "allow": ["*"]},
    {"name": "not-eu", "match": {"agent": "other", "arguments": {"place": "eu"}}, "deny": ["*-send"]},
    {"name": "not-small", "match": {"agent": "tester", "arguments": {"size": "forbidden"}}, "deny": ["*-pick"]},
    {"name": "german", "match": {"agent": "third", "arguments": {"tongue": "de", "place": "eu"}}, "allow": ["*-send"]},
    {"name": "ours", "match": {"agent": "third", "arguments": {"size": ["tiny", "large"]}}, "allow": ["*-pick"]},
]


@dataclass
class Scene:
    """A gateway before a server of each era with these tools."""

    gateway: Gateway
    boxes: dict[str, Toolbox]
    loop: Aside

    def got(self, era: str) -> Got:
        """The last call that the server got."""
        return self.boxes[era].last_call()

    def reached(self) -> int:
        return sum(len(box.ledger) for box in self.boxes.values())


async def says(call: Call) -> None:
    await call.text(call.name)


@asynccontextmanager
async def scene(folder: Path, loop: Aside) -> AsyncIterator[Scene]:
    boxes = {
        era: Toolbox(
            era, {f"{era}_{name}": says for name in DEFINED}, {f"{era}_{name}": one for name, one in DEFINED.items()}
        )
        for era in ERAS
    }
    (folder / "secret.txt").write_text(f"{KEPT}\n")
    for era in ERAS:
        (folder / f"{era}.yaml").write_text(OTHERS.format(era=era))
    agents = {"tester": KEY, "other": ABROAD, "third": THIRD}
    async with serving(boxes["legacy"]) as old, serving(boxes["modern"]) as new:
        more = {
            "servers": {"legacy": {"url": old.url}, "modern": {"url": new.url}},
            "agents": {name: {"key": fingerprint(key)} for name, key in agents.items()},
            "policies": RULES,
            "include": [f"{era}.yaml" for era in ERAS],
            "log": {"level": "debug"},
        }
        async with running_beside(more, folder, {"TOOL_SECRET": SECRET}) as gateway:
            await listed(gateway, *(f"{era}{name}" for era in ERAS for name in ("_show", "-send", "-pick")))
            yield Scene(gateway, boxes, loop)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with aside() as loop:
        yield loop.enter(scene(tmp_path_factory.mktemp("curation"), loop))


def mirrored(tool: str, arguments: bytes, key: str = KEY, **headers: str) -> Asked:
    """A modern agent's call, its arguments as JSON text; `_` in the name of a header stands for `-`."""
    asked = modern("tools/call", {"name": tool, "arguments": "HERE"}, key=key)
    asked.body = asked.body.replace(b'"HERE"', arguments)
    for name, value in headers.items():
        asked = asked.having(name.replace("_", "-"), value)
    return asked


def on_wire(got: Got) -> bytes:
    """The arguments as the server got them, byte for byte."""
    return bytes(members(members(got.body)["params"])["arguments"])


@pytest.mark.parametrize("era", ERAS)
def test_the_operators_words_are_shown(stage: Scene, era: str) -> None:
    async def story() -> None:
        for server in ERAS:
            shown = {tool["name"]: tool for tool in await (await agent(era, stage.gateway.url)).tools()}
            tool = shown[f"{server}_show"]
            assert (tool["title"], tool["description"]) == ("Our title", "Our words.")
            assert tool["annotations"] == {"readOnlyHint": True, "openWorldHint": True, "idempotentHint": True}
            schema = shown[f"{server}-send"]["inputSchema"]
            assert list(schema["properties"]) == ["words", "tongue", "limit", "page"]
            assert schema["required"] == ["words"]
            assert schema["properties"]["tongue"] == {"type": "string", "x-mcp-header": "Language", "default": "de"}
            assert schema["properties"]["limit"] == {"type": "integer", "default": 10**22}
            assert schema["properties"]["page"] == {"type": "object", "default": {"size": 5, "of": ["a"]}}

    stage.loop.run(story())


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_what_is_settled_is_sent_byte_for_byte(stage: Scene, pair: Pair) -> None:
    async def story() -> None:
        who, tool = await agent(pair.agent, stage.gateway.url), f"{pair.server}-send"
        filled = b'"language":"de","limit":10000000000000000000000,"page":{"size":5,"of":["a"]},'
        assert (await who.call(tool, {"words": "w"})).status == 200
        assert on_wire(stage.got(pair.server)) == b'{"text":"w",' + filled + FIXED + b"}"
        own = {"limit": None, "words": "w", "page": 7}
        assert (await who.call(tool, own)).status == 200
        sent = b'{"limit":null,"text":"w","page":7,"language":"de",' + FIXED + b"}"
        assert on_wire(stage.got(pair.server)).replace(b" ", b"") == sent
        if pair.server == "modern":
            got = stage.got("modern")
            assert (got.header("mcp-param-region"), got.header("mcp-param-language")) == ("eu", "de")

    stage.loop.run(story())


def test_headers_of_settled_arguments(stage: Scene) -> None:
    async def story() -> None:
        url = stage.gateway.url
        for tool, era in (("modern-send", "modern"), ("legacy-send", "legacy")):
            said = await exchange(url, mirrored(tool, b'{"words":"w","tongue":"fr"}', Mcp_Param_Language="fr"))
            assert said.status == 200
            sent = stage.got(era)
            assert b'"language":"fr"' in on_wire(sent)
            before = stage.reached()
            for asked in (
                mirrored(tool, b'{"words":"w","tongue":"fr"}'),
                mirrored(tool, b'{"words":"w","tongue":"fr"}', Mcp_Param_Language="de"),
                mirrored(tool, b'{"words":"w"}', Mcp_Param_Language="fr"),
            ):
                assert told(await exchange(url, asked))[0] == NO_HEADER
            assert stage.reached() == before
            # Agents cannot see `region`; a header of that name is no way to another one.
            smuggled = mirrored(tool, b'{"words":"w"}', Mcp_Param_Region="us", Mcp_Param_Place="us")
            assert (await exchange(url, smuggled)).status == 200
            regions = [value for name, value in stage.got(era).headers if name == "mcp-param-region"]
            assert regions == (["eu"] if era == "modern" else [])
        values = [value for name, value in sent.headers if name.startswith("mcp-param-")]
        assert values == [], "a server with sessions knows no such headers"

    stage.loop.run(story())


@pytest.mark.parametrize("server", ERAS)
def test_a_fixed_argument_is_not_the_agents_to_send(stage: Scene, server: str) -> None:
    refused = [
        b'{"words":"w","place":"us"}', b'{"words":"w","place":"eu"}', b'{"words":"w","place":null}',
        b'{"words":"w","Place":"us"}', b'{"words":"w","p\\u006cace":"us"}', b'{"words":"w","token":"x"}',
        b'{"words":"w","deep":{}}', b'{"words":"w","region":"us"}', b'{"words":"w","language":"fr"}',
        b'{"words":"w","text":"x"}', b'{"words":"w","tongue":"de","tongue":"fr"}', b'["w"]', b'"w"',
        b'{"words":"w","PLACE":"us"}', b'{"words":"w","tiny":1}',
    ]  # fmt: skip

    async def story() -> None:
        tool, before = f"{server}-send", stage.reached()
        session = await open_session(stage.gateway.url, key=KEY)
        for arguments in refused:
            by_legacy = legacy("tools/call", {"name": tool, "arguments": "HERE"}, key=KEY, session=session)
            by_legacy.body = by_legacy.body.replace(b'"HERE"', arguments)
            fields = [("Authorization", f"Bearer {KEY}"), ("Content-Type", "application/json")]
            for asked, path in (
                (mirrored(tool, arguments), ""),
                (by_legacy, ""),
                (Asked(arguments, fields), f"/tools/{tool}/invoke"),
            ):
                reply = await exchange(stage.gateway.url + path, asked)
                found = reply.json() if path else reply.json()["error"]
                assert found["code"] in (BAD_PARAMS, NO_HEADER), (arguments, path, found)
                assert stage.reached() == before, (arguments, path)

    stage.loop.run(story())


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_policies_see_what_will_be_sent(stage: Scene, pair: Pair) -> None:
    async def story() -> None:
        url, tool = stage.gateway.url, f"{pair.server}-send"
        other, third = [await agent(pair.agent, url, key) for key in (ABROAD, THIRD)]
        before = stage.reached()
        assert told(await other.call(tool, {"words": "w"}))[0] == DENIED, "the place is fixed to eu"
        assert stage.reached() == before
        assert (await third.call(tool, {"words": "w"})).json()["result"], "the tongue is de by default"
        assert stage.reached() == before + 1
        if pair.agent == "legacy":
            assert told(await third.call(tool, {"words": "w", "tongue": "fr"}))[0] == DENIED
        else:
            french = mirrored(tool, b'{"words":"w","tongue":"fr"}', THIRD, Mcp_Param_Language="fr")
            assert told(await exchange(url, french))[0] == DENIED
        assert stage.reached() == before + 1

    stage.loop.run(story())


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_each_arm_has_what_is_said_of_its_own_target(stage: Scene, pair: Pair) -> None:
    async def story() -> None:
        url, era = stage.gateway.url, pair.server
        tester, third = [await agent(pair.agent, url, key) for key in (KEY, THIRD)]
        tool = f"{era}-pick"
        for who, arguments, own, sent in (
            (tester, {}, "small", {"size": "small", "tenant": "ours"}),
            (tester, {"size": "x"}, "small", {"size": "x", "tenant": "ours"}),
            (tester, {"size": "large"}, "large", {"size": "large", "tenant": "big"}),
            (third, {}, "any", {"width": "tiny"}),
            (third, {"size": "large"}, "large", {"size": "large", "tenant": "big"}),
        ):
            assert (await who.call(tool, arguments)).json()["result"]["content"][0]["text"] == f"{era}_{own}"
            assert json.loads(on_wire(stage.got(era))) == sent
        before = stage.reached()
        for who, arguments, code in (
            (tester, {"size": "forbidden"}, DENIED),
            (tester, {"tenant": "theirs"}, BAD_PARAMS),
            (tester, {"size": "large", "tenant": "theirs"}, BAD_PARAMS),
            (third, {"size": "x"}, DENIED),
            (third, {"size": "large", "tenant": "theirs"}, BAD_PARAMS),
            (third, {"width": "large"}, BAD_PARAMS),
        ):
            assert told(await who.call(tool, arguments))[0] == code, (who.key, arguments)
        assert stage.reached() == before

    stage.loop.run(story())


def test_by_rest_as_by_any_other_way(stage: Scene) -> None:
    async def story() -> None:
        fields = [("Authorization", f"Bearer {KEY}"), ("Content-Type", "application/json")]
        for era in ERAS:
            reply = await exchange(f"{stage.gateway.url}/tools/{era}-send/invoke", Asked(b'{"words": "w"}', fields))
            assert reply.status == 200
            assert on_wire(stage.got(era)).endswith(FIXED + b"}")

    stage.loop.run(story())


def test_a_secret_among_the_fixed_arguments_is_shown_to_nobody(
    stage: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After all that: no list, description, refusal, event, log, page or file but its own holds it."""
    shown: dict[str, str] = {}

    async def story() -> None:
        url, fields = stage.gateway.url, [("Authorization", f"Bearer {KEY}")]
        for key in (KEY, ABROAD, THIRD):
            for era in ERAS:
                who = await agent(era, url, key)
                shown[f"list {key} {era}"] = (await who.ask("tools/list")).body.decode()
                for arguments in ({}, {"token": "x"}, {"tongue": 5}, {"place": "us"}):
                    reply = await who.call("legacy-send", arguments)
                    shown[f"call {key} {era} {arguments}"] = f"{reply.headers} {reply.body!r}"
        for path in ("/tools", "/openapi.json"):
            shown[path] = (await exchange(url + path, Asked(b"", fields, "GET"))).body.decode()

    stage.loop.run(story())
    monkeypatch.setenv("TOOL_SECRET", SECRET)
    monkeypatch.setenv("FASTGW_SECRET", "a secret for tests, 32 bytes long")
    file = str(stage.gateway.folder / "fastgw.yaml")
    for words in (
        ["check"],
        ["schema"],
        *(["explain", "--agent", "tester", "--tool", f"{era}-send", *more]
          for era in ERAS for more in ([], ["--json"], ["--arguments", '{"token": "x"}'], ["--arguments", "{}"])),
    ):  # fmt: skip
        main([*words, "--config", file] if words != ["schema"] else words)
        printed, complained = capsys.readouterr()
        shown[" ".join(words)] = printed + complained
    assert "fixed arguments: place, token, deep, price, tiny" in shown["explain --agent tester --tool modern-send"]
    for path in ("/", "/metrics", "/backends", "/catalogue", "/stats"):
        shown[path] = stage.gateway.ask_admin(path)[1].decode()
    for one in stage.gateway.folder.rglob("*"):
        if one.is_file() and one.name != "secret.txt":
            shown[str(one)] = one.read_text(errors="replace")
    assert "legacy_send" in shown["/catalogue"] + "".join(text for name, text in shown.items() if "/data/" in name)
    for place, text in shown.items():
        assert SECRET not in text, place
        assert KEPT not in text, place
