"""The whole path as a dialogue, without a server: the agent at the ASGI door, the MCP server behind its wire.

The agent leaves at every step; a slow one slows the server; a worker that ends answers whom it carries.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from fastgw.catalog.route import Deadlines
from fastgw.gateway import connection
from fastgw.upstream.transports import down
from tests.gateway.fakes import (  # fmt: skip
    BUY,
    MODERN,
    MODERN_BUY,
    FakeAgent,
    Server,
    bought,
    event,
    progress,
    request,
    staged,
)
from tests.upstream.fakes import FakeAnswer, Sent, run, settle


async def until(look: Any) -> None:
    """Let others run until it is so; `run` bounds the whole."""
    while not look():
        await settle()


def sells(sent: Sent) -> FakeAnswer:
    if sent.method == "tools/call":
        return FakeAnswer(body=bought(sent))
    return FakeAnswer(202)


# -- the usual ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_a_call_is_answered_and_written_down(monkeypatch: pytest.MonkeyPatch, era: str) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells, era) as stage:
            new, old = FakeAgent(MODERN_BUY), FakeAgent(request("tools/call", BUY, "o"))
            await stage.ask(new, MODERN)
            await stage.ask(old, await stage.initialize())
            for agent, identity in ((new, 1), (old, "o")):
                assert agent.status == 200
                assert agent.headers[b"content-type"] == b"application/json"
                assert agent.json()["id"] == identity
                assert agent.json()["result"]["content"][0]["text"] == "bought"
                assert agent.is_done
            assert [one["outcome"] for one in stage.controller.events] == ["ok", "ok"]
            assert stage.controller.events[0]["requestId"] == new.headers[b"x-request-id"].decode()

    run(story())


def test_a_draining_worker_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            for draining in (False, True):
                if draining:
                    stage.life.drain()
                for body in (MODERN_BUY, b"{", request("notifications/x", {}, None)):
                    agent = FakeAgent(body)
                    await stage.ask(agent, MODERN)
                    assert agent.headers.get(b"connection") == (b"close" if draining else None)

    run(story())


# -- the agent leaves -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [[], [b'{"jsonrpc'], [b'{"jsonrpc', b'":"2.0",']])
def test_leaving_in_the_middle_of_the_body_reaches_nobody(monkeypatch: pytest.MonkeyPatch, pieces: list[bytes]) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            agent = FakeAgent()
            for piece in pieces:
                agent.says(piece, more=True)
            agent.leaves()
            await stage.ask(agent, MODERN)
            assert stage.wire.sent == []
            # Somebody may still be there: chunks that are none look like leaving, and silence would become a 500.
            assert agent.status == 400

    run(story())


def test_a_body_in_pieces_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            agent = FakeAgent()
            for at in range(len(MODERN_BUY)):
                agent.says(MODERN_BUY[at : at + 1], more=at + 1 < len(MODERN_BUY))
            await stage.ask(agent, MODERN)
            assert agent.json()["result"]["content"][0]["text"] == "bought"

    run(story())


def test_a_modern_agent_that_leaves_takes_its_call_back(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()

    async def story() -> None:
        async with staged(monkeypatch, server.ponders) as stage:
            agent = FakeAgent(MODERN_BUY)
            asked = stage.ask(agent, MODERN)
            await until(lambda: server.asked)
            agent.leaves()
            await asked
            assert server.stopped == 1
            assert agent.sent == []
            assert stage.controller.events[0]["outcome"] == "cancelled"

    run(story())


def test_a_legacy_agent_that_leaves_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()

    async def story() -> None:
        async with staged(monkeypatch, server.streams) as stage:
            session = await stage.initialize()
            agent = FakeAgent(request("tools/call", BUY))
            asked = stage.ask(agent, session)
            await until(lambda: server.answers)
            agent.leaves()
            await settle()
            assert not server.answers[0].closed
            server.answers[0].more.put_nowait(event(bought(server.asked[0])))
            await asked
            assert stage.controller.events[0]["outcome"] == "ok"

    run(story())


def test_leaving_in_the_middle_of_a_stream_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()

    async def story() -> None:
        async with staged(monkeypatch, server.streams) as stage:
            agent = FakeAgent(MODERN_BUY)
            asked = stage.ask(agent, MODERN)
            await until(lambda: server.answers)
            server.answers[0].more.put_nowait(progress(server.asked[0], 1))
            await until(lambda: len(agent.sent) == 2)
            agent.leaves()
            await asked
            assert server.answers[0].closed
            assert len(agent.sent) == 2
            assert stage.controller.events[0]["outcome"] == "cancelled"

    run(story())


def test_leaving_after_the_answer_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            agent = FakeAgent(MODERN_BUY)
            await stage.ask(agent, MODERN)
            agent.leaves()
            await settle()
            assert [one["outcome"] for one in stage.controller.events] == ["ok"]

    run(story())


# -- streams --------------------------------------------------------------------------------------------------------


def test_events_leave_one_by_one_and_the_agents_token_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()

    async def story() -> None:
        async with staged(monkeypatch, server.streams) as stage:
            agent = FakeAgent(MODERN_BUY)
            asked = stage.ask(agent, MODERN)
            await until(lambda: server.answers)
            more = server.answers[0].more
            for step in (1, 2):
                more.put_nowait(progress(server.asked[0], step))
                await until(lambda step=step: len(agent.sent) == 1 + step)
            more.put_nowait(event(bought(server.asked[0])))
            await asked
            assert agent.headers[b"content-type"] == b"text/event-stream"
            first, second, last = agent.events()
            assert [first["params"], second["params"]] == [
                {"progressToken": "mine", "progress": 1},
                {"progressToken": "mine", "progress": 2},
            ]
            assert last["result"]["content"][0]["text"] == "bought"
            assert agent.is_done

    run(story())


def test_an_agent_that_does_not_read_slows_the_server_down(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()

    async def story() -> None:
        async with staged(monkeypatch, server.streams) as stage:
            agent = FakeAgent(MODERN_BUY)
            agent.may_read.clear()
            asked = stage.ask(agent, MODERN)
            await until(lambda: server.answers)
            more = server.answers[0].more
            for step in range(5):
                more.put_nowait(progress(server.asked[0], step))
            more.put_nowait(event(bought(server.asked[0])))
            await settle()
            assert more.qsize() == 5, "read ahead of an agent that does not read"
            agent.may_read.set()
            await asked
            assert len(agent.events()) == 6

    run(story())


def test_an_agent_that_takes_no_streams_gets_the_answer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()

    async def story() -> None:
        async with staged(monkeypatch, server.streams) as stage:
            agent = FakeAgent(MODERN_BUY)
            asked = stage.ask(agent, {**MODERN, "accept": "application/json"})
            await until(lambda: server.answers)
            more = server.answers[0].more
            more.put_nowait(progress(server.asked[0], 1) + event(bought(server.asked[0])))
            await asked
            assert agent.headers[b"content-type"] == b"application/json"
            assert agent.json()["id"] == 1

    run(story())


def test_a_silent_stream_is_kept_alive_until_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    monkeypatch.setattr(connection, "KEEP_ALIVE", 0.005)

    async def story() -> None:
        async with staged(monkeypatch, server.streams) as stage:
            agent = FakeAgent(MODERN_BUY)
            asked = stage.ask(agent, MODERN)
            await until(lambda: server.answers)
            await until(lambda: agent.body.count(b"\n\n") >= 2)
            assert agent.headers[b"content-type"] == b"text/event-stream"
            assert agent.body.startswith(b":"), "silence before the first event is silence, too"
            server.answers[0].more.put_nowait(progress(server.asked[0], 1))
            await until(lambda: agent.events() and agent.body.rpartition(b"data:")[2].count(b"\n\n") >= 3)
            server.answers[0].more.put_nowait(event(bought(server.asked[0])))
            await asked
            sent = len(agent.sent)
            monkeypatch.setattr(connection, "KEEP_ALIVE", 15.0)
            await settle()
            assert (len(agent.sent), len(agent.events())) == (sent, 2)

    run(story())


def test_a_fault_in_a_stream_is_its_last_event(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()

    async def story() -> None:
        async with staged(monkeypatch, server.streams) as stage:
            agent = FakeAgent(MODERN_BUY)
            asked = stage.ask(agent, MODERN)
            await until(lambda: server.answers)
            server.answers[0].more.put_nowait(progress(server.asked[0], 1))
            server.answers[0].more.put_nowait(b"")
            await asked
            assert agent.events()[-1]["error"]["code"] == -31003
            assert agent.is_done

    run(story())


# -- cancelled, expired, unexpected ---------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
def test_a_withdrawn_call_is_not_answered(monkeypatch: pytest.MonkeyPatch, streaming: bool) -> None:
    server = Server()

    async def story() -> None:
        async with staged(monkeypatch, server.streams if streaming else server.ponders) as stage:
            session = await stage.initialize()
            agent = FakeAgent(request("tools/call", {**BUY, "_meta": {"progressToken": 1}}, "c"))
            asked = stage.ask(agent, session)
            await until(lambda: server.asked)
            if streaming:
                server.answers[0].more.put_nowait(progress(server.asked[0], 1))
                await until(lambda: len(agent.sent) == 2)
            stranger = FakeAgent(request("notifications/cancelled", {"requestId": "c"}, None))
            await stage.ask(stranger, await stage.initialize())
            assert not asked.done(), "another session's word"
            assert len(stage.controller.cancels) == 1
            note = FakeAgent(request("notifications/cancelled", {"requestId": "c"}, None))
            await stage.ask(note, session)
            await asked
            assert (note.status, note.body) == (202, b"")
            assert agent.is_done
            assert b"result" not in agent.body
            assert b"error" not in agent.body
            assert len(stage.controller.cancels) == 1

    run(story())


def test_a_worker_that_ends_answers_whom_it_carries(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()

    async def story() -> None:
        async with staged(monkeypatch, server.ponders) as stage:
            oldest = await stage.initialize("2025-03-26")
            alone, pair = FakeAgent(MODERN_BUY), FakeAgent()
            pair.says(b"[" + request("tools/call", BUY, 1) + b"," + request("ping", {}, 2) + b"]")
            tasks = [stage.ask(alone, MODERN), stage.ask(pair, oldest)]
            await until(lambda: len(server.asked) == 2)
            stage.gateway.expire()
            for task in tasks:
                await task
            error = alone.json()["error"]
            assert (alone.status, error["code"], error["data"]["mayHaveRun"]) == (200, -31003, True)
            first, second = pair.json()
            assert (first["id"], first["error"]["code"]) == (1, -31003)
            assert second == {"jsonrpc": "2.0", "id": 2, "result": {}}

    run(story())


class Broken(FakeAnswer):
    """An answer that breaks in a way nobody foresaw."""

    async def read(self) -> bytes:
        if self.more.empty():
            raise ZeroDivisionError("S3CRET")
        return await super().read()


@pytest.mark.parametrize("streaming", [False, True])
def test_what_nobody_foresaw_is_told_to_whom_it_met(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, streaming: bool
) -> None:
    def breaks(sent: Sent) -> FakeAnswer:
        if not streaming:
            raise ZeroDivisionError("S3CRET")
        return Broken(headers={"content-type": "text/event-stream"}, body=None, pieces=[progress(sent, 1)])

    async def story() -> None:
        async with staged(monkeypatch, breaks) as stage:
            agent = FakeAgent(MODERN_BUY)
            await stage.ask(agent, MODERN)
            found = agent.json()
            assert (agent.status, found["id"], found["error"]["code"]) == (200, 1, -32603)
            assert found["error"]["data"]["mayHaveRun"] is True
            assert b"S3CRET" not in agent.body
            assert found["error"]["data"]["requestId"] in caplog.text
            assert [one["outcome"] for one in stage.controller.events] == ["server_error"]

    run(story())


def test_one_element_of_a_batch_that_breaks_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks_once(sent: Sent) -> FakeAnswer:
        if sent.json.get("params", {}).get("arguments") == {"n": 2}:
            raise ZeroDivisionError
        return sells(sent)

    async def story() -> None:
        async with staged(monkeypatch, breaks_once) as stage:
            calls = [request("tools/call", {**BUY, "arguments": {"n": n}}, n) for n in (1, 2, 3)]
            agent = FakeAgent(b"[%s]" % b",".join(calls))
            await stage.ask(agent, await stage.initialize("2025-03-26"))
            told = [(one["id"], one.get("error", {}).get("code")) for one in agent.json()]
            assert told == [(1, None), (2, -32603), (3, None)]
            assert json.dumps(told).count("-32603") == 1

    run(story())


# -- batches --------------------------------------------------------------------------------------------------------


def test_a_withdrawn_element_is_missing_from_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()

    async def story() -> None:
        async with staged(monkeypatch, server.ponders) as stage:
            session = await stage.initialize("2025-03-26")
            agent = FakeAgent(b"[" + request("tools/call", BUY, 1) + b"," + request("ping", {}, 2) + b"]")
            asked = stage.ask(agent, session)
            await until(lambda: server.asked)
            await stage.ask(FakeAgent(request("notifications/cancelled", {"requestId": 1}, None)), session)
            await asked
            assert [one["id"] for one in agent.json()] == [2]

    run(story())


def test_a_refused_excess_is_read_a_little_and_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            agent = FakeAgent()
            for _ in range(200):
                agent.says(b"x" * 65_536, more=True)
            await stage.ask(agent, MODERN)
            assert agent.status == 413
            assert agent.headers[b"connection"] == b"close"
            assert agent.json()["error"]["data"]["limitBytes"] == 1000
            taken = 200 - agent.inbox.qsize()
            assert 16 <= taken <= 18, "a mebibyte, and no more"

    run(story())


def test_the_next_instance_gets_what_is_left_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            snapshot = stage.gateway.begin({"headers": []}).snapshot
            shop = snapshot.backends["shop"]
            other = replace(shop.instances[0], key="shop|http://b/mcp", url="http://b/mcp")
            two = replace(shop, instances=(shop.instances[0], other))
            stage.gateway.load(replace(snapshot, generation=2, backends={"shop": two}))
            loop, given, answers = asyncio.get_running_loop(), [], stage.wire.request
            clock = loop.time

            async def request(verb: str, fields: bytes, body: bytes, deadlines: Deadlines) -> Any:
                given.append(deadlines.total)
                if len(given) == 1:
                    monkeypatch.setattr(loop, "time", lambda: clock() + 3)
                    raise down("three seconds went by")
                return await answers(verb, fields, body, deadlines)

            monkeypatch.setattr(stage.wire, "request", request)
            agent = FakeAgent(MODERN_BUY)
            await stage.ask(agent, MODERN)
            assert agent.status == 200
            assert given[0] == 5
            assert 1.5 < given[1] <= 2

    run(story())
