"""The traffic with a store whose client, or whose handler, fails as nobody foresaw: no question waits for ever."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from fastgw.limits.script import ScriptReply
from tests.limits.fakes import packed, until
from tests.limits.handlers import AWAY, Scene, played


def failing(scene: Scene, where: str) -> Callable[[str], None]:
    """The handler fails there, once."""

    def fail(place: str) -> None:
        if place == where:
            scene.handler.fails = lambda _: None
            raise RuntimeError(where)

    return fail


@pytest.mark.parametrize("where", ["compose", "answered"])
def test_a_crew_that_fails_loses_nobody(where: str) -> None:
    async def story(scene: Scene) -> None:
        scene.ask(1)
        batch = await scene.hear()
        scene.ask(2, 3)
        scene.handler.fails = failing(scene, where)
        batch.admits()
        await until(lambda: scene.handler.lost_)
        assert sorted(scene.handler.heard) == [1, 2, 3]
        assert scene.handler.lost_[0][1] == "defect"
        await scene.answer_probes()
        scene.ask(4)
        (await scene.hear()).admits()
        await until(lambda: 4 in scene.handler.heard)

    played(story)


@pytest.mark.parametrize("where", ["lost", "returned", "emptied"])
def test_a_store_is_found_again_though_the_crew_failed(where: str) -> None:
    async def story(scene: Scene) -> None:
        scene.handler.fails = failing(scene, where)
        scene.handler.known = "one"
        scene.ask(1)
        batch = await scene.hear()
        if where == "emptied":
            batch.answers(packed(ScriptReply("two", 0, [], [], [])))
        else:
            batch.fails(AWAY)
        await until(lambda: scene.batcher.away)
        for _ in range(2):
            (await scene.hear()).admits()
        await until(lambda: not scene.batcher.away)
        scene.ask(2)
        (await scene.hear()).admits("two" if where == "emptied" else "one")
        await until(lambda: 2 in scene.handler.heard)
        assert 1 in scene.handler.heard

    played(story, RuntimeError)


@pytest.mark.parametrize("wrong", [KeyError("slot"), TypeError("None"), AssertionError(), EOFError()])
def test_an_error_that_nobody_knows_is_a_store_that_is_away(wrong: Exception) -> None:
    async def story(scene: Scene) -> None:
        scene.ask(1)
        batch = await scene.hear()
        scene.ask(2)
        batch.fails(wrong)
        await until(lambda: scene.handler.lost_)
        assert scene.handler.heard == [1, 2]
        (await scene.hear()).fails(wrong)
        await scene.answer_probes()

    played(story, type(wrong))


def test_a_crew_that_fails_over_a_probe_does_not_end_the_search() -> None:
    async def story(scene: Scene) -> None:
        await scene.lose(1)
        scene.handler.fails = failing(scene, "answered")
        (await scene.hear()).admits()
        await scene.answer_probes()
        assert not scene.batcher.away

    played(story, RuntimeError)


def test_every_question_hears_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions to a store that answers, fails, says nothing or garbage, as the dice fall."""
    monkeypatch.setattr("fastgw.limits.batcher.MOST_PAUSE", 0.05)
    seed = random.randrange(10**9)

    async def story(scene: Scene) -> None:
        dice, count = random.Random(seed), 300
        answering = scene.spawner.spawn(answer(scene, dice), "answering")
        for question in range(count):
            while scene.batcher.away:
                await asyncio.sleep(0.001)
            scene.ask(question)
            for _ in range(dice.choice([0, 5, 10])):
                await asyncio.sleep(0)
        await until(lambda: len(scene.handler.heard) >= count)
        answering.cancel()
        assert sorted(scene.handler.heard) == list(range(count)), seed
        assert len(scene.handler.lost_) > 0, seed

    played(story)


async def answer(scene: Scene, dice: random.Random) -> None:
    while True:
        question = await scene.connection.asked.get()
        if not question.request.checks or dice.random() < 0.95:
            question.admits()
        elif dice.random() < 0.5:
            question.fails(AWAY)
        elif dice.random() < 0.5:
            question.answers(dice.randbytes(20))
