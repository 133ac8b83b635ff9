"""Finding out what a server speaks and offers: probes answered oddly, slow starts, undeclared lists, broken pages."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.asking import ERAS
from tests.e2e.forgiving import Heard, Outcome, World, errors, forgiving, notes, of, told
from tests.e2e.gateway import until
from tests.e2e.manners import (
    HTML,
    STREAM,
    STREAM_END,
    Manner,
    Paged,
    Polite,
    Probed,
    Slow,
    Undeclared,
    Waking,
    Wanting,
    closing,
    failing,
    giving,
    half,
    resetting,
    saying,
    silence,
)

QUICK: dict[str, Any] = {"refresh": "1s"}
ELSEWHERE = "http://other.example:8080/mcp"
NEWER = {"supported": ["2099-01-01"], "requested": "2026-07-28"}
DISCOVERS: dict[str, Manner] = {
    **{str(status): saying(status, b"No.\n") for status in (401, 403, 405, 406, 408, 409, 410, 415, 429)},
    **{str(status): saying(status, b"No.\n") for status in (500, 501, 502, 503, 504, 520)},
    "400-html": saying(400, HTML, "text/html"),
    "404-text": saying(404, b"404 page not found\n"),
    "404-empty": saying(404),
    "502-html": saying(502, HTML, "text/html"),
    "503-later": saying(503, b"Later.\n", retry_after="60"),
    "200-html": saying(200, HTML, "text/html"),
    "200-empty": saying(200),
    "200-text": saying(200, b"ok\n"),
    "200-json": saying(200, b"{}", "application/json"),
    "200-array": saying(200, b"[]", "application/json"),
    "200-stream": lambda got, writer: STREAM + STREAM_END,
    "202": saying(202),
    "204": lambda got, writer: b"HTTP/1.1 204 No Content\r\n\r\n",
    "reset": resetting,
    "closed": closing,
    "half": half,
    "silence": silence,
    "redirect-307": saying(307, location=ELSEWHERE),
    "redirect-302": saying(302, location=ELSEWHERE),
    "garbage": saying(200, b'{"jsonrpc":"2.0","id', "application/json"),
    "other-id": failing(200, -32601, "Method not found", own=False),
    "unknown-method": failing(200, -32601, "Method not found"),
    "internal": failing(500, -32603, "Internal error"),
    "no-session": failing(200, -32000, "Bad Request: No valid session ID provided"),
    "newer-result": giving({"supportedVersions": ["2099-01-01"], "capabilities": {"tools": {}}}),
    "newer-error": failing(400, -32022, "Unsupported protocol version", data=NEWER),
    "empty-result": giving({}),
    "null-result": giving(None),
    "text-result": giving("ok"),
}
WAKING: dict[str, tuple[str, Manner, tuple[str, ...]]] = {
    "modern-502": ("server/discover", saying(502, HTML, "text/html"), ("modern",)),
    "modern-reset": ("server/discover", resetting, ("modern",)),
    "modern-401": ("server/discover", saying(401), ("modern",)),
    "legacy-503": ("initialize", saying(503), ("legacy",)),
    "legacy-401": ("initialize", saying(401), ("legacy",)),
    "legacy-reset": ("initialize", resetting, ("legacy",)),
    "lists-500": ("tools/list", saying(500), ("legacy",)),
}
SLOW: dict[str, tuple[float, tuple[str, ...], tuple[str, ...], dict[str, Any]]] = {
    "initialize-1": (1.0, ("initialize",), ("legacy",), {"start_timeout": "2s"}),
    "list-1": (1.0, ("tools/list",), ("legacy",), {"start_timeout": "2s"}),
    "modern-list-1": (1.0, ("tools/list",), ("modern",), {"start_timeout": "2s"}),
    "modern-discover": (4.0, ("server/discover",), ("modern",), {}),
    "initialize-6": (6.0, ("initialize",), ("legacy",), {}),
    "list-11": (11.0, ("tools/list",), ("legacy",), {}),
}
TOO_SLOW = {"initialize-3": ("initialize",), "list-3": ("tools/list",)}
OFFERS = {
    "prompts/list": ("prompts", [{"name": "greet"}]),
    "resources/list": ("resources", [{"uri": "note://all/first", "name": "first"}]),
    "resources/templates/list": ("resourceTemplates", [{"uriTemplate": "note://all/{who}", "name": "note"}]),
}
DECLARED: dict[str, Any] = {
    "none": {},
    "tools-null": {"tools": None},
    "all-null": {"tools": None, "prompts": None, "resources": None, "logging": None},
    "null": None,
    "other": {"logging": {}, "experimental": None},
    "only-tools": {"tools": {"listChanged": None}},
}
UNDECLARED: dict[str, Manner] = {
    "unknown": failing(200, -32601, "Method not found"),
    "unknown-404": failing(404, -32601, "Method not found"),
    "params": failing(200, -32602, "Invalid params"),
    "404": saying(404, b"404 page not found\n"),
    "400": saying(400),
    "405": saying(405),
    "500": saying(500),
    "501": saying(501),
    "html": saying(200, HTML, "text/html"),
    "reset": resetting,
    "silence": silence,
}
PAGES: dict[str, Manner] = {
    "500": saying(500),
    "503": saying(503),
    "404": saying(404, b"Not here.\n"),
    "html": saying(200, HTML, "text/html"),
    "json": saying(200, b'{"jsonrpc":"2.0","id', "application/json"),
    "error": failing(200, -32603, "Internal error"),
    "no-cursor": failing(200, -32602, "Invalid cursor"),
    "null-list": giving({"tools": None}),
    "no-list": giving({}),
    "reset": resetting,
    "silence": silence,
}
KEPT = ("page-1", "page-2")
ALL = (*KEPT, "page-3", "page-4")


def table() -> tuple[dict[str, Polite], dict[str, dict[str, Any]]]:
    """Every server and its settings."""
    servers: dict[str, Polite] = {f"probe-{name}": Probed(manner) for name, manner in DISCOVERS.items()}
    for name, (method, manner, eras) in WAKING.items():
        servers[f"wake-{name}"] = Waking(method, 3, manner, eras=eras)
    for eras in ("legacy", "modern"):
        for name, said in DECLARED.items():
            capable = {"capabilities": said, "offers": OFFERS, "eras": (eras,)}
            servers[f"declares-{name}-{eras}"] = Polite(**capable)
    for name, manner in UNDECLARED.items():
        servers[f"undeclared-{name}"] = Undeclared(manner)
    servers["nothing"] = Polite(capabilities={}, tools=[])
    servers["wanting"] = Wanting()
    servers["prompt"] = Polite()
    for name, broken in PAGES.items():
        servers[f"paged-{name}"] = Paged(broken)
    settings = dict.fromkeys(servers, QUICK)
    settings["paged-silence"] = {**QUICK, "start_timeout": "2s"}
    for name, (seconds, methods, era, more) in SLOW.items():
        servers[f"slow-{name}"] = Slow(seconds, *methods, eras=era)
        settings[f"slow-{name}"] = {"refresh": "60s", **more}
    for name, methods in TOO_SLOW.items():
        servers[f"slow-{name}"] = Slow(3.0, *methods)
        settings[f"slow-{name}"] = {"start_timeout": "2s"}
    return servers, settings


@dataclass
class Walk:
    """All stories, told once."""

    servers: dict[str, Polite]
    seen: dict[str, Outcome] = field(default_factory=dict)
    prompts: set[str] = field(default_factory=set)
    resources: set[str] = field(default_factory=set)
    templates: set[str] = field(default_factory=set)

    async def all(self, folder: Path) -> None:
        self.servers, settings = table()
        async with forgiving(folder, self.servers, settings) as world:
            self.seen = await told(self.servers, lambda name, seen: tell(world, name, seen), at_once=len(self.servers))
            asks = world.agents["modern"]
            self.prompts = {one["name"] for one in await asks.items("prompts/list")}
            self.resources = {one["uri"] for one in await asks.items("resources/list")}
            self.templates = {one["uriTemplate"] for one in await asks.items("resources/templates/list")}
            for name, seen in self.seen.items():
                seen["backend"] = await world.backend(name)


async def tell(world: World, name: str, seen: Outcome) -> None:
    """The story of one server."""
    server = world.servers[name]
    if isinstance(server, Paged):
        await turn_pages(world, server, seen)
        return
    if name.removeprefix("slow-") in TOO_SLOW or name == "nothing":
        await until(lambda: shown(world, name, seen))
        return
    await world.listed(f"{name}__count", 25)
    seen["others"] = {tool for tool in world.tools if tool.startswith("slow-")}
    seen["methods"], seen["tools"] = server.methods(), names(world, server)
    seen |= dict(zip(ERAS, await asyncio.gather(*[twice(world, era, name) for era in ERAS]), strict=True))
    if isinstance(server, Probed):
        await find_again(world, server, seen)
    if isinstance(server, Undeclared):
        await until(lambda: fetched(server, 4))


async def twice(world: World, era: str, name: str) -> list[Heard]:
    """Two calls of one agent, one after the other."""
    return [await world.ask(era, name) for _ in range(2)]


async def shown(world: World, name: str, seen: Outcome) -> bool:
    """Whether the admin port has anything to say of this server: an error, or lists that came."""
    seen["early"] = await world.backend(name)
    return bool(errors(seen["early"]) or seen["early"]["fetched_at"])


async def fetched(server: Polite, times: int) -> bool:
    return server.methods().count("tools/list") >= times


async def find_again(world: World, server: Probed, seen: Outcome) -> None:
    """It is brought up to date, and nobody tells the gateway."""
    server.update()

    async def is_modern() -> bool:
        await world.ask("modern", server.name)
        return server.asked[-1].session is None

    await until(is_modern)
    seen["modern again"] = [await world.ask(era, server.name) for era in ERAS]


async def turn_pages(world: World, server: Paged, seen: Outcome) -> None:
    """The third page fails; then it does not; then it does again."""
    await world.listed(f"{server.name}__page-2")
    seen["first"] = names(world, server)
    seen["called"] = [await world.ask(era, server.name, "page-2") for era in ERAS]
    seen["early"] = await world.backend(server.name)
    broken, server.broken = server.broken, None
    await world.listed(f"{server.name}__page-4")
    seen["whole"] = names(world, server)
    server.broken, server.failed = broken, 0
    await until(lambda: failed_often(server))
    await asyncio.gather(*[world.agents["modern"].names() for _ in range(2)])
    seen["again"] = names(world, server)


async def failed_often(server: Paged) -> bool:
    return server.failed >= 3


def names(world: World, server: Polite) -> tuple[str, ...]:
    """Tools of this server that are listed now, by their own names."""
    return tuple(name.partition("__")[2] for name in world.tools if name.startswith(f"{server.name}__"))


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    walked = Walk({})
    asyncio.run(walked.all(tmp_path_factory.mktemp("manners")))
    yield walked


def texts(answers: list[Heard]) -> list[str | None]:
    return [one.text for one in answers]


# -- the probe --------------------------------------------------------------------------------------------------------


REFUSALS = (
    "405", "406", "415", "400-html", "404-text", "404-empty", "unknown-method", "internal", "no-session",
    "newer-result", "newer-error", "empty-result",
)  # fmt: skip
"""Answers of older servers to a method or a revision that they do not know: they are asked again after ten minutes."""


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("manner", DISCOVERS)
def test_an_odd_answer_to_the_probe_does_not_keep_a_server_out(walk: Walk, manner: str, era: str) -> None:
    assert texts(of(walk.seen[f"probe-{manner}"], era)) == ["1", "2"]


@pytest.mark.parametrize("manner", DISCOVERS)
def test_initialize_comes_in_the_same_round(walk: Walk, manner: str) -> None:
    assert of(walk.seen[f"probe-{manner}"], "methods")[:2] == ["server/discover", "initialize"]


@pytest.mark.parametrize("manner", [one for one in DISCOVERS if one not in REFUSALS])
def test_a_server_that_was_brought_up_to_date_is_found_so(walk: Walk, manner: str) -> None:
    seen = walk.seen[f"probe-{manner}"]
    assert None not in texts(of(seen, "modern again"))
    assert errors(of(seen, "backend")) == ""


def test_silence_has_a_short_deadline_of_its_own(walk: Walk) -> None:
    server = walk.servers["probe-silence"]
    assert isinstance(server, Probed)
    of(walk.seen["probe-silence"], "modern")
    assert server.opened[0].at - server.probed[0] < 6.0


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("manner", WAKING)
def test_nothing_is_decided_for_good(walk: Walk, manner: str, era: str) -> None:
    expected = ["1", "1"] if "modern" in walk.servers[f"wake-{manner}"].eras else ["1", "2"]
    assert texts(of(walk.seen[f"wake-{manner}"], era)) == expected


# -- time to start ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("manner", SLOW)
def test_a_server_may_take_its_time_to_start(walk: Walk, manner: str, era: str) -> None:
    assert None not in texts(of(walk.seen[f"slow-{manner}"], era))
    assert errors(of(walk.seen[f"slow-{manner}"], "backend")) == ""


@pytest.mark.parametrize("manner", TOO_SLOW)
def test_who_takes_longer_is_told_of(walk: Walk, manner: str) -> None:
    said = errors(of(walk.seen[f"slow-{manner}"], "early"))
    assert "2 s" in said or "start_timeout" in said, said


def test_a_slow_server_delays_nobody_else(walk: Walk) -> None:
    assert not {"slow-initialize-6__count", "slow-list-11__count"} & of(walk.seen["prompt"], "others")


# -- what is declared -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("declared", DECLARED)
def test_what_is_not_declared_and_answers_is_used(walk: Walk, declared: str, era: str) -> None:
    name = f"declares-{declared}-{era}"
    for asker in ERAS:
        assert None not in texts(of(walk.seen[name], asker))
    assert f"{name}__greet" in walk.prompts
    assert f"{name}+note://all/first" in walk.resources
    assert f"{name}+note://all/{{who}}" in walk.templates
    backend = of(walk.seen[name], "backend")
    assert errors(backend) == ""
    assert notes(backend), backend


@pytest.mark.parametrize("manner", UNDECLARED)
def test_what_is_not_declared_and_is_not_there_is_no_error(walk: Walk, manner: str) -> None:
    seen = walk.seen[f"undeclared-{manner}"]
    for asker in ERAS:
        assert texts(of(seen, asker)) == ["1", "2"]
    assert errors(of(seen, "backend")) == ""


@pytest.mark.parametrize("manner", UNDECLARED)
def test_what_is_not_declared_is_not_asked_for_each_time(walk: Walk, manner: str) -> None:
    of(walk.seen[f"undeclared-{manner}"], "legacy")
    asked = Counter(walk.servers[f"undeclared-{manner}"].methods())
    assert asked["tools/list"] >= 4
    for method in ("prompts/list", "resources/list", "resources/templates/list"):
        assert 1 <= asked[method] <= asked["tools/list"] / 2, asked


def test_a_server_that_offers_nothing_is_no_error(walk: Walk) -> None:
    for word in ("early", "backend"):
        backend = of(walk.seen["nothing"], word)
        assert errors(backend) == ""
        assert backend["fetched_at"]


def test_a_polite_server_has_no_notes(walk: Walk) -> None:
    backend = of(walk.seen["prompt"], "backend")
    assert (errors(backend), notes(backend)) == ("", [])


@pytest.mark.parametrize("capability", ["sampling", "elicitation", "roots"])
def test_tools_that_want_a_capability_of_the_client_are_listed(walk: Walk, capability: str) -> None:
    assert f"with-{capability}" in of(walk.seen["wanting"], "tools")


# -- pages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("manner", PAGES)
def test_pages_before_one_that_fails_are_kept(walk: Walk, manner: str) -> None:
    seen = walk.seen[f"paged-{manner}"]
    assert of(seen, "first") == KEPT
    assert None not in texts(of(seen, "called"))


@pytest.mark.parametrize("manner", PAGES)
def test_a_page_that_fails_is_noted(walk: Walk, manner: str) -> None:
    early = of(walk.seen[f"paged-{manner}"], "early")
    assert any("tools/list" in said for said in (*notes(early), errors(early))), early


@pytest.mark.parametrize("manner", PAGES)
def test_a_page_that_fails_is_tried_again(walk: Walk, manner: str) -> None:
    assert of(walk.seen[f"paged-{manner}"], "whole") == ALL


@pytest.mark.parametrize("manner", PAGES)
def test_a_list_that_was_whole_loses_nothing(walk: Walk, manner: str) -> None:
    assert of(walk.seen[f"paged-{manner}"], "again") == ALL
