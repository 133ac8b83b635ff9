"""One answer and the comments that keep it alive: whatever comes first, nothing follows the end."""

from __future__ import annotations

import asyncio

import pytest

from fastgw.gateway import connection
from fastgw.gateway.connection import AgentConnection, Budget
from fastgw.gateway.context import RequestContext
from fastgw.gateway.dialects import modern
from fastgw.snapshot.model import Endpoint, Snapshot, View
from tests.gateway.fakes import FakeAgent, staged
from tests.upstream.fakes import FakeAnswer, run, settle

STEPS = range(8)
NOWHERE = Endpoint("", {}, (View(),), {}, False, 0.0, (), "")
SNAPSHOT = Snapshot(1, {}, {}, {}, frozenset(), frozenset(), 1, 1, (b"s",), "fastgw", "0", "gw")


def an_exchange() -> RequestContext:
    return RequestContext("req_1", SNAPSHOT, NOWHERE, modern.DIALECT, {}, frozenset(), 0.0)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_comment_on_its_way_does_not_follow_the_answer(
    monkeypatch: pytest.MonkeyPatch, steps: int, streaming: bool
) -> None:
    monkeypatch.setattr(connection, "KEEP_ALIVE", 0.0)

    async def story() -> None:
        async with staged(monkeypatch, lambda _: FakeAnswer()) as stage:
            context = stage.gateway.begin({"headers": []})
            agent = FakeAgent()
            one = AgentConnection(context, agent.receive, agent.send, stage.life, stage.tasks)
            if streaming:
                await one.event(b"{}")
            one.keep_alive()
            for _ in range(steps):
                await asyncio.sleep(0)
            await one.answer(200, [], b'{"last":true}')
            stage.gateway.end(context)
            ends = [number for number, message in enumerate(agent.sent) if message.get("more_body") is None][1:]
            await settle()
            assert ends == [len(agent.sent) - 1], agent.sent
            assert b'{"last":true}' in agent.body

    run(story())


def test_an_outlet_of_a_batch_keeps_the_answer_alone() -> None:
    async def story() -> None:
        one = connection.BatchResponse(an_exchange(), Budget(100))
        one.keep_alive()
        await one.event(b"{}")
        await one.answer(503, [(b"retry-after", b"1")], b"[]")
        await one.close_unanswered()
        assert one.reply == b"[]"

    run(story())


def test_the_answers_of_a_batch_share_the_room_of_one() -> None:
    async def story() -> None:
        room = Budget(100)
        first, second = connection.BatchResponse(an_exchange(), room), connection.BatchResponse(an_exchange(), room)
        await first.answer(200, [], b"x" * 80)
        await second.answer(200, [], b"y" * 80)
        assert first.reply == b"x" * 80
        assert second.reply is not None and b"-31004" in second.reply

    run(story())
