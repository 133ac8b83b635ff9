"""What the operator settles about a tool: fixed and default arguments, annotations, and what is validated."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from fastgw.catalog.route import Arm
from fastgw.catalog.validation import prepare_arguments
from fastgw.config.reader import read_settings
from fastgw.config.tree import Number
from fastgw.errors import Fault, Kind
from fastgw.snapshot.curation import json_text
from tests.snapshot.compiling import compiled, names, noticed, settings, shown, view

SCHEMA = {
    "type": "object",
    "properties": {
        "q": {"type": "string"},
        "region": {"type": "string", "x-mcp-header": "Region"},
        "limit": {"type": "integer", "default": 5, "x-mcp-header": "Limit"},
    },
    "required": ["q", "region", "limit"],
    "additionalProperties": False,
}
FIND: dict[str, Any] = {"name": "find", "inputSchema": SCHEMA, "outputSchema": {"type": "object", "required": ["n"]}}


def arm(tools: dict[str, Any], name: str = "find", tool: dict[str, Any] = FIND) -> Arm:
    return view(compiled({"a": [tool]}, tools=tools)).grants[name].arms[0]


def schema(tools: dict[str, Any], name: str = "find", tool: dict[str, Any] = FIND) -> dict[str, Any]:
    found: dict[str, Any] = shown(compiled({"a": [tool]}, tools=tools), name)["inputSchema"]
    return found


def told(tools: dict[str, Any], tool: dict[str, Any] = FIND) -> list[str]:
    return [str(notice) for notice in noticed({"a": [tool]}, tools=tools)[1]]


def test_a_fixed_argument_is_sent_and_not_shown() -> None:
    tools = {"find": {"fixed": {"region": "eu"}}}
    assert arm(tools).fixed == (("region", b'"eu"'),)
    found = schema(tools)
    assert list(found["properties"]) == ["q", "limit"]
    assert found["required"] == ["q", "limit"]
    assert found["additionalProperties"] is False


def test_agents_mirror_no_header_for_it_and_the_server_still_gets_one() -> None:
    route = view(compiled({"a": [FIND]}, tools={"find": {"fixed": {"region": "eu"}}})).grants["find"].route
    assert [one.header for one in route.param_headers] == ["mcp-param-limit"]
    assert [one.header for one in route.arms[0].targets[0].param_headers] == ["mcp-param-limit", "mcp-param-region"]


def test_a_default_is_shown_and_not_required() -> None:
    tools = {"find": {"defaults": {"limit": 20}}}
    assert arm(tools).defaults == (("limit", b"20"),)
    found = schema(tools)
    assert found["properties"]["limit"] == {"type": "integer", "default": 20, "x-mcp-header": "Limit"}
    assert found["required"] == ["q", "region"]


def test_both_take_our_names() -> None:
    to = {"server": "a", "tool": "find", "arguments": {"area": "region"}}
    tools = {"seek": {"to": to, "fixed": {"area": "eu"}, "defaults": {"limit": 1}}}
    assert list(schema(tools, "seek")["properties"]) == ["q", "limit"]
    assert arm(tools, "seek").targets[0].renamed == (("area", "region"),)
    assert told(tools) == []


def test_a_name_that_is_ours_now_says_nothing_of_the_server_s_own() -> None:
    """Ours is validated and mirrored as what it becomes, not as what the server calls so."""
    to = {"server": "a", "tool": "find", "arguments": {"limit": "region"}}
    snapshot = compiled({"a": [FIND]}, tools={"seek": {"to": to, "validate": "arguments"}})
    found = json.loads(view(snapshot).grants["seek"].arms[0].checks.arguments)
    assert found["properties"]["limit"]["type"] == "string"
    assert found["required"] == ["q", "limit"]
    assert [one.header for one in view(snapshot).grants["seek"].route.param_headers] == ["mcp-param-region"]


def test_a_server_s_name_of_a_renamed_argument_leaves_the_tool_out() -> None:
    to = {"server": "a", "tool": "find", "arguments": {"area": "region"}}
    for key in ("fixed", "defaults"):
        tools = {"seek": {"to": to, key: {"region": "eu"}}}
        assert names(compiled({"a": [FIND]}, tools=tools)) == []
        assert "seek: left out: region is the server's own name" in told(tools)[0]


def test_each_setting_is_found_by_itself() -> None:
    tools = {
        "*": {"fixed": {"region": "us"}, "defaults": {"limit": 1}},
        "find": {"fixed": {"region": "eu", "limit": 9}},
    }
    found = arm(tools)
    assert dict(found.fixed) == {"region": b'"eu"', "limit": b"9"}
    assert found.defaults == ()
    assert arm({"*": {"fixed": {"region": "us"}}, "find": {"fixed": {}}}).fixed == ()


def test_an_argument_the_server_does_not_know_is_told_and_sent() -> None:
    tools = {"find": {"fixed": {"tenant": "acme"}}}
    assert told(tools) == ["/mcp: find: is sent the argument tenant, which its inputSchema does not have"]
    assert arm(tools).fixed == (("tenant", b'"acme"'),)


def test_a_schema_that_cannot_be_read_leaves_the_tool_out() -> None:
    tools = {"find": {"fixed": {"region": "eu"}}}
    for broken in ({"properties": []}, {"required": "q"}):
        tool = {"name": "find", "inputSchema": {"type": "object", **broken}}
        assert names(compiled({"a": [tool]}, tools=tools)) == []
        assert "left out: fixed and default arguments cannot be told from its inputSchema" in told(tools, tool)[0]


def test_every_arm_has_its_own() -> None:
    route = [{"match": {"agent": "bot"}, "to": "a/find"}, {"to": "b/find"}]
    tools = {"find": {"route": route}, "a/find": {"fixed": {"region": "eu"}}, "b/find": {"fixed": {"region": "us"}}}
    grant = view(compiled({"a": [FIND], "b": [FIND]}, tools=tools, agents={"bot": {"key": "sha256:" + "ab" * 32}}))
    assert [one.fixed for one in grant.grants["find"].arms] == [(("region", b'"eu"'),)]


def test_secrets_are_neither_shown_nor_logged() -> None:
    snapshot = compiled({"a": [FIND]}, tools={"find": {"fixed": {"region": "hunter2"}}})
    assert "hunter2" not in json.dumps(shown(snapshot, "find"))
    assert "hunter2" not in repr(settings({"a": 0}, tools={"find": {"fixed": {"r": "hunter2"}}}))


def test_a_property_may_be_a_boolean_schema() -> None:
    tool = {"name": "find", "inputSchema": {"type": "object", "properties": {"a": True, "b": False}}}
    found = schema({"find": {"defaults": {"a": 1, "b": 2}}}, tool=tool)
    assert found["properties"] == {"a": {"default": 1}, "b": False}


def test_annotations_are_merged_hint_by_hint() -> None:
    tool = {**FIND, "annotations": {"readOnlyHint": False, "openWorldHint": True, "title": "Theirs"}}
    found = shown(compiled({"a": [tool]}, tools={"find": {"annotations": {"readOnlyHint": True}}}), "find")
    assert found["annotations"] == {"readOnlyHint": True, "openWorldHint": True, "title": "Theirs"}


def test_arguments_are_checked_against_what_agents_see() -> None:
    tools = {"find": {"validate": "arguments", "fixed": {"region": "eu"}, "defaults": {"limit": 1}}}
    checks = arm(tools).checks
    assert checks is not None
    assert checks.arguments is not None
    assert json.loads(checks.arguments) == schema(tools)
    assert checks.results is None


def test_results_are_checked_against_what_the_server_promises() -> None:
    for validate in ("results", ["arguments", "results"]):
        checks = arm({"find": {"validate": validate}}).checks
        assert checks is not None
        assert json.loads(checks.results or b"") == FIND["outputSchema"]


@pytest.mark.parametrize("validate", ["arguments", "results"])
def test_no_call_goes_unchecked_while_the_server_has_never_said_what_to_check(validate: str) -> None:
    tools = {"find": {"to": "a/find", "validate": validate}}
    [waiting] = view(compiled({"a": None}, tools=tools)).grants["find"].arms
    assert waiting.checks is not None and waiting.checks.pending
    with pytest.raises(Fault) as refused:
        prepare_arguments(waiting, b"{}")
    assert (refused.value.kind, refused.value.data, refused.value.sent) == (Kind.NO_SERVER, {"reason": "down"}, False)
    known = arm(tools)
    assert known.checks is not None and not known.checks.pending
    assert prepare_arguments(known, b'{"q":"","region":"","limit":1}') == b'{"q":"","region":"","limit":1}'


def test_nothing_is_checked_unasked() -> None:
    assert arm({}).checks is None
    assert arm({"*": {"validate": "arguments"}, "find": {"validate": []}}).checks is None


def test_results_without_a_promise_are_told() -> None:
    tool = {"name": "find", "inputSchema": {"type": "object"}}
    tools = {"find": {"validate": "results"}}
    assert told(tools, tool) == ["/mcp: find: its results are not validated: it has no outputSchema"]
    assert arm(tools, tool=tool).checks is None


@pytest.mark.parametrize("validate", ["arguments", "results"])
def test_what_cannot_be_checked_is_left_out(validate: str) -> None:
    remote = {"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1:9/x"}}}
    tool = {"name": "find", "inputSchema": remote, "outputSchema": remote}
    tools = {"find": {"validate": validate}}
    assert names(compiled({"a": [tool, "other"]}, tools=tools)) == ["other"]
    assert told(tools, tool)[0].endswith("cannot be validated against: it refers to a schema outside itself")
    assert names(compiled({"a": [tool]})) == ["find"]


def test_it_travels_to_the_workers() -> None:
    snapshot = compiled({"a": [FIND]}, tools={"find": {"fixed": {"region": "eu"}, "validate": "arguments"}})
    assert pickle.loads(pickle.dumps(snapshot)) == snapshot


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("eu", b'"eu"'),
        (True, b"true"),
        (None, b"null"),
        (3, b"3"),
        (Number("1.10"), b"1.10"),
        (Number("+.5"), b"0.5"),
        (Number("-5."), b"-5.0"),
        (Number("1e5"), b"1e5"),
        (Number("+123456789012345678901234567890"), b"123456789012345678901234567890"),
        ({"a": [1, {"b": "\u00e9"}]}, '{"a":[1,{"b":"\u00e9"}]}'.encode()),
    ],
)
def test_values_as_json(value: Any, text: bytes) -> None:
    assert json_text(value) == text


FILE = """
servers: {a: {url: http://h/mcp}}
tools:
  find:
    fixed: {region: "${env:REGION}", id: 123456789012345678901234567890, price: 1.10, none: null, list: [~, "7", 007]}
    defaults: {deep: {er: [true, 1.0e400]}}
"""


def test_values_of_the_file_are_exact(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(FILE)
    tool = read_settings(tmp_path / "f.yaml", {"REGION": "12345678901234567890"}).tools["find"]
    assert json_text(tool.fixed) == (
        b'{"region":"12345678901234567890","id":123456789012345678901234567890,"price":1.10,"none":null,'
        b'"list":[null,"7","007"]}'
    )
    assert json_text(tool.defaults) == b'{"deep":{"er":[true,1.0e400]}}'


# -- results that are kept ------------------------------------------------------------------------------------------


def says(**hints: bool) -> dict[str, Any]:
    return {**FIND, "annotations": hints}


@pytest.mark.parametrize("key", ["*", "fi*", "a/*", "*/find"])
def test_a_pattern_gives_cache_to_what_calls_itself_read_only(key: str) -> None:
    tools = {key: {"cache": "30s"}}
    assert arm(tools, tool=says(readOnlyHint=True)).cache == 30.0
    for other in (FIND, says(readOnlyHint=False), says(idempotentHint=True), says(destructiveHint=False)):
        assert arm(tools, tool=other).cache == 0.0


@pytest.mark.parametrize("key", ["find", "a/find"])
def test_under_a_name_the_operator_s_word_is_enough(key: str) -> None:
    assert arm({key: {"cache": "30s"}}).cache == 30.0
    assert arm({"*": {"cache": "1m"}, key: {"cache": "0s"}}, tool=says(readOnlyHint=True)).cache == 0.0
    assert arm({"*": {"cache": "1m"}, key: {"timeout": "9s"}}, tool=says(readOnlyHint=True)).cache == 60.0
    assert arm({"*": {"cache": "1m"}, key: {"timeout": "9s"}}).cache == 0.0
    assert arm({}, tool=says(readOnlyHint=True)).cache == 0.0


def test_what_the_operator_calls_read_only_is_his_word_and_not_the_tool_s() -> None:
    assert arm({"*": {"cache": "30s", "annotations": {"readOnlyHint": True}}}).cache == 0.0


def test_a_pattern_wants_it_of_everything_that_calls_may_go_to() -> None:
    tools = {"seek": {"to": ["a/find", "b/find"]}, "s*": {"cache": "30s"}}
    for second, seconds in ((says(readOnlyHint=True), 30.0), (FIND, 0.0)):
        found = compiled({"a": [says(readOnlyHint=True)], "b": [second]}, tools=tools)
        assert view(found).grants["seek"].arms[0].cache == seconds
    unheard = compiled({"a": [says(readOnlyHint=True)], "b": None}, tools=tools)
    assert view(unheard).grants["seek"].arms[0].cache == 0.0


@pytest.mark.parametrize(
    ("said", "repeatable"),
    [
        ({"shop/find": {"repeatable": True}}, False),
        ({"shop/find": {"repeatable": True}, "market/purchase": {"repeatable": False}}, False),
        ({"shop/find": {"repeatable": True}, "market/purchase": {"repeatable": True}}, True),
        ({"shop/*": {"repeatable": True}, "market/*": {"repeatable": True}}, False),
    ],
)
def test_a_call_is_repeatable_where_each_tool_is_that_it_may_end_up_at(said: dict[str, Any], repeatable: bool) -> None:
    find = {"name": "find", "annotations": {"readOnlyHint": True}}
    tools = {"find": {"to": ["shop/find", "market/purchase"]}, **said}
    found = compiled({"shop": [find], "market": ["purchase"]}, tools=tools)
    assert view(found).grants["find"].arms[0].repeatable is repeatable


def test_results_are_kept_for_the_shortest_time_that_any_of_its_tools_allows() -> None:
    tools = {"find": {"to": ["shop/find", "market/find"]}, "shop/find": {"cache": "60s"}}
    bring = {"shop": ["find"], "market": ["find"]}
    assert view(compiled(bring, tools=tools)).grants["find"].arms[0].cache == 0.0
    tools["market/find"] = {"cache": "5s"}
    assert view(compiled(bring, tools=tools)).grants["find"].arms[0].cache == 5.0
