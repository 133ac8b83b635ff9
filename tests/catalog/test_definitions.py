"""Prompts, resources and templates are kept word for word; what would spoil a list is left out alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastgw.catalog.definitions import DefinitionKind, parse_definition, parse_definitions
from fastgw.catalog.elements import DIALECTS, LARGEST, MOST, UnfitElement
from fastgw.policy.uris import LONGEST

GOOD: dict[DefinitionKind, dict[str, Any]] = {
    DefinitionKind.PROMPT: {"name": "p", "arguments": [{"name": "a", "required": True, "title": "A", "x": 1}]},
    DefinitionKind.RESOURCE: {"uri": "file:///a", "name": "r", "mimeType": "text/plain", "size": 3},
    DefinitionKind.TEMPLATE: {"uriTemplate": "file:///{path}", "name": "t", "mimeType": "text/plain"},
}
SORTS = list(GOOD)


def text(sort: DefinitionKind, **more: Any) -> bytes:
    return json.dumps({**GOOD[sort], **more}).encode()


@pytest.mark.parametrize("sort", SORTS)
def test_members_travel_as_they_were_written(sort: DefinitionKind) -> None:
    odd = b', "x-limit" : 123456789012345678901234567890, "icons":[ {"src":"\\u00e9\\ud83d\\ude00"} ], "y":1E400}'
    found = parse_definition(sort, "s", text(sort)[:-1] + odd)
    assert (found.server, found.key) == ("s", GOOD[sort][sort.key])
    assert sort.key not in found.members
    assert len(found.tails) == len(DIALECTS)
    for value in (b":123456789012345678901234567890", b':[ {"src":"\\u00e9\\ud83d\\ude00"} ]', b":1E400"):
        assert value in found.tails[0]
    assert json.loads(b'{"k":1' + found.tails[0])["name" if sort is not DefinitionKind.PROMPT else "k"]


@pytest.mark.parametrize("sort", SORTS)
def test_only_titles_are_kept_from_the_oldest_revision(sort: DefinitionKind) -> None:
    more = {"title": "T", "_meta": {"a": 1}, "icons": [], "description": "d"}
    modern, november, june, march = (
        json.loads(b'{"k":1' + tail) for tail in parse_definition(sort, "s", text(sort, **more)).tails
    )
    assert modern == november == june == {**{k: v for k, v in GOOD[sort].items() if k != sort.key}, **more, "k": 1}
    assert {**march, "title": "T"} == modern
    plain = parse_definition(sort, "s", text(sort)).tails
    assert plain[0] is plain[3]


URIS = [
    "file:///a", "HTTP://a/b?c#d", "ui://x", "help://", "urn:isbn:1", "a+b-c.d:e", "file:///%2e%2e/%00", "x:é", "c:\\a",
]  # fmt: skip
NO_URIS = ["", "a", "/a", "//a/b", "1a:b", "a b:c", "a:b c", "a:b\n", "a:\x00", "a:\u202eb", "a:\u200bb", ":a", "é:a",
           "{x}:a", "a:\u00a0", "a:" + "x" * LONGEST, "a:" + "é" * (LONGEST // 2)]  # fmt: skip


@pytest.mark.parametrize("uri", URIS)
def test_a_uri_is_absolute(uri: str) -> None:
    assert parse_definition(DefinitionKind.RESOURCE, "s", text(DefinitionKind.RESOURCE, uri=uri)).key == uri


@pytest.mark.parametrize("uri", NO_URIS)
def test_what_is_no_absolute_uri_is_refused(uri: str) -> None:
    with pytest.raises(UnfitElement):
        parse_definition(DefinitionKind.RESOURCE, "s", text(DefinitionKind.RESOURCE, uri=uri))


@pytest.mark.parametrize("template", [*URIS, "{+all}", "{scheme}://x", "x", "a:" + "{x}" * 2000])
def test_a_template_needs_no_scheme(template: str) -> None:
    assert (
        parse_definition(DefinitionKind.TEMPLATE, "s", text(DefinitionKind.TEMPLATE, uriTemplate=template)).key
        == template
    )


@pytest.mark.parametrize("template", ["", "a b", "a:\x00", "{a\n}", "{x}" * LONGEST])
def test_a_template_is_bounded_and_visible(template: str) -> None:
    with pytest.raises(UnfitElement):
        parse_definition(DefinitionKind.TEMPLATE, "s", text(DefinitionKind.TEMPLATE, uriTemplate=template))


BAD: list[tuple[list[DefinitionKind], dict[str, Any]]] = [
    *((SORTS, {member: value}) for member in ("title", "description") for value in (1, None, {}, [])),
    *((SORTS, {"icons": value}) for value in ({}, "a", None)),
    *((SORTS, {"_meta": value}) for value in ([], "a", None)),
    *((SORTS, {"name": value}) for value in (1, None, [])),
    *((SORTS[1:], {"mimeType": value}) for value in (1, None)),
    *((SORTS[1:], {"annotations": value}) for value in ([], None, "x", {"audience": "user"}, {"audience": ["me"]})),
    *((SORTS[1:], {"annotations": {"priority": value}}) for value in (2, -1, "1", None)),
    (SORTS[1:], {"annotations": {"lastModified": 1}}),
    *(([DefinitionKind.RESOURCE], {"size": value}) for value in ("3", 1.5, None, {})),
    *(([DefinitionKind.RESOURCE], {"uri": value}) for value in (1, None, ["a:b"])),
    *(([DefinitionKind.TEMPLATE], {"uriTemplate": value}) for value in (1, None, {})),
    *(([DefinitionKind.PROMPT], {"arguments": value}) for value in ({}, None, "a", [1], [{}], [{"name": 1}], [[]])),
    *(
        ([DefinitionKind.PROMPT], {"arguments": [{"name": "a", **more}]})
        for more in ({"required": 1}, {"description": None})
    ),
    ([DefinitionKind.PROMPT], {"name": ""}),
]


@pytest.mark.parametrize(("sort", "more"), [(sort, more) for sorts, more in BAD for sort in sorts])
def test_a_member_of_a_wrong_type_is_refused(sort: DefinitionKind, more: dict[str, Any]) -> None:
    assert parse_definition(sort, "s", text(sort))
    with pytest.raises(UnfitElement):
        parse_definition(sort, "s", text(sort, **more))


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize(
    "more", [b'"%b":"a:b"', b'"title":"a","title":"b"', b'"Title":"a"', b'"x":"\xff"', b'"x":"\\ud800"', b'"x":[']
)
def test_what_readers_take_differently_is_refused(sort: DefinitionKind, more: bytes) -> None:
    more = more.replace(b"%b", sort.key.encode())
    with pytest.raises(UnfitElement):
        parse_definition(sort, "s", text(sort)[:-1] + b"," + more + b"}")


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("missing", ["name", "key"])
def test_what_has_no_name_is_refused(sort: DefinitionKind, missing: str) -> None:
    member = sort.key if missing == "key" else "name"
    found = {name: value for name, value in GOOD[sort].items() if name != member}
    with pytest.raises(UnfitElement):
        parse_definition(sort, "s", json.dumps(found).encode())


def test_twins_in_an_argument_are_refused() -> None:
    with pytest.raises(UnfitElement):
        parse_definition(DefinitionKind.PROMPT, "s", b'{"name":"p","arguments":[{"name":"a","name":"b"}]}')


@pytest.mark.parametrize("sort", SORTS)
def test_one_bad_definition_leaves_the_others(sort: DefinitionKind) -> None:
    bad = [b"{}", b"1", b"null", b"[[[]]]", text(sort, description=1)]
    found, notices = parse_definitions(sort, "s", b"[" + b",".join([*bad, text(sort), b"[" * 500 + b"]" * 500]) + b"]")
    assert [one.key for one in found] == [GOOD[sort][sort.key]]
    assert [notice.subject.partition("/")[0] for notice in notices] == ["s"] * (len(bad) + 1)
    assert notices[4].subject == f"s/{GOOD[sort][sort.key]}"
    for array in (b"{}", b"1", b"", b"[", b"null", b"[" * 100_000, b'["\xff"]x'):
        with pytest.raises(ValueError, match="no JSON array"):
            parse_definitions(sort, "s", array)


@pytest.mark.parametrize("sort", SORTS)
def test_a_definition_is_bounded_and_so_is_what_is_said_of_it(sort: DefinitionKind) -> None:
    fits = text(sort, description="x" * (LARGEST - len(text(sort)) - 19))
    assert len(fits) <= LARGEST
    long = text(sort, name="n" * 5000, description=1)
    found, notices = parse_definitions(sort, "s", b"[" + fits + b"," + fits[:-2] + b'xxxxx"},' + long + b"]")
    assert len(found) == 1
    assert [notice.subject for notice in notices][:1] == [f"s/{GOOD[sort][sort.key]}"]
    assert "bytes" in notices[0].text
    assert len(notices[1].subject) < 200


OPTIONAL: list[tuple[list[DefinitionKind], str]] = [
    (SORTS, "title"), (SORTS, "description"), (SORTS, "icons"), (SORTS, "_meta"), (SORTS, "x-other"),
    (SORTS[1:], "mimeType"), (SORTS[1:], "annotations"), ([DefinitionKind.RESOURCE], "size"),
    ([DefinitionKind.PROMPT], "arguments"),
]  # fmt: skip


def array(*texts: bytes) -> bytes:
    return b"[" + b",".join(texts) + b"]"


@pytest.mark.parametrize(("sort", "member"), [(sort, member) for sorts, member in OPTIONAL for sort in sorts])
def test_an_optional_member_that_is_null_counts_as_left_out(sort: DefinitionKind, member: str) -> None:
    (found,), notices = parse_definitions(sort, "s", array(text(sort, **{member: None})))
    for tail in found.tails:
        left = {name: value for name, value in GOOD[sort].items() if name not in (member, sort.key)}
        assert json.loads(b'{"k":1' + tail) == {"k": 1, **left}
    assert [(notice.subject, notice.text.endswith(f": {member}")) for notice in notices] == [("s", True)]


NESTED: list[tuple[list[DefinitionKind], str, Any, Any, str]] = [
    (SORTS[1:], "annotations", {"priority": None, "x": [None]}, {"x": [None]}, "priority"),
    (SORTS[1:], "annotations", {"audience": None}, {}, "audience"),
    (SORTS[1:], "annotations", {"lastModified": None}, {}, "lastModified"),
    (SORTS, "icons", [{"src": "a", "sizes": None}, {"src": "b"}], [{"src": "a"}, {"src": "b"}], "sizes"),
    *(
        ([DefinitionKind.PROMPT], "arguments", [{"name": "a", member: None}], [{"name": "a"}], member)
        for member in ("description", "required", "title")
    ),
]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    ("sort", "member", "given", "kept", "named"), [(sort, *row) for sorts, *row in NESTED for sort in sorts]
)
def test_so_does_one_inside_what_the_protocol_describes(
    sort: DefinitionKind, member: str, given: Any, kept: Any, named: str, indent: int | None
) -> None:
    page = json.dumps([{**GOOD[sort], member: given}], indent=indent).encode()
    (found,), notices = parse_definitions(sort, "s", page)
    assert json.loads(found.members[member]) == kept
    assert [notice.text.rpartition(": ")[2] for notice in notices] == [f"{member}.{named}"]


@pytest.mark.parametrize(
    ("sort", "member", "value"),
    [
        *((sort, "_meta", {"a": None}) for sort in SORTS),
        *((sort, "x-other", {"a": None, "b": [None]}) for sort in SORTS),
        *((sort, "description", "null and void") for sort in SORTS),
    ],
)
def test_what_is_the_servers_own_keeps_its_nulls(sort: DefinitionKind, member: str, value: Any) -> None:
    (found,), notices = parse_definitions(sort, "s", array(text(sort, **{member: value})))
    assert json.loads(found.members[member]) == value
    assert notices == ()


@pytest.mark.parametrize(
    ("sort", "more"),
    [
        *((sort, {sort.key: None}) for sort in SORTS),
        *((sort, {"name": None}) for sort in SORTS[1:]),
        (DefinitionKind.PROMPT, {"arguments": [{"name": None}]}),
        (DefinitionKind.PROMPT, {"arguments": [None]}),
        (DefinitionKind.RESOURCE, {"annotations": {"audience": [None]}}),
        (DefinitionKind.RESOURCE, {"title": None, "size": "3"}),
    ],
)
def test_a_null_where_something_must_stand_leaves_the_definition_out(
    sort: DefinitionKind, more: dict[str, Any]
) -> None:
    found, notices = parse_definitions(sort, "s", array(text(sort, **more), text(sort)))
    assert len(found) == 1
    assert sum("left out: " in notice.text and notice.subject != "s" for notice in notices) == 1


def test_a_null_hides_no_twin() -> None:
    found, notices = parse_definitions(
        DefinitionKind.PROMPT, "s", b'[{"name":"p","title":null,"title":"a"},{"name":"q","name":null}]'
    )
    assert (found, len(notices)) == ((), 2)


def test_values_beside_a_null_travel_as_they_were_written() -> None:
    odd = b'{"title":null,"name":"p","x" : 123456789012345678901234567890, "icons":[ {"src":"\\u00e9"} ], "y":1E400}'
    (found,), _ = parse_definitions(DefinitionKind.PROMPT, "s", array(odd))
    for value in (b":123456789012345678901234567890", b':[ {"src":"\\u00e9"} ]', b":1E400"):
        assert value in found.tails[0]
    assert b"null" not in found.tails[0]


def test_of_many_nulls_one_notice_names_some() -> None:
    many = [text(DefinitionKind.PROMPT, **{f"m{number:04}": None}) for number in range(1000)]
    found, notices = parse_definitions(DefinitionKind.PROMPT, "s", array(*many))
    assert len(found) == 1000
    (notice,) = notices
    assert "m0000, m0001" in notice.text and len(notice.text) < 300


def test_a_tool_is_bounded_too() -> None:
    schema = b'{"type":"object","$ref":"http://127.0.0.1/x","x":"' + b"y" * (10 * LARGEST) + b'"}'
    array = b'[{"inputSchema":%b,"name":"huge"},{"name":"t","inputSchema":{"type":"object"}}]' % schema
    tools, notices = parse_definitions(DefinitionKind.TOOL, "s", array)
    assert [one.key for one in tools] == ["t"]
    assert [notice.subject for notice in notices] == ["s/huge"]


def test_of_a_page_only_so_many_are_read() -> None:
    found, notices = parse_definitions(
        DefinitionKind.PROMPT, "s", b"[" + b",".join([text(DefinitionKind.PROMPT)] * (MOST + 1)) + b"]"
    )
    assert len(found) == MOST
    assert [notice.subject for notice in notices] == ["s"]
