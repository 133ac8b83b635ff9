from __future__ import annotations

import asyncio
import json
import logging
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastgw.catalog.definitions import DefinitionKind
from fastgw.errors import Fault, Kind
from fastgw.snapshot.model import Address, Backend
from fastgw.upstream import sessions
from fastgw.upstream.discovery import fetch as lists
from fastgw.upstream.discovery import poll as module
from fastgw.upstream.discovery.fetch import FetchedList, ListReader, fetch_all
from fastgw.upstream.discovery.poll import CatalogueFetcher
from fastgw.upstream.discovery.status import WatchedServer
from fastgw.upstream.rpc import RpcClient, RpcClients
from fastgw.upstream.sessions import UpstreamSessions
from tests.upstream.fakes import (  # fmt: skip
    OURS,
    PATIENT,
    SSE,
    FakeAnswer,
    FakeWire,
    Sent,
    backend,
    error,
    event,
    registry,
    result,
    run,
    settle,
)

ONLY_TOOLS = {"tools": {"listChanged": True}}
LISTS = {"tools/list": "tools", "prompts/list": "prompts", "resources/list": "resources",
         "resources/templates/list": "resourceTemplates"}  # fmt: skip


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object", **more}}


def resource(uri: str) -> dict[str, Any]:
    return {"uri": uri, "name": "r"}


def template(text: str) -> dict[str, Any]:
    return {"uriTemplate": text, "name": "t"}


class Server:
    """One instance that behaves as told."""

    def __init__(self, era: str = "modern", *names: str) -> None:
        self.era = era
        self.tools = [tool(name) for name in names]
        self.lists: dict[str, Any] = {}
        """List method to its items, or to what answers it; a method that is missing is not known."""
        self.capabilities: Any = ONLY_TOOLS if era == "modern" else None
        self.undeclared = False
        """Whether it answers for what it does not declare."""
        self.page = 1000
        self.more: dict[str, Any] = {}
        self.away: Any = None
        self.alive: set[str] = set()
        self.count = 0
        self.stream = FakeAnswer(405)
        self.transport = FakeWire(self.serve)

    def serve(self, request: Sent) -> Any:
        if self.away is not None:
            return self.away() if callable(self.away) else self.away
        if request.verb == "GET" or request.method == "subscriptions/listen":
            return self.stream
        if "id" not in request.json:
            return FakeAnswer(202)
        return self.modern(request) if self.era == "modern" else self.legacy(request)

    def modern(self, request: Sent) -> FakeAnswer:
        if "mcp-method" not in request.headers:
            return error(request, -32022, 400, data={"supported": ["2026-07-28"]})
        if request.method == "server/discover":
            return result(request, {"supportedVersions": ["2026-07-28"], "capabilities": self.capabilities})
        return self.list(request)

    def legacy(self, request: Sent) -> FakeAnswer:
        if request.method == "initialize":
            self.count += 1
            self.alive.add(f"s{self.count}")
            opened = {"protocolVersion": "2025-11-25", "capabilities": self.capabilities}
            return result(request, opened, **{"mcp-session-id": f"s{self.count}"})
        session = request.headers.get("mcp-session-id")
        if session not in self.alive:
            return FakeAnswer(400 if session is None else 404)
        return self.list(request)

    def list(self, request: Sent) -> FakeAnswer:
        items = {"tools/list": self.tools, **self.lists}.get(request.method)
        declared = not isinstance(self.capabilities, dict) or self.capabilities.get(request.method.partition("/")[0])
        if items is None or (declared in (None, False) and not self.undeclared):
            return error(request, -32601)
        if not isinstance(items, list):
            return items(request) if callable(items) else items
        start = int(request.json["params"].get("cursor", "0"))
        page = {LISTS[request.method]: items[start : start + self.page], **self.more}
        if start + self.page < len(items):
            page["nextCursor"] = str(start + self.page)
        return result(request, page)


class World:
    """Catalogues of the servers given: name to its instances."""

    def __init__(self, spawn: Any, folder: Path, **servers: list[Server]) -> None:
        self.changes = self.freshened = 0
        self.skipped = 0.0
        self.servers = servers
        self.backends = {name: self.backend(name, len(found)) for name, found in servers.items()}
        clients = RpcClients(self.client, spawn, OURS, lambda: time.monotonic() + self.skipped)
        self.spawn = spawn
        self.sessions = UpstreamSessions(clients)
        self.found = CatalogueFetcher(clients, self.sessions, folder, self.note, self.note_fresh)

    def backend(self, name: str, count: int) -> Backend:
        urls = [f"http://{name}{number}/s/s3cret/mcp?key=s3cret" for number in range(count)]
        return backend(name=name, instances=tuple(Address(f"{name}|{url}", name, url, None, "") for url in urls))

    def watched(self, **more: Any) -> list[WatchedServer]:
        return [WatchedServer(one, **more) for one in self.backends.values()]

    def key(self, name: str, number: int = 0) -> str:
        return self.backends[name].instances[number].key

    def client(self, key: str) -> RpcClient:
        for name, one in self.backends.items():
            for instance, server in zip(one.instances, self.servers[name], strict=True):
                if instance.key == key:
                    return RpcClient(server.transport, one, self.spawn, PATIENT)
        raise Fault(Kind.NO_SERVER)

    def note(self) -> None:
        self.changes += 1

    def note_fresh(self) -> None:
        self.freshened += 1

    def names(self, server: str) -> list[str] | None:
        known = self.found.catalogues().get(server)
        return None if known is None else [one.key for one in known.tools]

    def keys(self, server: str, place: str) -> list[str]:
        known = self.found.catalogues().get(server)
        return [] if known is None else [one.key for one in getattr(known, place)]

    async def first_round(self, within: float) -> bool:
        """Wait until every server has answered or failed once; whether they have within so many seconds."""
        end = time.monotonic() + within
        while not self.found.settled and time.monotonic() < end:
            await asyncio.sleep(0.001)
        return self.found.settled

    async def until(self, server: str, *names: str) -> None:
        while self.names(server) != list(names):
            await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_AT_MOST_EVERY", 0.01)
    monkeypatch.setattr(module, "COALESCE", 0.0)
    monkeypatch.setattr(module, "SHORTEST", 0.0)
    monkeypatch.setattr(module, "pause", lambda failures, first, longest: 0.001)


def play(folder: Path, script: Any, **servers: Any) -> None:
    async def whole() -> None:
        async with registry() as found:
            grouped = {name: one if isinstance(one, list) else [one] for name, one in servers.items()}
            await script(World(found.spawn, folder, **grouped))

    run(whole())


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_all_pages_are_fetched_in_order(tmp_path: Path, era: str) -> None:
    async def script(world: World) -> None:
        server.page = 3
        world.found.watch(world.watched())
        assert await world.first_round(5)
        assert world.names("a") == [f"t{number}" for number in range(10)]
        version = "2026-07-28" if era == "modern" else "2025-11-25"
        assert world.found.eras == {world.key("a"): (era, version)}
        assert world.changes > 0

    server = Server(era, *(f"t{number}" for number in range(10)))
    play(tmp_path, script, a=server)


def test_a_dead_and_a_silent_server_delay_nobody(tmp_path: Path) -> None:
    async def never() -> FakeAnswer:
        return await asyncio.get_running_loop().create_future()

    async def script(world: World) -> None:
        world.found.watch(world.watched())
        began = time.monotonic()
        assert not await world.first_round(0.05)
        assert time.monotonic() - began < 1
        assert (world.names("a"), world.names("dead"), world.names("silent")) == (["x"], None, None)
        state = world.found.state()
        assert state["dead"]["instances"][0]["error"]
        assert "s3cret" not in json.dumps(state)
        assert state["a"]["tools"] == 1
        dead.away = None
        await world.until("dead", "y")
        assert world.found.state()["dead"]["instances"][0]["error"] == ""

    dead, silent = Server("legacy", "y"), Server("modern", "z")
    dead.away, silent.away = Fault(Kind.NO_SERVER, detail="refused"), never
    play(tmp_path, script, a=Server("modern", "x"), dead=dead, silent=silent)


def test_a_server_that_dies_keeps_its_tools_and_era(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        world.found.watch(world.watched(refresh=0.001))
        await world.until("a", "x")
        eras = dict(world.found.eras)
        server.away = Fault(Kind.NO_SERVER, detail="refused")
        while world.found.state()["a"]["instances"][0]["failures"] < 5:
            await asyncio.sleep(0.001)
        assert (world.names("a"), world.found.eras) == (["x"], eras)
        server.tools, server.away = [tool("y")], None
        await world.until("a", "y")

    server = Server("modern", "x")
    play(tmp_path, script, a=server)


def test_what_was_kept_counts_before_anybody_answers(tmp_path: Path) -> None:
    async def first(world: World) -> None:
        world.found.watch(world.watched())
        await world.until("a", "x")
        while not list((tmp_path / "catalogue").glob("*.json")):
            await asyncio.sleep(0.001)

    async def second(world: World) -> None:
        world.found.watch(world.watched())
        assert world.names("a") == ["x"]
        assert world.found.eras == {world.key("a"): ("legacy", "2025-11-25")}
        assert not world.found.settled

    play(tmp_path, first, a=Server("legacy", "x"))
    (file,) = (tmp_path / "catalogue").glob("*.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    away = Server("legacy")
    away.away = Fault(Kind.NO_SERVER)
    play(tmp_path, second, a=away)


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b'{"eras":{},"catalogue":{}}', b'{"eras":[],"catalogue":1}', b"\xff"]
)
def test_a_damaged_file_is_no_obstacle(tmp_path: Path, text: bytes) -> None:
    async def script(world: World) -> None:
        world.found.watch(world.watched())
        assert world.names("a") is None
        await world.until("a", "x")

    (tmp_path / "catalogue").mkdir()
    (tmp_path / "catalogue" / "a.json").write_bytes(text)
    play(tmp_path, script, a=Server("modern", "x"))


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_an_announced_change_is_fetched_at_once(tmp_path: Path, era: str) -> None:
    async def script(world: World) -> None:
        server.stream = FakeAnswer(200, SSE, None)
        world.found.watch(world.watched())
        await world.until("a", "x")
        server.tools.append(tool("y"))
        server.stream.more.put_nowait(event({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}))
        await world.until("a", "x", "y")

    server = Server(era, "x")
    play(tmp_path, script, a=server)


def test_a_change_announced_during_a_fetch_is_not_lost(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        gate = asyncio.get_running_loop().create_future()
        plain, server.stream = server.list, FakeAnswer(200, SSE, None)

        def slow(request: Sent) -> Any:
            old = plain(request)

            async def later() -> FakeAnswer:
                await gate
                return old

            return later()

        server.list = slow
        world.found.watch(world.watched())
        while not server.transport.count("tools/list"):
            await asyncio.sleep(0)
        server.tools.append(tool("y"))
        server.stream.more.put_nowait(event({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}))
        await settle()
        server.list = plain
        gate.set_result(None)
        await world.until("a", "x", "y")

    server = Server("modern", "x")
    play(tmp_path, script, a=server)


def test_a_storm_of_announcements_is_answered_by_few_fetches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHORTEST", apart := 0.1)

    async def script(world: World) -> None:
        server.stream = FakeAnswer(200, SSE, None)
        began = time.monotonic()
        world.found.watch(world.watched())
        await world.until("a", "x")
        server.tools.append(tool("y"))
        while server.transport.count("tools/list") < 4:
            server.stream.more.put_nowait(event({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}))
            await asyncio.sleep(0)
        assert world.names("a") == ["x", "y"]
        assert time.monotonic() - began >= 3 * apart

    server = Server("modern", "x")
    play(tmp_path, script, a=server)


def test_a_change_of_era_is_found_after_failures(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        world.found.watch(world.watched(refresh=0.001))
        await world.until("a", "x")
        server.era, server.tools = "modern", [tool("y")]
        server.alive.clear()
        await world.until("a", "y")
        assert world.found.eras[world.key("a")] == ("modern", "2026-07-28")

    server = Server("legacy", "x")
    play(tmp_path, script, a=server)


def test_a_passing_404_does_not_make_a_modern_server_legacy(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        world.found.watch(world.watched(refresh=0.001))
        await world.until("a", "x")
        server.away = FakeAnswer(404)
        with pytest.raises(Fault) as wrong:
            world.skipped = 5.0
            await world.found.doubt(world.key("a"), "modern")
        assert (wrong.value.kind, wrong.value.sent) == (Kind.NO_SERVER, False)
        assert world.found.eras[world.key("a")][0] == "modern"

    server = Server("modern", "x")
    play(tmp_path, script, a=server)


def test_a_doubt_is_answered_from_what_is_known_or_by_one_probe(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        key = world.key("a")
        world.found.watch(world.watched())
        assert {await found for found in asyncio.as_completed([world.found.doubt(key, "") for _ in range(50)])} == {
            "modern"
        }
        assert await world.found.doubt(key, "legacy") == "modern"
        assert await world.found.doubt(key, "modern") == "modern"
        assert server.transport.count("server/discover") == 1
        with pytest.raises(Fault):
            await world.found.doubt("nobody|x", "")

    server = Server("modern", "x")
    play(tmp_path, script, a=server)


def test_a_refresh_brings_the_headers_of_the_newest_definition(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        world.found.watch(world.watched())
        await world.until("a", "x")
        assert await world.found.refresh("a", "x") == ()
        server.tools = [tool("x", properties={"r": {"type": "string", "x-mcp-header": "Region"}})]
        await settle()
        assert await world.found.refresh("a", "x") == (("mcp-param-region", ("r",), "string"),)
        assert await world.found.refresh("a", "gone") == ()
        server.away = Fault(Kind.LOST, sent=True)
        with pytest.raises(Fault) as wrong:
            await world.found.refresh("a", "x")
        assert (wrong.value.kind, wrong.value.sent) == (Kind.NO_SERVER, False)
        with pytest.raises(Fault):
            await world.found.refresh("nobody", "x")

    server = Server("modern", "x")
    play(tmp_path, script, a=server)


def test_the_first_instance_that_answers_gives_the_list_and_another_takes_over(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        world.found.watch(world.watched(refresh=0.001))
        assert await world.first_round(5)
        await world.until("a", "second")
        while len(world.found.eras) < 1:
            await asyncio.sleep(0)
        first.away = None
        while world.key("a", 0) not in world.found.eras:
            await asyncio.sleep(0.001)
        assert world.names("a") == ["second"]
        assert first.transport.count("tools/list") == 0
        second.away = Fault(Kind.NO_SERVER)
        await world.until("a", "first")
        assert {era for era, _ in world.found.eras.values()} == {"modern", "legacy"}

    first, second = Server("legacy", "first"), Server("modern", "second")
    first.away = Fault(Kind.NO_SERVER)
    play(tmp_path, script, a=[first, second])


def test_a_server_says_how_long_its_list_is_fresh(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        server.more = {"ttlMs": 60_000}
        world.found.watch(world.watched(refresh=0.001))
        await world.until("a", "x")
        await asyncio.sleep(0.02)
        assert server.transport.count("tools/list") == 1
        assert 50 < world.found.catalogues()["a"].fresh_until - time.monotonic() <= 60

    server = Server("modern", "x")
    play(tmp_path, script, a=server)


def test_a_list_that_only_stays_fresh_longer_changes_nothing_else(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        server.more = {"ttlMs": 1}
        world.found.watch(world.watched())
        await world.until("a", "x")
        changes = world.changes
        before = world.found.freshness()["a"]
        while world.freshened < 3:
            await asyncio.sleep(0)
        assert world.changes == changes
        assert world.found.freshness()["a"] > before
        server.tools = [tool("y")]
        await world.until("a", "y")
        assert world.changes == changes + 1

    server = Server("modern", "x")
    play(tmp_path, script, a=server)


def test_no_part_of_a_url_that_may_be_secret_is_logged_shown_or_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def script(world: World) -> None:
        names: set[str] = set()
        server.stream = FakeAnswer(200, SSE, None)
        world.found.watch(world.watched(refresh=0.001))
        while not list((tmp_path / "catalogue").glob("*.json")):
            await asyncio.sleep(0.001)
        for away in (Fault(Kind.NO_SERVER, detail="refused"), None, lambda: 1 / 0, None):
            server.away = away
            while bool(world.found.state()["a"]["instances"][0]["failures"]) is (away is None):
                names.update(task.get_name() for task in asyncio.all_tasks())
                await asyncio.sleep(0)
        said = [caplog.text, json.dumps(world.found.state()), *names]
        said += [file.read_text() for file in (tmp_path / "catalogue").iterdir()]
        assert caplog.text.count("a at a0:80") >= 3
        assert "ZeroDivisionError" in caplog.text
        assert world.found.state()["a"]["instances"][0]["url"] == "http://a0:80"
        assert {"watch a at a0:80", "listen to a at a0:80"} <= names
        assert "s3cret" not in "".join(said)

    server = Server("legacy", "x")
    play(tmp_path, script, a=server)


def test_a_reload_takes_servers_in_and_out_and_leaves_the_others_alone(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        both = world.watched()
        world.found.watch(both)
        assert await world.first_round(5)
        world.found.watch([both[1]])
        assert list(world.found.catalogues()) == ["b"]
        assert list(world.found.eras) == [world.key("b")]
        asked = len(b.transport.sent)
        world.found.watch(both)
        await world.until("a", "x")
        assert len(b.transport.sent) == asked
        world.backends["b"] = replace(world.backends["b"], headers=b"x: y\r\n")
        world.found.watch(world.watched())
        assert world.names("b") == ["y"]
        while len(b.transport.sent) == asked:
            await asyncio.sleep(0.001)
        assert b.transport.sent[-1].headers["x"] == "y"

    b = Server("legacy", "y")
    play(tmp_path, script, a=Server("modern", "x"), b=b)


def test_the_configurations_era_is_used_unasked(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        world.found.watch(world.watched(era="legacy"))
        await world.until("a", "x")
        assert server.transport.count("server/discover") == 0

    server = Server("legacy", "x")
    play(tmp_path, script, a=server)


def test_a_server_that_lists_no_tools_has_none(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        server.list = lambda request: error(request, -32601)
        world.found.watch(world.watched())
        await world.until("a")

    server = Server("legacy", "x")
    play(tmp_path, script, a=server)


@pytest.mark.parametrize(
    "page",
    [
        {"tools": {}}, {"nope": []}, {"tools": None}, {"resultType": "input_required", "requestState": "x"},
        lambda request: error(request, -32603), lambda request: FakeAnswer(200, body=b"<html>"),
        lambda request: FakeAnswer(401), lambda request: FakeAnswer(500),
    ],
)  # fmt: skip
def test_a_bad_list_changes_nothing(tmp_path: Path, page: Any) -> None:
    async def script(world: World) -> None:
        world.found.watch(world.watched(refresh=0.001))
        await world.until("a", "x")
        good = server.list
        server.list = page if callable(page) else lambda request: result(request, page)
        while not world.found.state()["a"]["instances"][0]["error"]:
            await asyncio.sleep(0.001)
        assert world.names("a") == ["x"]
        server.list, server.tools = good, [tool("y")]
        await world.until("a", "y")

    server = Server("modern", "x")
    play(tmp_path, script, a=server)


def pages(*found: dict[str, Any]) -> Any:
    left = list(found)

    async def page(method: str, cursor: bytes | None) -> bytes:
        return json.dumps(left.pop(0) if len(left) > 1 else left[0]).encode()

    return page


def test_a_cursor_that_comes_twice_ends_the_list() -> None:
    found = run(
        ListReader(DefinitionKind.TOOL, "a").read(
            pages({"tools": [tool("x")], "nextCursor": "1"}, {"tools": [tool("y")], "nextCursor": "1"})
        )
    )
    assert [one.key for one in found.items] == ["x", "y"]
    assert "twice" in str(found.notices)


def test_a_list_without_end_is_cut_off() -> None:
    asked = 0

    async def page(method: str, cursor: bytes | None) -> bytes:
        nonlocal asked
        asked += 1
        return json.dumps({"tools": [tool(f"t{asked}")], "nextCursor": f"c{asked}"}).encode()

    found = run(ListReader(DefinitionKind.TOOL, "a").read(page))
    assert (asked, len(found.items)) == (100, 100)
    assert "100 pages" in str(found.notices)


def test_a_list_that_is_too_long_is_cut_off() -> None:
    found = run(
        ListReader(DefinitionKind.TOOL, "a").read(
            pages({"tools": [tool(f"t{one}") for one in range(DefinitionKind.TOOL.most + 5)], "nextCursor": "1"})
        )
    )
    assert len(found.items) == DefinitionKind.TOOL.most
    assert str(DefinitionKind.TOOL.most) in str(found.notices)


def test_a_name_listed_twice_is_taken_once_and_bad_tools_alone_are_left_out() -> None:
    first = {**tool("x"), "title": "first"}
    found = run(
        ListReader(DefinitionKind.TOOL, "a").read(pages({"tools": [first, tool("x"), {"name": "bad"}, tool("y")]}))
    )
    assert [(one.key, one.members.get("title")) for one in found.items] == [("x", b'"first"'), ("y", None)]
    assert len(found.notices) == 2


@pytest.mark.parametrize(
    ("ttls", "fresh"),
    [([5000], 5.0), ([5000, 3000], 3.0), ([0], 0.0), ([5000, 0], 0.0), ([None], None), (["5"], None), ([-5], None)],
)
def test_a_list_is_as_fresh_as_its_stalest_page(ttls: list[Any], fresh: float | None) -> None:
    found = [{"tools": [], "ttlMs": ttl, "nextCursor": str(number)} for number, ttl in enumerate(ttls)]
    del found[-1]["nextCursor"]
    assert run(ListReader(DefinitionKind.TOOL, "a").read(pages(*found))).fresh == fresh


# -- pages that do not come ---------------------------------------------------------------------------------------


def item(number: int) -> dict[str, Any]:
    return {"name": f"n{number}", "uri": f"x:{number}", "uriTemplate": f"x:{number}", "inputSchema": {"type": "object"}}


def breaking(list_kind: DefinitionKind, good: int, then: Any) -> Any:
    """So many good pages of one item, each with a time it is fresh for; then what is told."""
    asked = 0

    async def page(method: str, cursor: bytes | None) -> bytes | None:
        nonlocal asked
        asked += 1
        if asked > good:
            return await then()
        found = {LISTS[list_kind.method]: [item(asked)], "nextCursor": f"c{asked}", "ttlMs": 60_000}
        return json.dumps(found).encode()

    return page


async def _lost() -> bytes:
    raise Fault(Kind.LOST, detail="reset", sent=True)


async def _no_list() -> bytes:
    return b'{"nope":[]}'


async def _never() -> bytes:
    found: bytes = await asyncio.get_running_loop().create_future()
    return found


def outcome(list_kind: DefinitionKind, page: Any, within: float = 5.0) -> FetchedList:
    """What comes of one list."""

    async def play() -> FetchedList:
        async with registry() as found:
            parts = [part async for part in fetch_all({list_kind: within}, "a", page, found.spawn)]
            return parts[0][list_kind]

    outcome: FetchedList = run(play())
    return outcome


@pytest.mark.parametrize("list_kind", DefinitionKind)
@pytest.mark.parametrize(
    ("then", "within", "kind"), [(_lost, 5.0, Kind.LOST), (_no_list, 5.0, Kind.LOST), (_never, 0.02, Kind.TIMEOUT)]
)
def test_pages_before_one_that_fails_are_kept(list_kind: DefinitionKind, then: Any, within: float, kind: Kind) -> None:
    found = outcome(list_kind, breaking(list_kind, 3, then), within)
    named = "x:" if list_kind.capability == "resources" else "n"
    assert [one.key for one in found.items] == [f"{named}{number}" for number in (1, 2, 3)]
    assert found.cut is not None and found.cut.kind is kind
    assert found.known


@pytest.mark.parametrize("then", [_lost, _no_list])
def test_where_no_page_came_there_is_a_failure_and_no_empty_list(then: Any) -> None:
    found = outcome(DefinitionKind.TOOL, breaking(DefinitionKind.TOOL, 0, then))
    assert (found.items, found.cut is None) == ((), False)


def test_a_list_that_is_whole_is_not_cut() -> None:
    found = outcome(DefinitionKind.TOOL, pages({"tools": [tool("x")]}))
    assert found.cut is None


def cut_after(server: Server, count: int) -> Any:
    """Answers a list in pages of one, and fails after `count` of them."""

    def answer(request: Sent) -> FakeAnswer:
        start = int(request.json["params"].get("cursor", "0"))
        if start >= count:
            return error(request, -32603)
        return result(request, {"tools": [server.tools[start]], "nextCursor": str(start + 1)})

    return answer


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_of_a_list_whose_later_pages_fail_the_first_are_used_until_all_come(tmp_path: Path, era: str) -> None:
    async def script(world: World) -> None:
        server.lists["tools/list"] = cut_after(server, 2)
        world.found.watch(world.watched(refresh=60.0))
        await world.until("a", "t0", "t1")
        while not (wrong := world.found.state()["a"]["instances"][0]["error"]):
            await asyncio.sleep(0.001)
        assert wrong.startswith("tools/list: ")
        del server.lists["tools/list"]
        await world.until("a", "t0", "t1", "t2", "t3")
        while world.found.state()["a"]["instances"][0]["error"]:
            await asyncio.sleep(0.001)

    server = Server(era, *(f"t{number}" for number in range(4)))
    play(tmp_path, script, a=server)


def test_a_part_of_a_list_takes_nothing_of_what_there_was(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        world.found.watch(world.watched(refresh=0.001))
        await world.until("a", *names)
        server.lists["tools/list"] = cut_after(server, 2)
        while not world.found.state()["a"]["instances"][0]["error"]:
            await asyncio.sleep(0.001)
        assert world.names("a") == names
        server.tools.reverse()
        server.lists["tools/list"] = cut_after(server, 3)
        failures = world.found.state()["a"]["instances"][0]["failures"]
        while world.found.state()["a"]["instances"][0]["failures"] < failures + 3:
            await asyncio.sleep(0.001)
        assert world.names("a") == names
        del server.lists["tools/list"]
        await world.until("a", *reversed(names))

    names = [f"t{number}" for number in range(4)]
    server = Server("modern", *names)
    play(tmp_path, script, a=server)


def test_a_part_that_is_more_than_there_was_is_used(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        world.found.watch(world.watched(refresh=0.001))
        await world.until("a", "t0")
        server.tools = [tool(f"t{number}") for number in range(5)]
        server.lists["tools/list"] = cut_after(server, 3)
        await world.until("a", "t0", "t1", "t2")

    server = Server("modern", "t0")
    play(tmp_path, script, a=server)


ALL = {"tools": {}, "prompts": {}, "resources": {}, "completions": {}}


def full(era: str = "modern", capabilities: Any = ALL) -> Server:
    """A server with one of each."""
    server = Server(era, "x")
    server.capabilities = capabilities
    server.lists = {
        "prompts/list": [{"name": "p"}],
        "resources/list": [resource("file:///a"), resource("file:///b")],
        "resources/templates/list": [template("help://{page}")],
    }
    return server


def whole(world: World, server: str = "a") -> list[list[str] | None]:
    return [world.names(server), *(world.keys(server, place) for place in ("prompts", "resources", "templates"))]


EVERYTHING = [["x"], ["p"], ["file:///a", "file:///b"], ["help://{page}"]]


async def once(world: World, server: str = "a") -> None:
    """Watch, until the first round is over."""
    world.found.watch(world.watched())
    assert await world.first_round(5)


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_all_that_a_server_declares_is_fetched_page_by_page(tmp_path: Path, era: str) -> None:
    async def script(world: World) -> None:
        server.page = 1
        await once(world)
        assert whole(world) == EVERYTHING
        assert world.found.catalogues()["a"].capabilities == {"tools", "prompts", "resources", "completions"}
        state = world.found.state()["a"]
        assert [state[place] for place in ("tools", "prompts", "resources", "templates")] == [1, 1, 2, 1]
        assert world.changes <= 2  # its era, and all lists at once

    server = full(era)
    play(tmp_path, script, a=server)


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize(
    ("capabilities", "declared"),
    [
        ({"prompts": {}}, {"prompts"}),
        ({"resources": {}, "prompts": None}, {"resources"}),
        ({"logging": {}, "tools": False, "x" * 200: {}}, {"logging"}),
        (None, {"tools", "prompts", "resources"}),
        ("tools", {"tools", "prompts", "resources"}),
    ],
)
def test_what_is_not_declared_is_asked_for_once(
    tmp_path: Path, era: str, capabilities: Any, declared: set[str]
) -> None:
    async def script(world: World) -> None:
        world.found.watch(world.watched(refresh=0.001))
        while (
            world.found.catalogues().get("a") is None or world.found._servers["a"].instances[world.key("a")].rounds < 5
        ):
            await asyncio.sleep(0.001)
        for method in LISTS:
            assert (server.transport.count(method) == 1) is (method.partition("/")[0] not in declared)
        assert (world.names("a") == ["x"]) is ("tools" in declared)
        assert world.found.catalogues()["a"].capabilities == declared
        assert world.found.state()["a"]["instances"][0]["error"] == ""
        assert ["does not say what it has" in note for note in world.found.state()["a"]["notes"]] == (
            [] if isinstance(capabilities, dict) else [True]
        )

    server = full(era, capabilities)
    play(tmp_path, script, a=server)


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_an_undeclared_list_that_fails_later_stays_as_it_was(tmp_path: Path, era: str) -> None:
    async def script(world: World) -> None:
        world.found.watch(world.watched(refresh=0.001))
        while whole(world) != EVERYTHING:
            await asyncio.sleep(0.001)
        server.lists["tools/list"] = lambda request: error(request, -32603)
        while "tools/list" not in world.found.state()["a"]["instances"][0]["error"]:
            await asyncio.sleep(0.001)
        assert whole(world) == EVERYTHING
        del server.lists["tools/list"]
        server.tools.append(tool("y"))
        await world.until("a", "x", "y")

    server = full(era, {})
    server.undeclared = True
    play(tmp_path, script, a=server)


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize("capabilities", [{}, {"logging": {}, "tools": None}])
def test_what_answers_undeclared_is_used_and_noted(tmp_path: Path, era: str, capabilities: Any) -> None:
    async def script(world: World) -> None:
        world.found.watch(world.watched(refresh=0.001))
        while whole(world) != EVERYTHING:
            await asyncio.sleep(0.001)
        assert world.found.catalogues()["a"].capabilities == {*capabilities, "tools", "prompts", "resources"}
        assert len(world.found.state()["a"]["notes"]) == len(LISTS)
        server.tools.append(tool("y"))
        await world.until("a", "x", "y")

    server = full(era, capabilities)
    server.undeclared = True
    play(tmp_path, script, a=server)


BARE = FakeAnswer(404, body=b"<html>")


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize("answer", [lambda request: error(request, -32601, 404), BARE])
def test_a_server_that_declares_nothing_may_lack_a_list(tmp_path: Path, era: str, answer: Any) -> None:
    async def script(world: World) -> None:
        await once(world)
        assert whole(world) == [["x"], [], *EVERYTHING[2:]]
        assert world.found.catalogues()["a"].capabilities == {"tools", "resources"}
        assert world.found.state()["a"]["instances"][0]["error"] == ""
        if era == "legacy":  # a 404 that says nothing may mean that the session is lost: `ping` tells that it is not
            assert server.transport.count("initialize") == 1
            assert server.transport.count("ping") == (1 if answer is BARE else 0)

    server = full(era, None)
    server.lists["prompts/list"] = answer
    play(tmp_path, script, a=server)


def test_a_list_that_fails_goes_on_standing_for_a_capability(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        world.found.watch(world.watched(refresh=0.001))
        await world.until("a", "x")
        server.lists["resources/list"] = lambda request: error(request, -32603)
        del server.lists["resources/templates/list"], server.lists["prompts/list"]
        while whole(world) != [["x"], [], EVERYTHING[2], []]:
            await asyncio.sleep(0.001)
        assert world.found.catalogues()["a"].capabilities == {"tools", "resources"}

    server = full("modern", None)
    play(tmp_path, script, a=server)


def test_a_bare_404_takes_nothing_away(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        world.found.watch(world.watched(refresh=0.001))
        await world.until("a", "x")
        server.lists["prompts/list"] = FakeAnswer(404)
        while not world.found.state()["a"]["instances"][0]["error"]:
            await asyncio.sleep(0.001)
        assert whole(world) == EVERYTHING

    server = full("modern", None)
    play(tmp_path, script, a=server)


BROKEN = [
    lambda request: error(request, -32603),
    lambda request: result(request, {"nope": []}),
    lambda request: result(request, {member: {} for member in LISTS.values()}),
    lambda request: FakeAnswer(500),
    lambda request: Fault(Kind.TIMEOUT, sent=True),
    lambda request: Fault(Kind.NO_SERVER),
    lambda request: FakeAnswer(200, body=b"[" * 100_000),
    lambda request: result(request, {LISTS[request.method]: [0] * 2_000_002}),
]


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize("answer", BROKEN)
@pytest.mark.parametrize("bad", LISTS)
def test_one_list_that_fails_costs_no_other(tmp_path: Path, era: str, answer: Any, bad: str) -> None:
    async def script(world: World) -> None:
        world.found.watch(world.watched(refresh=0.001))
        while whole(world) != EVERYTHING:
            await asyncio.sleep(0.001)
        server.tools.append(tool("y"))
        for method, items in server.lists.items():
            if method != bad:
                items.clear()
        good, server.lists[bad] = server.lists.get(bad, server.tools), answer
        while not (wrong := world.found.state()["a"]["instances"][0]["error"]):
            await asyncio.sleep(0.001)
        others = [["x", "y"], [], [], []]
        expected = [EVERYTHING[at] if method == bad else others[at] for at, method in enumerate(LISTS)]
        while whole(world) != expected:
            await asyncio.sleep(0.001)
        assert wrong.startswith(bad + ": ")
        assert world.found.eras[world.key("a")][0] == era
        server.lists[bad] = good
        while world.found.state()["a"]["instances"][0]["error"]:
            await asyncio.sleep(0.001)

    server = full(era)
    play(tmp_path, script, a=server)


def test_a_list_that_never_comes_keeps_no_other_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "PATIENCE", 0.01)

    async def never() -> FakeAnswer:
        return await asyncio.get_running_loop().create_future()

    async def script(world: World) -> None:
        world.found.watch(world.watched())
        while whole(world) != [["x"], [], *EVERYTHING[2:]]:
            await asyncio.sleep(0.001)
        assert not world.found.settled

    server = full()
    server.lists["prompts/list"] = lambda request: never()
    play(tmp_path, script, a=server)


def test_a_broken_list_is_not_asked_for_all_the_time(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        world.found.watch(world.watched(refresh=60.0))
        while world.found.state()["a"]["instances"][0]["failures"] < 6:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        assert server.transport.count("prompts/list") == 6
        assert server.transport.count("server/discover") == 1

    server = full()
    server.lists["prompts/list"] = lambda request: error(request, -32603)
    play(tmp_path, script, a=server)


def test_a_server_that_never_listed_is_not_one_without_tools(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        world.found.watch(world.watched())
        while world.found.state()["a"]["instances"][0]["failures"] < 3:
            await asyncio.sleep(0.001)
        assert "a" not in world.found.catalogues()

    server = Server("modern", "x")
    server.list = lambda request: error(request, -32603)
    play(tmp_path, script, a=server)


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_what_a_server_declares_is_kept_and_followed(tmp_path: Path, era: str) -> None:
    async def script(world: World) -> None:
        world.found.watch(world.watched(refresh=0.001))
        while whole(world) != [["x"], [], [], []]:
            await asyncio.sleep(0.001)
        server.capabilities = ALL
        server.alive.clear()
        while whole(world) != EVERYTHING:
            await asyncio.sleep(0.001)
        assert world.found.catalogues()["a"].capabilities == set(ALL)
        server.capabilities = {"prompts": {}}
        server.alive.clear()
        while whole(world) != [[], ["p"], [], []]:
            await asyncio.sleep(0.001)
        assert world.found.catalogues()["a"].capabilities == {"prompts"}

    server = full(era, {"tools": {}})
    play(tmp_path, script, a=server)


def test_a_session_opened_anew_shows_what_else_a_server_has_now(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        await once(world)
        server.capabilities = ALL
        server.alive.clear()
        await world.found.refresh("a", "x")
        while whole(world) != EVERYTHING:
            await asyncio.sleep(0.001)

    server = full("legacy", {"tools": {}})
    play(tmp_path, script, a=server)


def test_a_server_that_begins_to_announce_changes_is_listened_to(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        world.found.watch(world.watched(refresh=0.001))
        await world.until("a", "x")
        assert server.transport.count("subscriptions/listen") == 0
        server.capabilities = ONLY_TOOLS
        while server.transport.count("subscriptions/listen") == 0:
            await asyncio.sleep(0.001)

    server = full("modern", {"tools": {}})
    play(tmp_path, script, a=server)


@pytest.mark.parametrize("ids", [True, False])
def test_an_old_server_that_had_nothing_is_asked_again_what_it_has(tmp_path: Path, ids: bool) -> None:
    async def script(world: World) -> None:
        world.found.watch(world.watched(refresh=0.001))
        while "a" not in world.found.catalogues():
            await asyncio.sleep(0.001)
        server.capabilities = {"tools": {}, "resources": {}}
        await asyncio.sleep(0.01)
        assert (world.names("a") == ["x"]) is False
        world.skipped = 601.0
        await world.until("a", "x")

    server = full("legacy", {} if ids else {"resources": {}})
    if not ids:
        server.legacy = lambda request: (
            result(request, {"protocolVersion": "2025-11-25", "capabilities": server.capabilities})
            if request.method == "initialize"
            else server.list(request)
        )
    play(tmp_path, script, a=server)


def test_everything_is_kept_over_a_restart(tmp_path: Path) -> None:
    async def first(world: World) -> None:
        await once(world)
        while world.found._servers["a"].kept is not world.found.catalogues()["a"]:
            await asyncio.sleep(0.001)

    async def second(world: World) -> None:
        world.found.watch(world.watched())
        assert whole(world) == EVERYTHING
        assert world.found.catalogues()["a"].capabilities == set(ALL)

    play(tmp_path, first, a=full())
    away = Server("legacy")
    away.away = Fault(Kind.NO_SERVER)
    play(tmp_path, second, a=away)


@pytest.mark.parametrize("kind", ["prompts", "resources"])
@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_a_change_of_any_list_is_fetched_at_once(tmp_path: Path, era: str, kind: str) -> None:
    async def script(world: World) -> None:
        server.stream = FakeAnswer(200, SSE, None)
        await once(world)
        server.lists[f"{kind}/list"].clear()
        server.stream.more.put_nowait(event({"jsonrpc": "2.0", "method": f"notifications/{kind}/list_changed"}))
        while world.keys("a", kind):
            await asyncio.sleep(0.001)

    server = full(era, {**ALL, kind: {"listChanged": True}})
    play(tmp_path, script, a=server)


def test_a_catalogue_is_as_fresh_as_its_stalest_list(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        await once(world)
        left = world.found.catalogues()["a"].fresh_until - time.monotonic()
        assert 20 < left <= 30

    server = full()
    texts = {"prompts/list": [{"name": "p"}], "resources/list": []}
    for method, seconds in (("prompts/list", 60_000), ("resources/list", 30_000)):
        server.lists[method] = lambda request, seconds=seconds: result(
            request, {LISTS[request.method]: texts[request.method], "ttlMs": seconds}
        )
    play(tmp_path, script, a=server)


@pytest.mark.parametrize("list_kind", DefinitionKind)
def test_every_list_has_its_cap_and_a_few_notices(list_kind: DefinitionKind) -> None:
    member = LISTS[list_kind.method]

    def one(number: int) -> dict[str, Any]:
        return {"name": f"n{number}", "uri": f"x:{number}", "uriTemplate": f"x:{number}", **tool(f"n{number}")}

    found = run(ListReader(list_kind, "a").read(pages({member: [one(number) for number in range(list_kind.most + 1)]})))
    assert len(found.items) == list_kind.most
    assert len(found.notices) == 1
    found = run(ListReader(list_kind, "a").read(pages({member: [one(1), *[{}] * 1_000_000]})))
    assert len(found.items) == 1
    assert 2 <= len(found.notices) <= lists.MOST_NOTICES
    huge = {**one(2), "description": "x" * 1_100_000}
    found = run(ListReader(list_kind, "a").read(pages({member: [one(1), huge, one(3)]})))
    assert len(found.items) == 2
    assert "bytes" in str(found.notices[0]) and str(found.notices[0])[:4] in ("a/n2", "a/x:")
