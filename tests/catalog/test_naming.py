"""Names agents see."""

from __future__ import annotations

import random

from fastgw.catalog.naming import ServerNames, assign, shortened


def shelf(server: str, *tools: str) -> ServerNames:
    return ServerNames(server, server, tools)


def test_on_collision_moves_all_that_collide_and_nobody_else() -> None:
    found = assign("on_collision", [shelf("a", "search", "x"), shelf("b", "search", "y")], ())
    assert found.names == {"a": {"search": "a__search", "x": "x"}, "b": {"search": "b__search", "y": "y"}}
    assert [(notice.subject, notice.moves) for notice in found.notices] == [("a/search", True), ("b/search", True)]


def test_none_keeps_the_first_and_hides_the_other() -> None:
    found = assign("none", [shelf("a", "search"), shelf("b", "search")], ())
    assert found.names == {"a": {"search": "search"}, "b": {}}
    assert (found.notices[0].subject, found.notices[0].moves) == ("b/search", True)


def test_always_moves_everybody() -> None:
    assert assign("always", [shelf("a", "x")], ()).names == {"a": {"x": "a__x"}}


def test_an_entry_of_the_configuration_is_moved_by_nobody() -> None:
    assert assign("on_collision", [shelf("a", "search")], ["search"]).names == {"a": {"search": "a__search"}}
    assert assign("none", [shelf("a", "search")], ["search"]).names == {"a": {}}
    assert assign("always", [shelf("a", "x")], ["a__x"]).names["a"]["x"].startswith("a__x_")


def test_long_names_are_cut_and_told_apart() -> None:
    long = "n" * 100
    found = assign("on_collision", [shelf("a", long + "1", long + "2")], ())
    assert len(set(found.names["a"].values())) == 2
    assert all(len(name) == 64 for name in found.names["a"].values())
    assert shortened("n" * 64) == "n" * 64


def test_a_made_up_name_that_is_taken_yields_to_a_servers_own() -> None:
    shelves = [shelf("a", "search"), shelf("b", "search"), shelf("c", "a__search")]
    found = assign("on_collision", shelves, ())
    assert found.names["c"]["a__search"] == "a__search"
    assert found.names["a"]["search"].startswith("a__search_")


def test_two_made_up_names_alike_do_not_depend_on_order() -> None:
    shelves = [ServerNames("s1", "a", ("b__c",)), ServerNames("s2", "a__b", ("c",))]
    there, back = assign("always", shelves, ()), assign("always", shelves[::-1], ())
    assert there.names == back.names
    assert there.names["s1"]["b__c"] != there.names["s2"]["c"]


def test_names_that_cannot_be_shown_are_left_out() -> None:
    found = assign("none", [shelf("a", "", "a\nb", "x" * 129, " x", "caf\u00e9", "a b", "p/q")], ())
    assert list(found.names["a"]) == ["caf\u00e9", "a b", "p/q"]
    assert [notice.moves for notice in found.notices] == [False] * 4


def test_a_name_of_a_megabyte_makes_a_short_notice() -> None:
    (notice,) = assign("none", [shelf("a", "\0" * 2**20)], ()).notices
    assert len(str(notice)) < 1000


def test_every_tool_has_its_own_name_whatever_the_servers_bring() -> None:
    dice = random.Random(11)
    parts = ["a", "b", "a__b", "b__c", "c", "x" * 61, "x" * 70, "a__" + "x" * 61]
    for _ in range(500):
        shelves = [ServerNames(f"s{i}", dice.choice("abc"), tuple(dice.sample(parts, 4))) for i in range(4)]
        reserved = dice.sample(parts[:5], 2)
        for mode in ("none", "on_collision", "always"):
            names = [name for own in assign(mode, shelves, reserved).names.values() for name in own.values()]
            assert len(set(names)) == len(names)
            assert not set(names) & set(reserved)
            assert all(len(name) <= 64 for name in names)
            assert mode == "none" or len(names) == 16
