"""Servers that move, encode, number and write answers in ways of their own; and what the admin port says of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.asking import ERAS, LISTS
from tests.e2e.forgiving import Heard, Outcome, World, errors, forgiving, notes, of, told
from tests.e2e.gateway import until
from tests.e2e.http import Asked, exchange, legacy, modern, streaming
from tests.e2e.manners import (
    HUGE,
    Bomb,
    Circling,
    Coded,
    Hosted,
    Moved,
    Numbered,
    Polite,
    Streaming,
    Written,
)
from tests.e2e.servers import Got, scripted

HOST = "inner.example:9000"
MAX_REPLY = 1024 * 1024
WARM, MORE = 16, 16
LOCATIONS = {"path": "{path}/", "beside": "mcp/", "absolute": "http://{host}{path}/"}
FOLLOWED = [(status, where) for status in (307, 308) for where in LOCATIONS]
AWAY = {
    "port": "http://127.0.0.1:{trap}{path}/",
    "name": "http://other.example:8080{path}/",
    "alias": "http://localhost:{port}{path}/",
    "scheme": "https://{host}{path}/",
    "no-scheme": "//other.example{path}/",
}
REFUSED = [(status, where) for status in (307, 308) for where in AWAY]
OTHERS = (301, 302, 303)
ENCODED = [
    (coding, shape)
    for coding in ("gzip", "deflate", "deflate-raw", "x-gzip", "upper-case")
    for shape in ("json", "stream")
]
STREAMED = ("gzip", "deflate", "deflate-raw")
BOMBS = [(coding, shape) for coding in ("gzip", "deflate") for shape in ("json", "stream")]
ECHOES: dict[str, Callable[[Any], str]] = {
    "same": json.dumps,
    "text": lambda identity: json.dumps(str(identity)),
    "float": lambda identity: f"{identity}.0",
}
ICON = {"src": "data:image/png;base64,AA=="}
TOOL: dict[str, dict[str, Any]] = {
    **{
        name: {name: None}
        for name in ("title", "description", "outputSchema", "annotations", "icons", "_meta", "execution")
    },
    **{f"annotations-{name}": {"annotations": {name: None}} for name in ("title", "readOnlyHint", "destructiveHint")},
    "icons-mimeType": {"icons": [{**ICON, "mimeType": None, "sizes": None}]},
}
PROMPT: dict[str, dict[str, Any]] = {
    **{name: {name: None} for name in ("title", "description", "arguments", "icons", "_meta")},
    **{
        f"arguments-{name}": {"arguments": [{"name": "x", name: None}]} for name in ("title", "description", "required")
    },
}
RESOURCE: dict[str, dict[str, Any]] = {
    **{name: {name: None} for name in ("title", "description", "mimeType", "annotations", "icons", "_meta")},
    **{f"annotations-{name}": {"annotations": {name: None}} for name in ("audience", "priority", "lastModified")},
}
OPTIONAL = {
    "tools/list": TOOL,
    "prompts/list": PROMPT,
    "resources/list": {**RESOURCE, "size": {"size": None}},
    "resources/templates/list": RESOURCE,
}
REQUIRED: dict[str, dict[str, dict[str, Any]]] = {
    "tools/list": {"no-schema": {"inputSchema": None}, "title-number": {"title": 5}, "no-name": {"name": None}},
    "prompts/list": {
        "no-argument": {"arguments": [{"name": None}]},
        "title-number": {"title": 5},
        "no-name": {"name": None},
    },
    "resources/list": {"no-name": {"name": None}, "size-text": {"size": "5"}, "no-uri": {"uri": None}},
    "resources/templates/list": {"no-name": {"name": None}, "no-uri": {"uriTemplate": None}},
}


def has_error(message: dict[str, Any]) -> None:
    if "result" in message:
        message["error"] = None


def has_cursor(message: dict[str, Any]) -> None:
    if any(place in message.get("result", {}) for place in LISTS.values()):
        message["result"]["nextCursor"] = None


def has_meta(message: dict[str, Any]) -> None:
    if "result" in message:
        message["result"]["_meta"] = None


def has_instructions(message: dict[str, Any]) -> None:
    if "serverInfo" in message.get("result", {}):
        message["result"]["instructions"] = None
        message["result"]["serverInfo"].update(title=None, websiteUrl=None, icons=None)


def has_content(message: dict[str, Any]) -> None:
    if "content" in message.get("result", {}):
        message["result"]["content"][0].update(annotations=None, _meta=None)
        message["result"]["structuredContent"] = None


WRITTEN = {
    "error": has_error,
    "cursor": has_cursor,
    "meta": has_meta,
    "instructions": has_instructions,
    "content": has_content,
}
FORGIVEN = [
    "moved-307-path",
    "coded-gzip-json-legacy",
    "coded-deflate-raw-stream-legacy",
    "numbered-text-legacy",
    "numbered-float-legacy",
    "nulls",
    "written-error-legacy",
]


def definition(method: str, word: str, more: dict[str, Any]) -> dict[str, Any]:
    """An item of a list with these members."""
    usual: dict[str, dict[str, Any]] = {
        "tools/list": {"name": word, "inputSchema": {"type": "object"}},
        "prompts/list": {"name": word},
        "resources/list": {"name": word, "uri": f"note://all/{word}"},
        "resources/templates/list": {"name": word, "uriTemplate": f"note://{word}/{{who}}"},
    }
    return {**usual[method], **more}


def nulls() -> Polite:
    """Each of its definitions has one null, or a good one's name."""
    lists = {
        method: [
            definition(method, word, more)
            for word, more in {**OPTIONAL[method], **REQUIRED[method], "count": {}}.items()
        ]
        for method in LISTS
    }
    offers = {method: (place, lists[method]) for method, place in LISTS.items() if method != "tools/list"}
    everything = {"tools": {}, "prompts": {}, "resources": {}}
    return Polite(tools=lists["tools/list"], offers=offers, capabilities=everything)


def table(trap: int) -> tuple[dict[str, Polite], dict[str, dict[str, Any]]]:
    """Every server and its settings. `trap` is the port of whoever must not be spoken to."""
    servers: dict[str, Polite] = {}
    settings: dict[str, dict[str, Any]] = {}
    for status, where in FOLLOWED:
        servers[f"moved-{status}-{where}"] = Moved(status, LOCATIONS[where])
    servers["later"] = Moved(307, LOCATIONS["path"], moved=False)
    servers["away-later"] = Moved(307, AWAY["port"].replace("{trap}", str(trap)), moved=False)
    for coding, shape in ENCODED:
        for era in ERAS:
            servers[f"coded-{coding}-{shape}-{era}"] = Coded(coding, streams=shape == "stream", eras=(era,))
    for coding, shape in BOMBS:
        two = [{"name": name, "inputSchema": {"type": "object"}} for name in ("count", "bomb")]
        servers[f"bomb-{coding}-{shape}"] = Bomb(coding, streams=shape == "stream", tools=two)
    for coding in STREAMED:
        for era in ERAS:
            servers[f"streamed-{coding}-{era}"] = Streaming(coding, eras=(era,))
    servers["coded-identity"] = Coded("identity")
    servers["coded-br"] = Coded("br")
    servers["hosted"] = Hosted(HOST)
    settings["hosted"] = {"headers": {"Host": HOST, "X-Other": "1"}}
    for status, where in REFUSED:
        servers[f"away-{status}-{where}"] = Moved(status, AWAY[where].replace("{trap}", str(trap)))
    for status in OTHERS:
        servers[f"moved-{status}"] = Moved(status, LOCATIONS["path"])
    servers["moved-nowhere"] = Moved(307, "")
    servers["moved-itself"] = Moved(308, "{path}")
    servers["moved-round"] = Circling(307)
    huge = {"name": "count", "inputSchema": {"type": "object"}, "description": "0" * 32 * MAX_REPLY}
    servers["bomb-list"] = Coded("gzip", tools=[huge])
    servers["unhosted"] = Hosted(HOST)
    for era in ERAS:
        for name, echo in ECHOES.items():
            servers[f"numbered-{name}-{era}"] = Numbered(echo, eras=(era,))
        for name, rewrite in WRITTEN.items():
            servers[f"written-{name}-{era}"] = Written(rewrite, eras=(era,))
    servers["nulls"] = nulls()
    return servers, settings


@dataclass
class Walk:
    """All stories, told once."""

    servers: dict[str, Polite] = field(default_factory=dict)
    seen: dict[str, Outcome] = field(default_factory=dict)
    backends: dict[str, Any] = field(default_factory=dict)
    trapped: list[Got] = field(default_factory=list)
    lists: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    log: str = ""
    largest: int = 0

    async def all(self, folder: Path) -> None:
        async def trap(got: Got, writer: asyncio.StreamWriter) -> None:
            self.trapped.append(got)
            writer.close()

        async with scripted(trap) as other:
            self.servers, settings = table(other.port)
            async with forgiving(folder, self.servers, settings, max_reply=MAX_REPLY) as world:
                self.seen = await told(self.servers, lambda name, seen: tell(world, name, seen))
                self.backends = await world.backends()
                for method in LISTS:
                    items = await world.agents["modern"].items(method)
                    self.lists[method] = {
                        one["name"].partition("__")[2] or one["name"]: one for one in items if is_of(one, "nulls")
                    }
                await leave(world)
                self.log = world.gateway.log()
                self.largest = largest(world)


async def leave(world: World) -> None:
    """The legacy agent ends its session, and with it those that were opened for it."""
    gone = world.agents["legacy"]
    asked = legacy("ping", key=gone.key, session=gone.session).without("content-type")
    assert (await exchange(gone.url, Asked(b"", asked.headers, "DELETE"))).status == 200
    names = ["hosted", *(f"moved-{status}-{where}" for status, where in FOLLOWED)]

    async def all_know() -> bool:
        return all(world.servers[name].ended for name in names)

    with suppress(AssertionError):  # a test says whom it has not reached
        await until(all_know)


def is_of(item: dict[str, Any], server: str) -> bool:
    """Whether a listed item is one of this server's."""
    place = item.get("uri") or item.get("uriTemplate") or item["name"]
    return str(place).startswith((f"{server}__", f"{server}+"))


async def tell(world: World, name: str, seen: Outcome) -> None:
    """The story of one server."""
    server = world.servers[name]
    if is_out(name):
        await until(lambda: wrong(world, name))
        return
    await world.listed(f"{name}__count")
    if isinstance(server, Streaming):
        for era in ERAS:
            seen[era] = await streamed(world, server, era)
        return
    if isinstance(server, Bomb):
        for era in ERAS:
            seen[era] = [await world.ask(era, name, tool) for tool in ("count", "bomb", "count")]
        return
    seen["first"] = [await world.ask(ERAS[number % 2], name) for number in range(WARM)]
    if not isinstance(server, Moved):
        return
    if not server.moved:
        server.moved = True
        seen["late"] = [await world.ask(ERAS[number % 2], name) for number in range(WARM)]
    seen["turned away"] = len(server.turned_away)
    seen["more"] = [await world.ask(ERAS[number % 2], name) for number in range(MORE)]
    seen["turned away later"] = len(server.turned_away)
    seen["streams"] = len(server.streams)


async def streamed(world: World, server: Streaming, era: str) -> tuple[Any, Any]:
    """The first event, as soon as it is there; the server is told to go on only then. And the last."""
    server.release.clear()
    agent, params = world.agents[era], {"name": f"{server.name}__count", "arguments": {"who": f"{era}-stream"}}
    if era == "modern":
        asked = modern("tools/call", params, key=agent.key, meta={"progressToken": "mine"})
    else:
        params["_meta"] = {"progressToken": "mine"}
        asked = legacy("tools/call", params, key=agent.key, session=agent.session)
    async with streaming(agent.url, asked) as stream:
        first = await stream.event()
        server.release.set()
        last = await stream.event()
    return first and first.json(), last and last.json()


def largest(world: World) -> int:
    """KiB that the largest of the gateway's processes has ever held (Linux)."""
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in world.gateway.children()]
    return max(int(line.split()[1]) for text in texts for line in text.splitlines() if line.startswith("VmHWM"))


def is_out(name: str) -> bool:
    """Whether a server cannot be served."""
    names = {
        "unhosted",
        "bomb-list",
        "moved-nowhere",
        "moved-itself",
        "moved-round",
        *(f"moved-{one}" for one in OTHERS),
    }
    return name in names or name.startswith("coded-br") or (name.startswith("away-") and "later" not in name)


async def wrong(world: World, name: str) -> bool:
    return bool(errors(await world.backend(name)))


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    walked = Walk()
    asyncio.run(walked.all(tmp_path_factory.mktemp("manners")))
    yield walked


def check_all(walk: Walk, name: str, word: str) -> None:
    """Every call of the story was answered, and ran once."""
    answers: list[Heard] = of(walk.seen[name], word)
    assert [one.error for one in answers if one.text is None] == []
    assert {walk.servers[name].ran[one.who] for one in answers} == {1}


# -- redirects --------------------------------------------------------------------------------------------------------


def moved(walk: Walk, name: str) -> Moved:
    server = walk.servers[name]
    assert isinstance(server, Moved)
    return server


@pytest.mark.parametrize(("status", "where"), FOLLOWED)
def test_a_redirect_to_the_same_origin_is_followed(walk: Walk, status: int, where: str) -> None:
    check_all(walk, f"moved-{status}-{where}", "first")
    check_all(walk, f"moved-{status}-{where}", "more")


@pytest.mark.parametrize(("status", "where"), FOLLOWED)
def test_a_redirect_is_remembered(walk: Walk, status: int, where: str) -> None:
    seen, server = walk.seen[f"moved-{status}-{where}"], moved(walk, f"moved-{status}-{where}")
    assert of(seen, "turned away") <= 3  # the controller and two workers
    assert of(seen, "turned away later") == of(seen, "turned away")
    assert of(seen, "streams") == 1
    assert server.ended
    assert set(server.ended) <= {one.session for one in server.opened}
    assert {got.verb for got in server.got if got.target.endswith("/")} == {"POST", "GET", "DELETE"}


@pytest.mark.parametrize(("status", "where"), FOLLOWED)
def test_a_redirect_is_shown(walk: Walk, status: int, where: str) -> None:
    name = f"moved-{status}-{where}"
    shown = walk.backends[name]
    assert errors(shown) == ""
    assert any(f"/{name}/mcp/" in said for said in (*notes(shown), *(one["url"] for one in shown["instances"]))), shown
    assert notes(shown)


def test_a_redirect_that_comes_later_is_followed_and_nothing_runs_twice(walk: Walk) -> None:
    for word in ("first", "late", "more"):
        check_all(walk, "later", word)
    assert of(walk.seen["later"], "turned away later") == of(walk.seen["later"], "turned away")


@pytest.mark.parametrize(("status", "where"), REFUSED)
def test_a_redirect_elsewhere_is_refused_and_says_where(walk: Walk, status: int, where: str) -> None:
    server = moved(walk, f"away-{status}-{where}")
    said = errors(walk.backends[server.name])
    assert server.where(server.turned_away[0]) in said, said


def test_a_call_that_is_sent_elsewhere_goes_nowhere(walk: Walk) -> None:
    late = of(walk.seen["away-later"], "late")
    assert {one.text for one in late} == {None}
    assert sum(walk.servers["away-later"].ran[one.who] for one in late) == 0
    assert walk.trapped == []


@pytest.mark.parametrize("status", OTHERS)
def test_other_redirects_are_refused_and_say_where(walk: Walk, status: int) -> None:
    assert f"/moved-{status}/mcp/" in errors(walk.backends[f"moved-{status}"])


@pytest.mark.parametrize("name", ["moved-nowhere", "moved-itself", "moved-round"])
def test_a_redirect_that_leads_nowhere_is_an_error(walk: Walk, name: str) -> None:
    said, server = errors(walk.backends[name]), moved(walk, name)
    assert said
    assert "30" in said, said
    rounds = walk.backends[name]["instances"][0]["failures"] + 1
    assert len(server.turned_away) <= 6 * (rounds + 1)


# -- encodings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(("coding", "shape"), ENCODED)
def test_an_encoded_answer_is_decoded(walk: Walk, coding: str, shape: str, era: str) -> None:
    name = f"coded-{coding}-{shape}-{era}"
    check_all(walk, name, "first")
    assert errors(walk.backends[name]) == ""


def test_identity_is_no_encoding(walk: Walk) -> None:
    check_all(walk, "coded-identity", "first")


def test_another_encoding_is_named(walk: Walk) -> None:
    assert "br" in errors(walk.backends["coded-br"]).replace('"', " ").replace("'", " ").replace(":", " ").split()


@pytest.mark.parametrize(("coding", "shape"), BOMBS)
def test_a_bomb_is_refused_and_nothing_else(walk: Walk, coding: str, shape: str) -> None:
    for era in ERAS:
        first, bomb, last = of(walk.seen[f"bomb-{coding}-{shape}"], era)
        assert bomb.error.get("code") == -31003, bomb.error
        assert bomb.may_have_run is True
        assert (first.text, last.text) == ("1", "3")


def test_a_bomb_is_never_decoded_whole(walk: Walk) -> None:
    of(walk.seen["bomb-gzip-json"], "legacy")
    assert walk.largest < HUGE * 1024 / 2


@pytest.mark.parametrize("asker", ERAS)
@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("coding", STREAMED)
def test_an_encoded_stream_is_decoded_as_it_comes(walk: Walk, coding: str, era: str, asker: str) -> None:
    first, last = of(walk.seen[f"streamed-{coding}-{era}"], asker)
    assert (first["method"], first["params"]["progressToken"]) == ("notifications/progress", "mine")
    assert last["result"]["content"][0]["type"] == "text"


def test_a_bomb_in_a_list_is_shown(walk: Walk) -> None:
    assert "large" in errors(walk.backends["bomb-list"]) or str(MAX_REPLY) in errors(walk.backends["bomb-list"])


def test_nothing_is_asked_for_encoded(walk: Walk) -> None:
    wrong = {
        (got.verb, got.header("accept-encoding"))
        for server in walk.servers.values()
        for got in server.got
        if got.header("accept-encoding") != "identity"
    }
    assert wrong == set()


# -- ids --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("echo", ECHOES)
def test_ids_are_integers_and_their_echo_is_recognised(walk: Walk, echo: str, era: str) -> None:
    check_all(walk, f"numbered-{echo}-{era}", "first")
    assert errors(walk.backends[f"numbered-{echo}-{era}"]) == ""


def test_every_id_is_an_integer_that_clients_can_hold(walk: Walk) -> None:
    ids = [one for server in walk.servers.values() for ids in server.ids.values() for one in ids]
    assert {type(one) for one in ids} == {int}
    assert min(ids) >= 0
    assert max(ids) < 2**53  # JavaScript's


def test_no_id_comes_twice_in_a_session(walk: Walk) -> None:
    twice = {
        session
        for server in walk.servers.values()
        for session, ids in server.ids.items()
        if session is not None and len(set(map(str, ids))) < len(ids)
    }
    assert twice == set()


# -- null -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "word"), [(method, word) for method, words in OPTIONAL.items() for word in words])
def test_a_null_optional_member_counts_as_absent(walk: Walk, method: str, word: str) -> None:
    listed = walk.lists[method]
    assert word in listed, sorted(listed)
    assert not has_null(listed[word]), listed[word]


@pytest.mark.parametrize(("method", "word"), [(method, word) for method, words in REQUIRED.items() for word in words])
def test_a_null_required_member_leaves_one_element_out(walk: Walk, method: str, word: str) -> None:
    assert "count" in walk.lists[method]
    assert set(walk.lists[method]) == {*OPTIONAL[method], "count"}


def has_null(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(has_null, value.values()))
    return any(map(has_null, value)) if isinstance(value, list) else value is None


def test_what_has_nulls_can_be_called(walk: Walk) -> None:
    check_all(walk, "nulls", "first")


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("word", WRITTEN)
def test_nulls_around_an_answer_do_no_harm(walk: Walk, word: str, era: str) -> None:
    check_all(walk, f"written-{word}-{era}", "first")
    assert errors(walk.backends[f"written-{word}-{era}"]) == ""


# -- hosts, and what is shown -----------------------------------------------------------------------------------------


def test_a_server_that_answers_to_one_name_is_called_by_it(walk: Walk) -> None:
    name = "hosted"
    check_all(walk, name, "first")
    server = walk.servers[name]
    assert {got.verb for got in server.got} == {"POST", "GET", "DELETE"}
    assert {tuple(value for key, value in got.headers if key == "host") for got in server.got} == {(HOST,)}
    assert {got.header("x-other") for got in server.got} == {"1"}


def test_without_the_name_it_is_refused(walk: Walk) -> None:
    assert "421" in errors(walk.backends["unhosted"])


def test_the_path_of_every_instance_is_shown(walk: Walk) -> None:
    wrong = {
        name: one["url"]
        for name, shown in walk.backends.items()
        for one in shown["instances"]
        if f"/{name}/mcp" not in one["url"]
    }
    assert wrong == {}


@pytest.mark.parametrize("name", FORGIVEN)
def test_what_is_forgiven_is_noted_and_logged_once(walk: Walk, name: str) -> None:
    said = notes(walk.backends[name])
    assert said
    assert all(isinstance(note, str) for note in said)
    for note in said:
        lines = [line for line in walk.log.splitlines() if name in line and note in line]
        assert len(lines) == 1, (note, lines)


def test_a_server_without_a_manner_has_no_notes(walk: Walk) -> None:
    for name in ("coded-identity", "numbered-same-legacy", "numbered-same-modern"):
        assert notes(walk.backends[name]) == [], name
