from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from fastgw.backends.caller import HEARTBEAT
from fastgw.backends.directory import KEEPER, SHORTEST_IDLE, Directory
from fastgw.backends.inquiry import Asker, Reach
from fastgw.edge.link import TELL_EVERY
from fastgw.faults import Fault, Kind
from fastgw.ports import UpstreamSession
from tests.backends.fakes import (
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
        self.wire = FakeWire(self.serve)
        self.backend = backend(**of)
        self.known = {A, B}
        self.directory = Directory(Reach(self.asker, spawn, OURS, lambda: self.now))
        self.spawn = spawn

    def asker(self, key: str) -> Asker:
        if key not in self.known:
            raise Fault(Kind.NO_SERVER)
        return Asker(self.wire, self.backend, self.spawn, PATIENT)

    def serve(self, request: Sent) -> Any:
        if request.method != "initialize":
            return FakeAnswer(202)
        if self.answer is not None:
            return self.answer(request) if callable(self.answer) else self.answer
        self.count += 1
        more = {"mcp-session-id": f"s{self.count}"} if self.ids else {}
        return result(request, {"protocolVersion": "2025-06-18", "capabilities": {}}, **more)

    def deleted(self) -> list[str]:
        return [sent.headers["mcp-session-id"] for sent in self.wire.sent if sent.verb == "DELETE"]


def play(script: Any, **of: Any) -> None:
    async def whole() -> None:
        async with registry() as found:
            await script(World(found.spawn, **of))

    run(whole())


def test_a_session_is_opened_in_order_and_remembered() -> None:
    async def script(world: World) -> None:
        session = await world.directory.open(A, "agent:a")
        assert session == UpstreamSession("s1", "2025-06-18")
        assert await world.directory.open(A, "agent:a") is session
        opening, ready = world.wire.sent
        assert (opening.method, ready.method) == ("initialize", "notifications/initialized")
        assert "mcp-session-id" not in opening.headers
        assert (ready.headers["mcp-session-id"], ready.headers["mcp-protocol-version"]) == ("s1", "2025-06-18")

    play(script)


def test_what_a_server_declares_is_known_from_the_gateways_own_session() -> None:
    async def script(world: World) -> None:
        def opened(request: Sent) -> FakeAnswer:
            return result(request, {"protocolVersion": "2025-06-18", "capabilities": said}, **{"mcp-session-id": "x"})

        assert world.directory.declared(A) is None
        said: Any = {"tools": {}, "prompts": None, "logging": {}}
        world.answer = opened
        await world.directory.open(A, "agent:a")
        assert world.directory.declared(A) is None
        await world.directory.open(A, KEEPER)
        assert (world.directory.declared(A), world.directory.declared(B)) == ({"tools", "logging"}, None)
        said = None
        await world.directory.open(A, KEEPER, "x")
        assert world.directory.declared(A) is None
        said = {f"c{number}": {} for number in range(1000)}
        await world.directory.open(A, KEEPER, "x")
        assert len(world.directory.declared(A) or ()) == 64
        world.known.clear()
        world.directory.reap()
        assert world.directory.declared(A) is None

    play(script)


def test_a_hundred_who_ask_at_once_cause_one_opening() -> None:
    async def script(world: World) -> None:
        found = await asyncio.gather(*(world.directory.open(A, "agent:a") for _ in range(100)))
        assert {one.id for one in found} == {"s1"}
        assert world.wire.count("initialize") == 1

    play(script)


def test_a_hundred_who_find_it_dead_cause_one_more_whenever_they_ask() -> None:
    async def script(world: World) -> None:
        await world.directory.open(A, "agent:a")
        first = await asyncio.gather(*(world.directory.open(A, "agent:a", "s1") for _ in range(50)))
        later = await asyncio.gather(*(world.directory.open(A, "agent:a", "s1") for _ in range(50)))
        assert {one.id for one in first + later} == {"s2"}
        assert world.wire.count("initialize") == 2

    play(script)


def test_a_server_without_ids_is_opened_once_for_all_who_find_it_dead() -> None:
    async def script(world: World) -> None:
        world.ids = False
        await world.directory.open(A, "agent:a")
        world.now += 5
        await asyncio.gather(*(world.directory.open(A, "agent:a", "") for _ in range(50)))
        await world.directory.open(A, "agent:a", "")
        assert world.wire.count("initialize") == 2
        world.now += 5
        await world.directory.open(A, "agent:a", "")
        assert world.wire.count("initialize") == 3

    play(script)


def test_no_two_identities_and_no_two_instances_share_a_session() -> None:
    async def script(world: World) -> None:
        keys = [(place, who) for place in (A, B) for who in ("agent:a", "agent:b", "session:a", "*", KEEPER)]
        found = await asyncio.gather(*(world.directory.open(place, who) for place, who in keys * 10))
        ids = {key: {one.id for one, asked in zip(found, keys * 10, strict=True) if asked == key} for key in keys}
        assert all(len(one) == 1 for one in ids.values())
        assert len(set.union(*ids.values())) == len(keys)

    play(script)


def test_one_who_stops_waiting_does_not_stop_the_others() -> None:
    async def script(world: World) -> None:
        gate = asyncio.get_running_loop().create_future()

        async def slow() -> FakeAnswer:
            await gate
            return world.serve(world.wire.sent[0])

        world.answer = lambda request: slow()
        first, second = (world.spawn(world.directory.open(A, "agent:a"), "open") for _ in range(2))
        await settle()
        first.cancel()
        await settle()
        world.answer = None
        gate.set_result(None)
        assert (await second).id == "s1"
        assert world.wire.count("initialize") == 1

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
def test_a_refused_opening_is_told_to_all_who_wait_and_tried_anew_by_the_next(
    answer: Any, kind: Kind, reason: Any
) -> None:
    async def script(world: World) -> None:
        world.answer = answer
        found = await asyncio.gather(*(world.directory.open(A, "agent:a") for _ in range(9)), return_exceptions=True)
        assert len({id(one) for one in found}) == 9
        assert all(isinstance(one, Fault) and one.kind is kind and not one.sent for one in found)
        assert reason is None or found[0].data["reason"] == reason
        assert world.wire.count("initialize") == 1
        world.answer = None
        assert (await world.directory.open(A, "agent:a")).id == "s1"

    play(script)


def test_the_answer_to_initialize_may_be_a_stream() -> None:
    async def script(world: World) -> None:
        def answer(request: Sent) -> FakeAnswer:
            message = {"jsonrpc": "2.0", "id": request.json["id"], "result": {"protocolVersion": "2025-03-26"}}
            return FakeAnswer(200, {**SSE, "mcp-session-id": "x"}, None, [event(message)])

        world.answer = answer
        assert await world.directory.open(A, "agent:a") == UpstreamSession("x", "2025-03-26")
        assert "mcp-protocol-version" not in world.wire.sent[-1].headers

    play(script)


def test_idle_sessions_are_ended_with_their_server_and_used_ones_are_not() -> None:
    async def script(world: World) -> None:
        for who in ("agent:a", "agent:b", KEEPER):
            await world.directory.open(A, who)
        world.now += 59
        world.directory.touch(A, "agent:b")
        world.directory.reap()
        assert world.directory.count("shop") == 2
        world.now += 1
        world.directory.reap()
        await settle()
        assert world.deleted() == ["s1"]
        assert (await world.directory.open(A, "agent:b")).id == "s2"
        assert (await world.directory.open(A, KEEPER)).id == "s3"
        assert (await world.directory.open(A, "agent:a")).id == "s4"

    play(script, session_idle=60.0)


def test_a_session_in_use_outlives_any_session_idle() -> None:
    longest = HEARTBEAT + TELL_EVERY

    async def script(world: World) -> None:
        await world.directory.open(A, "agent:a")
        for _ in range(5):
            world.now += longest
            world.directory.reap()
            world.directory.touch(A, "agent:a")
        assert world.directory.count("shop") == 1
        world.now += SHORTEST_IDLE
        world.directory.reap()
        assert world.directory.count("shop") == 0

    play(script, session_idle=0.001)


def test_sessions_of_a_server_taken_out_are_forgotten() -> None:
    async def script(world: World) -> None:
        await world.directory.open(A, "agent:a")
        world.known.clear()
        world.directory.reap()
        assert len(world.directory) == 0

    play(script)


def test_a_full_server_lends_the_place_that_was_idle_longest() -> None:
    async def script(world: World) -> None:
        await world.directory.open(A, "agent:a")
        await world.directory.open(A, "agent:b")
        world.now += 1
        world.directory.touch(A, "agent:a")
        world.now += 4.5
        assert (await world.directory.open(A, "agent:c")).id == "s3"
        await settle()
        assert world.deleted() == ["s2"]

    play(script, max_sessions=2)


@pytest.mark.parametrize("form", ["session:{}:{}", "session:https://issuer:{}:{}"])
def test_an_agent_that_opens_many_sessions_ends_its_own(form: str) -> None:
    async def script(world: World) -> None:
        others = [form.format("b", "1"), form.format("c", "1")]
        for who in others:
            await world.directory.open(A, who)
        for number in range(20):
            world.now += 10
            await world.directory.open(A, form.format("a", number))
        assert world.directory.count("shop") == 6
        await settle()
        assert world.deleted() == [f"s{number}" for number in range(3, 19)]
        assert [(await world.directory.open(A, who)).id for who in others] == ["s1", "s2"]

    play(script, max_sessions=6)


def test_an_agent_without_its_share_takes_the_place_of_one_who_holds_most() -> None:
    async def script(world: World) -> None:
        for who in ("session:b:1", "session:a:1", "session:a:2", "session:a:3"):
            await world.directory.open(A, who)
            world.now += 10
        await world.directory.open(A, "agent:c")
        world.now += 10
        await world.directory.open(A, "session:b:2")
        await settle()
        assert world.deleted() == ["s2", "s3"]
        world.directory.touch(A, "session:b:1")
        world.directory.touch(A, "session:b:2")
        with pytest.raises(Fault) as refused:
            await world.directory.open(A, "session:b:3")
        assert refused.value.data["reason"] == "busy"

    play(script, max_sessions=4)


def test_a_session_of_an_agent_ends_with_those_opened_for_it() -> None:
    async def script(world: World) -> None:
        for place, who in ((A, "session:a:1"), (B, "session:a:1"), (A, "session:a:11"), (A, "agent:1"), (A, KEEPER)):
            await world.directory.open(place, who)
        world.directory.end("1")
        await settle()
        assert sorted(world.deleted()) == ["s1", "s2"]
        opening = world.spawn(world.directory.open(A, "session:a:2"), "open")
        await asyncio.sleep(0)
        assert world.directory.count("shop") == 2
        world.directory.end("2")
        await opening
        await settle()
        assert world.deleted()[2:] == ["s6"]

    play(script)


def test_a_full_server_whose_sessions_are_all_in_use_is_busy() -> None:
    async def script(world: World) -> None:
        found = await asyncio.gather(
            *(world.directory.open(A, f"agent:{one}") for one in range(5)), return_exceptions=True
        )
        refused = [one for one in found if isinstance(one, Fault)]
        assert len(refused) == 3
        assert {(one.kind, one.data["reason"], one.sent) for one in refused} == {(Kind.NO_SERVER, "busy", False)}
        assert world.directory.count("shop") == 2
        assert (await world.directory.open(A, KEEPER)).id == "s3"
        assert world.deleted() == []

    play(script, max_sessions=2)


def test_a_failed_opening_gives_its_place_back() -> None:
    async def script(world: World) -> None:
        world.answer = FakeAnswer(500)
        for _ in range(3):
            with pytest.raises(Fault):
                await world.directory.open(A, "agent:a")
        world.answer = None
        assert (await world.directory.open(A, "agent:b")).id == "s1"

    play(script, max_sessions=1)


def test_sessions_that_workers_know_are_adopted_but_never_over_our_own() -> None:
    async def script(world: World) -> None:
        await world.directory.open(A, "agent:a")
        known = [(A, who, UpstreamSession(f"old-{who}", "2025-11-25")) for who in ("agent:a", "agent:b")]
        world.directory.adopt([*known, ("gone|x", "agent:a", known[0][2])])
        assert (await world.directory.open(A, "agent:a")).id == "s1"
        assert (await world.directory.open(A, "agent:b")).id == "old-agent:b"
        assert (await world.directory.open(A, "agent:b", "old-agent:b")).id == "s2"

    play(script)


def test_at_the_end_every_server_is_told() -> None:
    async def script(world: World) -> None:
        for who in ("agent:a", KEEPER):
            await world.directory.open(A, who)
        await world.directory.close()
        assert sorted(world.deleted()) == ["s1", "s2"]

    play(script)


def test_a_server_that_does_not_answer_does_not_hold_the_end_up() -> None:
    async def script(world: World) -> None:
        await world.directory.open(A, "agent:a")

        async def never() -> FakeAnswer:
            return await asyncio.get_running_loop().create_future()

        world.wire.handler = lambda request: never()
        await world.directory.close(0.01)

    play(script)


def test_the_credential_of_a_reload_is_used_at_once() -> None:
    async def script(world: World) -> None:
        world.backend = replace(world.backend, headers=b"authorization: Bearer new\r\n")
        await world.directory.open(A, "agent:a")
        assert {sent.headers["authorization"] for sent in world.wire.sent} == {"Bearer new"}

    play(script)
