"""Places at a server: at most so many are taken, every one that becomes free goes on, teams take turns."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

import pytest

from fastgw.errors import Fault, Kind
from fastgw.policy.match import Principal
from fastgw.snapshot.model import Backend
from fastgw.telemetry.counters import Counters
from fastgw.upstream.bulkhead import LONGEST_RETRY, Bulkhead, Bulkheads, team_of
from tests.upstream.fakes import backend, run


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Crowd:
    """Calls at a bulkhead: who is inside, in the order in which they went in, and who was refused."""

    def __init__(self, most: int, queue: int) -> None:
        self.now = 0.0
        self.bulkhead = Bulkhead(most, queue, lambda: self.now)
        self.inside: list[str] = []
        self.refused: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, *names: str) -> None:
        """Calls come, each after the other; a name begins with its team: `a1`."""
        for name in names:
            self.begin(name)
            await settle()

    def begin(self, name: str) -> None:
        self.tasks[name] = asyncio.ensure_future(self._enter(name))

    async def _enter(self, name: str) -> None:
        entering = self.bulkhead.enter(name[0])
        if entering is None or await entering:
            self.inside.append(name)
        else:
            self.refused.append(name)

    async def go(self, *names: str) -> None:
        """Calls that were inside are over."""
        for name in names:
            self.inside.remove(name)
            self.bulkhead.leave()
            await settle()

    async def withdraw(self, name: str) -> None:
        self.tasks[name].cancel()
        await settle()


def test_places_then_the_queue_then_nothing() -> None:
    async def story() -> None:
        crowd = Crowd(2, 1)
        await crowd.come("a1", "a2", "a3", "a4")
        assert (crowd.inside, crowd.refused) == (["a1", "a2"], ["a4"])
        await crowd.go("a1")
        assert crowd.inside == ["a2", "a3"]
        await crowd.go("a2", "a3")
        assert (crowd.bulkhead.inside, crowd.bulkhead.waiting) == (0, 0)

    run(story())


def test_teams_take_turns_each_in_order() -> None:
    async def story() -> None:
        crowd = Crowd(1, 9)
        await crowd.come("x0", "a1", "a2", "a3", "b1", "b2", "c1")
        for name in ("x0", "a1", "b1", "c1", "a2", "b2"):
            await crowd.go(name)
        assert crowd.inside == ["a3"]

    run(story())


def test_the_newest_of_the_greediest_gives_way() -> None:
    async def story() -> None:
        crowd = Crowd(1, 3)
        await crowd.come("x0", "a1", "a2", "a3", "b1")
        assert crowd.refused == ["a3"]
        assert crowd.bulkhead.refuses("a") and crowd.bulkhead.refuses("b") and not crowd.bulkhead.refuses("c")
        await crowd.come("b2", "a4")
        assert crowd.refused == ["a3", "b2", "a4"], "who would only swap places with another is refused"
        await crowd.go("x0", "a1", "b1")
        assert crowd.inside == ["a2"]

    run(story())


def test_who_leaves_the_queue_makes_room_at_once() -> None:
    async def story() -> None:
        crowd = Crowd(1, 1)
        await crowd.come("x0", "a1")
        await crowd.withdraw("a1")
        await crowd.come("a2")
        assert crowd.refused == []
        await crowd.go("x0")
        assert crowd.inside == ["a2"]

    run(story())


def test_a_place_given_to_one_that_is_withdrawn_goes_to_the_next() -> None:
    async def story() -> None:
        crowd = Crowd(1, 3)
        await crowd.come("x0", "a1", "a2")
        crowd.inside.remove("x0")
        crowd.bulkhead.leave()  # a1 has it now, and has not heard of it
        crowd.tasks["a1"].cancel()
        await settle()
        assert (crowd.inside, crowd.bulkhead.inside) == (["a2"], 1)
        crowd.tasks["a3"] = crowd.tasks["a1"]
        await crowd.come("a4")
        crowd.tasks["a4"].cancel()  # and the other way round: first withdrawn, then it would be its turn
        await crowd.go("a2")
        assert (crowd.inside, crowd.bulkhead.inside, crowd.bulkhead.waiting) == ([], 0, 0)

    run(story())


def test_resized_with_calls_inside() -> None:
    async def story() -> None:
        crowd = Crowd(2, 2)
        await crowd.come("a1", "a2", "a3", "a4")
        crowd.bulkhead.resize(1, 0)
        await crowd.go("a1")
        assert crowd.inside == ["a2"], "there are as many as there may be"
        await crowd.come("a5")
        assert crowd.refused == ["a5"], "those who wait go on waiting"
        crowd.bulkhead.resize(3, 5)
        await settle()
        assert crowd.inside == ["a2", "a3", "a4"]

    run(story())


def test_when_to_come_again() -> None:
    async def story() -> None:
        crowd = Crowd(2, 10)
        await crowd.come("a1", "a2")
        assert crowd.bulkhead.retry_after() == 1
        await crowd.come(*[f"b{number}" for number in range(9)])
        for name in ("a1", "a2", "b0", "b1", "b2"):
            crowd.now += 2.0
            await crowd.go(name)
        assert 8 <= crowd.bulkhead.retry_after() <= 10, "two seconds for each of four, and for the one who asks"
        crowd.now += 1000.0
        assert crowd.bulkhead.retry_after() == LONGEST_RETRY

    run(story())


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_no_place_is_lost(seed: int) -> None:
    """Calls come, end, are withdrawn and the bulkhead is resized, with and without turns of the loop in between."""

    async def story() -> None:
        dice = Random(seed)
        crowd = Crowd(dice.randint(1, 4), dice.randint(0, 6))
        bulkhead, before, number = crowd.bulkhead, 0, 0
        for _ in range(400):
            match dice.choices(("come", "go", "withdraw", "resize", "turn"), (8, 5, 4, 0.2, 4))[0]:
                case "come":
                    number += 1
                    crowd.begin(f"{dice.choice('aaaabc')}{number}")
                case "go" if crowd.inside:
                    crowd.inside.remove(dice.choice(crowd.inside))
                    bulkhead.leave()
                case "withdraw":
                    if alive := [task for task in crowd.tasks.values() if not task.done()]:
                        dice.choice(alive).cancel()
                case "resize":
                    bulkhead.resize(dice.randint(1, 4), dice.randint(0, 6))
                case "turn":
                    await asyncio.sleep(0)
            assert bulkhead.inside <= max(before, bulkhead.most), "one too many"
            before = bulkhead.inside
            assert not bulkhead.waiting or bulkhead.inside >= bulkhead.most, "somebody waits beside a free place"
        await settle()
        assert bulkhead.inside == len(crowd.inside)
        while crowd.inside:
            await crowd.go(crowd.inside[0])
        assert (bulkhead.inside, bulkhead.waiting) == (0, 0)
        assert all(task.done() for task in crowd.tasks.values()), "nobody was forgotten"
        ends = Counter("withdrawn" if task.cancelled() else "answered" for task in crowd.tasks.values())
        assert ends["answered"] and ends["withdrawn"]

    run(story())


# -- a worker's part ----------------------------------------------------------------------------------------------


def bounded(most: int | None, queue: int = 0) -> dict[str, Backend]:
    return {"shop": backend(name="shop", max_in_flight=most, queue=queue)}


def test_workers_have_their_parts() -> None:
    parts = []
    for number in (1, 2, 3):
        bulkheads = Bulkheads(Counters())
        bulkheads.worker = number, 3
        bulkheads.load(bounded(8, 1))
        found = bulkheads._known["shop"]
        parts.append((found.most, found.queue))
    assert parts == [(3, 1), (3, 1), (2, 1)]


def test_calls_inside_count_while_the_bound_comes_and_goes() -> None:
    bulkheads = Bulkheads(Counters())
    bulkheads.load(bounded(1))
    known = bulkheads._known["shop"]
    assert known.enter("a") is None
    bulkheads.load(bounded(None))
    assert bulkheads.has_room(bounded(1)["shop"])
    bulkheads.load(bounded(1))
    assert bulkheads._known["shop"] is known and not bulkheads.has_room(bounded(1)["shop"])


def test_a_team_is_no_agent_of_that_name() -> None:
    names = [team_of(Principal("a")), team_of(Principal("b", {"team": "a"})), team_of(Principal("c", {"team": "a"}))]
    assert len(set(names)) == 2 and names[1] == names[2]


def test_a_call_that_would_not_even_find_room_in_the_queue_is_told_before_it_goes() -> None:
    counters = Counters()
    bulkheads = Bulkheads(counters)
    bulkheads.load(bounded(1, 0))
    bulkheads.check("shop", Principal("a"))
    assert bulkheads._known["shop"].enter("x") is None
    with pytest.raises(Fault) as refused:
        bulkheads.check("shop", Principal("a"))
    assert (refused.value.kind, refused.value.data, refused.value.retry_after) == (
        Kind.NO_SERVER,
        {"reason": "busy"},
        1,
    )
    assert counters.counts["fastgw_bulkhead_refusals_total", "shop"] == 1
    bulkheads.load(bounded(1, 1))
    bulkheads.check("shop", Principal("a"))
