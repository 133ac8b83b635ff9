"""Settings are found one by one, from the nearest place to the farthest."""

from __future__ import annotations

from fastgw.catalog.precedence import Precedence, first

PLACES = Precedence(
    {
        "s/search": {"timeout": 1},
        "find": {"timeout": 2, "idle_timeout": 2},
        "f*": {"timeout": 3, "idle_timeout": 3, "attempt_timeout": 3},
        "s/*": {"attempt_timeout": 4},
        "z*": {"attempt_timeout": 5, "cache": 5},
    }
)


def test_each_setting_has_its_own_nearest_place() -> None:
    chain = [*PLACES.chain("find", "s/search"), {"timeout": 9, "cache": 9}]
    assert [first(chain, key, None) for key in ("timeout", "idle_timeout", "attempt_timeout", "cache")] == [1, 2, 4, 9]


def test_those_that_name_a_tool_stand_before_patterns() -> None:
    exact = PLACES.exact("find", "s/search")
    assert exact == [{"timeout": 1}, {"timeout": 2, "idle_timeout": 2}]
    assert PLACES.chain("find", "s/search")[:2] == exact
    assert PLACES.exact("fast", "s/other") == []


def test_a_null_is_not_set() -> None:
    assert first([{"timeout": None}, {"timeout": 5}], "timeout", 0) == 5
    assert first([], "timeout", 55) == 55


def hidden(entries: dict[str, bool], name: str = "gh__search") -> bool:
    places = Precedence({key: {"hidden": value} for key, value in entries.items()})
    return places.hidden(name, ["gh/search"], (name, "gh/search", "search"))


def test_hidden_is_tried_on_every_name() -> None:
    for key in ("gh__search", "search", "gh/search", "sea*", "gh/*", "gh__*"):
        assert hidden({key: True})
    assert not hidden({"other": True, "git/*": True})


def test_a_nearer_word_beats_a_farther_one() -> None:
    assert not hidden({"gh/search": False, "gh__search": True})
    assert not hidden({"*": True, "gh__search": False})
    assert hidden({"gh__search": False, "search": True})
    assert not hidden({"sea*": True, "gh__*": False})
    assert hidden({"gh__*": False, "sea*": True})


def test_what_shows_a_tool_is_tried_where_agents_see_it_only() -> None:
    assert hidden({"*": True, "sea*": False})
