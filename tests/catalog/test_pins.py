"""What is pinned, what differs from it, and the lock file."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastgw.catalog.definitions import Definition, DefinitionKind, parse_definitions
from fastgw.catalog.pins import BadLock, canonical, compared, digest, dump_lock, load_lock


def tools(*texts: str | dict[str, Any]) -> tuple[Definition, ...]:
    array = ",".join(one if isinstance(one, str) else json.dumps({**SCHEMA, **one}) for one in texts)
    found, _ = parse_definitions(DefinitionKind.TOOL, "s", f"[{array}]".encode())
    assert len(found) == len(texts)
    return found


SCHEMA = {"inputSchema": {"type": "object"}}
SAME = (
    '{"name": "x", "title": "caf\\u00e9", "inputSchema": {"type": "object", "properties": {"a": {}, "b": {}}}}',
    '{"inputSchema":{"properties":{"b":{},"a":{}},"type":"object"},"title":"café","name":"\\u0078"}',
)
OTHERS = [
    '{"type":"object","maximum":1e400}',
    '{"type":"object","maximum":1e401}',
    '{"type":"object","maximum":123456789012345678901234567890}',
    '{"type":"object","maximum":123456789012345678901234567891}',
    '{"type":"object","maximum":1.0}',
    '{"type":"object","maximum":"1.0"}',
    '{"type":"object","maximum":true}',
    '{"type":"object","maximum":[]}',
    '{"type":"object","maximum":{}}',
    '{"type":"object","maximum":{"a":1,"a":2}}',
    '{"type":"object","maximum":{"a":2,"a":1}}',
    '{"type":"object","maximum":{"a":2}}',
    '{"type":"object","maximum":"{\\"a\\":2}"}',
    '{"type":"object","enum":[1,2]}',
    '{"type":"object","enum":[2,1]}',
    '{"type":"object","title":"a"}',
    '{"type":"object","title":"a\\u200b"}',
    '{"type":"object","title":"a\\\\u200b"}',
]


def test_order_spaces_and_escapes_do_not_count() -> None:
    one, other = (tools(text)[0] for text in SAME)
    assert digest(one) == digest(other)
    assert dump_lock({"a": (one,), "b": ()}) == dump_lock({"b": (), "a": (other,)})


def test_everything_else_does() -> None:
    digests = [digest(tools(f'{{"name":"x","inputSchema":{schema}}}')[0]) for schema in OTHERS]
    assert len(set(digests)) == len(OTHERS)
    assert digest(tools({"name": "x"})[0]) != digest(tools({"name": "y"})[0])


@pytest.mark.parametrize("member", ["title", "description", "icons", "_meta", "annotations", "outputSchema", "x-own"])
def test_every_member_counts(member: str) -> None:
    value: Any = {"icons": [{"src": "https://i/"}], "title": "t", "description": "d"}.get(member, {"type": "object"})
    plain, more = tools({"name": "x"}), tools({"name": "x", member: value})
    shown, (change,) = compared({"x": more[0]}, plain, "hold")
    (held,) = shown
    assert (held.members, held.present, change.members) == (plain[0].members, more[0], (member,))


def test_of_very_many_changed_members_a_few_are_told() -> None:
    many = tools({"name": "x", **{f"{place}-{'x' * 1000}": 1 for place in range(500)}})
    _, (change,) = compared({"x": many[0]}, tools({"name": "x"}), "hold")
    assert change.members[-1] == "480 more" and len(str(change)) < 2000


def test_what_becomes_of_each() -> None:
    pinned = tools({"name": "same"}, {"name": "other"}, {"name": "gone"})
    listed = {one.key: one for one in tools({"name": "new"}, {"name": "other", "title": "t"}, {"name": "same"})}
    shown, changes = compared(listed, pinned, "hold")
    assert [(one.key, one.present is not None) for one in shown] == [("other", True), ("same", False)]
    assert [(one.tool, one.kind, one.held) for one in changes] == [
        ("new", "new", True),
        ("other", "changed", True),
        ("gone", "removed", False),
    ]
    shown, changes = compared(listed, pinned, "warn")
    assert [*shown] == [*listed.values()]
    assert not any(one.held for one in changes) and len(changes) == 3
    # Another change of the same members is another one.
    again = compared({**listed, "other": tools({"name": "other", "title": "u"})[0]}, pinned, "warn")[1]
    assert {str(one) for one in again} != {str(one) for one in changes}


def test_a_lock_is_read_as_it_was_written() -> None:
    written = [f'{{"name":"t{number:02}","inputSchema":{schema}}}' for number, schema in enumerate(OTHERS)]
    lock = {"b": tools(*written), "a": tools(*SAME[:1]), "none": ()}
    text = dump_lock(lock)
    found = load_lock(text)
    assert list(found) == ["a", "b", "none"]
    assert [digest(one) for one in found["b"]] == [digest(one) for one in lock["b"]]
    assert dump_lock(found) == text
    assert b"\xe2\x80\x8b" not in text and b'"a\\u200b"' in text, "what is invisible is written as an escape"
    assert "café".encode() in text, "what can be read stays"
    assert canonical(canonical(text)) == canonical(text)


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        (b"", 1, "no JSON"),
        (b'{\n "format": 1,\n "servers": {\n<<<<<<< HEAD\n', 4, "no JSON"),
        (b"[]", 1, "no lock"),
        (b'{"format": 1}', 1, "no lock"),
        (b'{"format": 0, "servers": {}}', 1, "another version"),
        (b'{"format": 1, "servers": {},\n "servers": {}}', 1, "twice"),
        (b'{\n "format": 1,\n "servers": {\n  "a": [],\n  "b": {}\n }\n}', 1, "no JSON array"),
        (b'{\n "format": 1,\n "servers": {\n  "a": [\n   {"name": "x"}\n  ]\n }\n}', 4, "a/x: left out"),
        (dump_lock({"a": (), "b": tools({"name": "x"}) * 2}), 5, "stands twice"),
    ],
)
def test_a_bad_lock_is_refused_with_its_line(text: bytes, line: int, why: str) -> None:
    with pytest.raises(BadLock, match=why) as found:
        load_lock(text)
    assert found.value.line == line
