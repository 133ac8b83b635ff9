"""Pages told by those before, and put together again."""

from __future__ import annotations

import random

import pytest

from fastgw.snapshot.model import Listing, Page
from fastgw.snapshot.page_codec import STEP, page_of, plans

SIZE = 10
"""Items on a page of these lists."""


def listing(items: list[str], oldest: list[str] | None = None) -> Listing:
    """A list for two dialects, which differ where `oldest` is given."""
    pages = []
    for start in range(0, max(1, len(items)), SIZE):
        modern = text(items[start : start + SIZE])
        other = modern if oldest is None else text(oldest[start : start + SIZE])
        pages.append(Page({"modern": modern, "old": other}, start, start + SIZE < len(items)))
    return Listing(tuple(pages))


def text(items: list[str]) -> bytes:
    return b"[" + ",".join(f'{{"name":"{item}"}}' for item in items).encode() + b"]"


def sent(new: Listing, old: Listing) -> tuple[tuple[Page, ...], int]:
    """The pages as they arrive, and how many bytes of them were new."""
    known = dict(enumerate(old.pages, 5))
    numbers = {id(page): number for number, page in known.items()}
    made = list(plans(new, old, lambda page: numbers[id(page)]))
    return tuple(page_of(plan, known) for plan in made), sum(plan.size for plan in made)


NAMES = [f"tool-{number}" for number in range(35)]


@pytest.mark.parametrize(
    "changed",
    [
        NAMES,
        ["first", *NAMES],
        [*NAMES, "last"],
        [*NAMES[:10], "between", *NAMES[10:]],
        [*NAMES[:9], "instead", *NAMES[10:]],
        NAMES[1:],
        NAMES[:-1],
        NAMES[:10],
        NAMES[:1],
        [],
        ["x"],
    ],
)
def test_whatever_has_changed_the_pages_are_those_of_the_new_list(changed: list[str]) -> None:
    assert sent(listing(changed), listing(NAMES))[0] == listing(changed).pages
    assert sent(listing(NAMES), listing(changed))[0] == listing(NAMES).pages


def test_of_a_large_list_only_what_is_new_is_sent() -> None:
    long = [f"{name}-{'x' * 2 * STEP}" for name in NAMES]
    new, old = listing([*long[:3], "one more", *long[3:]]), listing(long)
    pages, size = sent(new, old)

    assert pages == new.pages
    assert size < 200, "one item of 20 bytes was new"


def test_dialects_that_differ_keep_their_own_texts_and_those_that_agree_share_one() -> None:
    short = [name[-2:] for name in NAMES]
    new = listing(["new", *NAMES], ["n", *short])
    assert sent(new, listing(NAMES, short))[0] == new.pages
    (shared,) = sent(listing(["a"]), listing(["b"]))[0]
    assert shared.items["modern"] is shared.items["old"]


ITEMS = ["[", "]", ",", '","', "],[", "}{", "\\u0000", "ü", "日本", "", "a", "b" * 300]


def test_any_edits_of_any_items_for_any_dialects_arrive_byte_for_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(400):
        dice = random.Random(seed)
        monkeypatch.setattr("fastgw.snapshot.page_codec.STEP", dice.choice([1, 4, 64, STEP]))
        before = [dice.choice(ITEMS) for _ in range(dice.randrange(45))]
        after = list(before)
        for _ in range(dice.randrange(5)):
            begin = dice.randrange(len(after) + 1)
            after[begin : begin + dice.randrange(12)] = [dice.choice(ITEMS) for _ in range(dice.randrange(12))]
        if dice.random() < 0.2:
            dice.shuffle(after)
        old, new = (listing(one, dice.choice([None, one[::-1]])) for one in (before, after))
        assert sent(new, old)[0] == new.pages, seed


def test_texts_that_repeat_themselves_are_not_taken_twice() -> None:
    for seed in range(200):
        dice = random.Random(seed)
        before, after = ([dice.choice("ab") for _ in range(dice.randrange(40))] for _ in range(2))
        assert sent(listing(after), listing(before))[0] == listing(after).pages, seed
