"""What servers tell agents: the operator first, each server under its name where there are several, within 8 KB."""

from __future__ import annotations

import pytest

from fastgw.catalog.tools import MOST_INSTRUCTIONS, joined_instructions

CUT = " […]"


@pytest.mark.parametrize(
    ("own", "servers", "named", "text"),
    [
        ("", [], False, ""),
        ("Own.", [], True, "Own."),
        ("", [("a", "Ask twice.")], False, "Ask twice."),
        ("", [("a", "Ask twice.")], True, "a:\nAsk twice."),
        ("Own.", [("a", "  A.\n"), ("b", "B.")], True, "Own.\n\na:\nA.\n\nb:\nB."),
        ("Own.", [("a", ""), ("b", " \n\t "), ("c", "C.")], True, "Own.\n\nc:\nC."),
        ("", [("b", "B."), ("a", "A.")], False, "B.\n\nA."),
    ],
)
def test_texts_stand_in_order_and_empty_ones_nowhere(
    own: str, servers: list[tuple[str, str]], named: bool, text: str
) -> None:
    assert joined_instructions(own, servers, named=named) == text


@pytest.mark.parametrize("letter", ["x", "é", "語", "😀", "e\u0301"])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("own", ["", "Own.", "o" * 4000, "ö" * 3500])
def test_what_is_too_long_is_cut_to_even_shares_between_characters(own: str, count: int, letter: str) -> None:
    servers = [(f"s{number}", letter * 20_000) for number in range(count)]
    whole = joined_instructions(own, servers, named=True)
    assert len(whole.encode()) <= MOST_INSTRUCTIONS
    first, *rest = whole.split("\n\n") if own else ("", *whole.split("\n\n"))
    assert first == own
    assert len(rest) == count
    assert all(text.endswith(CUT) for text in rest)
    kept = [len(text.removesuffix(CUT).encode()) for text in rest]
    assert max(kept) - min(kept) <= len(letter.encode())
    assert all(set(text.partition("\n")[2].removesuffix(CUT)) <= set(letter) for text in rest)


def test_a_short_text_beside_a_long_one_is_whole() -> None:
    whole = joined_instructions("", [("a", "x" * 100_000), ("b", "Short.")], named=True)
    assert whole.endswith("\n\nb:\nShort.")
    assert len(whole.encode()) <= MOST_INSTRUCTIONS


def test_what_just_fits_is_not_cut() -> None:
    text = "é" * ((MOST_INSTRUCTIONS - 4) // 2)
    assert joined_instructions("", [("ab", text)], named=True) == f"ab:\n{text}"
    assert joined_instructions("", [("ab", text + "x")], named=True).endswith(CUT)


def test_the_operators_own_text_is_never_cut() -> None:
    own = "o" * (MOST_INSTRUCTIONS + 10)
    assert joined_instructions(own, [], named=True) == own
    assert joined_instructions(own, [("a", "x" * 100)], named=True).startswith(own)


def test_even_with_no_room_left_a_text_is_said_to_have_been_there_at_most() -> None:
    whole = joined_instructions(
        "o" * (MOST_INSTRUCTIONS - 20), [(f"s{number}", "x" * 100) for number in range(3)], named=True
    )
    assert "x" not in whole
