"""Definitions are kept word for word; what would spoil a list is left out alone."""

from __future__ import annotations

import json

import pytest

from fastgw.catalog.definitions import DefinitionKind, parse_definition, parse_definitions
from fastgw.catalog.elements import UnfitElement
from fastgw.catalog.tools import Catalogue, dump, load
from fastgw.protocol.headers import ParamHeader
from fastgw.snapshot.model import DIALECTS, PAGE, Listing, entry

SCHEMA = b'"inputSchema":{"type": "object"}'


def tool(more: bytes = b"", schema: bytes = SCHEMA) -> bytes:
    return b'{"name":"t",' + schema + (b"," + more if more else b"") + b"}"


def test_members_travel_as_they_were_written() -> None:
    odd = b'"x-limit" : 123456789012345678901234567890, "icons":[ {"src":"\\u00e9"} ], "y":1E400'
    found = parse_definition(DefinitionKind.TOOL, "s", tool(odd))
    text = entry(b'"s__t"', found.tails)[0]
    assert text.startswith(b'{"name":"s__t",')
    for value in (b"123456789012345678901234567890", b'[ {"src":"\\u00e9"} ]', b"1E400", b'{"type": "object"}'):
        assert b":" + value in text


def test_older_agents_get_what_their_revision_knows() -> None:
    found = parse_definition(DefinitionKind.TOOL, "s", tool(b'"title":"T","outputSchema":{"type":"array"}'))
    modern, november, june, march = (json.loads(text) for text in entry(b'"t"', found.tails))
    assert "outputSchema" in modern
    assert "outputSchema" not in november and "outputSchema" not in june and "outputSchema" not in march
    assert "title" in june and "title" not in march
    kept = parse_definition(DefinitionKind.TOOL, "s", tool(b'"outputSchema":{"type":"object"}')).tails
    assert b"outputSchema" in kept[1] and b"outputSchema" not in kept[3]


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b"[]",
        b'{"name":1,' + SCHEMA + b"}",
        b'{"name":"t"}',
        b'{"name":"t","inputSchema":null}',
        b'{"name":"t","inputSchema":{"type":"string"}}',
        b'{"name":"t","name":"u",' + SCHEMA + b"}",
        b'{"name":"t","Name":"u",' + SCHEMA + b"}",
        tool(b'"description":{}'),
        tool(b'"annotations":[]'),
        tool(b'"outputSchema":true'),
        tool(b'"description":"\xff"'),
        tool(b'"y":"\\ud800"'),
    ],
)
def test_a_bad_definition_is_refused(text: bytes) -> None:
    with pytest.raises(UnfitElement):
        parse_definition(DefinitionKind.TOOL, "s", text)


def test_a_tool_that_needs_tasks_is_left_out_and_the_notice_says_why() -> None:
    def needing(name: str, execution: bytes) -> bytes:
        return b'{"name":"%s",%s,"execution":%s}' % (name.encode(), SCHEMA, execution)

    others = [
        needing(name, execution)
        for name, execution in (
            ("a", b'{"taskSupport":"optional"}'),
            ("b", b'{"taskSupport":"forbidden"}'),
            ("c", b'{"taskSupport":null}'),
            ("d", b'{"required":true}'),
            ("e", b"{}"),
        )
    ]
    one = needing("slow", b'{ "taskSupport" : "required" }')
    tools, notices = parse_definitions(DefinitionKind.TOOL, "s", b"[" + b",".join([one, *others]) + b"]")
    assert [tool.key for tool in tools] == list("abcde")
    left_out = [(notice.subject, notice.text) for notice in notices if notice.text.startswith("left out")]
    assert left_out == [("s/slow", "left out: needs tasks, which are not supported")]


def test_one_bad_definition_leaves_the_others() -> None:
    tools, notices = parse_definitions(DefinitionKind.TOOL, "s", b"[" + tool() + b',{"name":"bad"}]')
    assert [one.key for one in tools] == ["t"]
    assert [notice.subject for notice in notices] == ["s/bad"]
    with pytest.raises(ValueError, match="no JSON array"):
        parse_definitions(DefinitionKind.TOOL, "s", b"{}")


@pytest.mark.parametrize(
    "member", ["title", "description", "outputSchema", "annotations", "icons", "_meta", "execution", "x-other"]
)
def test_an_optional_member_that_is_null_counts_as_left_out(member: str) -> None:
    (found,), notices = parse_definitions(DefinitionKind.TOOL, "s", b"[" + tool(b'"%b":null' % member.encode()) + b"]")
    assert found.tails == parse_definition(DefinitionKind.TOOL, "s", tool()).tails
    assert [notice.text for notice in notices] == [f"tools: null counts as left out: {member}"]


def test_so_does_one_inside_annotations_icons_and_execution() -> None:
    more = (
        b'"annotations":{"title":null,"readOnlyHint":true},"icons":[{"src":"a","mimeType":null}],"execution":{"x":null}'
    )
    (found,), notices = parse_definitions(DefinitionKind.TOOL, "s", b"[" + tool(more) + b"]")
    assert found.members["annotations"] == b'{"readOnlyHint":true}'
    assert found.members["icons"] == b'[{"src":"a"}]'
    assert found.members["execution"] == b"{}"
    assert notices[0].text.endswith("annotations.title, execution.x, icons.mimeType")


def test_schemas_and_meta_keep_their_nulls() -> None:
    schema = b'{"type":"object","properties":{"a":{"default":null,"enum":[null, 1]}},"x":null}'
    more = b'"outputSchema":' + schema + b',"_meta":{"a":null},"title":null'
    (found,), _ = parse_definitions(DefinitionKind.TOOL, "s", b"[" + tool(more, b'"inputSchema":' + schema) + b"]")
    assert found.members == {"inputSchema": schema, "outputSchema": schema, "_meta": b'{"a":null}'}


@pytest.mark.parametrize("text", [b'{"name":null,' + SCHEMA + b"}", b'{"name":"t","inputSchema":null}', b"null"])
def test_a_null_where_something_must_stand_leaves_the_tool_out(text: bytes) -> None:
    tools, notices = parse_definitions(DefinitionKind.TOOL, "s", b"[" + text + b"," + tool() + b"]")
    assert [one.key for one in tools] == ["t"]
    assert any(notice.text.startswith("left out: ") for notice in notices)


def annotated(properties: str) -> bytes:
    return tool(schema=b'"inputSchema":{"type":"object","properties":%s}' % properties.encode())


def test_parameters_in_headers() -> None:
    nested = '{"a":{"type":"object","properties":{"b":{"type":"integer","x-mcp-header":"Tenant"}}},'
    found = parse_definition(
        DefinitionKind.TOOL, "s", annotated(nested + '"r":{"type":"string","x-mcp\\u002dheader":"Region"}}')
    )
    assert found.param_headers == (
        ParamHeader("mcp-param-tenant", ("a", "b"), "integer"),
        ParamHeader("mcp-param-region", ("r",), "string"),
    )


@pytest.mark.parametrize(
    "properties",
    [
        '{"r":{"type":"string","x-mcp-header":""}}',
        '{"r":{"type":"string","x-mcp-header":"My Region"}}',
        '{"r":{"type":"string","x-mcp-header":"R\\u00e9gion"}}',
        '{"r":{"type":"string","x-mcp-header":"a\\r\\nb"}}',
        '{"r":{"type":"string","x-mcp-header":1}}',
        '{"r":{"type":"number","x-mcp-header":"R"}}',
        '{"r":{"type":"object","x-mcp-header":"R"}}',
        '{"r":{"type":["string"],"x-mcp-header":"R"}}',
        '{"r":{"x-mcp-header":"R"}}',
        '{"r":{"type":"string","x-mcp-header":"R"},"s":{"type":"string","x-mcp-header":"r"}}',
        '{"r":{"type":"array","items":{"type":"string","x-mcp-header":"R"}}}',
        '{"r":{"anyOf":[{"type":"string","x-mcp-header":"R"}]}}',
        '{"r":{"if":{"properties":{"s":{"type":"string","x-mcp-header":"R"}}}}}',
        '{"r":{"type":"string","x-mcp-header":"R","x-mcp-header":"S"}}',
    ],
)
def test_a_bad_annotation_makes_the_tool_invalid(properties: str) -> None:
    with pytest.raises(UnfitElement):
        parse_definition(DefinitionKind.TOOL, "s", annotated(properties))


def test_data_that_looks_like_an_annotation_is_none() -> None:
    found = parse_definition(
        DefinitionKind.TOOL, "s", annotated('{"x-mcp-header":{"type":"object","default":{"x-mcp-header":1}}}')
    )
    assert found.param_headers == ()


def test_a_kept_catalogue_comes_back() -> None:
    tools, _ = parse_definitions(DefinitionKind.TOOL, "s", b"[" + tool(b'"description":"\xc3\xa9"') + b"]")
    back = load(dump(Catalogue("s", tools, 55.0, 1700000000.25)))
    assert (back.server, back.fetched_at, back.fresh_until) == ("s", 1700000000.25, 0.0)
    assert back.tools[0].tails == tools[0].tails


def test_all_of_a_kept_catalogue_comes_back() -> None:
    lists = {
        "prompts": (DefinitionKind.PROMPT, b'[{"description":"\\u00e9","name":"p"}]'),
        "resources": (DefinitionKind.RESOURCE, b'[{"name":"a","uri":"file:///a","size":12345678901234567890123}]'),
        "templates": (DefinitionKind.TEMPLATE, b'[{"uriTemplate":"a:{b}","name":"b"}]'),
    }
    found = {place: parse_definitions(sort, "s", array)[0] for place, (sort, array) in lists.items()}
    declares = frozenset(("prompts", 'x"'))
    kept = Catalogue("s", (), 5.0, 1.0, **found, capabilities=declares, instructions='Say "\u00e9".\n')
    assert [len(definitions) for definitions in found.values()] == [1, 1, 1]
    back = load(dump(kept))
    for place, definitions in found.items():
        assert [one.tails for one in getattr(back, place)] == [one.tails for one in definitions]
        assert [one.key for one in getattr(back, place)] == [one.key for one in definitions]
    assert (back.capabilities, back.instructions) == (kept.capabilities, kept.instructions)
    assert load(dump(back)) == back


@pytest.mark.parametrize("member", ["prompts", "resources", "templates", "capabilities", "instructions"])
def test_a_kept_catalogue_is_whole(member: str) -> None:
    whole = json.loads(dump(Catalogue("s", ())))
    for broken in ({**whole, member: 1}, {**whole, member: None}, {k: v for k, v in whole.items() if k != member}):
        with pytest.raises(ValueError, match="damaged"):
            load(json.dumps(broken).encode())


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b"\xff", b'{"format":9,"server":"s","fetchedAt":1,"tools":[]}'])
def test_a_damaged_one_is_refused(damage: bytes) -> None:
    whole = dump(Catalogue("s", ()))
    assert load(whole).server == "s"
    for text in (damage, whole[:-3]):
        with pytest.raises(ValueError, match="damaged"):
            load(text)


def test_equal_texts_are_one_object() -> None:
    plain = entry(b'"t"', parse_definition(DefinitionKind.TOOL, "s", tool()).tails)
    assert plain[0] is plain[-1]


def test_a_list_is_encoded_page_by_page() -> None:
    plain = entry(b'"t"', parse_definition(DefinitionKind.TOOL, "s", tool()).tails)
    listing = Listing((plain,) * (PAGE + 3))
    assert list(listing.starts) == [0, PAGE]
    for dialect in DIALECTS:
        assert [len(json.loads(listing.page(start, dialect))) for start in listing.starts] == [PAGE, 3]
        assert Listing().page(0, dialect) == b"[]"
    assert (list(Listing().starts), bool(Listing()), bool(listing)) == ([0], False, True)
