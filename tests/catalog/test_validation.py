"""Arguments and results against schemas; schemas and values that mean harm."""

from __future__ import annotations

import json
import socket
import tracemalloc
from typing import Any

import pytest

from fastgw.catalog.effort import UnusableSchema
from fastgw.catalog.validation import check_arguments, check_result, objection, validator

TOOL = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z]+$"},
        "count": {"type": "integer", "minimum": 1},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}},
    },
    "required": ["name"],
    "additionalProperties": False,
}


def text(value: Any) -> bytes:
    return json.dumps(value).encode()


def told(schema: Any, value: bytes) -> str | None:
    return check_arguments(text(schema), value)


def chain(length: int, each: str = "") -> dict[str, Any]:
    """Definitions, each of which refers to the next one, twice where `each` is `twice`."""
    links = {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * (2 if each == "twice" else 1)} for i in range(length)}
    return {"$ref": "#/$defs/a0", "$defs": {**links, f"a{length}": {"type": "object"}}}


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (b'{"name":"x","count":3,"tags":["a","b"]}', None),
        (b'{"name":5}', 'arguments.name: the value is not of type "string"'),
        (b'{"name":"X"}', 'arguments.name: the value does not match "^[a-z]+$"'),
        (b'{"name":"x","tags":["a","c"]}', 'arguments.tags[1]: the value is not one of "a" or "b"'),
        (b'{"name":"x","count":0}', "arguments.count: the value is less than the minimum of 1"),
        (b'{"count":1}', 'arguments: "name" is a required property'),
        (b"", 'arguments: "name" is a required property'),
        (
            b'{"name":"x","other":1}',
            "arguments: Additional properties are not allowed ('other' was unexpected)",
        ),
        (b"[]", 'arguments: the value is not of type "object"'),
        (b'{"name":"x","tags":[{"a":1,"a":2}]}', "arguments: a member stands twice"),
        (b'{"name":"x","count":NaN}', "arguments: cannot be read as JSON"),
        (b'{"name":"\\ud800"}', "arguments: cannot be read as JSON"),
        (b'{"name":"\xff"}', "arguments: cannot be read as JSON"),
    ],
)
def test_arguments(arguments: bytes, wrong: str | None) -> None:
    assert told(TOOL, arguments) == wrong


def test_values_are_not_repeated() -> None:
    assert "hunter2" not in str(told({"properties": {"a": {"maxLength": 3}}}, b'{"a":"hunter2"}'))


def test_words_are_short_and_one_line() -> None:
    wrong = told({"additionalProperties": {"type": "string"}}, text({"k\n" * 4000: 1}))
    assert wrong is not None
    assert len(wrong) <= 200
    assert "\n" not in wrong


def test_results() -> None:
    schema = text({"type": "object", "required": ["n"]})
    assert check_result(schema, b'{"n":1}') is None
    assert check_result(schema, b"{}") == 'structuredContent: "n" is a required property'
    assert check_result(schema, None) == "structuredContent is missing"


@pytest.mark.parametrize(
    ("schema", "value", "fits"),
    [
        ({"type": "integer"}, "123456789012345678901234567890", True),
        ({"type": "integer"}, "3.0", True),
        ({"type": "integer"}, "3.5", False),
        ({"maximum": 10**20}, str(10**20 + 1), False),
        ({"const": 10**30}, str(10**30), True),
        ({"enum": [10**30]}, str(10**30 + 1), False),
        ({"multipleOf": 0.1}, "0.3", True),
        ({"type": "number"}, "1e400", False),  # beyond a double: the one kind of valid number that is refused
    ],
)
def test_numbers(schema: Any, value: str, fits: bool) -> None:
    assert (told({"properties": {"n": schema}}, b'{"n":%s}' % value.encode()) is None) is fits


def test_older_drafts_are_known() -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "definitions": {"t": {"type": "string"}},
        "properties": {"a": {"$ref": "#/definitions/t"}},
    }
    assert told(schema, b'{"a":"x"}') is None
    assert told(schema, b'{"a":1}') is not None


def test_recursion_that_looks_inside_is_fine() -> None:
    schema = {"properties": {"next": {"$ref": "#"}}, "additionalProperties": False}
    assert told(schema, b'{"next":{"next":{}}}') is None
    assert told(schema, b'{"next":{"nxt":1}}') is not None


@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef"])
@pytest.mark.parametrize("where", ["file:///etc/passwd", "/etc/passwd", "other.json", "urn:x:y", "//host/x", "x#/a"])
def test_no_reference_leaves_the_schema(keyword: str, where: str) -> None:
    assert objection(text({"properties": {"a": {keyword: where}}})) == "it refers to a schema outside itself"


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"$ref": "URL"}}},
        {"$defs": {"b": {"$id": "URL"}}, "properties": {"a": {"$ref": "b"}}},
        {"$id": "URL", "properties": {"a": {"$ref": "b"}}},
        {"$schema": "URL"},
        {"properties": {"a": {"$dynamicRef": "URL#a"}}},
        {"$ref": "URL"},
        {"$defs": {"unreached": {"$ref": "URL"}}, "allOf": [{"$ref": "#/$defs/unreached"}]},
    ],
)
def test_nobody_is_asked_over_the_network(schema: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        assert objection(text(schema).replace(b"URL", url.encode())) is not None
        with pytest.raises(BlockingIOError):
            server.accept()


def test_references_nothing_uses_ask_nobody_either() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        objection(text({"$defs": {"unused": {"$ref": url}}}))
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (text({"$ref": "#"}), "it refers to itself without end"),
        (text({"allOf": [{"anyOf": [{"$ref": "#"}]}]}), "it refers to itself without end"),
        (
            text({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
            "it refers to itself without end",
        ),
        (text(chain(1000)), "more than 64 links on one value"),
        (text({**chain(1000), "allOf": [{"$ref": f"#/$defs/a{i}"} for i in range(975, 0, -25)]}), "more than 64 links"),
        (text(chain(30, "twice")), "it makes more work than any value is given"),  # 2^30 evaluations of one value
        (text({**chain(14, "twice"), "unevaluatedProperties": False}), "too much lies under unevaluated"),
        (text({"properties": {"a": {"pattern": "(?=x)y"}}}), "it is no schema that can be used"),
        (text({"properties": {"a": {"pattern": r"(a)\1"}}}), "it is no schema that can be used"),
        (text({"pattern": "((a{100}){100}){100}"}), "it is no schema that can be used"),
        (text({"properties": {f"p{i}": {"pattern": rf"^{i}\w{{90}}$"} for i in range(2000)}}), "its patterns are too"),
        (text({"properties": {f"p{i}": {} for i in range(6000)}}), "it is too large"),
        (text({"description": "x" * 2**18}), "it is larger than 256 KiB"),
        (b'{"not":' * 100 + b"{}" + b"}" * 100, "more than 64 links on one value"),
        (b'{"items":' * 20000 + b"{}" + b"}" * 20000, "nested"),
        (b'{"type":"object","type":"string"}', "a member stands twice"),
        (text({"type": "objekt"}), "it is no schema that can be used"),
        (b"5", "it is no schema that can be used"),
        (b"{", "cannot be read as JSON"),
        (text({"$ref": "#/$defs/none"}), "it refers to a part that it does not have"),
        (text({"$defs": {"a": {"$anchor": "x"}}, "$ref": "#x"}), "it refers by an anchor"),
        (text({"properties": {"a": {"$id": "x"}}}), "it has a schema with an id of its own inside"),
        (text({"$defs": {"a": {"$id": "x", "items": {}}}, "$ref": "#/$defs/a/items"}), "it has a schema with an id"),
    ],
)
def test_schemas_that_are_not_used(schema: bytes, why: str) -> None:
    wrong = objection(schema)
    assert wrong is not None
    assert wrong.startswith(why)
    with pytest.raises(UnusableSchema):
        validator(schema)


def test_what_was_said_of_a_schema_is_remembered_without_it() -> None:
    tracemalloc.start()
    for number in range(50):
        assert objection(text({"description": f"{number}{'x' * 100_000}"})) is None
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1_000_000


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"items": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}, nested(40)),  # 2^40, by depth
        ({"items": {"enum": list(range(4000))}}, text([3999] * 10000)),
        ({"items": {"pattern": "[01]*1[01]{200}2"}}, text(["01" * 300000])),
        ({"items": {"multipleOf": 1e-300}}, text([1e308] * 100_000)),  # 3 s: divided exactly, one by one
        ({"items": {"allOf": [{"multipleOf": 7}] * 20}}, text([1e308] * 10_000)),
        ({"items": {"allOf": [{"minimum": -(10**4000)}] * 20}}, text([1.5] * 200_000)),
        ({"items": {"allOf": [{"uniqueItems": True}] * 11}}, text([[[j] for j in range(15)]] * 8000)),
    ],
)
def test_work_without_measure_is_refused(schema: Any, value: bytes) -> None:
    assert told(schema, value) == "arguments: too large to be validated against its schema"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (nested(66), "arguments: nested more than 64 levels deep"),
        (nested(400_000), "arguments: nested more than 64 levels deep"),
        (b'"' + b"x" * 2**20 + b'"', "arguments: larger than 1 MiB, which is the most that is validated"),
        (text([10**30 + i for i in range(101)]), "arguments: has more than 100 integers of 19 digits and more"),
        (b"[" + b"1" * 5000 + b"]", "arguments: has an integer of too many digits"),
    ],
)
def test_values_beyond_the_bounds(value: bytes, why: str) -> None:
    assert told({"uniqueItems": True}, value) == why


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"uniqueItems": True}, text(list(range(100_000)))),
        ({"items": {"pattern": "^(a+)+$"}}, text(["a" * 500_000])),
        ({"items": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}, nested(12)),
        ({"items": {"required": ["id"], "properties": {"id": {"type": "integer"}}}}, text([{"id": 1}] * 50_000)),
        ({"properties": {"t": {}, "u": {"pattern": "^[0-9a-f]{8}-[0-9a-f]{4}$"}}}, text({"t": "word, " * 100_000})),
        ({"properties": {"t": {}, "p": {"multipleOf": 0.01}}}, text({"t": "words: a, b, " * 70_000, "p": 1.25})),
    ],
)
def test_large_values_are_still_judged(schema: Any, value: bytes) -> None:
    assert told(schema, value) is None


def test_where_a_large_value_does_not_fit_is_not_told() -> None:
    tree = {"anyOf": [{"type": "number"}, {"type": "array", "items": {"$ref": "#"}}]}
    small, large = (b"[%s,true]" % b",".join([b"[1,[2]]"] * count) for count in (1_000, 20_000))
    assert "anyOf" in str(told(tree, small))
    assert told(tree, large) == "arguments: the value does not fit; where is told up to 64 KiB only"
