"""Patterns: whole names, case counts, and no pattern costs minutes."""

from __future__ import annotations

import fnmatch
import pickle
import random
import tracemalloc

import pytest

from fastgw.policy.patterns import Masks, Patterns


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("deploy-*", "deploy-", True),
        ("deploy-*", "Deploy-x", False),
        ("deploy-*", "re-deploy-x", False),
        ("db-?uery", "db-query", True),
        ("db-?uery", "db-uery", False),
        ("*", "", True),
        ("*", "two\nlines", True),
        ("a.c", "abc", False),
        ("[ab]", "a", False),
        ("github/*", "github/a/b", True),
        ("*a*a", "a", False),
        ("a*a", "a", False),
        ("*-x-*-x", "-x--x", True),
    ],
)
def test_fits_whole_names(pattern: str, name: str, fits: bool) -> None:
    assert Patterns([pattern]).fits(name) is fits


def test_agrees_with_the_obvious_definition() -> None:
    dice = random.Random(7)
    for _ in range(20_000):
        pattern = "".join(dice.choice("ab*?") for _ in range(dice.randrange(6)))
        name = "".join(dice.choice("ab") for _ in range(dice.randrange(7)))
        assert Patterns([pattern]).fits(name) is fnmatch.fnmatchcase(name, pattern), (pattern, name)


def test_a_hostile_text_costs_no_more_than_its_length() -> None:
    assert not Patterns(["*a*a*a*a*a*a*a*a*b"]).fits("a" * 100_000)


def test_equal_texts_are_equal_and_survive_pickling() -> None:
    patterns = Patterns(["a*", "b"])
    assert pickle.loads(pickle.dumps(patterns)) == patterns
    assert patterns != Patterns(["b", "a*"])


def test_masks_say_which_patterns_fit() -> None:
    masks = Masks([("a*", 1), ("a*", 2), ("ab", 4), ("*b", 8)])
    assert [masks.of(name) for name in ("ab", "a", "b", "c")] == [15, 3, 8, 0]


def test_masks_do_not_remember_what_is_no_name() -> None:
    masks = Masks([("a*", 1), ("*b", 8)])
    tracemalloc.start()
    assert {masks.of(f"a{number}{'x' * 100_000}b") for number in range(100)} == {9}
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1_000_000


def test_masks_agree_with_patterns() -> None:
    dice = random.Random(8)
    for _ in range(2_000):
        texts = ["".join(dice.choice("ab*?") for _ in range(dice.randrange(5))) for _ in range(6)]
        masks = Masks((text, 1 << at) for at, text in enumerate(texts))
        for _ in range(6):
            name = "".join(dice.choice("ab\n") for _ in range(dice.randrange(6)))
            assert masks.of(name) == sum(1 << at for at, text in enumerate(texts) if Patterns([text]).fits(name)), texts
