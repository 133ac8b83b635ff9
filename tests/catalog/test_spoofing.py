"""Invisible characters, and names that look like others."""

from __future__ import annotations

import json

import pytest

from fastgw.catalog.definitions import DefinitionKind, parse_definitions
from fastgw.catalog.spoofing import look_alikes


def remarks(tool: dict[str, object], *, as_ascii: bool) -> list[str]:
    array = [{"name": "x", "inputSchema": {"type": "object"}, **tool}]
    found = parse_definitions(DefinitionKind.TOOL, "s", json.dumps(array, ensure_ascii=as_ascii).encode())[1]
    return [str(one) for one in found]


@pytest.mark.parametrize("as_ascii", [True, False])
@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("a\u200bb", "U+200B"),
        ("pay\u202eyap", "U+202E"),
        ("hi\U000e0041\U000e0042", "U+E0041, U+E0042"),
        ("a\u200db", "U+200D"),
        ("\ufe00", "U+FE00"),
        ("x\u2060", "U+2060"),
        ("\x1b[2J", "U+001B"),
        ("so\xadft", "U+00AD"),
    ],
)
def test_what_nobody_sees_is_told_with_its_place(text: str, mark: str, as_ascii: bool) -> None:
    schema = {"type": "object", "properties": {text: {"description": text}}}
    for tool, member in (({"description": text}, "description"), ({"inputSchema": schema}, "inputSchema")):
        assert remarks(tool, as_ascii=as_ascii) == [f"s/x: has invisible characters ({mark}) in {member}"]


@pytest.mark.parametrize(
    "text",
    [
        "Größe: 3 \u4e2d\u6587\n\tdone",
        "\u26a0\ufe0f 1\ufe0f\u20e3",
        "\U0001f469\u200d\U0001f4bb",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "a\\u200b",
    ],
)
def test_what_has_its_use_is_not(text: str) -> None:
    for as_ascii in (True, False):
        assert remarks({"title": text}, as_ascii=as_ascii) == []


def test_of_many_some_are_named() -> None:
    (found,) = remarks({"title": "".join(map(chr, range(0x2060, 0x2070)))}, as_ascii=True)
    assert found.endswith("U+2067 and 8 more) in title")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("list_files", "LIST_FILES"),
        ("list-files", "list_files"),
        ("file1", "filel"),
        ("o0", "Oo"),
        ("modern", "modem"),
        ("search", "se\u0430rch"),  # Cyrillic
        ("ALPHA", "\u0391LPHA"),  # Greek
        ("pay", "\uff50\uff41\uff59"),  # full width
        ("cafe", "caf\u00e9"),
    ],
)
def test_names_that_look_alike(first: str, second: str) -> None:
    assert look_alikes(["other", first, second]) == {second: first}


def test_names_that_do_not() -> None:
    assert look_alikes(["get_user", "getuser", "get_users", "set_user", "t1", "t2", "t10", "\u4e2d", "\u6587"]) == {}
