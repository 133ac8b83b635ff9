from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from fastgw.errors import Fault, Kind
from fastgw.processes.ipc_client import REPORT_EVERY
from fastgw.upstream import sessions
from fastgw.upstream.attempts import HEARTBEAT
from fastgw.upstream.controller import UpstreamSession
from fastgw.upstream.rpc import NOTHING, Declared, RpcClient, RpcClients
from fastgw.upstream.sessions import GATEWAY, SHORTEST_IDLE, ModernOnly, UpstreamSessions
from fastgw.upstream.transports import down
from tests.upstream.fakes import (
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

A = "shop|http://a/mcp"
B = "shop|http://b/mcp"


class World:
    """A directory, a hand-set clock and one server that numbers its sessions."""

    def __init__(self, spawn: Any, **of: Any) -> None:
        self.now = 1000.0
        self.count = 0
        self.ids = True
        self.answer: Any = None
        self.transport = FakeWire(self.serve)
        self.backend = backend(**of)
        self.known = {A, B}
        self.sessions = UpstreamSessions(RpcClients(self.client, spawn, OURS, lambda: self.now))
        self.spawn = spawn

    def client(self, key: str) -> RpcClient:
        if key not in self.known:
            raise Fault(Kind.NO_SERVER)
        return RpcClient(self.transport, self.backend, self.spawn, PATIENT)

    def serve(self, request: Sent) -> Any:
        if request.method != "initialize":
            return FakeAnswer(202)
        if self.answer is not None:
            return self.answer(request) if callable(self.answer) else self.answer
        self.count += 1
        more = {"mcp-session-id": f"s{self.count}"} if self.ids else {}
        return result(request, {"protocolVersion": "2025-06-18", "capabilities": {}}, **more)

    def deleted(self) -> list[str]:
        return [sent.headers["mcp-session-id"] for sent in self.transport.sent if sent.verb == "DELETE"]


def play(script: Any, **of: Any) -> None:
    async def whole() -> None:
        async with registry() as found:
            await script(World(found.spawn, **of))

    run(whole())


def test_a_session_is_opened_in_order_and_remembered() -> None:
    async def script(world: World) -> None:
        session = await world.sessions.open(A, "agent:a")
        assert session == UpstreamSession("s1", "2025-06-18", 1000.0)
        assert await world.sessions.open(A, "agent:a") is session
        opening, ready = world.transport.sent
        assert (opening.method, ready.method) == ("initialize", "notifications/initialized")
        assert "mcp-session-id" not in opening.headers
        assert (ready.headers["mcp-session-id"], ready.headers["mcp-protocol-version"]) == ("s1", "2025-06-18")

    play(script)


@pytest.mark.parametrize(("shared", "own"), [(False, GATEWAY), (True, "*")])
def test_what_a_server_says_of_itself_is_known_from_the_gateways_own_session(shared: bool, own: str) -> None:
    async def script(world: World) -> None:
        def opened(request: Sent) -> FakeAnswer:
            return result(request, {"protocolVersion": "2025-06-18", **said}, **{"mcp-session-id": "x"})

        assert world.sessions.declared(A) == NOTHING
        said: Any = {"capabilities": {"tools": {}, "prompts": None, "logging": {}}, "instructions": "Ask twice."}
        world.answer = opened
        await world.sessions.open(A, "agent:a")
        assert world.sessions.declared(A) == NOTHING
        session = await world.sessions.open(A, own)
        assert world.sessions.declared(A) == Declared(frozenset(("tools", "logging")), "Ask twice.")
        assert world.sessions.declared(B) == NOTHING
        world.now += 1
        said = {"capabilities": None, "instructions": 5}
        session = await world.sessions.open(A, own, session)
        assert world.sessions.declared(A) == NOTHING
        world.now += 1
        said = {"capabilities": {f"c{number}": {} for number in range(1000)}, "instructions": "x" * 1_000_000}
        await world.sessions.open(A, own, session)
        assert len(world.sessions.declared(A).capabilities or ()) == 64
        assert len(world.sessions.declared(A).instructions) == 64 * 1024
        world.known.clear()
        world.sessions.reap()
        assert world.sessions.declared(A) == NOTHING

    play(script, shared_session=shared)


def test_only_the_gateways_own_session_declares_what_agents_could_bring() -> None:
    async def script(world: World) -> None:
        for who in (GATEWAY, "agent:a", "session:a:1", "*"):
            await world.sessions.open(A, who)
        offered = [sent.json["params"]["capabilities"] for sent in world.transport.sent if sent.method == "initialize"]
        assert offered == [{"elicitation": {"form": {}, "url": {}}, "roots": {}, "sampling": {}}, {}, {}, {}]

    play(script)


def test_a_hundred_who_ask_at_once_cause_one_opening() -> None:
    async def script(world: World) -> None:
        found = await asyncio.gather(*(world.sessions.open(A, "agent:a") for _ in range(100)))
        assert {one.id for one in found} == {"s1"}
        assert world.transport.count("initialize") == 1

    play(script)


@pytest.mark.parametrize("ids", [True, False])
def test_a_hundred_who_find_it_dead_cause_one_more_whenever_they_ask(ids: bool) -> None:
    async def script(world: World) -> None:
        world.ids = ids
        dead = await world.sessions.open(A, "agent:a")
        world.now += 1
        first = await asyncio.gather(*(world.sessions.open(A, "agent:a", dead) for _ in range(50)))
        world.now += 5
        later = await asyncio.gather(*(world.sessions.open(A, "agent:a", dead) for _ in range(50)))
        assert {(one.id, one.opened) for one in first + later} == {("s2" if ids else "", 1001.0)}
        assert world.transport.count("initialize") == 2
        await world.sessions.open(A, "agent:a", first[0])
        assert world.transport.count("initialize") == 3

    play(script)


def test_a_lost_session_stays_until_another_is_there() -> None:
    async def script(world: World) -> None:
        for who in ("agent:a", GATEWAY):
            old = await world.sessions.open(A, who)
            world.now += 1
            for answer in (FakeAnswer(401), FakeAnswer(500), Fault(Kind.NO_SERVER), Fault(Kind.LOST, sent=True)):
                world.answer = answer
                with pytest.raises(Fault):
                    await world.sessions.open(A, who, old)
                assert await world.sessions.open(A, who) is old
                world.now += 1
            world.answer = None
            assert await world.sessions.open(A, who, old) != old
        assert world.sessions.count("shop") == 1

    play(script)


def test_of_a_lost_session_the_server_is_told_only_where_nobody_else_uses_it() -> None:
    async def script(world: World) -> None:
        lost = [(who, await world.sessions.open(A, who)) for who in ("agent:a", "*", GATEWAY)]
        world.now += 1
        for who, session in lost:
            await world.sessions.open(A, who, session)
        await settle()
        assert world.deleted() == ["s3"]

    play(script)


def test_a_new_session_is_lost_no_sooner_than_a_second_after_it_was_opened() -> None:
    async def script(world: World) -> None:
        dead = await world.sessions.open(A, "agent:a")
        world.now += 0.98
        asking = [world.spawn(world.sessions.open(A, "agent:a", dead), "open") for _ in range(9)]
        await settle()
        assert world.transport.count("initialize") == 1
        assert {(await one).id for one in asking} == {"s2"}
        assert world.transport.count("initialize") == 2

    play(script)


def test_however_many_lose_their_sessions_however_often_each_identity_asks_once_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A second is a twentieth of one here; every session is lost at once, and every third `initialize` refused."""
    second = 0.05
    monkeypatch.setattr(sessions, "_AT_MOST_EVERY", second)
    asked: dict[str, list[float]] = {}

    async def script(world: World) -> None:
        loop = asyncio.get_running_loop()
        world.sessions = UpstreamSessions(RpcClients(world.client, world.spawn, OURS, loop.time))

        async def lose(who: str) -> None:
            session = None
            while loop.time() < end:
                try:
                    session = await world.sessions.open(A, who, session)
                except Fault:
                    await asyncio.sleep(0.001)

        def answer(who: str, request: Sent) -> FakeAnswer:
            asked.setdefault(who, []).append(loop.time())
            return FakeAnswer(503) if len(asked[who]) % 3 == 0 else result(request, {"protocolVersion": "2025-06-18"})

        end = loop.time() + 10 * second
        for who in ("agent:a", GATEWAY):
            world.answer = partial(answer, who)
            await asyncio.gather(*(lose(who) for _ in range(20)))
            end = loop.time() + 10 * second

    play(script)
    for times in asked.values():
        assert len(times) > 3
        assert min(later - earlier for earlier, later in pairwise(times)) > 0.9 * second


def test_no_two_identities_and_no_two_instances_share_a_session() -> None:
    async def script(world: World) -> None:
        keys = [(place, who) for place in (A, B) for who in ("agent:a", "agent:b", "session:a", "*", GATEWAY)]
        found = await asyncio.gather(*(world.sessions.open(place, who) for place, who in keys * 10))
        ids = {key: {one.id for one, asked in zip(found, keys * 10, strict=True) if asked == key} for key in keys}
        assert all(len(one) == 1 for one in ids.values())
        assert len(set.union(*ids.values())) == len(keys)

    play(script)


def test_one_who_stops_waiting_does_not_stop_the_others() -> None:
    async def script(world: World) -> None:
        gate = asyncio.get_running_loop().create_future()

        async def slow() -> FakeAnswer:
            await gate
            return world.serve(world.transport.sent[0])

        world.answer = lambda request: slow()
        first, second = (world.spawn(world.sessions.open(A, "agent:a"), "open") for _ in range(2))
        await settle()
        first.cancel()
        await settle()
        world.answer = None
        gate.set_result(None)
        assert (await second).id == "s1"
        assert world.transport.count("initialize") == 1

    play(script)


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (FakeAnswer(401), Kind.NO_SERVER, "credential"),
        (FakeAnswer(403), Kind.NO_SERVER, "credential"),
        (FakeAnswer(503), Kind.NO_SERVER, "busy"),
        (FakeAnswer(500), Kind.NO_SERVER, "down"),
        (FakeAnswer(404), Kind.NO_SERVER, "down"),
        (FakeAnswer(200, body=b"<html>"), Kind.NO_SERVER, "down"),
        (lambda request: error(request, -32601, 404), Kind.NO_SERVER, "down"),
        (lambda request: result(request, {}), Kind.NO_SERVER, "down"),
        (lambda request: result(request, {"protocolVersion": "1999-01-01"}), Kind.NO_SERVER, "down"),
        (lambda request: result(request, {"protocolVersion": 5}), Kind.NO_SERVER, "down"),
        (
            lambda request: result(request, {"protocolVersion": "2025-11-25"}, **{"mcp-session-id": "a b\x01"}),
            Kind.NO_SERVER,
            "down",
        ),
        (Fault(Kind.LOST, sent=True), Kind.NO_SERVER, "down"),
        (Fault(Kind.TIMEOUT, sent=True), Kind.TIMEOUT, None),
    ],
)
def test_a_refused_opening_is_told_to_all_who_ask_within_a_second_and_tried_anew_after_it(
    answer: Any, kind: Kind, reason: Any
) -> None:
    async def script(world: World) -> None:
        world.answer = answer
        found = await asyncio.gather(*(world.sessions.open(A, "agent:a") for _ in range(9)), return_exceptions=True)
        world.answer = None
        world.now += 0.9
        with pytest.raises(Fault) as again:
            await world.sessions.open(A, "agent:a")
        found.append(again.value)
        assert len({id(one) for one in found}) == 10
        assert all(isinstance(one, Fault) and one.kind is kind and not one.sent for one in found)
        assert {str(one) for one in found} == {str(found[0])}
        assert reason is None or found[0].data["reason"] == reason
        assert world.transport.count("initialize") == 1
        assert (await world.sessions.open(A, "agent:b")).id == "s1"
        world.now += 0.2
        assert (await world.sessions.open(A, "agent:a")).id == "s2"

    play(script)


def test_a_server_that_is_not_there_is_tried_anew_at_once() -> None:
    async def script(world: World) -> None:
        world.answer = down("connection refused")
        found = await asyncio.gather(*(world.sessions.open(A, "agent:a") for _ in range(9)), return_exceptions=True)
        assert {(one.kind, one.data["reason"]) for one in found} == {(Kind.NO_SERVER, "down")}
        assert world.transport.count("initialize") == 1
        world.answer = None
        assert (await world.sessions.open(A, "agent:a")).id == "s1"

    play(script)


def test_a_server_that_goes_away_after_initialize_is_not_asked_again_within_a_second() -> None:
    async def script(world: World) -> None:
        def answer(request: Sent) -> FakeAnswer | Fault:
            return (
                result(request, {"protocolVersion": "2025-11-25"}) if request.method == "initialize" else down("gone")
            )

        world.transport.handler = answer
        for _ in range(2):
            with pytest.raises(Fault) as found:
                await world.sessions.open(A, "agent:a")
            assert found.value.data["reason"] == "down"
        assert world.transport.count("initialize") == 1
        world.now += 1
        with pytest.raises(Fault):
            await world.sessions.open(A, "agent:a")
        assert world.transport.count("initialize") == 2

    play(script)


@pytest.mark.parametrize("null_id", [False, True])
@pytest.mark.parametrize("status", [200, 400])
def test_a_server_that_speaks_only_2026_07_28_says_so(status: int, null_id: bool) -> None:
    async def script(world: World) -> None:
        data = {"supported": ["2026-07-28"]}
        world.answer = lambda request: error(None if null_id else request, -32022, status, data=data)
        for _ in range(2):  # told again within the second
            with pytest.raises(ModernOnly):
                await world.sessions.open(A, GATEWAY)
        assert world.transport.count("initialize") == 1
        world.now += 1
        data["supported"] = ["2030-01-01"]
        with pytest.raises(Fault) as other:
            await world.sessions.open(A, GATEWAY)
        assert not isinstance(other.value, ModernOnly)

    play(script)


def test_the_answer_to_initialize_may_be_a_stream() -> None:
    async def script(world: World) -> None:
        def answer(request: Sent) -> FakeAnswer:
            message = {"jsonrpc": "2.0", "id": request.json["id"], "result": {"protocolVersion": "2025-03-26"}}
            return FakeAnswer(200, {**SSE, "mcp-session-id": "x"}, None, [event(message)])

        world.answer = answer
        assert await world.sessions.open(A, "agent:a") == UpstreamSession("x", "2025-03-26", 1000.0)
        assert "mcp-protocol-version" not in world.transport.sent[-1].headers

    play(script)


def test_idle_sessions_are_ended_with_their_server_and_used_ones_are_not() -> None:
    async def script(world: World) -> None:
        for who in ("agent:a", "agent:b", GATEWAY):
            await world.sessions.open(A, who)
        world.now += 59
        world.sessions.touch(A, "agent:b")
        world.sessions.reap()
        assert world.sessions.count("shop") == 2
        world.now += 1
        world.sessions.reap()
        await settle()
        assert world.deleted() == ["s1"]
        assert (await world.sessions.open(A, "agent:b")).id == "s2"
        assert (await world.sessions.open(A, GATEWAY)).id == "s3"
        assert (await world.sessions.open(A, "agent:a")).id == "s4"

    play(script, session_idle=60.0)


def test_a_session_in_use_outlives_any_session_idle() -> None:
    longest = HEARTBEAT + REPORT_EVERY

    async def script(world: World) -> None:
        await world.sessions.open(A, "agent:a")
        for _ in range(5):
            world.now += longest
            world.sessions.reap()
            world.sessions.touch(A, "agent:a")
        assert world.sessions.count("shop") == 1
        world.now += SHORTEST_IDLE
        world.sessions.reap()
        assert world.sessions.count("shop") == 0

    play(script, session_idle=0.001)


def test_sessions_of_a_server_taken_out_are_forgotten() -> None:
    async def script(world: World) -> None:
        await world.sessions.open(A, "agent:a")
        world.known.clear()
        world.sessions.reap()
        assert world.sessions.count("shop") == 0

    play(script)


def test_a_full_server_lends_the_place_that_was_idle_longest() -> None:
    async def script(world: World) -> None:
        await world.sessions.open(A, "agent:a")
        await world.sessions.open(A, "agent:b")
        world.now += 1
        world.sessions.touch(A, "agent:a")
        world.now += 4.5
        assert (await world.sessions.open(A, "agent:c")).id == "s3"
        await settle()
        assert world.deleted() == ["s2"]

    play(script, max_sessions=2)


@pytest.mark.parametrize("form", ["session:{}:{}", "session:https://issuer:{}:{}"])
def test_an_agent_that_opens_many_sessions_ends_its_own(form: str) -> None:
    async def script(world: World) -> None:
        others = [form.format("b", "1"), form.format("c", "1")]
        for who in others:
            await world.sessions.open(A, who)
        for number in range(20):
            world.now += 10
            await world.sessions.open(A, form.format("a", number))
        assert world.sessions.count("shop") == 6
        await settle()
        assert world.deleted() == [f"s{number}" for number in range(3, 19)]
        assert [(await world.sessions.open(A, who)).id for who in others] == ["s1", "s2"]

    play(script, max_sessions=6)


def test_an_agent_without_its_share_takes_the_place_of_one_who_holds_most() -> None:
    async def script(world: World) -> None:
        for who in ("session:b:1", "session:a:1", "session:a:2", "session:a:3"):
            await world.sessions.open(A, who)
            world.now += 10
        await world.sessions.open(A, "agent:c")
        world.now += 10
        await world.sessions.open(A, "session:b:2")
        await settle()
        assert world.deleted() == ["s2", "s3"]
        world.sessions.touch(A, "session:b:1")
        world.sessions.touch(A, "session:b:2")
        with pytest.raises(Fault) as refused:
            await world.sessions.open(A, "session:b:3")
        assert refused.value.data["reason"] == "busy"

    play(script, max_sessions=4)


def test_a_session_of_an_agent_ends_with_those_opened_for_it() -> None:
    async def script(world: World) -> None:
        for place, who in ((A, "session:a:1"), (B, "session:a:1"), (A, "session:a:11"), (A, "agent:1"), (A, GATEWAY)):
            await world.sessions.open(place, who)
        world.sessions.end("1")
        await settle()
        assert sorted(world.deleted()) == ["s1", "s2"]
        opening = world.spawn(world.sessions.open(A, "session:a:2"), "open")
        await asyncio.sleep(0)
        assert world.sessions.count("shop") == 2
        world.sessions.end("2")
        await opening
        await settle()
        assert world.deleted()[2:] == ["s6"]

    play(script)


def test_a_full_server_whose_sessions_are_all_in_use_is_busy() -> None:
    async def script(world: World) -> None:
        found = await asyncio.gather(
            *(world.sessions.open(A, f"agent:{one}") for one in range(5)), return_exceptions=True
        )
        refused = [one for one in found if isinstance(one, Fault)]
        assert len(refused) == 3
        assert {(one.kind, one.data["reason"], one.sent) for one in refused} == {(Kind.NO_SERVER, "busy", False)}
        assert world.sessions.count("shop") == 2
        assert (await world.sessions.open(A, GATEWAY)).id == "s3"
        assert world.deleted() == []

    play(script, max_sessions=2)


def test_a_failed_opening_gives_its_place_back() -> None:
    async def script(world: World) -> None:
        world.answer = FakeAnswer(500)
        for _ in range(3):
            with pytest.raises(Fault):
                await world.sessions.open(A, "agent:a")
            world.now += 1
        world.answer = None
        assert (await world.sessions.open(A, "agent:b")).id == "s1"
        assert world.transport.count("initialize") == 4

    play(script, max_sessions=1)


def test_sessions_that_workers_know_are_adopted_but_never_over_our_own() -> None:
    async def script(world: World) -> None:
        await world.sessions.open(A, "agent:a")
        known = [(A, who, UpstreamSession(f"old-{who}", "2025-11-25", 990.0)) for who in ("agent:a", "agent:b")]
        world.sessions.adopt([*known, ("gone|x", "agent:a", known[0][2])])
        assert (await world.sessions.open(A, "agent:a")).id == "s1"
        assert (await world.sessions.open(A, "agent:b")).id == "old-agent:b"
        assert (await world.sessions.open(A, "agent:b", known[1][2])).id == "s2"

    play(script)


def test_at_the_end_every_server_is_told() -> None:
    async def script(world: World) -> None:
        for who in ("agent:a", GATEWAY):
            await world.sessions.open(A, who)
        await world.sessions.close(1.0)
        assert sorted(world.deleted()) == ["s1", "s2"]

    play(script)


def test_a_server_that_does_not_answer_does_not_hold_the_end_up() -> None:
    async def script(world: World) -> None:
        await world.sessions.open(A, "agent:a")

        async def never() -> FakeAnswer:
            return await asyncio.get_running_loop().create_future()

        world.transport.handler = lambda request: never()
        await world.sessions.close(0.01)

    play(script)


def test_the_credential_of_a_reload_is_used_at_once() -> None:
    async def script(world: World) -> None:
        world.backend = replace(world.backend, headers=b"authorization: Bearer new\r\n")
        await world.sessions.open(A, "agent:a")
        assert {sent.headers["authorization"] for sent in world.transport.sent} == {"Bearer new"}

    play(script)
