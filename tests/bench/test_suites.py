"""The made-up catalogues, the recompile in small, and what a list must hold."""

from __future__ import annotations

from dataclasses import replace

from bench import compile
from bench.catalogues import NAMES, Size, changed, offered, text
from bench.messages import Target, expectation, template

SMALL = Size(servers=3, tools=60, resources=12, prompts=4)


def test_there_is_as_much_as_was_asked_for_and_no_name_twice() -> None:
    every = [offered(SMALL, number) for number in range(SMALL.servers)]
    for method, member in NAMES.items():
        keys = [item.get("uri", item["name"]) for lists in every for item in lists[method]]
        assert len(keys) == len(set(keys)) == getattr(SMALL, member)


def test_a_changed_list_has_one_more_and_one_other_tool() -> None:
    before = offered(SMALL, 0)["tools/list"]
    after = changed(offered(SMALL, 0), 7)["tools/list"]
    assert len(after) == len(before) + 1
    assert [one != other for one, other in zip(before, after, strict=False)].count(True) == 1


def test_after_a_change_much_less_is_sent_than_at_first() -> None:
    first, found = compile.rounds(replace(SMALL, servers=10), 2)  # what one server brings goes together
    assert first.frames > 0 and first.size > 50_000
    assert all(0 < one.size < first.size * 0.5 and one.pause <= one.unpack for one in found)
    assert len(compile.show(first, found)) == 8


def test_a_list_that_misses_an_item_is_wrong() -> None:
    items = text(offered(SMALL, 0)["prompts/list"])
    expected = expectation(Target(1, key="k", method="prompts/list", items=items))
    whole = b'{"jsonrpc":"2.0","id":17,"result":{"prompts":' + items + b"}}"
    assert expected.fault(17, "", whole) is None
    assert expected.fault(18, "", whole) is not None
    assert expected.fault(17, "", whole.replace(b"draft_00_00", b"draft_99_99")) is not None


def test_a_list_is_asked_for_by_its_own_method() -> None:
    sent = template(Target(1, method="prompts/list")).fill(1234567890, "f" * 16)
    assert b"Mcp-Method: prompts/list\r\n" in sent and b"Mcp-Name" not in sent
    assert b'"method":"prompts/list"' in sent
