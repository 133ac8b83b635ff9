"""Getting to know a server: one round finds its era, whatever it answers to what it does not know."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastgw.errors import Fault, Kind
from fastgw.upstream import sessions as directory
from fastgw.upstream.discovery import probe
from fastgw.upstream.discovery.probe import LEGACY_LIFETIME, EraProbe
from fastgw.upstream.discovery.status import InstanceStatus, ServerStatus, WatchedServer
from fastgw.upstream.rpc import RpcClient, RpcClients
from fastgw.upstream.sessions import GATEWAY, UpstreamSessions
from fastgw.upstream.transports import down
from tests.upstream.fakes import (  # fmt: skip
    OURS,
    PATIENT,
    FakeAnswer,
    FakeWire,
    Sent,
    backend,
    error,
    registry,
    result,
    run,
    settle,
)

MODERN_RESULT = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "instructions": "Modern."}


def told_modern(request: Sent) -> FakeAnswer:
    return result(request, MODERN_RESULT)


def only_modern(request: Sent) -> FakeAnswer:
    return error(request, -32022, 400, data={"supported": ["2026-07-28"]})


def unknown(request: Sent) -> FakeAnswer:
    return error(request, -32601, 404)


def opened(request: Sent) -> FakeAnswer:
    said = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "instructions": "Legacy."}
    return result(request, said, **{"mcp-session-id": f"s{request.json['id']}"})


def always(answer: Any) -> Any:
    return lambda request: answer


class World:
    """One server, by what it answers to discover and initialize, and a hand-set clock."""

    def __init__(self, spawn: Any, discover: Any, initialize: Any, era: str = "auto", **of: Any) -> None:
        self.now, self.alive = 1000.0, True
        self.discover, self.initialize = discover, initialize
        self.eras: list[str] = []
        self.transport = FakeWire(self.serve)
        watched = WatchedServer(backend(**of), era)
        clients = RpcClients(
            lambda _: RpcClient(self.transport, watched.backend, spawn, PATIENT), spawn, OURS, lambda: self.now
        )
        self.sessions = UpstreamSessions(clients)
        self.known = EraProbe(clients, self.sessions, lambda _: self.eras.append(self.status.known_era[0]))
        self.server = ServerStatus(watched)
        self.status = self.server.instances["shop|http://a/mcp"] = InstanceStatus("shop|http://a/mcp", self.server)

    def serve(self, request: Sent) -> Any:
        if request.method == "server/discover":
            return self.discover(request)
        if request.method == "initialize":
            return self.initialize(request)
        if request.method == "GET":
            return FakeAnswer(405)
        if request.method == "ping":
            return result(request, {}) if self.alive else FakeAnswer(404)
        return FakeAnswer(202)


def play(script: Any, *server: Any, **more: Any) -> World:
    async def whole() -> World:
        async with registry() as found:
            world = World(found.spawn, *server, **more)
            await script(world)
            await settle()
            world.server.stop()
            return world

    world: World = run(whole())
    return world


async def met(world: World) -> None:
    await world.known.probe(world.status)


FAILURES = {
    "500": always(FakeAnswer(500)),
    "502": always(FakeAnswer(502, body=b"<html>")),
    "503": always(FakeAnswer(503)),
    "504": always(FakeAnswer(504)),
    "401": always(FakeAnswer(401)),
    "403": always(FakeAnswer(403)),
    "429": always(FakeAnswer(429)),
    "202": always(FakeAnswer(202)),
    "html": always(FakeAnswer(200, body=b"<html>")),
    "reset": always(Fault(Kind.LOST, sent=True, detail="reset")),
    "silence": always(Fault(Kind.TIMEOUT, sent=True, detail="first byte deadline")),
}
REFUSALS = {
    "unknown method": unknown,
    "404": always(FakeAnswer(404)),
    "400": always(FakeAnswer(400, body=b"Bad Request: Server not initialized")),
    "405": always(FakeAnswer(405)),
    "406": always(FakeAnswer(406)),
    "422": always(FakeAnswer(422)),
    "an empty result": lambda request: result(request, {}),
    "older revisions": lambda request: result(request, {"supportedVersions": ["2025-11-25"]}),
}


@pytest.mark.parametrize("discover", [*FAILURES.values(), *REFUSALS.values()], ids=[*FAILURES, *REFUSALS])
def test_a_server_that_opens_a_session_is_legacy_whatever_it_answers_before(discover: Any) -> None:
    world = play(met, discover, opened)
    assert (world.eras, world.status.known_era[1]) == (["legacy"], "2025-06-18")
    assert world.transport.count("initialize") == 1
    assert world.known.declared(world.status).instructions == "Legacy."
    failed = discover in FAILURES.values()
    assert world.known.is_due(world.status) is failed  # looked at again in the next round
    assert len(world.server.notes) == failed


@pytest.mark.parametrize("discover", [*FAILURES.values(), *REFUSALS.values()], ids=[*FAILURES, *REFUSALS])
def test_a_server_that_says_at_initialize_that_it_speaks_2026_07_28_is_modern(discover: Any) -> None:
    world = play(met, discover, only_modern)
    assert (world.eras, world.status.known_era[1]) == (["modern"], "2026-07-28")
    assert world.known.is_due(world.status) is (discover in FAILURES.values())


@pytest.mark.parametrize("discover", [FAILURES["500"], REFUSALS["404"]])
def test_what_it_said_at_initialize_is_not_asked_for_again_at_once(discover: Any) -> None:
    assert play(met, discover, only_modern).transport.count("initialize") == 1


@pytest.mark.parametrize(
    "refusal", [unknown, only_modern, always(FakeAnswer(500)), always(Fault(Kind.LOST, sent=True))]
)
def test_a_modern_server_without_sessions(refusal: Any) -> None:
    world = play(met, told_modern, refusal)
    assert (world.eras, world.status.known_era[1]) == (["modern"], "2026-07-28")
    assert world.transport.count("initialize") == 1
    assert not world.known.is_due(world.status)
    assert world.known.declared(world.status).instructions == "Modern."


@pytest.mark.parametrize("alive", [True, False])
def test_at_a_modern_server_that_also_has_sessions_the_gateway_keeps_one(
    monkeypatch: pytest.MonkeyPatch, alive: bool
) -> None:
    monkeypatch.setattr(directory, "_AT_MOST_EVERY", 0.0)

    async def script(world: World) -> None:
        await met(world)
        world.alive = alive
        await met(world)

    world = play(script, told_modern, opened)
    assert (world.eras, world.status.known_era[1]) == (["both"], "2026-07-28")
    assert world.transport.methods()[:4] == ["server/discover", "initialize", "notifications/initialized", "ping"]
    assert world.transport.count("initialize") == (1 if alive else 2)
    assert world.known.declared(world.status).instructions == "Modern."


def test_where_one_session_is_all_there_is_the_gateway_keeps_it_for_all() -> None:
    world = play(met, told_modern, opened, shared_session=True)
    assert world.eras == ["both"]
    assert world.sessions.count("shop") == 1
    assert world.transport.count("DELETE") == 0
    world = play(met, unknown, opened, shared_session=True)
    assert (world.eras, world.sessions.count("shop"), world.transport.count("initialize")) == (["legacy"], 1, 1)


@pytest.mark.parametrize(
    ("era", "discover", "initialize", "found", "asked"),
    [
        ("modern", told_modern, opened, "modern", ["server/discover"]),
        ("modern", unknown, opened, "modern", ["server/discover"]),
        ("modern", FAILURES["500"], opened, "modern", ["server/discover"]),
        ("legacy", told_modern, opened, "legacy", ["initialize", "notifications/initialized"]),
    ],
)
def test_the_configurations_word_stands(era: str, discover: Any, initialize: Any, found: str, asked: list[str]) -> None:
    world = play(met, discover, initialize, era=era)
    assert world.eras == [found]
    assert [method for method in world.transport.methods() if method != "GET"] == asked


@pytest.mark.parametrize(
    ("era", "discover", "initialize", "says"),
    [
        ("auto", FAILURES["502"], unknown, "status 502"),
        ("auto", REFUSALS["404"], unknown, "initialize was refused"),
        ("auto", FAILURES["401"], FAILURES["401"], "credential"),
        ("auto", always(down("refused")), opened, "refused"),
        ("legacy", told_modern, only_modern, "2026-07-28"),
    ],
)
def test_what_cannot_be_told_is_said_and_nothing_is_decided(
    era: str, discover: Any, initialize: Any, says: str
) -> None:
    async def script(world: World) -> None:
        with pytest.raises(Fault) as wrong:
            await met(world)
        assert says in str(wrong.value.detail)
        assert world.known.is_due(world.status)

    assert play(script, discover, initialize, era=era).eras == []


def test_a_legacy_verdict_is_looked_at_again_and_an_upgrade_found() -> None:
    async def script(world: World) -> None:
        await met(world)
        world.now += LEGACY_LIFETIME - 1
        assert not world.known.is_due(world.status)
        world.now += 2
        assert world.known.is_due(world.status)
        world.discover, world.initialize, world.alive = told_modern, only_modern, False
        await met(world)

    assert play(script, unknown, opened).eras == ["legacy", "modern"]


def test_a_failure_at_discover_that_has_passed_is_forgotten() -> None:
    async def script(world: World) -> None:
        await met(world)
        world.discover = told_modern
        await met(world)
        assert not world.known.is_due(world.status)

    assert play(script, FAILURES["502"], opened).eras == ["legacy", "both"]


def test_after_two_failed_rounds_in_one_session_there_is_another() -> None:
    async def script(world: World) -> None:
        await met(world)
        world.now += 5
        for failures, sessions in ((1, 1), (2, 2), (0, 2)):
            world.status.failures = failures
            await met(world)
            assert world.transport.count("initialize") == sessions

    play(script, unknown, opened)


@pytest.mark.parametrize("shared", [False, True])
def test_whether_a_modern_server_has_sessions_is_looked_at_again(shared: bool) -> None:
    async def script(world: World) -> None:
        await met(world)
        world.initialize = opened
        world.now += LEGACY_LIFETIME - 1
        await world.known.refresh_declared(world.status)
        assert world.eras[-1] == "modern"
        world.now += 2
        await world.known.refresh_declared(world.status)
        assert world.eras[-1] == "both"
        world.now += 2
        await world.known.refresh_declared(world.status)
        assert world.eras[-1] == "both"

    play(script, told_modern, only_modern, shared_session=shared)


@pytest.mark.parametrize("shared", [False, True])
def test_a_server_that_has_no_sessions_any_more_is_found_out_when_it_is_looked_at_again(shared: bool) -> None:
    async def script(world: World) -> None:
        await met(world)
        world.initialize, world.alive = only_modern, False
        world.now += LEGACY_LIFETIME + 1
        await world.known.refresh_declared(world.status)

    assert play(script, told_modern, opened, shared_session=shared).eras == ["both", "modern"]


def test_the_gateways_own_session_is_its_identity_alone() -> None:
    async def script(world: World) -> None:
        await met(world)
        session = await world.sessions.open(world.status.key, GATEWAY)
        assert world.transport.count("initialize") == 1
        assert session.opened == 1000.0
        assert world.sessions.count("shop") == 0

    play(script, unknown, opened)


def test_a_modern_server_slow_to_open_a_session_is_asked_again_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "DISCOVER_WITHIN", 0.02)
    warm = asyncio.Event()

    async def slowly(request: Sent) -> FakeAnswer:
        await warm.wait()
        return opened(request)

    async def script(world: World) -> None:
        await world.known.probe(world.status)
        assert world.eras == ["modern"]
        warm.set()
        await settle()
        await world.known.refresh_declared(world.status)
        assert world.eras == ["modern", "both"]
        assert world.transport.count("initialize") == 1

    play(script, told_modern, slowly)
