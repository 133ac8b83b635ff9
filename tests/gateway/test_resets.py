"""Operators' resets at one worker: each is heeded once, told the store, and what is no reset changes nothing."""

from __future__ import annotations

import msgspec
import pytest

from fastgw.gateway.admission import MOST_RESETS, Limiter, Reset
from fastgw.limits.memory_buckets import MemoryBuckets
from fastgw.telemetry.counters import Counters


class Told(MemoryBuckets):
    """Buckets that note what is asked of them."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[str, int]] = []
        self.repeated: list[str] = []

    def reset_all(self, limit: str, order: int) -> None:
        self.done.append((limit, order))

    def repeat(self, reset: str) -> None:
        self.repeated.append(reset)


def text_of(number: int, limit: str = "x") -> str:
    return f'{{"do":"reset","number":{number},"limit":"{limit}","subject":null}}'


@pytest.fixture
def buckets() -> Told:
    return Told()


@pytest.fixture
def limiter(buckets: Told) -> Limiter:
    return Limiter(buckets, Counters())


def test_a_reset_is_heeded_once_however_often_it_is_heard(limiter: Limiter, buckets: Told) -> None:
    limiter.reset(text_of(1))
    for _ in range(3):
        limiter.take_resets([text_of(1)])
    limiter.take_resets([text_of(1), text_of(2)])
    assert buckets.done == [("x", 1), ("x", 2)]


def test_what_was_ordered_here_is_told_the_store_and_what_was_heard_is_not(limiter: Limiter, buckets: Told) -> None:
    limiter.reset(text_of(1))
    limiter.take_resets([text_of(2)])
    assert buckets.repeated == [text_of(1)]


def test_the_oldest_are_forgotten_when_nobody_repeats_them_any_more(limiter: Limiter, buckets: Told) -> None:
    limiter.take_resets(text_of(number) for number in range(1, MOST_RESETS + 2))
    limiter.take_resets([text_of(MOST_RESETS + 1), text_of(1)])
    assert len(buckets.done) == MOST_RESETS + 2
    assert len(set(buckets.done)) == MOST_RESETS + 1


GARBAGE = [
    "", "null", "[]", "\ud800", "[" * 10_000, '{"do": "reset", "limit": "x"}', '{"do": "reset", "number": 1}',
    '{"do": "burn", "number": 1, "limit": "x"}',
    '{"do": "reset", "number": "1", "limit": "x"}', '{"do": "reset", "number": 1, "limit": "x", "subject": "a"}',
    '{"do": "raise", "number": 1, "limit": "x", "calls": 5, "seconds": 1, "burst": 5}',
    f'{{"do": "reset", "number": {10**40}, "limit": "x"}}', '{"do": "reset", "number": 0, "limit": "x"}',
]  # fmt: skip


@pytest.mark.parametrize("text", GARBAGE, ids=range(len(GARBAGE)))
def test_what_is_no_reset_changes_nothing(limiter: Limiter, buckets: Told, text: str) -> None:
    """The store is shared with whoever has its password."""
    limiter.take_resets([text, text_of(2)])
    assert buckets.done == [("x", 2)]


def test_one_of_a_later_release_may_say_more(limiter: Limiter, buckets: Told) -> None:
    limiter.take_resets(['{"do": "reset", "number": 1, "limit": "x", "why": "asked for"}'])
    assert buckets.done == [("x", 1)]


def test_a_reset_travels_as_its_text() -> None:
    assert msgspec.json.decode(text_of(7), type=Reset) == Reset(7, "x")
