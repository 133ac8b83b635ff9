"""A prompt, resource, template or completion that is not for an agent is, to every byte, one that does not exist."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.aside import Aside, aside
from tests.e2e.asking import ERAS, Agent, agent
from tests.e2e.gateway import KEY, Gateway, fingerprint
from tests.e2e.http import Asked, Reply, exchange, in_base64, initialize, legacy, modern
from tests.e2e.library import Library, done, libraries, offered, said, text

NOBODY, WIDE = "fgw_test_nobody", "fgw_test_wide"
AGENTS = {
    "tester": {"key": fingerprint(KEY), "claims": {"team": "test"}},
    "nobody": {"key": fingerprint(NOBODY), "claims": {"team": "none"}},
    "wide": {"key": fingerprint(WIDE), "claims": {"team": "wide"}},
}
POLICIES: list[dict[str, Any]] = [
    {
        "name": "testers",
        "match": {"claims": {"team": "test"}},
        "allow": ["*", "prompt:open-*", "prompt:denied-*", "prompt:*shared-talk", "prompt:kept-*", "prompt:lost-*",
                  "resource:docs://*", "resource:file:*", "resource:shared:*", "resource:alpha/own:*",
                  "resource:*+shared:*", "resource:beta:*", "resource:far://*"],
        "deny": ["prompt:denied-talk", "prompt:alpha/open-hush", "resource:docs://guide/secret*",
                 "resource:file:///secret/*", "resource:alpha/docs://guide/hush", "resource:far://{x}/denied"],
    },
    {
        "name": "wide",
        "match": {"claims": {"team": "wide"}},
        "allow": ["*", "prompt:*", "resource:*"],
        "deny": ["resource:docs://guide/secret*", "resource:file:///secret/*", "resource:never:*",
                 "resource:alpha/docs://guide/hush"],
    },
    {"name": "by-arguments", "match": {"arguments": {"kind": "x"}}, "allow": ["resource:ask:*"]},
    {"name": "someday", "mode": "shadow", "allow": ["prompt:never-*", "resource:never:*"]},
]  # fmt: skip
ENDPOINTS: dict[str, Any] = {
    "/mcp": {},
    "/mcp/small": {"tools": ["open-*", "prompt:open-talk", "resource:docs://guide/open"]},
    "/mcp/none": {"naming": "none"},
    "/mcp/plain": {"tools": ["open-*"]},
    "/mcp/alpha": {"servers": ["alpha"]},
    "/mcp/blank": {"servers": ["gamma"]},
}
SERVERS = {"beta": {"tools": ["*", "prompt:kept-*", "prompt:shared-*", "resource:beta:open", "resource:shared:*"]}}


def everything(uri: str) -> bytes:
    """A server that answers whatever it is asked: nothing of what follows is hidden by it."""
    return text(uri, "served")


def boxes() -> dict[str, Library]:
    alpha = Library(
        "modern",
        {"open-tool": done},
        prompts=dict.fromkeys(("open-talk", "open-hush", "denied-talk", "never-talk", "shared-talk"), said()),
        resources=dict.fromkeys(
            ("docs://guide/open", "docs://guide/secret", "docs://guide/hush", "file:///pub/a.txt",
             "file:///secret/a.txt", "shared:doc", "never:one", "ask:me", "own:one"), text("x:y")
        ),
        templates=["docs://guide/{page}", "file:///{+path}", "never:{x}", "far://{x}/denied", "{+all}", "shared:{x}"],
        unlisted=everything,
    )  # fmt: skip
    beta = Library(
        "legacy",
        {"open-too": done},
        prompts=dict.fromkeys(("shared-talk", "kept-talk", "lost-talk"), said()),
        resources=dict.fromkeys(("shared:doc", "beta:open", "beta:lost"), text("x:y")),
        templates=["beta:{x}"],
        unlisted=everything,
    )
    gamma = Library("modern", {}, capabilities={"tools": {}})
    for box in (alpha, beta):
        keys = (*box.prompts, *box.resources, *box.templates)
        box.values = dict.fromkeys(keys, b'{"values":["served"]}')
    return {"alpha": alpha, "beta": beta, "gamma": gamma}


PROMPTS = {"/mcp": ["open-talk", "alpha__shared-talk", "beta__shared-talk", "kept-talk"],
           "/mcp/small": ["open-talk"], "/mcp/none": ["open-talk", "shared-talk", "kept-talk"],
           "/mcp/plain": [], "/mcp/blank": []}  # fmt: skip
RESOURCES = {
    "/mcp": ["docs://guide/open", "file:///pub/a.txt", "alpha+shared:doc", "own:one", "beta+shared:doc", "beta:open"],
    "/mcp/small": ["docs://guide/open"],
    "/mcp/none": ["docs://guide/open", "file:///pub/a.txt", "shared:doc", "own:one", "beta:open"],
    "/mcp/plain": [],
    "/mcp/blank": [],
}
TEMPLATES = {"/mcp": ["docs://guide/{page}", "file:///{+path}", "shared:{x}"],
             "/mcp/none": ["docs://guide/{page}", "file:///{+path}", "shared:{x}"],
             "/mcp/small": [], "/mcp/plain": [], "/mcp/blank": []}  # fmt: skip
HIDDEN_PROMPTS = {
    "/mcp": ["open-hush", "denied-talk", "never-talk", "shared-talk", "lost-talk", "beta__lost-talk", "alpha/open-talk",
             "alpha__open-talk", "beta__kept-talk", "kept/kept-talk", "beta/kept-talk", "alpha__denied-talk",
             "Open-Talk", "open-talk ", "open-tool"],
    "/mcp/small": ["kept-talk", "alpha__shared-talk", "shared-talk", "open-hush", "alpha__open-talk"],
    "/mcp/none": ["alpha__shared-talk", "beta__shared-talk", "beta/shared-talk", "lost-talk", "denied-talk"],
    "/mcp/plain": ["open-talk", "kept-talk", "shared-talk"],
}  # fmt: skip
HIDDEN_URIS = {
    "/mcp": ["docs://guide/secret", "docs://guide/hush", "file:///secret/a.txt", "shared:doc", "never:one", "ask:me",
             "never:other", "beta:lost", "beta+beta:lost", "alpha+docs://guide/secret", "alpha+docs://guide/hush",
             "alpha+never:one", "beta:listed-nowhere", "beta+beta:open", "beta+docs://guide/open", "gamma+docs://x",
             "alpha+ask:me"],
    "/mcp/small": ["docs://guide/other", "docs://guide/open/more", "alpha+docs://guide/open", "file:///pub/a.txt",
                   "beta:open", "shared:doc", "beta+shared:doc"],
    "/mcp/none": ["beta+shared:doc", "alpha+shared:doc", "alpha+docs://guide/open", "beta:lost", "docs://guide/secret"],
    "/mcp/plain": ["docs://guide/open", "beta:open"],
}  # fmt: skip
HIDDEN_TEMPLATES = {
    "/mcp": ["never:{x}", "far://{x}/denied", "alpha+never:{x}", "beta:{x}", "beta+beta:{x}", "alpha+{+all}", "{+all}"],
    "/mcp/small": ["docs://guide/{page}", "file:///{+path}", "alpha+docs://guide/{page}"],
    "/mcp/none": ["never:{x}", "{+all}"],
    "/mcp/plain": ["docs://guide/{page}"],
}


@dataclass
class Scene:
    gateway: Gateway
    boxes: dict[str, Library]
    loop: Aside

    def url(self, path: str) -> str:
        return f"{self.gateway.root}{path}"

    def heard(self) -> list[str]:
        """All that any server was asked, since the last look."""
        found = [one.key for box in self.boxes.values() for one in box.heard]
        for box in self.boxes.values():
            box.heard.clear()
        return found


@asynccontextmanager
async def scene(folder: Path, loop: Aside) -> AsyncIterator[Scene]:
    found = boxes()
    more: dict[str, Any] = {"agents": AGENTS, "policies": POLICIES, "endpoints": ENDPOINTS}
    async with libraries(folder, found, servers=SERVERS, **more) as gateway:
        await offered(gateway.url, "prompts/list", PROMPTS["/mcp"])
        await offered(gateway.url, "resources/list", RESOURCES["/mcp"])
        yield Scene(gateway, found, loop)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with aside() as loop:
        yield loop.enter(scene(tmp_path_factory.mktemp("hidden"), loop))


def plain(reply: Reply, key: str) -> tuple[int, list[tuple[str, str]], bytes]:
    """All of a reply, with the id of the request and the key taken out."""
    number = str(reply.header("x-request-id"))
    assert re.fullmatch("req_[0-9a-f]+", number)
    assert key.encode() in reply.body or b"-32601" in reply.body, (key, reply.body)
    headers = [(name, value.replace(number, "ID")) for name, value in reply.headers if name != "date"]
    return reply.status, headers, reply.body.replace(number.encode(), b"ID").replace(key.encode(), b"KEY")


def absent(key: str) -> str:
    """A key of the same length that nobody has: then lengths agree too."""
    return ("zz:" + "z" * len(key))[: len(key)]


ASKING = {
    "get": lambda who, key: who.get(key),
    "complete a prompt": lambda who, key: who.complete("ref/prompt", key),
    "read": lambda who, key: who.read(key),
    "complete a resource": lambda who, key: who.complete("ref/resource", key),
}
HIDDEN = {
    "get": HIDDEN_PROMPTS,
    "complete a prompt": HIDDEN_PROMPTS,
    "read": HIDDEN_URIS,
    "complete a resource": {path: [*HIDDEN_URIS[path], *HIDDEN_TEMPLATES[path]] for path in HIDDEN_URIS},
}


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("how", ASKING)
def test_a_hidden_one_answers_byte_for_byte_as_a_missing_one(how: str, era: str, stage: Scene) -> None:
    async def story() -> None:
        for path, keys in HIDDEN[how].items():
            who = await agent(era, stage.url(path))
            for key in keys:
                missing = plain(await ASKING[how](who, absent(key)), absent(key))
                assert plain(await ASKING[how](who, key), key) == missing, (path, key)
        assert stage.heard() == []

    stage.loop.run(story())


@pytest.mark.parametrize("era", ERAS)
def test_lists_name_what_is_there_for_the_agent_and_that_answers(era: str, stage: Scene) -> None:
    async def story() -> None:
        for path in PROMPTS:
            who = await agent(era, stage.url(path))
            prompts = [one["name"] for one in await who.items("prompts/list")]
            uris = [one["uri"] for one in await who.items("resources/list")]
            templates = [one["uriTemplate"] for one in await who.items("resources/templates/list")]
            assert (prompts, uris) == (PROMPTS[path], RESOURCES[path]), path
            assert templates == TEMPLATES[path], path
            for name in prompts:
                assert "result" in (await who.get(name)).json(), name
                assert (await who.complete("ref/prompt", name)).json()["result"]["completion"]["values"] == ["served"]
            for uri in uris:
                assert "result" in (await who.read(uri)).json(), uri
            for template in templates:
                found = (await who.complete("ref/resource", template)).json()["result"]
                assert found["completion"]["values"] == ["served"], template
        stage.heard()

    stage.loop.run(story())


@pytest.mark.parametrize("era", ERAS)
def test_who_may_see_nothing_sees_a_gateway_without_anything(era: str, stage: Scene) -> None:
    """At /mcp everything is hidden from it; at /mcp/blank stands a server that has nothing."""

    def less(reply: Reply) -> Any:
        number = str(reply.header("x-request-id"))
        body = re.sub(rb'"ttlMs":\d+', b'"ttlMs":0', reply.body.replace(number.encode(), b"ID"))
        unequal = ("date", "x-request-id", "mcp-session-id", "content-length")
        return reply.status, [pair for pair in reply.headers if pair[0] not in unequal], body

    asked: list[tuple[str, dict[str, Any]]] = [
        *((method, {}) for method in ("tools/list", "prompts/list", "resources/list", "resources/templates/list")),
        ("prompts/list", {"cursor": "x"}), ("resources/list", {"cursor": ""}),
        ("prompts/get", {"name": "open-talk"}), ("resources/read", {"uri": "docs://guide/open"}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "open-talk"},
                                 "argument": {"name": "a", "value": ""}}),
        ("completion/complete", {"ref": {"type": "ref/resource", "uri": "docs://guide/{page}"},
                                 "argument": {"name": "a", "value": ""}}),
        ("completion/complete", {"ref": {"type": "ref/none"}, "argument": {"name": "a", "value": ""}}),
        ("prompts/list2", {}),
    ]  # fmt: skip

    async def story() -> None:
        here = await agent(era, stage.url("/mcp"), NOBODY)
        there = await agent(era, stage.url("/mcp/blank"), NOBODY)
        opening = modern("server/discover", key=NOBODY) if era == "modern" else initialize(key=NOBODY)
        one, two = await exchange(here.url, opening), await exchange(there.url, opening)
        assert less(one) == less(two)
        assert set(one.json()["result"]["capabilities"]) == {"tools", "logging"}
        for method, params in asked:
            assert less(await here.ask(method, params)) == less(await there.ask(method, params)), (method, params)
        assert stage.heard() == []

    stage.loop.run(story())


LOOK_ALIKES = (
    # Other URIs to any server: where everything else is allowed they may reach one, here nothing allows them.
    "ALPHA+docs://guide/secret", "alpha%2bdocs://guide/secret", "alph%61+docs://guide/secret",
    "alpha+alpha+docs://guide/secret", "beta+docs://guide/secret", "beta+alpha+docs://guide/secret",
    "alpha/docs://guide/secret", "ui://alpha/docs://guide/secret", "docs:never:one/../../never:one", "gamma+never:one",
    "+docs://guide/secret", "alpha+", "alpha+ docs://guide/secret", "a+docs://guide/secret",
)  # fmt: skip
SPELLINGS = (
    # of docs://guide/secret, which a deny hides and its server would serve under every one of these
    "docs://guide/%73ecret", "docs://guide/%2573ecret", "docs://guide/%252573ecret", "docs://guide/secre%74",
    "DOCS://guide/secret", "dOcS://guide/secret", "docs://GUIDE/secret", "docs://guide:/secret",
    "docs://me@guide/secret", "docs://me:you@guide/secret", "docs://guide/./secret", "docs://guide/x/../secret",
    "docs://guide/%2e/secret", "docs://guide/x/%2e%2e/secret", "docs://guide/x/%2E%2E/secret",
    "docs://guide/x/.%2e/secret", "docs://guide/x/%252e%252e/secret", "docs://guide//secret", "docs://guide///secret",
    "docs://guide/open/..%2fsecret", "docs://guide/open%2f..%2fsecret", "docs://guide/open/..%5csecret",
    "docs://guide\\secret", "docs:\\\\guide\\secret", "docs://guide/open/..\\secret", "docs://guide%2fsecret",
    "docs://guide%5csecret", "docs://guide/secret?x=1", "docs://guide/secret#x", "docs://guide/secret%00",
    "docs://guide/secret%00.txt", "docs://guide/secret/", "docs://guide/secret;v=1", "docs://guide/secret%20",
    "docs://guide/secret ", "docs://guide/ secret/../secret", "docs://guide/\tsecret", "docs://guide/secret\n",
    "docs://guide/sec\r\nret", "docs://guide/\x00secret", "docs://x/../guide/secret", "docs://x/..%2f../guide/secret",
    "docs://guide/../guide/secret", "docs://./guide/secret",
    "docs://%67uide/secret", "do%63s://guide/secret", "docs%3a//guide/secret", "docs:%2f%2fguide/secret",
    "alpha+docs://guide/secret", "alpha+DOCS://guide/secret",
    "alpha+docs://guide/%73ecret", "alpha+docs://guide/x/../secret",
    "alpha+docs://guide\\secret",
    "alpha+docs://guide/hush", "docs://guide/%68ush", "alpha+docs://guide/%68ush", "docs://guide/x/../hush",
    "alpha+docs://guide/secret#",
    # of file:///secret/a.txt
    "file:/secret/a.txt", "file://localhost/secret/a.txt", "file://LOCALHOST/secret/a.txt", "FILE:///secret/a.txt",
    "file:////secret/a.txt", "file:///pub/../secret/a.txt", "file:///pub/%2e%2e/secret/a.txt", "file:///./secret/a.txt",
    "file:///%73ecret/a.txt", "file:\\\\\\secret\\a.txt", "file:///secret%2fa.txt", "file:///pub/..%2f/secret/a.txt",
    "alpha+file:///secret/a.txt", "alpha+file:/secret/a.txt", "file:/pub/../secret/a.txt", "file:///pub//../secret/a.txt",
    "file://localhost:/secret/a.txt", "file:%2f%2f%2fsecret/a.txt",
    "alpha+file://localhost/secret/a.txt", "file:/%73ecret/a.txt", "file://localhost/pub/%2e%2e/secret/a.txt",
    # of never:one, which nothing allows
    "NEVER:one", "never:%6fne", "alpha+never:one", "alpha+NEVER:one", "alpha+never:../never:one", "never:one#docs://x",
)  # fmt: skip


FILTERED = {
    "/mcp": ["beta:lost", "beta+beta:lost", "beta+beta:nowhere", "beta+docs://guide/open", "beta+BETA:open",
             "beta+beta:%6fpen", "beta+beta:open?x", "beta+x/../shared:doc"],
    "/mcp/small": ["alpha+docs://guide/open", "docs://guide/x/../open", "docs://guide/%6fpen", "DOCS://guide/open",
                   "docs://guide/open?", "alpha+docs://guide/other", "beta+beta:open", "docs://guide/open/"],
    "/mcp/alpha": ["beta+beta:open", "beta+shared:doc"],
}  # fmt: skip


@pytest.mark.parametrize("era", ERAS)
def test_what_a_filter_leaves_out_no_policy_brings_back(era: str, stage: Scene) -> None:
    """To one who may read everything: what server and endpoint do not take is not there, under any spelling."""

    async def story() -> None:
        for path, uris in FILTERED.items():
            who = await agent(era, stage.url(path), WIDE)
            for uri in uris:
                for how in ("read", "complete a resource"):
                    reply = await ASKING[how](who, uri)
                    served = [one for box in stage.boxes.values() for one in box.heard if one.key != uri]
                    assert served == [], (path, uri, how)
                    if path == "/mcp/alpha" and stage.heard():
                        continue  # another URI of the only server there
                    missing = plain(await ASKING[how](who, absent(uri)), absent(uri))
                    assert plain(reply, uri) == missing, (path, uri)
            assert stage.heard() == []

    stage.loop.run(story())


@pytest.mark.parametrize("path", ["/mcp", "/mcp/alpha"])
@pytest.mark.parametrize("key", [KEY, WIDE], ids=["tester", "wide"])
@pytest.mark.parametrize("era", ERAS)
def test_no_spelling_of_a_hidden_uri_reaches_its_server(era: str, key: str, path: str, stage: Scene) -> None:
    """Also where everything but these is allowed, and where one server alone gets whatever is asked."""
    code = -32602 if era == "modern" else -32002

    async def story() -> None:
        who = await agent(era, stage.url(path), key)
        reached = []
        for uri in SPELLINGS:
            for how in ("read", "complete a resource"):
                reply = await ASKING[how](who, uri)
                if stage.heard():
                    reached.append(uri)
                    continue
                error = reply.json()["error"]
                assert (error["code"], error["data"].pop("uri")) == (code, uri)
                assert set(error["data"]) == {"requestId", "mayHaveRun"}
        assert not reached, "\n".join(dict.fromkeys(reached))
        assert "result" in (await who.read("docs://guide/other")).json(), "what is next to it is there"
        assert stage.heard() == ["docs://guide/other"]

    stage.loop.run(story())


@pytest.mark.parametrize("era", ERAS)
def test_what_only_looks_like_it_leads_nowhere(era: str, stage: Scene) -> None:
    async def story() -> None:
        who = await agent(era, stage.gateway.url)
        for uri in LOOK_ALIKES:
            for how in ("read", "complete a resource"):
                missing = plain(await ASKING[how](who, absent(uri)), absent(uri))
                assert plain(await ASKING[how](who, uri), uri) == missing, uri
        assert stage.heard() == []

    stage.loop.run(story())


def test_what_is_not_canonical_leads_nowhere_and_what_is_does(stage: Scene) -> None:
    """Of what is not denied: the one spelling reaches the server, every other is as missing as what is not there."""
    ways = ("alpha+docs://guide/other", "docs://guide/o%20ther", "docs://guide/other?x=1", "file:///pub/b.txt")
    others = ("docs://guide/%6fther", "docs://guide/x/../other", "docs://guide//other", "file:/pub/b.txt",
              "file://localhost/pub/b.txt", "alpha+file:/pub/b.txt", "DOCS://guide/other", "docs://me@guide/other",
              "docs://guide/other#x", "docs://guide/%C0%AFother")  # fmt: skip

    async def story() -> None:
        who = await agent("modern", stage.url("/mcp/alpha"), WIDE)
        for uri in ways:
            assert "result" in (await who.read(uri)).json(), uri
            assert stage.heard() == [uri.removeprefix("alpha+")]
        gone = (await who.read("beta+" * 2000)).json()["error"]
        for uri in others:
            for how in ("read", "complete a resource"):
                error = (await ASKING[how](who, uri)).json()["error"]
                assert error["data"].pop("uri") == uri
                assert (error["code"], error["message"]) == (gone["code"], gone["message"]), uri
                assert set(error["data"]) == {"requestId", "mayHaveRun"}
        assert stage.heard() == []

    stage.loop.run(story())


def test_headers_do_not_deceive(stage: Scene) -> None:
    read = modern("resources/read", {"uri": "docs://guide/secret"}, key=KEY)
    allowed = modern("resources/read", {"uri": "docs://guide/open"}, key=KEY)
    get = modern("prompts/get", {"name": "denied-talk"}, key=KEY)
    lies = [
        read.having("Mcp-Name", "docs://guide/open"),
        allowed.having("Mcp-Name", "docs://guide/secret"),
        allowed.having("Mcp-Name", "docs://guide/%6fpen"),
        allowed.having("Mcp-Name", in_base64("docs://guide/secret")),
        allowed.without("Mcp-Name"),
        allowed.having("Mcp-Method", "prompts/get"),
        get.having("Mcp-Name", "open-talk"),
        Asked(allowed.body, [*allowed.headers, ("Mcp-Name", "docs://guide/secret")]),
    ]

    async def story() -> None:
        for lie in lies:
            reply = await exchange(stage.gateway.url, lie)
            assert (reply.status, reply.json()["error"]["code"]) == (400, -32020), lie.headers
        assert stage.heard() == []
        assert (await exchange(stage.gateway.url, allowed)).status == 200
        assert stage.heard() == ["docs://guide/open"]

    stage.loop.run(story())


READ_TWINS = (
    b'"uri": "docs://guide/open", "uri": "docs://guide/secret"',
    b'"uri": "docs://guide/secret", "uri": "docs://guide/open"',
    b'"uri": "docs://guide/open", "\\u0075ri": "docs://guide/secret"',
    b'"uri": "docs://guide/open", "URI": "docs://guide/secret"',
    b'"uri": ["docs://guide/open"]',
    b'"uri": null',
)
REF_TWINS = (
    b'{"type":"ref/prompt","name":"open-talk","name":"denied-talk"}',
    b'{"type":"ref/prompt","name":"open-talk","Name":"denied-talk"}',
    b'{"type":"ref/prompt","type":"ref/resource","name":"open-talk","uri":"docs://guide/secret"}',
    b'{"type":"ref/resource","uri":"docs://guide/open","uri":"docs://guide/secret"}',
    b'{"type":"ref/resource","uri":"docs://guide/open","u\\u0072i":"docs://guide/secret"}',
    b'{"type":"ref/resource","name":"open-talk"}',
    b'{"type":"ref/prompt","uri":"docs://guide/open"}',
    b'{"name":"open-talk"}',
    b'{"type":"ref/tool","name":"open-tool"}',
    b"[]",
    b'"open-talk"',
)


@pytest.mark.parametrize("era", ERAS)
def test_a_second_name_in_the_body_deceives_nobody(era: str, stage: Scene) -> None:
    async def story() -> None:
        who = await agent(era, stage.gateway.url)

        async def sent(method: str, params: dict[str, Any], old: bytes, new: bytes) -> Reply:
            usual = modern(method, params, key=KEY)
            if era == "legacy":
                usual = legacy(method, params, key=KEY, session=who.session)
            assert old in usual.body
            return await exchange(who.url, Asked(usual.body.replace(old, new), usual.headers))

        for twin in READ_TWINS:
            old = b'"uri": "docs://guide/open"'
            reply = await sent("resources/read", {"uri": "docs://guide/open"}, old, twin)
            assert reply.json()["error"]["code"] in (-32600, -32602, -32020), twin
        for ref in REF_TWINS:
            params = {"ref": "@", "argument": {"name": "a", "value": ""}}
            reply = await sent("completion/complete", params, b'"@"', ref)
            assert reply.json()["error"]["code"] in (-32600, -32602), ref
        assert stage.heard() == []
        # Each kind of reference has one member that names; the other one is nobody's, and goes no further.
        for ref, left in (
            (b'{"type":"ref/prompt","name":"open-talk","uri":"docs://guide/secret","title":"t"}', "uri"),
            (b'{"type":"ref/resource","uri":"docs://guide/open","name":"denied-talk"}', "name"),
        ):
            params = {"ref": "@", "argument": {"name": "a", "value": ""}}
            reply = await sent("completion/complete", params, b'"@"', ref)
            if "result" in reply.json():
                assert left not in stage.boxes["alpha"].heard[-1].params["ref"], ref
        stage.heard()

    stage.loop.run(story())


def test_rest_shows_no_more(stage: Scene) -> None:
    """REST is about tools; what is said of prompts and resources is what is said of any path that is not there."""
    token = [("Authorization", f"Bearer {KEY}"), ("Content-Type", "application/json")]

    async def story() -> None:
        for path in ("prompts", "resources", "resources/docs://guide/open", "prompts/open-talk/get", "completion"):
            for verb in ("GET", "POST"):
                absent = await exchange(
                    stage.url("/mcp/no-such-place"), Asked(b"{}" if verb == "POST" else b"", token, verb)
                )
                found = await exchange(stage.url(f"/mcp/{path}"), Asked(b"{}" if verb == "POST" else b"", token, verb))
                assert found.status == absent.status == 404
        for path in ("tools", "openapi.json"):
            reply = await exchange(stage.url(f"/mcp/{path}"), Asked(b"", token, "GET"))
            assert reply.status == 200
            assert b"talk" not in reply.body
            assert b"docs:" not in reply.body
        for name in ("open-talk", "denied-talk", "docs:%2F%2Fguide%2Fopen"):
            reply = await exchange(stage.url(f"/mcp/tools/{name}/invoke"), Asked(b"{}", token))
            assert reply.status == 404, reply
        assert stage.heard() == []

    stage.loop.run(story())


@pytest.mark.parametrize("era", ERAS)
def test_cursors_and_answers_of_lists_tell_nothing_of_the_hidden(era: str, stage: Scene) -> None:
    async def story() -> None:
        for path in PROMPTS:
            who = await agent(era, stage.url(path))
            for method in ("prompts/list", "resources/list", "resources/templates/list"):
                reply = await who.ask(method)
                assert "nextCursor" not in reply.json()["result"]
                for word in (b"secret", b"never", b"denied", b"hush", b"lost"):
                    assert word not in reply.body, (path, method, word)

    stage.loop.run(story())
    assert json.dumps(stage.heard()) == "[]"


@pytest.mark.parametrize("era", ERAS)
def test_a_tool_call_cannot_name_a_prompt(era: str, stage: Scene) -> None:
    async def story(who: Agent) -> None:
        for name in ("open-talk", "alpha/open-talk", "docs://guide/open"):
            assert (await who.call(name)).json()["error"]["code"] == -32602
        assert (await who.get("open-tool")).json()["error"]["code"] == -32602
        assert stage.heard() == []

    stage.loop.run(story(stage.loop.run(agent(era, stage.gateway.url))))


def test_in_a_batch_too_a_hidden_one_is_a_missing_one(stage: Scene) -> None:
    async def story() -> None:
        who = await agent("legacy", stage.gateway.url, version="2025-03-26")
        single = legacy("ping", {}, key=KEY, session=who.session, version=who.version)
        for method, member, keys in (
            ("prompts/get", "name", HIDDEN_PROMPTS["/mcp"]),
            ("resources/read", "uri", [*HIDDEN_URIS["/mcp"], *SPELLINGS]),
        ):
            asked = [
                {"jsonrpc": "2.0", "id": at, "method": method, "params": {member: key}}
                for at, key in enumerate([absent("none"), *keys])
            ]
            reply = await exchange(who.url, Asked(json.dumps(asked).encode(), single.headers))
            answers = sorted(reply.json(), key=lambda one: int(one.pop("id")))
            for one, question in zip(answers, asked, strict=True):
                assert one["error"]["data"].pop(member) == question["params"][member]  # type: ignore[index]
                assert one["error"]["data"].pop("requestId")
                if member == "name":
                    assert one["error"].pop("message") == f"Unknown prompt: {question['params'][member]}"  # type: ignore[index]
            assert len({json.dumps(one) for one in answers}) == 1
        assert stage.heard() == []

    stage.loop.run(story())
