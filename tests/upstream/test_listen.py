from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from fastgw.errors import Fault, Kind
from fastgw.upstream import sessions
from fastgw.upstream.discovery import listen
from fastgw.upstream.discovery.listen import Listener, pause
from fastgw.upstream.discovery.status import LEGACY, ProbeResult
from fastgw.upstream.rpc import Declared, RpcClients
from fastgw.upstream.sessions import UpstreamSessions
from tests.upstream.fakes import (  # fmt: skip
    OURS,
    SSE,
    FakeAnswer,
    FakeWire,
    Sent,
    backend,
    client,
    error,
    event,
    registry,
    result,
    run,
    settle,
)

MODERN = ProbeResult(
    "modern",
    "2026-07-28",
    declared=Declared(announces=("toolsListChanged", "promptsListChanged", "resourcesListChanged")),
)
KINDS = ("tools", "prompts", "resources")
CHANGED = event({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})


def acknowledged(**what: bool) -> bytes:
    method = "notifications/subscriptions/acknowledged"
    return event({"jsonrpc": "2.0", "method": method, "params": {"notifications": what}})


class World:
    """A listener and the streams its server gives, in order; then it is away."""

    def __init__(self, spawn: Any, *answers: Any) -> None:
        self.answers = list(answers)
        self.heard = 0
        self.alive = False
        self.of = backend()
        self.transport = FakeWire(self.serve)
        clients = RpcClients(lambda _: client(self.transport, spawn, self.of), spawn, OURS)
        self.sessions = UpstreamSessions(clients)
        self.listener = Listener(clients, self.sessions, "shop|a", self.hear)

    def hear(self) -> None:
        self.heard += 1

    def serve(self, request: Sent) -> Any:
        if request.method == "initialize":
            return result(
                request, {"protocolVersion": "2025-11-25"}, **{"mcp-session-id": f"s{len(self.transport.sent)}"}
            )
        if request.verb == "GET" or request.method == "subscriptions/listen":
            found = self.answers.pop(0) if self.answers else Fault(Kind.NO_SERVER)
            return found(request) if callable(found) else found
        if request.method == "ping":
            return result(request, {}) if self.alive else FakeAnswer(404)
        return FakeAnswer(202)

    def asked(self) -> int:
        """How often it was asked for a stream."""
        return self.transport.count("GET") + self.transport.count("subscriptions/listen")


def play(monkeypatch: pytest.MonkeyPatch, script: Any, *answers: Any) -> None:
    monkeypatch.setattr(listen, "pause", lambda failures, first, longest: 0.0)
    monkeypatch.setattr(sessions, "_AT_MOST_EVERY", 0.0)

    async def whole() -> None:
        async with registry() as found:
            await script(World(found.spawn, *answers), found.spawn)

    run(whole())


def stream(*pieces: bytes | Fault) -> FakeAnswer:
    return FakeAnswer(200, SSE, None, pieces)


@pytest.mark.parametrize(("found", "opening"), [(LEGACY, b""), (MODERN, acknowledged(toolsListChanged=True))])
def test_every_announcement_is_heard(monkeypatch: pytest.MonkeyPatch, found: ProbeResult, opening: bytes) -> None:
    async def script(world: World, spawn: Any) -> None:
        spawn(world.listener.run(found), "listen")
        await settle()
        assert world.heard == 2

    play(monkeypatch, script, stream(opening + CHANGED[:9], CHANGED[9:] + CHANGED))


@pytest.mark.parametrize("kind", KINDS)
def test_a_modern_server_may_agree_to_a_part(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    async def script(world: World, spawn: Any) -> None:
        found = ProbeResult("modern", "2026-07-28", declared=Declared(announces=(f"{kind}ListChanged",)))
        spawn(world.listener.run(found), "listen")
        spawn(world.listener.run(MODERN), "listen")
        await settle()
        asked = [sent.json["params"]["notifications"] for sent in world.transport.sent[:2]]
        assert asked == [{f"{kind}ListChanged": True}, dict.fromkeys(MODERN.declared.announces, True)]
        assert world.heard == 2

    told = acknowledged(**{f"{kind}ListChanged": True})
    changed = event({"jsonrpc": "2.0", "method": f"notifications/{kind}/list_changed"})
    play(monkeypatch, script, stream(told, changed), stream(told, changed))


@pytest.mark.parametrize("end", [b"", Fault(Kind.LOST, sent=True), b"data: " + b"x" * 2_000_000])
@pytest.mark.parametrize("found", [LEGACY, MODERN])
def test_a_stream_that_is_open_again_counts_as_an_announcement(
    monkeypatch: pytest.MonkeyPatch, found: ProbeResult, end: Any
) -> None:
    async def script(world: World, spawn: Any) -> None:
        task = spawn(world.listener.run(found), "listen")
        while world.answers:
            await asyncio.sleep(0)
        await settle()
        assert world.heard == 1
        assert not task.done()

    play(monkeypatch, script, stream(end), Fault(Kind.NO_SERVER), FakeAnswer(503), FakeAnswer(401), stream())


@pytest.mark.parametrize("status", [405, 404, 400, 406, 200])
@pytest.mark.parametrize("found", [LEGACY, MODERN])
def test_a_server_without_the_stream_is_left_alone_for_a_while(
    monkeypatch: pytest.MonkeyPatch, found: ProbeResult, status: int
) -> None:
    async def script(world: World, spawn: Any) -> None:
        world.alive = True
        task = spawn(world.listener.run(found), "listen")
        await settle()
        assert (world.asked(), world.heard, task.done()) == (1, 0, False)

    play(monkeypatch, script, FakeAnswer(status), stream(CHANGED))


@pytest.mark.parametrize("found", [LEGACY, MODERN])
def test_a_server_without_the_stream_is_asked_again_later(monkeypatch: pytest.MonkeyPatch, found: ProbeResult) -> None:
    monkeypatch.setattr(listen, "_NOT_OFFERED_FOR", 0.0)

    async def script(world: World, spawn: Any) -> None:
        spawn(world.listener.run(found), "listen")
        await settle()
        assert world.heard == 2  # what was announced before it was heard, and what was announced then
        assert (world.transport.count("initialize"), world.transport.count("ping")) == (1 if found is LEGACY else 0, 0)

    play(monkeypatch, script, FakeAnswer(405), FakeAnswer(405), stream(CHANGED))


def test_a_modern_server_that_announces_nothing_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(world: World, spawn: Any) -> None:
        await world.listener.run(ProbeResult("modern", "2026-07-28"))
        assert world.transport.sent == []

    play(monkeypatch, script)


@pytest.mark.parametrize(
    "answer", [lambda request: error(request, -32601, 404), lambda request: error(request, -32601)]
)
def test_a_modern_server_that_does_not_honour_it_is_left_alone_for_a_while(
    monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    async def script(world: World, spawn: Any) -> None:
        spawn(world.listener.run(MODERN), "listen")
        await settle()
        assert len(world.transport.sent) == 1
        sent = world.transport.sent[0]
        assert sent.headers["mcp-method"] == "subscriptions/listen"
        assert sent.json["params"]["notifications"] == dict.fromkeys(MODERN.declared.announces, True)

    play(monkeypatch, script, answer)


@pytest.mark.parametrize(
    "refusal",
    [FakeAnswer(status) for status in (400, 401, 403, 404, 409, 410, 422)]
    + [FakeAnswer(401, body=b"Unauthorized: Session not found")],
)
def test_a_lost_session_is_opened_anew_whatever_the_refusal(monkeypatch: pytest.MonkeyPatch, refusal: Any) -> None:
    async def script(world: World, spawn: Any) -> None:
        spawn(world.listener.run(LEGACY), "listen")
        await settle()
        gets = [sent.headers["mcp-session-id"] for sent in world.transport.sent if sent.verb == "GET"]
        assert len(gets) == len(set(gets)) == 2
        assert world.heard == 1

    play(monkeypatch, script, refusal, stream(CHANGED))


def test_a_session_that_is_alive_is_kept_until_its_stream_is_refused_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "_NOT_OFFERED_FOR", 0.0)

    async def script(world: World, spawn: Any) -> None:
        world.alive = True
        spawn(world.listener.run(LEGACY), "listen")
        await settle()
        gets = [sent.headers["mcp-session-id"] for sent in world.transport.sent if sent.verb == "GET"]
        first, other = gets[0], gets[-1]
        assert gets == [first, first, other, other]
        assert (first != other, world.transport.count("ping"), world.heard) == (True, 1, 2)

    play(monkeypatch, script, *map(FakeAnswer, (404, 400, 409)), stream(CHANGED))


def test_the_session_of_the_stream_is_the_gateways_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for shared in (False, True):

        async def script(world: World, spawn: Any, shared: bool = shared) -> None:
            world.of = backend(shared_session=shared)
            spawn(world.listener.run(LEGACY), "listen")
            await settle()
            assert world.sessions.count("shop") == (1 if shared else 0)

        play(monkeypatch, script, stream(CHANGED))


def test_what_a_legacy_server_asks_is_answered_and_nonsense_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(world: World, spawn: Any) -> None:
        spawn(world.listener.run(LEGACY), "listen")
        await settle()
        answers = [sent.json for sent in world.transport.sent if sent.verb == "POST" and "method" not in sent.json]
        assert [one.get("result", one.get("error", {}).get("code")) for one in answers] == [{}, -32601]
        assert world.heard == 1

    asks = [{"jsonrpc": "2.0", "id": 1, "method": "ping"}, {"jsonrpc": "2.0", "id": 2, "method": "roots/list"}]
    play(monkeypatch, script, stream(event("nonsense"), *map(event, asks), CHANGED))


@pytest.mark.parametrize(("first", "longest"), [(0.5, 60.0), (0.25, 5.0)])
def test_pauses_grow_and_are_spread(monkeypatch: pytest.MonkeyPatch, first: float, longest: float) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.0)
    whole = [pause(failures, first, longest) for failures in range(1, 12)]
    assert whole[:4] == [first * double for double in (1, 2, 4, 8)]
    assert max(whole) == whole[-1] == pause(9999, first, longest) == longest
    monkeypatch.setattr(random, "random", lambda: 1.0)
    assert pause(99, first, longest) == longest / 2
