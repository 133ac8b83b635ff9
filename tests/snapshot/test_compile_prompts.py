"""Prompts: named as tools are, shown by policies with `prompt:` patterns."""

from __future__ import annotations

from typing import Any

import pytest

from fastgw.catalog.route import Deadlines
from tests.snapshot.compiling import HASH, compiled, items, led_to, names, noticed, prompts, resources, view


def bringing(*names_: Any, **more: Any) -> dict[str, Any]:
    return {"prompts": names_, **more}


def test_servers_in_their_order_then_their_own() -> None:
    snapshot = compiled({"b": bringing("z", "a"), "a": bringing("m"), "late": None})
    assert prompts(snapshot) == ["z", "a", "m"]
    assert led_to(view(snapshot).prompts, "m") == ["a/m"]
    target = view(snapshot).prompts["m"].arms[0].targets[0]
    assert (target.name_json, target.member) == (b'"m"', "name")


@pytest.mark.parametrize(
    ("naming", "expected"),
    [
        ("none", ["ask", "x"]),
        ("on_collision", ["a__ask", "x", "b__ask"]),
        ("always", ["a__ask", "a__x", "b__ask"]),
    ],
)
def test_two_servers_with_one_name(naming: str, expected: list[str]) -> None:
    bring = {"a": bringing("ask", "x"), "b": bringing("ask")}
    snapshot, notices = noticed(bring, endpoints={"/mcp": {"naming": naming}})
    assert prompts(snapshot) == expected
    remarks = {one.subject: one.text for one in notices}
    if naming == "none":
        assert remarks == {"prompt:b/ask": "hidden: its name is taken, and naming is none"}
    if naming == "on_collision":
        assert remarks == {"prompt:a/ask": "is called a__ask here", "prompt:b/ask": "is called b__ask here"}


def test_tools_and_their_entries_take_no_name_from_a_prompt() -> None:
    bring = {"a": bringing("find", tools=["search", "x"]), "b": bringing("search", "x")}
    snapshot = compiled(bring, tools={"find": {"to": "a/search"}, "x": {"hidden": True}})
    assert (names(snapshot), prompts(snapshot)) == (["find"], ["find", "search", "x"])


def test_each_dialect_gets_the_servers_own_words() -> None:
    told = {"name": "ask", "title": "T", "arguments": [{"name": "q", "required": True}], "_meta": {"k": 1}}
    shown = view(compiled({"a": bringing(told)}, a={"alias": "al"}, endpoints={"/mcp": {"naming": "always"}}))
    assert items(shown, "prompts/list") == [{**told, "name": "al__ask"}]
    oldest = {key: value for key, value in told.items() if key != "title"}
    assert items(shown, "prompts/list", "2025-03-26") == [{**oldest, "name": "al__ask"}]


AGENTS = {team: {"key": HASH, "claims": {"team": team}} for team in ("red", "blue")}


def about(team: str, **patterns: Any) -> dict[str, Any]:
    return {"name": team, "match": {"claims": {"team": team}}, **patterns}


def test_hidden_ones_are_in_no_list_and_no_grant() -> None:
    policies = [about("red", allow=["*", "prompt:ask*"], deny="prompt:ask-b"), about("blue", allow="prompt:b/*")]
    bring = {"a": bringing("ask-a", "ask-b", tools=["t"]), "b": bringing("other", tools=["u"])}
    snapshot = compiled(bring, agents=AGENTS, policies=policies)
    assert (names(snapshot, "red"), prompts(snapshot, "red")) == (["t", "u"], ["ask-a"])
    assert (names(snapshot, "blue"), prompts(snapshot, "blue")) == ([], ["other"])
    assert (names(snapshot, "anonymous"), prompts(snapshot, "anonymous")) == ([], [])


def test_a_star_allows_tools_only() -> None:
    bring = {"a": bringing("ask", tools=["t"])}
    snapshot = compiled(bring, policies=[{"name": "p", "allow": "*"}])
    assert (names(snapshot), prompts(snapshot)) == (["t"], [])
    snapshot = compiled(bring, policies=[{"name": "p", "allow": "prompt:*"}])
    assert (names(snapshot), prompts(snapshot)) == ([], ["ask"])
    assert prompts(compiled(bring)) == ["ask"]


@pytest.mark.parametrize("pattern", ["ask", "a/ask", "a__ask", "a*k"])
@pytest.mark.parametrize("naming", ["none", "on_collision", "always"])
def test_a_deny_survives_every_rename(pattern: str, naming: str) -> None:
    policies = [{"name": "p", "allow": "prompt:*"}, {"name": "d", "deny": f"prompt:{pattern}"}]
    bring = {"a": bringing("ask"), "b": bringing("ask", "x")}
    snapshot = compiled(bring, policies=policies, endpoints={"/mcp": {"naming": naming}})
    assert not {"a/ask"} & {to for name in view(snapshot).prompts for to in led_to(view(snapshot).prompts, name)}


def test_a_policy_that_looks_at_arguments_waits_for_them() -> None:
    policies = [
        {"name": "p", "allow": "prompt:*"},
        {"name": "q", "match": {"arguments": {"env": "prod"}}, "deny": "prompt:deploy"},
    ]
    grants = view(compiled({"a": bringing("deploy", "x")}, policies=policies)).prompts
    assert [(one.policy, one.allow) for one in grants["deploy"].conditions] == [("q", False)]
    assert grants["x"].conditions == ()


def test_times_come_from_the_server_the_endpoint_and_the_top() -> None:
    endpoints = {"/mcp": {"timeout": "7s"}, "/slow": {}}
    bring = {"a": bringing("x"), "b": bringing("y")}
    snapshot = compiled(bring, endpoints=endpoints, a={"timeout": "3s"}, tools={"*": {"timeout": "1s"}})
    found = {
        (path, name): grant.arms[0].deadlines
        for path in endpoints
        for name, grant in view(snapshot, path=path).prompts.items()
    }
    assert found == {
        ("/mcp", "x"): Deadlines(connect=3.0, first_byte=3.0, idle=3.0, total=3.0, longest=600.0),
        ("/mcp", "y"): Deadlines(connect=5.0, first_byte=7.0, idle=7.0, total=7.0, longest=600.0),
        ("/slow", "x"): Deadlines(connect=3.0, first_byte=3.0, idle=3.0, total=3.0, longest=600.0),
        ("/slow", "y"): Deadlines(connect=5.0, first_byte=55.0, idle=55.0, total=55.0, longest=600.0),
    }


def test_a_server_that_names_what_is_taken_gives_nothing_else() -> None:
    bring = {"a": bringing("x-1", "y", tools=["x-1", "t"], resources=["docs://r"]), "b": bringing("y")}
    only_tools = compiled(bring, a={"tools": "x-*"})
    assert (names(only_tools), prompts(only_tools), resources(only_tools)) == (["x-1"], ["y"], [])
    # Not taken, so that nobody else's is renamed because of it.
    only_prompts = compiled(bring, a={"tools": ["prompt:x-*", "prompt:a/q"]})
    assert (names(only_prompts), prompts(only_prompts), resources(only_prompts)) == ([], ["x-1", "y"], [])
    everything = compiled(bring, a={"tools": ["*", "prompt:*", "resource:*"]})
    assert (names(everything), resources(everything)) == (["x-1", "t"], ["docs://r"])
    assert prompts(everything) == ["x-1", "a__y", "b__y"]


def test_an_endpoint_names_prompts_as_agents_see_them_or_by_server() -> None:
    endpoints = {
        "/seen": {"tools": "prompt:a__*"},
        "/own": {"tools": ["prompt:b/*"]},
        "/tools": {"tools": ["*"]},
    }
    bring = {"a": bringing("ask", "x", tools=["t"]), "b": bringing("ask", "y")}
    snapshot = compiled(bring, endpoints=endpoints)
    assert prompts(snapshot, path="/seen") == ["a__ask"]
    assert prompts(snapshot, path="/own") == ["b__ask", "y"]
    assert (names(snapshot, path="/tools"), prompts(snapshot, path="/tools")) == (["t"], [])


def test_long_lists_have_pages() -> None:
    shown = view(compiled({"a": bringing(*(f"p{at}" for at in range(1001)))}))
    assert list(shown.lists["prompts/list"].starts) == [0, 1000]
    other = view(compiled({"a": bringing(*(f"p{at}" for at in reversed(range(1001))))}))
    assert shown.lists["prompts/list"].fingerprint != other.lists["prompts/list"].fingerprint
