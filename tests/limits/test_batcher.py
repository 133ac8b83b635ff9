"""The traffic with a store: what goes together, what is lost together, how the store is found again."""

from __future__ import annotations

import asyncio
import time

import pytest

from fastgw.limits.batcher import DEADLINE, GRACE, MOST, PROBE_EVERY, PROBE_WITHIN
from fastgw.limits.script import ScriptReply
from tests.limits.fakes import packed, until
from tests.limits.handlers import AWAY, Scene, asked, played

LATE = 0.25  # seconds that a slow machine may add to what has a time


def test_what_comes_while_a_question_is_under_way_goes_together_in_the_next() -> None:
    async def story(scene: Scene) -> None:
        scene.ask(1)
        first = await scene.hear()
        assert asked(first) == [1]
        scene.ask(*range(2, 10))
        await asyncio.sleep(0)
        assert scene.connection.asked.empty()
        first.admits()
        second = await scene.hear()
        assert asked(second) == list(range(2, 10))
        second.admits()
        await until(lambda: len(scene.handler.answered_) == 2)
        assert scene.handler.answered_ == [[1], list(range(2, 10))]
        assert len(scene.took) == 4, "two probes, two batches"

    played(story)


def test_a_batch_carries_so_many_and_the_rest_goes_on() -> None:
    async def story(scene: Scene) -> None:
        scene.ask(*range(2 * MOST + 1))
        sizes = []
        for _ in range(3):
            batch = await scene.hear()
            sizes.append(len(asked(batch)))
            batch.admits()
        await until(lambda: len(scene.handler.heard) == 2 * MOST + 1)
        assert sizes == [MOST, MOST, 1]
        assert scene.handler.heard == list(range(2 * MOST + 1))

    played(story)


def test_what_is_to_be_said_needs_no_question() -> None:
    async def story(scene: Scene) -> None:
        scene.batcher.send()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert scene.connection.asked.empty()
        scene.handler.to_say = True
        scene.batcher.send()
        scene.batcher.send()
        batch = await scene.hear()
        assert asked(batch) == []
        scene.handler.to_say = True
        batch.admits()
        (await scene.hear()).admits()
        await until(lambda: scene.handler.answered_ == [[], []])

    played(story)


def test_a_batch_that_fails_loses_all_that_waits_at_once() -> None:
    async def story(scene: Scene) -> None:
        scene.ask(1)
        batch = await scene.hear()
        scene.ask(2, 3)
        batch.fails(AWAY)
        await until(lambda: scene.handler.lost_)
        assert scene.handler.lost_ == [([1, 2, 3], "connection")]
        assert scene.batcher.away

    played(story)


@pytest.mark.parametrize(
    "answer",
    [b"garbage", None, b"", packed(ScriptReply("one", 1, [], [0], [])), packed(ScriptReply("one", 1, [], [0], [[1]]))],
)
def test_a_garbled_answer_is_none(answer: object) -> None:
    async def story(scene: Scene) -> None:
        scene.ask(1, 2)
        (await scene.hear()).answers(answer)
        await until(lambda: scene.handler.lost_)
        assert scene.handler.lost_ == [([1, 2], "reply")]

    played(story)


def test_an_answer_that_does_not_come_is_given_up_in_time() -> None:
    async def story(scene: Scene) -> None:
        began = time.monotonic()
        scene.ask(1)
        await scene.hear()
        await until(lambda: scene.handler.lost_)
        assert DEADLINE <= time.monotonic() - began < DEADLINE + GRACE + LATE
        assert scene.handler.lost_ == [([1], "timeout")]
        await until(lambda: scene.connection.given_up == 1)

    played(story)


def test_what_waited_for_another_batch_has_as_long_as_that() -> None:
    async def story(scene: Scene) -> None:
        scene.ask(1)
        first = await scene.hear()
        scene.ask(2)
        asyncio.get_running_loop().call_later(0.9 * DEADLINE, first.admits)
        began = time.monotonic()
        await scene.hear()
        flown = time.monotonic()
        await until(lambda: scene.handler.lost_)
        assert scene.handler.lost_ == [([2], "timeout")]
        assert time.monotonic() - flown >= DEADLINE
        assert time.monotonic() - began < 2 * (DEADLINE + GRACE) + LATE

    played(story)


def test_an_answer_that_is_here_counts_though_our_own_loop_was_late() -> None:
    async def story(scene: Scene) -> None:
        def late() -> None:
            time.sleep(2 * DEADLINE)  # the loop stands still, as beside a long piece of work
            batch.admits()

        scene.ask(1)
        batch = await scene.hear()
        asyncio.get_running_loop().call_soon(late)
        await until(lambda: scene.handler.heard)
        assert scene.handler.answered_ == [[1]]

    played(story)


def test_an_answer_that_our_own_late_loop_could_not_read_is_waited_for() -> None:
    async def story(scene: Scene) -> None:
        def late() -> None:
            time.sleep(3 * DEADLINE)
            asyncio.get_running_loop().call_later(DEADLINE, batch.admits)

        scene.ask(1)
        batch = await scene.hear()
        asyncio.get_running_loop().call_soon(late)
        await until(lambda: scene.handler.heard)
        assert scene.handler.answered_ == [[1]]

    played(story)


# -- away and back ---------------------------------------------------------------------------------------------------


def test_a_store_that_answers_twice_is_in_use_again() -> None:
    async def story(scene: Scene) -> None:
        await scene.lose(1)
        scene.ask(2)
        assert scene.handler.returned_ == 1
        await scene.answer_probes()
        assert scene.connection.closed == 2
        assert not scene.batcher.away
        batch = await scene.hear()
        assert asked(batch) == [2]

    played(story)


def test_a_second_probe_that_is_slower_than_calls_may_be_does_not_count() -> None:
    async def story(scene: Scene) -> None:
        await scene.lose(1)
        (await scene.hear()).admits()
        await scene.hear()  # and no answer
        again = await scene.hear()
        assert scene.batcher.away
        assert scene.connection.closed == 3
        again.admits()
        (await scene.hear()).admits()
        await until(lambda: not scene.batcher.away)

    played(story)


def test_the_first_probe_has_longer_than_a_call() -> None:
    async def story(scene: Scene) -> None:
        await scene.lose(1)
        probe = await scene.hear()
        asyncio.get_running_loop().call_later(PROBE_WITHIN / 2, probe.admits)
        (await scene.hear()).admits()
        await until(lambda: not scene.batcher.away)
        assert scene.connection.closed == 2

    played(story)


def test_it_is_looked_for_as_often_as_it_takes() -> None:
    async def story(scene: Scene) -> None:
        await scene.lose(1)
        began = time.monotonic()
        for _ in PROBE_EVERY:
            (await scene.hear()).fails(AWAY)
        (await scene.hear()).answers(b"LOADING")
        await scene.answer_probes()
        assert time.monotonic() - began >= sum(PROBE_EVERY)
        assert scene.connection.closed == 3 + len(PROBE_EVERY)

    played(story)


def test_one_that_is_lost_again_soon_is_not_looked_for_at_once_and_later_each_time() -> None:
    async def story(scene: Scene) -> None:
        for times in (1, 2, 3):
            await scene.lose(1)
            began = time.monotonic()
            await scene.answer_probes()
            assert times * PROBE_EVERY[-1] <= time.monotonic() - began < times * PROBE_EVERY[-1] + LATE

    played(story)


def test_a_store_that_was_emptied_is_asked_again() -> None:
    async def story(scene: Scene) -> None:
        scene.handler.known = "one"
        scene.ask(1, 2)
        batch = await scene.hear()
        assert batch.request.known == "one"
        scene.ask(3)
        batch.answers(packed(ScriptReply("two", 0, [], [], [])))
        again = await scene.hear()
        assert (asked(again), again.request.known) == ([1, 2, 3], "two")
        again.admits("two")
        await until(lambda: scene.handler.heard == [1, 2, 3])
        assert scene.handler.emptied_ == ["two"]

    played(story)


def test_one_that_is_another_at_every_question_is_away() -> None:
    async def story(scene: Scene) -> None:
        scene.handler.known = "0"
        scene.ask(1)
        for epoch in (1, 2):
            (await scene.hear()).answers(packed(ScriptReply(f"{epoch}", 0, [], [], [])))
        await until(lambda: scene.handler.lost_)
        assert scene.handler.lost_ == [([1], "reply")]

    played(story)


def test_no_two_questions_begin_the_same_epoch() -> None:
    async def story(scene: Scene) -> None:
        epochs = []
        for question in range(5):
            scene.ask(question)
            batch = await scene.hear()
            epochs.append(batch.epoch)
            batch.admits(batch.epoch)
        assert len(set(epochs)) == 5

    played(story)
