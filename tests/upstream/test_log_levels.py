"""Sessions at servers hear once which log messages are wanted of them, before the first call that wants some."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastgw.catalog.route import Deadlines
from fastgw.errors import Fault, Kind
from fastgw.upstream.session_repair import PATIENCE
from tests.upstream.fakes import (  # fmt: skip
    PATIENT,
    TARGET,
    FakeAnswer,
    FakeKeeper,
    FakeWire,
    Sent,
    backend,
    call,
    caller_of,
    error,
    given,
    instance,
    only,
    registry,
    result,
    run,
    settle,
)

OWN, SHARED, ANYONES = "session:a:1", "agent:a", "*"


def good(request: Sent) -> FakeAnswer:
    return result(request, {} if request.method == "logging/setLevel" else {"content": []})


class Worker:
    """One worker's caller in front of a server that has logs."""

    def __init__(self, spawn: Any, handler: Any = good, era: str = "legacy", **of: Any) -> None:
        self.transport, self.controller, self.era = FakeWire(handler), FakeKeeper(era), era
        self.caller = caller_of(self.controller, self.transport, spawn)
        self.controller.workers.append(self.caller)
        self.backend = backend(**{"logs": True, **of})

    async def call(self, level: str, turn: int, identity: str = OWN, deadlines: Deadlines = PATIENT) -> bytes | None:
        wanted = call(log_level=level, log_level_set=turn)
        upstream = await given(self.caller, wanted, TARGET, self.backend, instance(self.era), identity, deadlines)
        return (await upstream.next()).result

    def heard(self) -> list[str]:
        """What the server was asked, in order; of a level, which."""
        return [sent.json["params"].get("level", sent.method) for sent in self.transport.sent]


def story(play: Any) -> None:
    async def whole() -> None:
        async with registry() as found:
            await play(found.spawn)

    run(whole())


def test_a_session_is_told_once_and_again_when_its_agent_changes_its_mind() -> None:
    async def play(spawn: Any) -> None:
        worker = Worker(spawn)
        for level, turn in (("error", 1), ("error", 1), ("debug", 2), ("debug", 2), ("debug", 4)):
            assert await worker.call(level, turn) == b'{"content": []}'
        call_ = "tools/call"
        assert worker.heard() == ["error", call_, call_, "debug", call_, call_, "debug", call_]
        told = worker.transport.sent[0]
        assert (told.headers["mcp-session-id"], told.headers["authorization"]) == ("s1", "Bearer s3cret")

    story(play)


@pytest.mark.parametrize("identity", [SHARED, ANYONES])
def test_a_session_of_calls_of_several_levels_is_told_the_lowest(identity: str) -> None:
    async def play(spawn: Any) -> None:
        worker = Worker(spawn)
        for level, turn in (("error", 1), ("info", 1), ("debug", 7)):
            await worker.call(level, turn, identity)
        assert worker.heard() == ["debug", "tools/call", "tools/call", "tools/call"]

    story(play)


def test_each_session_is_told_by_itself() -> None:
    async def play(spawn: Any) -> None:
        worker = Worker(spawn)
        await worker.call("error", 1, "session:a:1")
        await worker.call("debug", 1, "session:b:2")
        await worker.call("error", 1, "session:a:1")
        told = [
            (s.headers["mcp-session-id"], s.json["params"]["level"])
            for s in worker.transport.sent
            if "level" in str(s.body)
        ]
        assert told == [("s1", "error"), ("s2", "debug")]

    story(play)


@pytest.mark.parametrize(("era", "logs", "turn"), [("legacy", True, 0), ("legacy", False, 1), ("modern", True, 1)])
def test_nobody_is_told_what_nobody_set_or_could_hear(era: str, logs: bool, turn: int) -> None:
    async def play(spawn: Any) -> None:
        worker = Worker(spawn, era=era, logs=logs)
        await worker.call("info", turn)
        assert worker.heard() == ["tools/call"]

    story(play)


def test_a_new_session_is_told_anew() -> None:
    def forgetful(request: Sent) -> FakeAnswer:
        return error(None, -32600, 404) if request.headers["mcp-session-id"] == "s1" else good(request)

    async def play(spawn: Any) -> None:
        worker = Worker(spawn, forgetful)
        await worker.call("error", 1)
        assert worker.heard() == ["error", "tools/call", "error", "tools/call"]
        assert worker.transport.sent[2].headers["mcp-session-id"] == "s2"

    story(play)


@pytest.mark.parametrize("ids", [True, False])
def test_a_session_in_place_of_one_that_was_lost_unnoticed_is_told_anew(ids: bool) -> None:
    """A 500 makes it suspect; the next call asks it, and goes in another, whose level nobody has set."""
    failing = [True]

    def broken(request: Sent) -> FakeAnswer:
        if request.method == "ping":
            return FakeAnswer(404)
        return FakeAnswer(500) if request.method == "tools/call" and failing and failing.pop() else good(request)

    async def play(spawn: Any) -> None:
        worker = Worker(spawn, broken)
        worker.controller.ids = ids
        with pytest.raises(Fault):
            await worker.call("error", 1)
        await worker.call("error", 1)
        assert worker.heard() == ["error", "tools/call", "ping", "error", "tools/call"]

    story(play)


def test_a_session_without_an_id_is_told_anew_when_it_is_opened_anew() -> None:
    async def play(spawn: Any) -> None:
        worker = Worker(spawn)
        worker.controller.ids = False
        await worker.call("error", 1)
        only(worker.caller).drop(OWN)
        await worker.call("error", 1)
        assert worker.heard() == ["error", "tools/call"] * 2

    story(play)


def test_calls_of_a_new_session_wait_for_one_telling() -> None:
    gate: asyncio.Event

    async def slow(request: Sent) -> FakeAnswer:
        if request.method == "logging/setLevel":
            await gate.wait()
        return good(request)

    async def play(spawn: Any) -> None:
        nonlocal gate
        gate = asyncio.Event()
        worker = Worker(spawn, slow)
        only(worker.caller).sessions[OWN] = await worker.controller.open_session("", OWN)
        calls = [asyncio.ensure_future(worker.call("error", 1)) for _ in range(5)]
        await settle()
        calls[0].cancel()
        await settle()
        assert worker.heard() == ["error"]
        gate.set()
        await asyncio.gather(*calls[1:])
        assert worker.heard() == ["error"] + ["tools/call"] * 4

    story(play)


def test_of_two_levels_at_once_the_newer_arrives_last() -> None:
    gate: asyncio.Event

    async def slow(request: Sent) -> FakeAnswer:
        if request.json["params"].get("level") == "error":
            await gate.wait()
        return good(request)

    async def play(spawn: Any) -> None:
        nonlocal gate
        gate = asyncio.Event()
        worker = Worker(spawn, slow)
        first = asyncio.ensure_future(worker.call("error", 1))
        await settle()
        second = asyncio.ensure_future(worker.call("debug", 2))
        await settle()
        assert worker.heard() == ["error"]
        gate.set()
        await asyncio.gather(first, second)
        assert [word for word in worker.heard() if word != "tools/call"] == ["error", "debug"]

    story(play)


@pytest.mark.parametrize("refusal", [-32601, -32602, "broken", "gone"])
def test_a_server_that_takes_no_level_is_called_all_the_same(refusal: Any) -> None:
    def stubborn(request: Sent) -> Any:
        if request.method != "logging/setLevel":
            return good(request)
        if refusal == "gone":
            return Fault(Kind.LOST, sent=True)
        return FakeAnswer(500, body=b"oops") if refusal == "broken" else error(request, refusal)

    async def play(spawn: Any) -> None:
        worker = Worker(spawn, stubborn)
        for _ in range(2):
            assert await worker.call("error", 1) == b'{"content": []}'
        assert worker.heard() == ["error", "tools/call", "tools/call"]

    story(play)


def test_a_server_that_never_answers_does_not_use_up_the_time_of_a_call() -> None:
    async def silent(request: Sent) -> Any:
        if request.method == "logging/setLevel":
            await asyncio.get_running_loop().create_future()
        return good(request)

    async def play(spawn: Any) -> None:
        worker = Worker(spawn, silent)
        loop, hasty = asyncio.get_running_loop(), Deadlines(0.1, 0.1, 0.1, 0.1)
        began = loop.time()
        assert await worker.call("error", 1, deadlines=hasty) == b'{"content": []}'
        assert loop.time() - began < PATIENCE.total
        assert worker.heard() == ["error", "tools/call"]

    story(play)


def test_what_is_no_more_is_forgotten() -> None:
    async def play(spawn: Any) -> None:
        worker = Worker(spawn)
        await worker.call("error", 1)
        known = only(worker.caller)
        await settle()
        assert len(known.levels) == 1
        only(worker.caller).drop(OWN)
        assert not known.levels

    story(play)
