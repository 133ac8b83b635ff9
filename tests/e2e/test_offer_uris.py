"""Every link that an agent is given leads back to the server that emitted it, wherever in an answer it stands."""

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
from tests.e2e.asking import ERAS, Agent, agent, listed
from tests.e2e.gateway import Gateway
from tests.e2e.http import Reply
from tests.e2e.library import Library, libraries, offered
from tests.e2e.servers import Call, answer

SHARED = ("shared:doc", "ui://page/main", "https://web.example/shared")
SERVERS = {"alpha": "modern", "beta": "legacy"}
ODD = (
    "shared:other", "SHARED:doc", "shared:d%6fc", "nobody:knows", "ui://page/unlisted", "ui://alpha/x", "UI://page/main",
    "pages://1", "pages://a/b", "alpha+shared:doc", "beta+nobody:knows", "alpha+alpha+x:y", "beta+", "alpha+",
    "no-scheme", "/path", "//host/x", "file:///a b/\u00e9\u2028\U0001f600", 'quote:"\\', "urn:x?q=1#f", "x:%2e%2e/y",
    "gamma+x:y", "ALPHA+x:y", "alpha+https://web.example/shared", "wild:anything", "data:,hello", "*", "{x}", "a:{b}",
)  # fmt: skip
URI = re.compile(r'("uri" ?:)("(?:[^"\\]|\\.)*")')
MODES = {"/mcp/none": "none", "/mcp": "on_collision", "/mcp/always": "always"}
ENDPOINTS: dict[str, Any] = {
    **{path: {"naming": mode} for path, mode in MODES.items()},
    **{f"/mcp/{server}": {"servers": [server]} for server in SERVERS},
    **{f"/mcp/only-{server}": {"servers": [server], "naming": "always"} for server in SERVERS},
}


def links(server: str) -> tuple[str, ...]:
    return (*SHARED[:2], f"{server}:doc", f"https://web.example/{server}", *ODD)


def item(uri: str) -> str:
    """A link and an embedded resource, with spaces, escapes and members that stay as they are."""
    text = json.dumps(uri)
    return (
        f'{{ "type" : "resource_link","uri" :{text}, "name":"n\\u0061me","n":1.0 }},'
        f'{{"type":"resource","resource":{{"mimeType":"text/plain", "uri":{text} ,"text":"see {server_of(uri)}"}} }}'
    )


def server_of(uri: str) -> str:
    return f"uri {len(uri)}"


def content(server: str) -> bytes:
    return ("[" + " , ".join(map(item, links(server))) + ', {"type":"text","text":"shared:doc"}]').encode()


def messages(server: str) -> bytes:
    made = (f'{{"role":"user","content":{part}}}' for uri in links(server) for part in split(item(uri)))
    return ('{"messages":[' + " ,".join(made) + "]}").encode()


def split(pair: str) -> tuple[str, str]:
    first, second = pair.split('},{"type":"resource"')
    return first + "}", '{"type":"resource"' + second


def source(server: str) -> Library:
    def served(uri: str) -> bytes:
        """Whatever is asked, and a second part that links on."""
        one = {"uri": uri, "text": f"from {server}: {uri}"}
        return f'[ {json.dumps(one)} , {{"uri":"shared:doc", "text":"also \\u0061"}} ]'.encode()

    async def link(call: Call) -> None:
        inner = b'{"content":' + content(server) + b',"structuredContent":{"uri":"shared:doc"}'
        ui = b'{"ui":{ "resourceUri":"ui://page/main","x":1.0 },"other":{"uri":"shared:doc"}}'
        await call.result(inner + b',"_meta":' + ui + b"}")

    async def fail(call: Call) -> None:
        error = '{"code":-32099,"message":"no shared:doc","data":{"uri" : "shared:doc","more":{"uri":"shared:doc"}}}'
        reply = f'{{"jsonrpc":"2.0","id":{json.dumps(call.id)},"error":{error}}}'
        await call.send(answer(reply.encode()))

    uris = dict.fromkeys((*SHARED, f"{server}:doc", f"https://web.example/{server}"))
    return Library(
        SERVERS[server],
        {f"{server}-link": link, f"{server}-fail": fail},
        definitions={f"{server}-link": {"_meta": {"ui": {"resourceUri": "ui://page/main"}, "k": "shared:doc"}}},
        prompts={f"{server}-talk": messages(server)},
        resources={uri: served(uri) for uri in uris},
        templates=["pages://{n}", f"{server}-page://{{n}}", "{+any}", "https://web.example/{x}"],
        unlisted=served,
        values={text: b'{"values":["%s"]}' % server.encode() for text in ("pages://{n}", f"{server}-page://{{n}}")},
    )


@dataclass
class Scene:
    gateway: Gateway
    boxes: dict[str, Library]
    loop: Aside


@asynccontextmanager
async def scene(folder: Path, loop: Aside) -> AsyncIterator[Scene]:
    boxes = {server: source(server) for server in SERVERS}
    async with libraries(folder, boxes, endpoints=ENDPOINTS) as gateway:
        await listed(gateway, "alpha-link", "beta-link")
        await offered(gateway.url, "prompts/list", ("alpha-talk", "beta-talk"))
        yield Scene(gateway, boxes, loop)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with aside() as loop:
        yield loop.enter(scene(tmp_path_factory.mktemp("uris"), loop))


def uris_in(found: Any) -> list[str]:
    """What stands under `uri` or `resourceUri`, in order, payloads (`structuredContent`, foreign `_meta`) left out."""
    if isinstance(found, list):
        return [uri for one in found for uri in uris_in(one)]
    if not isinstance(found, dict):
        return []
    skipped = ("structuredContent", "other", "more")
    return [
        uri
        for name, value in found.items()
        if name not in skipped
        for uri in ([value] if name in ("uri", "resourceUri") else uris_in(value))
    ]


async def read(who: Agent, uri: str) -> str:
    """Who served it, and as what."""
    reply = await who.read(uri)
    found = reply.json()
    assert "result" in found, (uri, found)
    return str(found["result"]["contents"][0]["text"])


def named(path: str, server: str, what: str) -> str:
    """A tool or prompt as agents of this endpoint know it."""
    return f"{server}__{server}-{what}" if ENDPOINTS[path].get("naming") == "always" else f"{server}-{what}"


async def emitted(who: Agent, path: str, server: str) -> dict[str, tuple[list[str], list[str]]]:
    """For each place in answers the server's own URIs, and what the agent is given."""
    twice = [uri for uri in links(server) for _ in range(2)]
    tool = (await who.call(named(path, server, "link"))).json()["result"]
    failed = (await who.call(named(path, server, "fail"))).json()["error"]
    prompt = (await who.get(named(path, server, "talk"))).json()["result"]
    tools = {one["name"]: one for one in await who.tools()}
    definition = tools[named(path, server, "link")]["_meta"]
    assert definition["k"] == "shared:doc"
    assert tool["structuredContent"] == {"uri": "shared:doc"}
    assert tool["_meta"]["other"] == {"uri": "shared:doc"}
    assert tool["content"][-1] == {"type": "text", "text": "shared:doc"}
    assert failed["data"]["more"] == {"uri": "shared:doc"}
    assert failed["message"] == "no shared:doc"
    return {
        "content": (twice, uris_in(tool["content"])),
        "meta": (["ui://page/main"], uris_in(tool["_meta"])),
        "error": (["shared:doc"], [failed["data"]["uri"]]),
        "messages": (twice, uris_in(prompt)),
        "definition": (["ui://page/main"], uris_in(definition)),
    }


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    "path", ["/mcp", "/mcp/always", "/mcp/alpha", "/mcp/beta", "/mcp/only-alpha", "/mcp/only-beta"]
)
@pytest.mark.parametrize("era", ERAS)
def test_every_link_leads_back(era: str, path: str, server: str, stage: Scene) -> None:
    if server not in ENDPOINTS[path].get("servers", SERVERS):
        return

    async def story() -> None:
        url = stage.gateway.root + path
        who = await agent(era, url)
        read_back: dict[str, str] = {}
        for place, (own, given) in (await emitted(who, path, server)).items():
            assert len(own) == len(given), place
            for mine, shown in zip(own, given, strict=True):
                assert read_back.setdefault(mine, shown) == shown, f"{mine} has one name, wherever it stands"
        for mine, shown in read_back.items():
            assert await read(who, shown) == f"from {server}: {mine}", (mine, shown)
            assert stage.boxes[server].heard[-1].key == mine
            result = (await who.read(shown)).json()["result"]
            back = [await read(who, uri) for uri in uris_in(result["contents"])]
            assert back == [f"from {server}: {mine}", f"from {server}: shared:doc"], shown
            if mine.startswith("ui:"):
                assert shown.startswith("ui://")

    stage.loop.run(story())


@pytest.mark.parametrize("path", MODES)
@pytest.mark.parametrize("era", ERAS)
def test_what_is_listed_leads_to_who_lists_it(era: str, path: str, stage: Scene) -> None:
    mode = MODES[path]
    whose = {
        "none": ["shared:doc", "ui://page/main", "https://web.example/shared", "alpha:doc", "https://web.example/alpha",
                 "beta:doc", "https://web.example/beta"],
        "on_collision": ["alpha+shared:doc", "ui://alpha/page/main", "https://web.example/shared", "alpha:doc",
                         "https://web.example/alpha", "beta+shared:doc", "ui://beta/page/main", "beta:doc",
                         "https://web.example/beta"],
        "always": ["alpha+shared:doc", "ui://alpha/page/main", "https://web.example/shared", "alpha+alpha:doc",
                   "https://web.example/alpha", "beta+shared:doc", "ui://beta/page/main", "beta+beta:doc",
                   "https://web.example/beta"],
    }[mode]  # fmt: skip
    texts = {
        "none": ["pages://{n}", "alpha-page://{n}", "https://web.example/{x}", "beta-page://{n}"],
        "on_collision": ["alpha+pages://{n}", "alpha-page://{n}", "alpha+{+any}", "https://web.example/{x}",
                         "beta+pages://{n}", "beta-page://{n}", "beta+{+any}"],
        "always": ["alpha+pages://{n}", "alpha+alpha-page://{n}", "alpha+{+any}", "https://web.example/{x}",
                   "beta+pages://{n}", "beta+beta-page://{n}", "beta+{+any}"],
    }[mode]  # fmt: skip

    async def story() -> None:
        who = await agent(era, stage.gateway.root + path)
        assert [one["uri"] for one in await who.items("resources/list")] == whose
        for at, uri in enumerate(whose):
            server = "beta" if at >= whose.index(next(one for one in whose if "beta" in one)) else "alpha"
            own = uri.removeprefix(f"{server}+").replace(f"ui://{server}/", "ui://")
            assert await read(who, uri) == f"from {server}: {own}"
            assert stage.boxes[server].heard[-1].key == own
        templates = [one["uriTemplate"] for one in await who.items("resources/templates/list")]
        assert templates == texts
        for text in (text for text in templates if "page" in text):
            server = "beta" if "beta" in text else "alpha"
            expanded, own = text.replace("{n}", "7"), text.removeprefix(f"{server}+")
            assert await read(who, expanded) == f"from {server}: {own.replace('{n}', '7')}"
            reply = await who.complete("ref/resource", text)
            assert reply.json()["result"]["completion"]["values"] == [server]
            assert stage.boxes[server].heard[-1].key == own

    stage.loop.run(story())


@pytest.mark.parametrize("path", ["/mcp/alpha", "/mcp/beta", "/mcp/none"])
@pytest.mark.parametrize("era", ERAS)
def test_where_nothing_needs_an_alias_every_byte_stays(era: str, path: str, stage: Scene) -> None:
    """Alone on an endpoint (but for URIs that look like an alias), or where naming is none."""

    def kept(reply: Reply, raw: bytes, server: str) -> bool:
        body = reply.body
        if path != "/mcp/none":
            for uri in [uri for uri in ODD if uri.startswith((f"{server}+", f"ui://{server}/")) and uri[-1] != "+"]:
                head, rest = (f"ui://{server}/", "") if uri.startswith("ui:") else (f"{server}+", uri)
                shown = head + (rest or uri.removeprefix("ui://"))
                body = body.replace(f'"{shown}"'.encode(), f'"{uri}"'.encode())
        return raw in body

    async def story() -> None:
        who = await agent(era, stage.gateway.root + path)
        for server in ENDPOINTS[path].get("servers", SERVERS):
            assert kept(await who.call(f"{server}-link"), b'"content":' + content(server), server)
            assert kept(await who.get(f"{server}-talk"), messages(server)[1:-1], server)
            raw = stage.boxes[server].unlisted(f"{server}:doc")
            assert raw is not None
            assert kept(await who.read(f"{server}:doc"), b'"contents":' + raw, server)
            failed = await who.call(f"{server}-fail")
            assert b'"data":{"uri" : "shared:doc","more":{"uri":"shared:doc"}}' in failed.body

    stage.loop.run(story())


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("era", ERAS)
def test_only_the_uris_change(era: str, server: str, stage: Scene) -> None:
    async def story() -> None:
        who = await agent(era, stage.gateway.root + "/mcp/always")
        for reply, raw in (
            (await who.call(named("/mcp/always", server, "link")), b'"content":' + content(server)),
            (await who.get(named("/mcp/always", server, "talk")), messages(server)[1:-1]),
        ):
            body = reply.body.decode()
            given = uris_in({key: reply.json()["result"].get(key) for key in ("content", "messages")})
            own = [uri for uri in links(server) for _ in range(2)]
            shown = dict(zip(own, given, strict=True))
            assert renamed(raw.decode(), shown) in body

    stage.loop.run(story())


def renamed(raw: str, shown: dict[str, str]) -> str:
    """The text with other URIs in it."""
    return URI.sub(lambda found: found[1] + quoted(shown[json.loads(found[2])], found[2]), raw)


def quoted(shown: str, text: str) -> str:
    """A URI that changes is written anew, without needless escapes; one that does not, as its server wrote it."""
    return text if shown == json.loads(text) else json.dumps(shown, ensure_ascii=False)
