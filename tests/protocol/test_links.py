"""Links on their way to an agent: every place the protocol has, and not a byte beside them."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from fastgw.protocol import links


def moved(uri: str) -> str:
    return uri if uri.startswith("https:") else f"a+{uri}"


def result(**members: Any) -> dict[str, bytes]:
    return {name: json.dumps(value).encode() for name, value in members.items()}


LINK = {"type": "resource_link", "uri": "x:1", "name": "uri"}
EMBEDDED = {"type": "resource", "resource": {"uri": "x:1", "text": '"uri":"x:1"', "_meta": {"uri": "x:1"}}}
MOVED_LINK = {**LINK, "uri": "a+x:1"}
MOVED_EMBEDDED = {"type": "resource", "resource": {**EMBEDDED["resource"], "uri": "a+x:1"}}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"content": [LINK, EMBEDDED]}, {"content": [MOVED_LINK, MOVED_EMBEDDED]}),
        ({"messages": [{"role": "user", "content": LINK}]}, {"messages": [{"role": "user", "content": MOVED_LINK}]}),
        ({"messages": [{"content": [EMBEDDED]}]}, {"messages": [{"content": [MOVED_EMBEDDED]}]}),
        ({"contents": [{"uri": "x:1", "text": "uri"}]}, {"contents": [{"uri": "a+x:1", "text": "uri"}]}),
        ({"_meta": {"ui": {"resourceUri": "ui://p"}}}, {"_meta": {"ui": {"resourceUri": "a+ui://p"}}}),
        ({"_meta": {"ui/resourceUri": "ui://p"}}, {"_meta": {"ui/resourceUri": "a+ui://p"}}),
        (
            {"inputRequests": {"k": {"method": "m", "params": {"messages": [{"content": [LINK]}]}}}},
            {"inputRequests": {"k": {"method": "m", "params": {"messages": [{"content": [MOVED_LINK]}]}}}},
        ),
        (
            {"messages": [{"content": [{"type": "tool_result", "content": [LINK]}]}]},
            {"messages": [{"content": [{"type": "tool_result", "content": [MOVED_LINK]}]}]},
        ),
    ],
)
def test_every_place_that_names_a_resource(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert links.rewritten(result(**before), moved) == result(**after)


@pytest.mark.parametrize(
    "untouched",
    [
        {"structuredContent": {"content": [LINK], "uri": "x:1"}},
        {"content": [{"type": "text", "text": json.dumps(LINK), "uri": "x:1"}]},
        {"content": [{"type": "resource", "uri": "x:1"}]},
        {"content": [{"type": "resource_link", "resource": {"uri": "x:1"}}]},
        {"content": [{"type": "resource_link", "uri": 7}]},
        {"content": [{"type": "resource", "resource": [LINK]}]},
        {"content": [{"type": "resource_link", "uri": "https://x"}]},
        {"content": [{"uri": "x:1"}, 7, None, "uri", [LINK]]},
        {"content": "uri"},
        {"contents": [["uri"]]},
        {"messages": {"uri": 1}},
        {"other": [LINK]},
        {"_meta": {"uri": "x:1", "ui": {"uri": "x:1"}}},
    ],
)
def test_what_is_no_link_stays(untouched: dict[str, Any]) -> None:
    members = result(**untouched)
    assert links.rewritten(members, moved) is members


def test_every_other_byte_stays() -> None:
    text = b'[ {"n":1E400, "uri" : "x:1" ,"type"\n:"resource_link",\t"d":12345678901234567890123, "e":"\\u0041"} , 1.0]'
    assert links.rewritten({"content": text}, moved) == {"content": text.replace(b'"x:1"', b'"a+x:1"')}


@pytest.mark.parametrize("name", [b"\\u0075ri", b"u\\u0072i", b"ur\\u0069", b"\\u0075\\u0072\\u0069"])
def test_a_name_written_with_escapes_is_the_same_name(name: bytes) -> None:
    text = b'[{"type":"resource_link","' + name + b'":"\\u0078:1"}]'
    found = links.rewritten({"content": text}, moved)["content"]
    assert found == text.replace(b"\\u0078:1", b"a+x:1")


def test_a_type_or_a_capital_written_with_escapes_is_found_too() -> None:
    text = b'[{"type":"resource\\u005flink","uri":"x:1"}]'
    assert links.rewritten({"content": text}, moved)["content"] == text.replace(b"x:1", b"a+x:1")
    page = b'{"ui":{"resource\\u0055ri":"ui://p"}}'
    assert links.rewritten({"_meta": page}, moved)["_meta"] == page.replace(b"ui://p", b"a+ui://p")


def test_an_item_with_a_member_twice_stays_and_its_neighbours_do_not() -> None:
    twice = b'{"type":"resource_link","uri":"x:1","uri":"x:2"}'
    same = b'{"type":"resource_link","uri":"x:1","uri":"x:1"}'
    nested = b'{"type":"resource","resource":{"uri":"x:1","\\u0075ri":"x:2"}}'
    good = b'{"type":"resource_link","uri":"x:1"}'
    found = links.rewritten({"content": b"[" + b",".join((twice, good, same, nested)) + b"]"}, moved)["content"]
    assert found == b"[" + b",".join((twice, good.replace(b"x:1", b"a+x:1"), same, nested)) + b"]"


def test_errors_definitions_and_meta() -> None:
    assert links.error_data(b'{"uri":"x:1","more":[1]}', moved) == b'{"uri":"a+x:1","more":[1]}'
    for data in (b'"uri"', b"null", b'{"uri":1}', b'["uri"]', b'{"a":{"uri":"x:1"}}'):
        assert links.error_data(data, moved) is data
    tool = {"name": b'"uri"', "_meta": b'{"ui":{"resourceUri":"ui://p","visibility":["app"]}}'}
    assert links.definition(tool, moved)["_meta"] == b'{"ui":{"resourceUri":"a+ui://p","visibility":["app"]}}'
    assert links.meta({"ui/resourceUri": b'"ui://p"', "uri": b'"x:1"'}, moved) == {
        "ui/resourceUri": b'"a+ui://p"',
        "uri": b'"x:1"',
    }


def test_deep_and_broken_texts_come_back_as_they_are() -> None:
    deep: Any = LINK
    for _ in range(30):
        deep = {"type": "tool_result", "content": [deep]}
    nested = b"[" * 100_000 + b'"uri"' + b"]" * 100_000
    for text in (json.dumps([deep]).encode(), nested, b'[{"uri"', b'{"uri":', b'"uri"', b"\xff uri", b""):
        assert links.rewritten({"content": text}, moved)["content"] is text


def test_the_same_as_decoding_for_whatever_is_well_formed() -> None:
    dice = random.Random(5)

    def value(depth: int) -> Any:
        kinds = [1, "x:1", "uri", None, True, "caf\u00e9 \\u0075", 'q"\n']
        if depth:
            kinds += [[value(depth - 1) for _ in range(dice.randrange(3))]]
            kinds += [{dice.choice(["uri", "type", "resource", "text", "a"]): value(depth - 1) for _ in range(3)}]
        return dice.choice(kinds)

    for _ in range(2000):
        items = [
            {dice.choice("abc"): value(2), "type": dice.choice(["resource_link", "resource", "text"]),
             "uri": value(0), "resource": value(2)}
            for _ in range(dice.randrange(4))
        ]  # fmt: skip
        indent, ascii_only = dice.choice([None, 1]), dice.random() < 0.5
        text = json.dumps(items, indent=indent, ensure_ascii=ascii_only).encode()
        found = json.loads(links.rewritten({"content": text}, moved)["content"])
        assert found == [_expected(item) for item in items]


def _expected(item: dict[str, Any]) -> dict[str, Any]:
    if item["type"] == "resource_link" and isinstance(item["uri"], str):
        return {**item, "uri": moved(item["uri"])}
    inner = item["resource"]
    if item["type"] == "resource" and isinstance(inner, dict) and isinstance(inner.get("uri"), str):
        return {**item, "resource": {**inner, "uri": moved(inner["uri"])}}
    return item


def test_a_reply_full_of_names_is_left_alone_before_it_costs_seconds() -> None:
    names = {f"n{number}": 1 for number in range(900)}
    item = json.dumps({**names, "uri": "x:1"}).encode()
    most = links.MOST_QUOTES // item.count(b'"')
    for count in (most, most + 1):
        text = b"[" + b",".join([item] * count) + b"]"
        found = links.rewritten({"contents": text}, moved)["contents"]
        assert found.count(b"a+x:1") == (count if count == most else 0)
    quoted = json.dumps([{"uri": "x:1", "text": '"' * links.MOST_QUOTES}]).encode()
    assert links.rewritten({"contents": quoted}, moved)["contents"] == quoted.replace(b"x:1", b"a+x:1")


def test_a_reply_full_of_items_is_left_alone_before_it_costs_seconds() -> None:
    link = json.dumps(LINK).encode()
    for count in (links.MOST_MEMBERS, links.MOST_MEMBERS + 1):
        text = b"[" + b",".join([link] * count) + b"]"
        found = links.rewritten({"content": text}, moved)["content"]
        assert found.count(b"a+x:1") == (count if count <= links.MOST_MEMBERS else 0)
