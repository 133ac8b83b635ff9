"""Settings and catalogues become a snapshot: dialogues about what each agent sees."""

from __future__ import annotations

import json
import pickle
import random
from typing import Any

import pytest
from pydantic import ValidationError

from fastgw.catalog.route import Deadlines
from fastgw.config.instance_urls import instance_key
from fastgw.config.schema.settings import Settings
from fastgw.snapshot.compiler import Learned, compile_snapshot
from tests.snapshot.compiling import HASH, catalogue, compiled, listed, names, shown, targets, view


def test_servers_in_their_order_then_their_own() -> None:
    assert names(compiled({"b": ["z", "a"], "a": ["m"]})) == ["z", "a", "m"]


def test_a_server_that_never_answered_leaves_the_others_whole() -> None:
    assert names(compiled({"a": None, "b": ["x"]})) == ["x"]


def test_a_backup_stands_in_unseen_and_elsewhere_shows_its_own() -> None:
    endpoints = {"/mcp": {}, "/spare": {"servers": ["spare"]}}
    snapshot = compiled({"a": ["x"], "spare": ["x", "y"], "b": ["z"]}, endpoints=endpoints, a={"backup": "spare"})
    assert names(snapshot) == ["x", "z"]
    assert names(snapshot, path="/spare") == ["x", "y"]
    assert snapshot.backends["a"].backup == ("spare",)
    denied = [{"name": "p", "allow": ["*"], "deny": ["spare/*"]}]
    assert names(compiled({"a": ["x"], "spare": ["x"]}, policies=denied, a={"backup": "spare"})) == []
    allowed = [{"name": "p", "allow": ["a/*"]}]
    assert names(compiled({"a": ["x"], "spare": ["x"]}, policies=allowed, a={"backup": "spare"})) == ["x"]


@pytest.mark.parametrize(
    ("entries", "hints", "repeatable"),
    [
        ({}, {"readOnlyHint": True}, False),
        ({"x": {"repeatable": True}}, {}, True),
        ({"a/x": {"repeatable": True}}, {}, True),
        ({"*": {"repeatable": True}}, {}, False),
        ({"*": {"repeatable": True}}, {"idempotentHint": True}, True),
        ({"a/*": {"repeatable": True}}, {"readOnlyHint": True}, True),
        ({"*": {"repeatable": True}}, {"readOnlyHint": False}, False),
        ({"*": {"repeatable": True}, "x": {"repeatable": False}}, {"readOnlyHint": True}, False),
    ],
)
def test_a_pattern_makes_only_those_repeatable_that_say_so(
    entries: dict[str, Any], hints: dict[str, Any], repeatable: bool
) -> None:
    snapshot = compiled({"a": [{"name": "x", "annotations": hints}]}, tools=entries)
    assert [arm.repeatable for arm in snapshot.endpoints["/mcp"].routes["x"].arms] == [repeatable]


def test_shares_and_breakers_reach_the_instances() -> None:
    urls = [{"url": "http://h/1", "share": "5%"}, "http://h/2"]
    snapshot = compiled({"a": []}, a={"url": urls, "breaker": {"failures": 2, "open_for": "5s"}})
    assert [one.share for one in snapshot.backends["a"].instances] == [0.05, 0.0]
    assert snapshot.backends["a"].breaker == (2, 5.0)
    assert compiled({"a": []}, breaker={"open_for": "9s"}).backends["a"].breaker == (5, 9.0)


def test_an_endpoint_shows_its_servers_and_tools() -> None:
    endpoints = {"/mcp/a": {"servers": ["a"]}, "/mcp/x": {"tools": ["x*", "b/z"]}, "/mcp/n": {"naming": "always"}}
    snapshot = compiled({"a": ["x", "y"], "b": ["z"]}, endpoints=endpoints)
    assert names(snapshot, path="/mcp/a") == ["x", "y"]
    assert names(snapshot, path="/mcp/x") == ["x", "z"]
    assert names(snapshot, path="/mcp/n") == ["a__x", "a__y", "b__z"]
    assert "/mcp" not in snapshot.endpoints


def test_a_server_gives_only_the_tools_that_are_taken() -> None:
    assert names(compiled({"a": ["x-1", "y-1"], "b": ["y-1"]}, a={"tools": "x-*"})) == ["x-1", "y-1"]
    assert names(compiled({"a": ["p/q", "x", "y", "a"]}, a={"tools": ["p/*", "a/x"]})) == ["p/q", "x"]


def test_what_an_entry_points_at_has_no_other_name() -> None:
    tools = {"find": {"to": ["a/search", {"server": "b", "tool": "query", "arguments": {"q": "text"}}]}}
    snapshot = compiled({"a": ["search", "x"], "b": ["query"], "c": ["search"]}, tools=tools)
    assert names(snapshot) == ["find", "x", "search"]
    assert targets(snapshot, "find") == ["a/search", "b/query"]
    assert targets(snapshot, "search") == ["c/search"]
    assert view(snapshot).grants["find"].arms[0].targets[1].renamed == (("q", "text"),)


def test_an_entry_exists_before_its_servers_answer() -> None:
    tools = {"find": {"to": "a/search", "description": "Finds."}}
    assert shown(compiled({"a": None}, tools=tools), "find") == {
        "name": "find",
        "inputSchema": {"type": "object"},
        "description": "Finds.",
    }
    assert names(compiled({"a": ["other"]}, tools=tools)) == ["other"]


def test_an_endpoint_uses_only_its_own_targets() -> None:
    endpoints = {"/mcp": {"servers": ["b"]}, "/mcp/c": {"servers": ["c"]}}
    snapshot = compiled({"a": ["s"], "b": ["s"], "c": []}, tools={"find": {"to": ["a/s", "b/s"]}}, endpoints=endpoints)
    assert targets(snapshot, "find") == ["b/s"]
    assert names(snapshot, path="/mcp/c") == []


ROUTE = {
    "query": {
        "route": [
            {"match": {"claims": {"tier": "internal"}}, "to": "fast/q"},
            {"match": {"claims": {"tier": "external"}}, "to": "slow/q"},
        ]
    }
}


def test_a_route_splits_agents_and_shows_each_its_own_definition() -> None:
    agents = {tier: {"key": HASH, "claims": {"tier": tier}} for tier in ("internal", "external", "other")}
    bring = {"fast": [{"name": "q", "description": "fast"}], "slow": [{"name": "q", "description": "slow"}]}
    snapshot = compiled(bring, tools=ROUTE, agents=agents)
    assert targets(snapshot, "query", "internal") == ["fast/q"]
    assert targets(snapshot, "query", "external") == ["slow/q"]
    assert shown(snapshot, "query", "external")["description"] == "slow"
    assert names(snapshot, "other") == []


@pytest.mark.parametrize("fast", [["other"], []])
def test_who_finds_no_server_does_not_fall_through_to_anothers(fast: list[str]) -> None:
    route = [{"match": {"agent": "bot"}, "to": "fast/q"}, {"to": "slow/q"}]
    bring = {"fast": fast, "slow": ["q"]}
    snapshot = compiled(bring, tools={"query": {"route": route}})
    assert "query" not in names(snapshot)
    assert targets(snapshot, "query", "anonymous") == ["slow/q"]
    elsewhere = compiled(bring, tools={"query": {"route": route}}, endpoints={"/mcp": {"servers": "slow"}})
    assert names(elsewhere) == []


def test_headers_follow_the_definition_that_was_shown() -> None:
    def with_header(header: str) -> dict[str, Any]:
        properties = {"text": {"type": "string", "x-mcp-header": header}}
        return {"name": "q", "inputSchema": {"type": "object", "properties": properties, "required": ["text"]}}

    agents = {tier: {"key": HASH, "claims": {"tier": tier}} for tier in ("internal", "external")}
    snapshot = compiled({"fast": [with_header("F")], "slow": [with_header("S")]}, tools=ROUTE, agents=agents)
    grants = {tier: view(snapshot, tier).grants["query"] for tier in agents}
    assert [grant.route.param_headers[0].header for grant in grants.values()] == ["mcp-param-f", "mcp-param-s"]

    renamed = {"query": {"to": {"server": "fast", "tool": "q", "arguments": {"ours": "text"}}}}
    snapshot = compiled({"fast": [with_header("F")]}, tools=renamed)
    schema = shown(snapshot, "query")["inputSchema"]
    assert (list(schema["properties"]), schema["required"]) == (["ours"], ["ours"])
    grant = view(snapshot).grants["query"]
    assert grant.route.param_headers[0].path == ("ours",)
    assert grant.arms[0].targets[0].param_headers[0].path == ("text",)


def test_settings_come_from_the_nearest_place() -> None:
    tools = {"x": {"timeout": "2s"}, "*": {"timeout": "3s", "idle_timeout": "1s"}, "a/y": {"attempt_timeout": "1s"}}
    snapshot = compiled({"a": ["x", "y"]}, tools=tools, a={"timeout": "9s"})
    x, y = (view(snapshot).grants[name].arms[0].deadlines for name in "xy")
    assert (x.total, x.first_byte, x.idle) == (2.0, 2.0, 1.0)
    assert (y.total, y.first_byte, y.idle) == (3.0, 1.0, 1.0)
    plain = view(compiled({"a": ["x"]})).grants["x"].arms[0].deadlines
    assert (plain.total, plain.first_byte, plain.idle) == (55.0, 55.0, 55.0)


@pytest.mark.parametrize(
    ("key", "attribute", "more"),
    [("timeout", "total", {}), ("idle_timeout", "idle", {}), ("max_timeout", "longest", {"timeout": "1s"})],
)
def test_times_are_said_of_a_tool_a_server_an_endpoint_or_all(key: str, attribute: str, more: dict[str, Any]) -> None:
    levels: list[dict[str, Any]] = [
        {"tools": {"x": {key: "2s"}}},
        {"a": {key: "3s"}},
        {"endpoints": {"/mcp": {key: "4s"}}},
        {key: "5s"},
    ]
    for nearest in range(len(levels)):
        keys = {name: value for level in levels[nearest:] for name, value in level.items()}
        found = view(compiled({"a": ["x"]}, **more, **keys)).grants["x"].arms[0].deadlines
        assert getattr(found, attribute) == 2.0 + nearest


def test_max_timeout_is_never_less_than_timeout() -> None:
    def longest(**keys: Any) -> float:
        return view(compiled({"a": ["x"]}, **keys)).grants["x"].arms[0].deadlines.longest

    assert longest() == 600.0
    assert longest(timeout="20m") == 1200.0
    assert longest(max_timeout="1m", a={"timeout": "2m"}) == 120.0


def test_a_snapshot_is_used_as_long_as_its_longest_call_may_take() -> None:
    assert compiled({"a": ["x"]}).longest == 600.0
    assert compiled({"a": ["x"]}, timeout="20m").longest == 1200.0
    for keys in (
        {"a": {"max_timeout": "15m"}},
        {"tools": {"x": {"max_timeout": "15m"}}},
        {"endpoints": {"/mcp": {"max_timeout": "15m"}}},
        {"max_timeout": "15m"},
    ):
        assert compiled({"a": ["x"]}, **keys).longest == 900.0


def test_every_arm_has_the_settings_of_its_own_target() -> None:
    route = [{"match": {"agent": "x"}, "to": "calm/q"}, {"to": "sandbox/query"}]
    tools = {
        "query": {"route": route, "idle_timeout": "20s"},
        "sandbox/query": {"timeout": "1s", "description": "Quick."},
        "calm/q": {"attempt_timeout": "30s"},
    }
    agents = {name: {"key": HASH} for name in "xy"}
    bring = {"calm": ["q"], "sandbox": ["query"]}
    snapshot = compiled(bring, tools=tools, agents=agents, sandbox={"timeout": "2s"})
    arms = {name: view(snapshot, name).grants["query"].arms[0] for name in agents}
    assert arms["x"].deadlines == Deadlines(connect=5.0, first_byte=30.0, idle=20.0, total=55.0, longest=600.0)
    assert arms["y"].deadlines == Deadlines(connect=1.0, first_byte=1.0, idle=1.0, total=1.0, longest=600.0)
    assert "description" not in shown(snapshot, "query", "x")
    assert shown(snapshot, "query", "y")["description"] == "Quick."


def test_an_arm_that_looks_at_arguments_keeps_its_times() -> None:
    route = [{"match": {"arguments": {"env": "staging"}}, "to": "a/x"}, {"to": "b/x"}]
    tools = {"deploy": {"route": route, "timeout": "4s"}, "a/x": {"timeout": "1s"}}
    arms = view(compiled({"a": ["x"], "b": ["x"]}, tools=tools)).grants["deploy"].arms
    assert [arm.deadlines.total for arm in arms] == [1.0, 4.0]


def test_a_servers_timeout_holds_for_the_arms_that_lead_to_it() -> None:
    route = [{"match": {"agent": "bot"}, "to": "a/x"}, {"to": "b/x"}]
    snapshot = compiled({"a": ["x"], "b": ["x"]}, tools={"go": {"route": route}}, b={"timeout": "2s"}, timeout="9s")
    totals = {who: view(snapshot, who).grants["go"].arms[0].deadlines.total for who in ("bot", "anonymous")}
    assert totals == {"bot": 9.0, "anonymous": 2.0}


def test_the_operator_hears_of_names_that_leave_clients_no_room() -> None:
    settings = Settings.model_validate({"servers": {"a": {"url": "http://h/"}}})
    learned = Learned(catalogues={"a": catalogue("a", "x" * 48, "y" * 49)})
    notices = compile_snapshot(settings, learned, 1)[1]
    assert [(one.endpoint, one.subject) for one in notices] == [("/mcp", "y" * 49)]


def test_what_answers_need_is_worked_out_once_and_travels() -> None:
    first, second = compiled({"a": ["x", "y"]}), compiled({"a": ["y", "x"]})
    assert json.loads(first.server_info) == {"name": "fastgw", "version": "0"}
    assert listed(first).fingerprint == listed(compiled({"a": ["x", "y"]})).fingerprint != listed(second).fingerprint
    assert pickle.loads(pickle.dumps(first)) == first


def test_words_of_the_operator_replace_the_servers() -> None:
    tools = {"x": {"description": "Ours.", "title": "X", "annotations": {"readOnlyHint": True}}}
    snapshot = compiled({"a": [{"name": "x", "description": "Theirs.", "annotations": {"title": "T"}}]}, tools=tools)
    assert shown(snapshot, "x") == {
        "name": "x",
        "inputSchema": {"type": "object"},
        "description": "Ours.",
        "annotations": {"title": "T", "readOnlyHint": True},
        "title": "X",
    }


def test_a_hidden_tool_leaves_no_trace() -> None:
    bring = {"a": ["search", "x"], "b": ["search"]}
    for key in ("a/search", "a/s*"):
        snapshot = compiled(bring, tools={key: {"hidden": True}})
        absent = compiled({"a": ["x"], "b": ["search"]})
        assert view(snapshot) == view(absent)
        assert snapshot.endpoints["/mcp"].routes == absent.endpoints["/mcp"].routes
    assert names(compiled(bring, tools={"search": {"hidden": True}})) == ["x"]
    assert names(compiled(bring, tools={"b__search": {"hidden": True}})) == ["a__search", "x"]


def test_policies_decide_what_is_listed() -> None:
    policies = [
        {"name": "p", "match": {"agent": "bot"}, "allow": ["x*", "late"], "deny": "xx"},
        {"name": "q", "match": {"arguments": {"env": "prod"}}, "deny": "late"},
    ]
    snapshot = compiled({"a": ["x", "xx", "late", "y"]}, policies=policies)
    assert names(snapshot) == ["x", "late"]
    assert names(snapshot, "anonymous") == []
    grant = view(snapshot).grants["late"]
    assert grant.allowed and [(one.policy, one.allow) for one in grant.conditions] == [("q", False)]
    assert view(snapshot).grants["x"].conditions == ()
    assert names(compiled({"a": ["x"]}, policies=[])) == []


def test_an_allow_by_server_opens_no_neighbour() -> None:
    policies = [{"name": "p", "allow": ["a/x", "b/x", "prompt:y"]}]
    tools = {"both-x": {"to": ["a/x", "b/x"]}, "both-y": {"to": ["a/y", "b/y"]}}
    bring = {"a": ["x", "y", "prompt:y"], "b": ["x", "y"]}
    assert names(compiled(bring, policies=policies, tools=tools)) == ["both-x"]
    assert names(compiled(bring, policies=policies)) == ["a__x", "b__x"]


def test_a_pattern_about_prompts_takes_no_tool_of_that_name() -> None:
    assert names(compiled({"a": ["x", "prompt:x"]}, a={"tools": ["x", "prompt:*"]})) == ["x"]


def test_agents_who_see_the_same_share_one_view() -> None:
    agents = {f"agent-{at}": {"key": HASH, "claims": {"team": f"t{at % 3}", "at": at}} for at in range(60)}
    policies = [{"name": "p", "match": {"claims": {"team": ["t0", "t1"]}}, "allow": "*"}]
    endpoint = compiled({"a": ["x"]}, agents=agents, policies=policies).endpoints["/mcp"]
    assert len(endpoint.views) == 2
    assert endpoint.view_of["agent-0"] == endpoint.view_of["agent-1"] != endpoint.view_of["agent-2"]


def test_long_lists_have_pages() -> None:
    snapshot = compiled({"a": [f"t{at}" for at in range(2001)]})
    assert list(listed(snapshot).starts) == [0, 1000, 2000]
    assert len(names(snapshot)) == 2001
    assert list(listed(compiled({"a": []})).starts) == [0]


def test_keys_and_disabled_agents() -> None:
    agents = {
        "on": {
            "key": [HASH, {"sha256": "cd" * 32, "expires": "2036-01-31"}],
            "claims": {"team": "a", "groups": ["b", "c"]},
        },
        "off": {"key": "ef" * 32, "disabled": True},
    }
    snapshot = compiled({"a": []}, agents=agents)
    assert set(snapshot.keys) == {"ab" * 32, "cd" * 32}
    entry = snapshot.keys["cd" * 32]
    assert entry.expires is not None and entry.principal.credential == "key:cdcdcdcd"
    assert entry.principal.claims == {"team": "a", "groups": ("b", "c")}
    assert "off" not in snapshot.endpoints["/mcp"].view_of


def test_ways_in() -> None:
    snapshot = compiled({"a": ["x"]}, endpoints={"/open": {"auth": "none"}, "/tokens": {"auth": "login"}})
    assert snapshot.endpoints["/open"].anonymous
    assert not snapshot.endpoints["/tokens"].anonymous
    assert "bot" not in snapshot.endpoints["/tokens"].view_of


def test_backends_and_what_was_learned() -> None:
    servers = {
        "a": {"url": ["http://h:1/m", "http://h:2/m"], "headers": {"X-A": "1"}},
        "b": {"url": "http://h:3", "era": "modern"},
    }
    eras = {
        instance_key("a", "http://h:2/m"): ("legacy", "2025-06-18"),
        instance_key("b", "http://h:3"): ("legacy", "2025-06-18"),
    }
    known = {"a": catalogue("a", fresh_until=9.0), "b": catalogue("b", fresh_until=7.0)}
    learned = Learned(known, eras, {"a": b"Authorization: Bearer s\r\n"}, seal_keys=(b"k",))
    snapshot, _ = compile_snapshot(Settings.model_validate({"servers": servers}), learned, 7)
    a, b = snapshot.backends["a"], snapshot.backends["b"]
    assert a.headers == b"X-A: 1\r\nAuthorization: Bearer s\r\n"
    assert [(one.key, one.era, one.version) for one in a.instances] == [
        ("a|http://h:1/m", None, ""),
        ("a|http://h:2/m", "legacy", "2025-06-18"),
    ]
    assert (b.instances[0].era, b.instances[0].version) == ("modern", "2026-07-28")
    assert (snapshot.generation, snapshot.seal_keys, snapshot.endpoints["/mcp"].fresh_until) == (7, (b"k",), 7.0)
    assert "Bearer s" not in repr(learned)


def test_hosts_and_origins() -> None:
    snapshot = compiled({"a": []}, listen="127.0.0.1:8080", public_url="https://MCP.example.com")
    assert {
        b"localhost",
        b"localhost:8080",
        b"[::1]:8080",
        b"mcp.example.com",
        b"mcp.example.com:443",
    } <= snapshot.hosts
    assert {"http://localhost:8080", "https://127.0.0.1", "https://mcp.example.com"} <= snapshot.origins
    assert "http://mcp.example.com" not in snapshot.origins
    assert not {b"0.0.0.0", b"evil.example"} & compiled({"a": []}, listen="0.0.0.0:8080").hosts


def test_every_public_url_is_let_in() -> None:
    urls = ["https://MCP.example.com", "http://10.0.0.7:9000/", "http://[2001:DB8:0::1]:80"]
    snapshot = compiled({"a": []}, listen="0.0.0.0:8080", public_url=urls)
    assert {b"localhost:8080", b"mcp.example.com", b"mcp.example.com:8080", b"10.0.0.7:9000"} <= snapshot.hosts
    assert {b"[2001:db8:0::1]", b"[2001:db8::1]:80"} <= snapshot.hosts
    assert {"https://mcp.example.com", "http://10.0.0.7:9000", "http://[2001:db8::1]"} <= snapshot.origins
    assert b"[2001:db8::1]:8080" in compiled({"a": []}, listen="[2001:DB8:0::1]:8080").hosts


def test_an_endpoint_lets_in_exactly_the_origins_that_are_written() -> None:
    endpoints = {
        "/app": {"origins": ["https://App.example.com:443", "http://localhost:5173", "vscode-webview://abc"]},
        "/nobody": {"origins": []},
        "/mcp": {},
    }
    found = compiled({"a": []}, endpoints=endpoints).endpoints
    assert set(found["/app"].origins or ()) == {
        "https://app.example.com",
        "http://localhost:5173",
        "vscode-webview://abc",
    }
    assert found["/nobody"].origins == frozenset()
    assert found["/mcp"].origins is None


@pytest.mark.parametrize(
    "written", ["https://a.example/", "https://*.example", "a.example", "null", "https://a:b@c", ""]
)
def test_what_no_browser_sends_is_no_origin(written: str) -> None:
    with pytest.raises(ValidationError, match="scheme, host and port only"):
        compiled({"a": []}, endpoints={"/mcp": {"origins": written}})


@pytest.mark.parametrize("pattern", ["", "prompt:", "resource:"])
def test_a_pattern_says_something(pattern: str) -> None:
    with pytest.raises(ValidationError, match="a pattern is empty"):
        compiled({"a": []}, policies=[{"name": "p", "deny": [pattern]}])


def test_it_is_the_same_every_time_and_survives_pickling() -> None:
    bring = {"a": ["x", "y"], "b": ["x"], "fast": ["q"], "slow": None}
    policies = [{"name": "p", "allow": "*", "except": {"arguments": {"n": {"more_than": 5}}}}]
    first, second = (compiled(bring, tools=ROUTE | {"r": {"to": "a/y"}}, policies=policies) for _ in "12")
    assert first == second == pickle.loads(pickle.dumps(first))
    assert pickle.dumps(first) == pickle.dumps(second)


@pytest.mark.parametrize("naming", ["none", "on_collision", "always"])
def test_a_deny_survives_every_rename_and_collision(naming: str) -> None:
    dice = random.Random(3)
    pool = ["search", "read", "gh__search", "x" * 70, "deploy"]
    for _ in range(60):
        bring = {server: dice.sample(pool, 3) for server in ("gh", "gl", "aa")}
        server = dice.choice(list(bring))
        denied = dice.choice(bring[server])
        pattern = dice.choice([denied, f"{server}/{denied}", denied[:3] + "*", f"{server}__{denied}"])
        policies = [{"name": "p", "allow": "*"}, {"name": "d", "deny": pattern}]
        routes = {"entry": {"to": f"{dice.choice(list(bring))}/{denied}"}} if dice.random() < 0.5 else {}
        snapshot = compiled(bring, policies=policies, tools=routes, endpoints={"/mcp": {"naming": naming}})
        reachable = [target for name in view(snapshot).grants for target in targets(snapshot, name)]
        assert f"{server}/{denied}" not in reachable, (bring, pattern)


@pytest.mark.parametrize("naming", ["none", "on_collision", "always"])
def test_a_route_cannot_be_walked_round(naming: str) -> None:
    dice = random.Random(5)
    pool = ["search", "read", "gh__search", "x" * 70, "y"]
    for _ in range(60):
        bring = {server: dice.sample(pool, 3) for server in ("gh", "gl")}
        guarded = [(server, dice.choice(tools)) for server, tools in bring.items()]
        never = {"match": {"claims": {"tier": "nobody"}}}
        tools = {
            f"r{at}": {"route": [{**never, "to": f"{server}/{tool}"}]} for at, (server, tool) in enumerate(guarded)
        }
        snapshot = compiled(bring, tools=tools, endpoints={"/mcp": {"naming": naming}})
        reachable = {target for name in view(snapshot).grants for target in targets(snapshot, name)}
        assert not reachable & {f"{server}/{tool}" for server, tool in guarded}
        own = {f"{server}/{tool}" for server, brought in bring.items() for tool in brought}
        if naming != "none":
            assert reachable == own - {f"{server}/{tool}" for server, tool in guarded}


def test_a_policy_in_shadow_tells_agents_apart_and_takes_nothing_from_them() -> None:
    agents = {name: {"key": HASH.replace("ab", key)} for name, key in (("bot", "01"), ("other", "02"))}
    stop = {"name": "stop", "mode": "shadow", "match": {"agent": "bot"}, "deny": ["x", "prompt:*"]}
    brings = {"a": {"tools": ["x", "y"], "prompts": ["p"]}}
    rules = [{"name": "all", "allow": ["*", "prompt:*"]}, stop]
    snapshot = pickle.loads(pickle.dumps(compiled(brings, agents=agents, policies=rules)))
    bot, other = view(snapshot, "bot"), view(snapshot, "other")
    assert set(bot.grants) == set(other.grants) == {"x", "y"}
    assert other.shadow is None
    assert bot.shadow is not None
    assert (set(bot.shadow.tools), set(bot.shadow.prompts), bot.shadow.uris) == ({"x"}, {"p"}, None)
    never = compiled(brings, agents=agents, policies=[rules[0], {**stop, "deny": "z"}]).endpoints["/mcp"]
    assert [one.shadow for one in never.views] == [None], "who has the same by all policies is one class"
