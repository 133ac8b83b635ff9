"""Operators' orders at one worker: which raise holds for a bucket and until when; each reset obeyed once."""

from __future__ import annotations

from typing import Any

import pytest

from fastgw.gateway.orders import MOST_REMEMBERED, Order, Orders, order_of
from fastgw.policy.bucket import BucketRate, figures_of

OWN = figures_of(10, 60, 10)


class Stage:
    """Orders, whoever they let know, and the hands of a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.told: list[tuple[str, str, float]] = []
        self.resets: list[Order] = []
        self.orders = Orders(lambda *said: self.told.append(said), lambda: self.now)
        self.orders.reset = self.resets.append

    def raise_(self, seconds: float, *figures: int, limit: str = "x", subject: tuple[str | None, ...] | None) -> None:
        self.orders.give(raise_of(*figures, limit=limit, subject=subject).text, seconds)

    def of(self, subject: Any, own: BucketRate = OWN, limit: str = "x") -> BucketRate:
        return self.orders.raised(limit, subject, own)


def raise_of(*figures: int, limit: str = "x", subject: tuple[str | None, ...] | None = None) -> Order:
    return Order("id", "raise", limit, subject, *figures)


@pytest.fixture
def stage() -> Stage:
    return Stage()


# -- raises ---------------------------------------------------------------------------------------------------------


def test_a_raise_holds_for_its_subject_alone_and_until_its_time_is_up(stage: Stage) -> None:
    stage.raise_(60.0, 50, 60, 50, subject=("a",))
    assert stage.of("a") == figures_of(50, 60, 50)
    assert stage.of("b") == OWN
    assert stage.of("a", limit="y") == OWN
    stage.now += 59.9
    assert stage.of("a") != OWN
    stage.now += 0.1
    assert stage.of("a") == OWN
    assert stage.orders.told() == []


def test_a_raise_for_all_holds_for_each(stage: Stage) -> None:
    stage.raise_(60.0, 50, 60, 50, subject=None)
    assert {stage.of(subject) for subject in ("a", None, ("a", None), ())} == {figures_of(50, 60, 50)}


@pytest.mark.parametrize(
    ("subject", "same", "others"),
    [
        (("a",), "a", [None, ("a",) * 2]),
        ((None,), None, ["-", "None"]),
        (("a b", "c"), ("a b", "c"), [("a", "b c"), ("a", "b", "c")]),
        ((), (), [None, "", ("",)]),
    ],
)
def test_no_subject_is_taken_for_another(stage: Stage, subject: Any, same: Any, others: list[Any]) -> None:
    """Not even one that operators read alike."""
    stage.raise_(60.0, 50, 60, 50, subject=subject)
    assert stage.of(same) != OWN
    assert [other for other in others if stage.of(other) != OWN] == []


@pytest.mark.parametrize(
    ("own", "raised", "holds"),
    [
        ((10, 60, 10), (50, 60, 50), (50, 60, 50)),
        ((10, 60, 10), (5, 60, 5), (10, 60, 10)),
        ((10, 60, 100), (50, 60, 50), (50, 60, 100)),  # the bucket does not become smaller
        ((100, 60, 10), (50, 60, 50), (100, 60, 50)),  # nor slower, where an override has more already
        ((10, 60, 10), (600, 3600, 10), (10, 60, 10)),
        ((1, 86400, 1_000_000), (1, 1, 1), (1, 1, 1_000_000)),
        ((1, 1, 1), (1, 86400, 1_000_000), (1, 1, 1_000_000)),
        ((1_000_000, 1, 10**9), (7, 86400, 10**9), (1_000_000, 1, 10**9)),
    ],
)
def test_a_raise_never_lets_less_through(
    stage: Stage, own: tuple[int, int, int], raised: tuple[int, int, int], holds: tuple[int, int, int]
) -> None:
    stage.raise_(60.0, *raised, subject=("a",))
    assert stage.of("a", figures_of(*own)) == figures_of(*holds)


def test_of_a_raise_for_one_and_one_for_all_the_more_generous_holds(stage: Stage) -> None:
    stage.raise_(600.0, 50, 60, 50, subject=None)
    stage.raise_(60.0, 20, 60, 200, subject=("a",))
    assert stage.of("a") == figures_of(50, 60, 200)
    stage.now += 60.0
    assert stage.of("a") == figures_of(50, 60, 50), "the one that is over stands in nobody's way"


def test_a_newer_raise_replaces_the_one_before_and_no_time_takes_it_back(stage: Stage) -> None:
    stage.raise_(60.0, 50, 60, 50, subject=("a",))
    stage.raise_(60.0, 20, 60, 20, subject=("a",))
    assert stage.of("a") == figures_of(20, 60, 20)
    stage.raise_(0.0, 10, 60, 1, subject=("a",))
    assert stage.of("a") == OWN
    assert not stage.orders.raises, "calls are quick where nothing is raised"


def test_those_that_are_over_are_forgotten(stage: Stage) -> None:
    for number in range(10):
        stage.raise_(60.0, 50, 60, 50, subject=(str(number),))
        stage.now += 61.0
    assert len(stage.orders.raises) == 1


def test_what_operators_read(stage: Stage) -> None:
    stage.raise_(90.4, 50, 60, 70, subject=("a\n", None))
    stage.raise_(60.0, 5, 1, 5, limit="y", subject=None)
    stage.now += 10.0
    assert stage.orders.told() == [
        {"limit": "x", "subject": "a\\x0a -", "rate": "50/60s", "burst": 70, "secondsLeft": 80},
        {"limit": "y", "subject": None, "rate": "5/1s", "burst": 5, "secondsLeft": 50},
    ]


# -- resets ---------------------------------------------------------------------------------------------------------


def test_a_reset_is_obeyed_once_however_often_it_is_heard(stage: Stage) -> None:
    order = Order("1", "reset", "x", ("a",))
    stage.orders.give(order.text, 10.0)
    for _ in range(3):
        stage.orders.heard([(order.text, 9.0)])
    assert stage.resets == [order]
    stage.orders.give(Order("2", "reset", "x", ("a",)).text, 10.0)
    assert [one.id for one in stage.resets] == ["1", "2"]


def test_the_oldest_resets_are_forgotten_when_nobody_repeats_them_any_more(stage: Stage) -> None:
    for number in range(MOST_REMEMBERED + 1):
        stage.orders.give(Order(str(number), "reset", "x").text, 10.0)
    stage.orders.heard([(Order(str(MOST_REMEMBERED), "reset", "x").text, 1.0)])
    assert len(stage.resets) == MOST_REMEMBERED + 1


# -- how they travel ------------------------------------------------------------------------------------------------


def test_what_is_given_here_is_told_to_all(stage: Stage) -> None:
    order = raise_of(50, 60, 50, subject=("a", None))
    stage.orders.give(order.text, 60.0)
    stage.orders.give(order.text, 0.0)
    assert stage.told == [(order.target, order.text, 60.0), (order.target, order.text, 0.0)]
    assert "\n" not in order.target, "the store cuts target and text at the first line break"


def test_what_is_heard_is_all_there_is_and_is_not_told_on(stage: Stage) -> None:
    stage.raise_(60.0, 50, 60, 50, subject=("a",))
    stage.told.clear()
    stage.orders.heard([(raise_of(20, 60, 20, subject=("b",)).text, 5.0)])
    assert (stage.of("a"), stage.of("b")) == (OWN, figures_of(20, 60, 20))
    assert stage.told == []


def test_a_single_worker_tells_nobody() -> None:
    orders = Orders()
    orders.give(raise_of(50, 60, 50).text, 60.0)
    assert orders.raised("x", "a", OWN) == figures_of(50, 60, 50)


GARBAGE = [
    "", "null", "[]", "\ud800", "[" * 10_000, '{"id": 1, "do": "raise", "limit": "x"}', '{"do": "reset", "limit": "x"}',
    '{"id": "1", "do": "burn", "limit": "x"}', '{"id": "1", "do": "reset"}',
    '{"id": "1", "do": "reset", "limit": "x", "subject": "a"}',
    '{"id": "1", "do": "raise", "limit": "x", "calls": -2000000, "seconds": -1, "burst": 5}',
    '{"id": "1", "do": "raise", "limit": "x", "calls": 5, "seconds": 0, "burst": 5}',
    '{"id": "1", "do": "raise", "limit": "x", "calls": 5, "seconds": 1, "burst": -5}',
    '{"id": "1", "do": "raise", "limit": "x", "calls": 5, "seconds": 1, "burst": 99999999999}',
    '{"id": "1", "do": "raise", "limit": "x", "calls": 99999999, "seconds": 1, "burst": 5}',
    f'{{"id": "1", "do": "raise", "limit": "x", "calls": 5, "seconds": {10**40}, "burst": 5}}',
    '{"id": "1", "do": "raise", "limit": "x"}',
]  # fmt: skip


@pytest.mark.parametrize("text", GARBAGE, ids=range(len(GARBAGE)))
def test_what_is_no_order_changes_nothing(stage: Stage, text: str) -> None:
    """The store is shared with whoever has its password."""
    stage.orders.heard([(text, 60.0), (Order("2", "reset", "x").text, 60.0)])
    stage.orders.give(text, 60.0)
    assert stage.of("a") == OWN
    assert [one.id for one in stage.resets] == ["2"]


def test_an_order_of_a_later_release_may_say_more() -> None:
    assert order_of('{"id": "1", "do": "reset", "limit": "x", "why": "asked for"}') == Order("1", "reset", "x")
