"""`fastgw explain`: its verdict is the gateway's, its reasons add up to that verdict, and it shows no secret."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastgw.catalog.definitions import DefinitionKind, parse_definition, parse_definitions
from fastgw.catalog.route import arm_for
from fastgw.catalog.tools import Catalogue
from fastgw.cli.explain import sendable
from fastgw.cli.main import main
from fastgw.config.schema.settings import Settings
from fastgw.policy.authorise import refused_by
from fastgw.policy.match import Principal
from fastgw.snapshot.compiler import Learned, compile_snapshot
from fastgw.snapshot.model import Endpoint, Grant
from fastgw.snapshot.trace import Trace, TracedCall, trace
from fastgw.upstream.discovery.kept import store

HASH = "sha256:" + "ab" * 32
Said = pytest.CaptureFixture[str]
Bring = Mapping[str, Sequence[str]]


def catalogue(server: str, tools: Sequence[str], prompts: Sequence[str] = (), uris: Sequence[str] = ()) -> Catalogue:
    array = [{"name": tool, "inputSchema": {"type": "object"}} for tool in tools]
    return Catalogue(
        server,
        parse_definitions(DefinitionKind.TOOL, server, json.dumps(array).encode())[0],
        prompts=tuple(
            parse_definition(DefinitionKind.PROMPT, server, json.dumps({"name": one}).encode()) for one in prompts
        ),
        resources=tuple(
            parse_definition(DefinitionKind.RESOURCE, server, json.dumps({"uri": uri, "name": "n"}).encode())
            for uri in uris
        ),
        capabilities=frozenset({"tools", "prompts", "resources"}),
    )


def settings_of(bring: Bring, **keys: Any) -> Settings:
    servers = {name: {"url": f"http://127.0.0.1:9/{name}", **keys.pop(name, {})} for name in bring}
    agents = {"bot": {"key": HASH, "claims": {"team": "qa", "tier": "gold"}}}
    return Settings.model_validate({"servers": servers, "agents": agents, **keys})


def asked(settings: Settings, catalogues: Mapping[str, Catalogue], name: str, **keys: Any) -> Trace:
    call = TracedCall(**{"kind": "tool", "name": name, "agent": "bot", **keys})
    return trace(settings, catalogues, call, sendable)


def told(bring: Bring, name: str, *, claims: Any = None, arguments: bytes = b"", **keys: Any) -> Trace:
    known = {server: catalogue(server, tools) for server, tools in bring.items()}
    return asked(settings_of(bring, **keys), known, name, claims=claims, arguments=arguments)


# -- the verdict --------------------------------------------------------------------------------------------------


def grants(endpoint: Endpoint, agent: str) -> Mapping[str, Grant]:
    view = endpoint.view_for(Principal(agent))
    return {} if view is None else view.grants


def is_sent(endpoint: Endpoint, agent: str, name: str, arguments: bytes) -> bool:
    """What the path does with a call: `resolve` and `authorise` of the pipeline."""
    grant = grants(endpoint, agent).get(name)
    if grant is None or arm_for(grant.arms, arguments) is None:
        return False
    return refused_by(grant, arguments) is None


def adds_up(found: Trace) -> bool:
    """The verdict that follows from the reasons alone."""
    if not any(arm["taken"] for arm in found.route):
        return False
    if found.rules is None:
        return True
    enforced = [rule for rule in found.rules if not rule["shadow"]]
    if found.rules and not enforced:
        return True
    if any(rule["effect"] == "denies" for rule in enforced):
        return False
    return any(rule["effect"] == "allows" for rule in enforced)


CLAIMS = [{"team": "qa"}, {"team": "qa", "tier": "gold"}, {"team": ("ops", "dev")}, {}]
ARGUMENTS = [b"", b"{}", b'{"env":"prod"}', b'{"env":"prod","n":9}', b'{"env":["prod"]}', b'{"env":1,"env":2}', b"[]"]


def match(dice: random.Random) -> dict[str, Any]:
    keys: dict[str, Any] = {
        "agent": dice.choice(["bot*", "login:*", "nobody"]),
        "claims": dice.choice([{"team": "qa"}, {"team": ["ops", "x"]}, {"tier": "*"}]),
        "endpoint": dice.choice(["/mcp", "/other"]),
        "arguments": dice.choice([{"env": "prod"}, {"n": {"more_than": 5}}, {"env": "p*", "n": "9"}]),
    }
    chosen = dice.sample(sorted(keys), dice.randint(1, 2))
    return {key: keys[key] for key in chosen}


def policy(dice: random.Random, number: int) -> dict[str, Any]:
    patterns = ["*", "x*", "a/x", "b/*", "go", "a__x", "?y", "nothing", "prompt:*"]
    found: dict[str, Any] = {"name": f"p{number}"}
    if dice.random() < 0.7:
        found["match"] = match(dice)
    if dice.random() < 0.3:
        found["except"] = match(dice)
    if dice.random() < 0.2:
        found["mode"] = "shadow"
    found["deny" if dice.random() < 0.25 else "allow"] = dice.sample(patterns, dice.randint(1, 2))
    return found


def test_the_verdict_is_the_gateways_and_the_reasons_add_up_to_it() -> None:
    dice = random.Random(11)
    verdicts = {True: 0, False: 0}
    for _ in range(250):
        bring = {"a": ["x", "xy"], "b": dice.sample(["x", "y", "xx"], 2), "c": ["y"]}
        route = [{**({"match": match(dice)} if dice.random() < 0.7 else {}), "to": to} for to in ("a/x", "b/x", "c/y")]
        tools = {"go": {"route": dice.sample(route, dice.randint(1, 3))}} if dice.random() < 0.6 else {}
        policies = [policy(dice, number) for number in range(dice.randint(0, 4))]
        settings = settings_of(bring, tools=tools, policies=policies)
        known = {server: catalogue(server, names) for server, names in bring.items()}
        claims = dice.choice(CLAIMS)
        agent = dice.choice(["bot", "bot-2", "login:me"])
        here = settings.model_copy(update={"agents": {agent: settings.agents["bot"].model_copy(
            update={"claims": claims})}})  # fmt: skip
        endpoint = compile_snapshot(here, Learned(known), 1)[0].endpoints["/mcp"]
        for name in [*endpoint.routes, "missing"]:
            arguments = dice.choice(ARGUMENTS)
            found = asked(settings, known, name, agent=agent, claims=claims, arguments=arguments)
            assert found.sent == is_sent(endpoint, agent, name, arguments), (found, policies)
            assert found.seen == (name in grants(endpoint, agent))
            enforced = settings_of(bring, tools=tools, policies=[{**one, "mode": "enforce"} for one in policies])
            would = asked(enforced, known, name, agent=agent, claims=claims, arguments=arguments).sent
            assert (found.shadow is not None) == (would != found.sent), (found, policies)
            parts = any(rule["effect"] == "allows in part" for rule in found.rules or ())
            assert parts or found.sent == adds_up(found), (found, policies)
            verdicts[found.sent] += 1
    assert min(verdicts.values()) > 100


def test_the_agent_of_the_configuration_is_that_agent() -> None:
    policies = [{"name": "p", "match": {"claims": {"tier": "gold"}}, "allow": "*"}]
    assert told({"a": ["x"]}, "x", policies=policies).sent
    assert not told({"a": ["x"]}, "x", claims={"tier": "tin"}, policies=policies).sent


# -- the reasons --------------------------------------------------------------------------------------------------


def test_each_arm_says_why_it_is_not_taken() -> None:
    route = [
        {"match": {"claims": {"tier": "tin"}}, "to": "a/x"},
        {"match": {"arguments": {"n": {"more_than": 5}}}, "to": "a/y"},
        {"to": "a/z"},
        {"to": "a/z"},
    ]
    found = told({"a": ["x", "y", "z"]}, "go", arguments=b'{"n":1}', tools={"go": {"route": route}})
    assert [(arm["taken"], arm["why"]) for arm in found.route] == [
        (False, ("claims.tier: gold is not tin",)),
        (False, ("arguments.n: does not match, or is missing",)),
        (True, ()),
        (False, ("the search ends at arm 3",)),
    ]
    assert found.goals[0]["name"] == "z"
    assert not told({"a": ["x", "y", "z"]}, "go", arguments=b"[]", tools={"go": {"route": route}}).sent


def test_arms_look_at_what_is_sent() -> None:
    arms = [{"match": {"arguments": {"env": "prod"}}, "to": "a/t"}, {"to": "b/t"}]
    tools = {"go": {"route": arms, "fixed": {"env": "prod"}}}
    bring = {"a": ["t"], "b": ["t"]}
    found = told(bring, "go", tools=tools)
    assert (found.verdict, [arm["taken"] for arm in found.route]) == ("sent to a as t", [True, False])
    stolen = told(bring, "go", tools=tools, arguments=b'{"env": "test"}')
    assert (stolen.sent, [arm["taken"] for arm in stolen.route]) == (False, [False, False])


def test_a_read_has_no_arguments_to_look_at() -> None:
    never = {"agent": "b*", "claims": {"team": "none"}, "arguments": {"a": "1"}}
    mine = {"name": "mine", "match": {"agent": "bot"}, "except": never, "allow": "resource:*"}
    other = {"name": "other", "except": {"arguments": {"a": "1"}}, "deny": "resource:*"}
    known = {"a": catalogue("a", [], uris=["docs://x"])}
    found = asked(settings_of({"a": []}, policies=[mine, other]), known, "docs://x", kind="resource")
    assert (found.sent, [one["effect"] for one in found.rules or ()]) == (True, ["allows", "none"])
    assert (found.rules or ())[1]["why"] == ("it looks at arguments, and a read has none",)


def test_each_policy_says_what_it_does() -> None:
    policies = [
        {"name": "other", "match": {"agent": "else", "claims": {"cost": "1"}}, "allow": "*"},
        {"name": "taken-out", "except": {"claims": {"team": "qa"}}, "allow": "*"},
        {"name": "allows", "allow": ["y", "a/*", "x"]},
        {"name": "denies", "deny": ["a/x", "z"]},
        {"name": "shadow", "deny": "*", "mode": "shadow"},
        {"name": "prompts", "allow": "prompt:*"},
    ]
    rules = told({"a": ["x"]}, "x", policies=policies).rules
    assert rules is not None
    assert [
        (rule["policy"], rule["applies"], rule["why"], rule["allows"], rule["denies"], rule["effect"]) for rule in rules
    ] == [
        ("other", False, ("agent: bot is not else", "claims.cost: it has no such claim"), ("*",), (), "none"),
        ("taken-out", False, ("except takes it out",), ("*",), (), "none"),
        ("allows", True, (), ("a/*", "x"), (), "allows"),
        ("denies", True, (), (), ("a/x",), "denies"),
        ("shadow", True, (), (), ("*",), "denies"),
        ("prompts", True, (), (), (), "none"),
    ]
    assert [rule["shadow"] for rule in rules] == [False, False, False, False, True, False]


ABSENT: list[tuple[str, dict[str, Any], str]] = [
    ("x", {"tools": {"x": {"hidden": True}}}, "a/x: hidden by the entry x of `tools`"),
    ("x", {"tools": {"a/?": {"hidden": True}}}, "a/x: hidden by the entry a/? of `tools`"),
    ("x", {"tools": {"go": {"to": "a/x"}}}, "a/x is called go here"),
    ("a__x", {}, "a/x is called x here"),
    ("both", {}, "a/both is called a__both here"),
    ("x", {"a": {"tools": ["z*"]}}, "a/x: left out: it is not among `tools` of the server"),
    ("x", {"endpoints": {"/mcp": {"servers": ["b"]}}}, "a/x is not on this endpoint: a is not among its servers"),
    ("x", {"endpoints": {"/mcp": {"tools": ["z*"]}}}, "a/x: left out: it is not among `tools` of this endpoint"),
    ("b__both", {"endpoints": {"/mcp": {"naming": "none"}}}, "b/both: hidden: its name is taken, and naming is none"),
    ("nothing", {}, "no server of this endpoint brings a tool of that name"),
    ("go", {"tools": {"go": {"to": "a/gone"}}}, "go: left out: no server brings a tool it points at"),
    (
        "go",
        {"tools": {"go": {"to": "a/x"}}, "endpoints": {"/mcp": {"servers": ["b"]}}},
        "go: its entry in `tools` leads to no server of this endpoint",
    ),
    (
        "x",
        {"endpoints": {"/mcp": {"naming": "always", "tools": ["z*"]}}},
        "a/x: left out: it is not among `tools` of this endpoint",
    ),
    (
        "a__x",
        {"tools": {"a__*": {"hidden": True}}, "endpoints": {"/mcp": {"naming": "always"}}},
        "a__x: hidden by the entry a__* of `tools`",
    ),
]


@pytest.mark.parametrize(
    ("name", "keys", "why"), ABSENT, ids=[f"{name}-{at}" for at, (name, _, _) in enumerate(ABSENT)]
)
def test_what_is_not_there_says_why(name: str, keys: dict[str, Any], why: str) -> None:
    found = told({"a": ["x", "both"], "b": ["both"]}, name, **keys)
    assert not found.sent and not found.seen
    assert why in found.absence, found.absence


def test_an_allow_of_some_targets_alone_allows_in_part() -> None:
    route = [{"match": {"arguments": {"n": 1}}, "to": "b/both"}, {"to": "a/x"}]
    for allow, effect, sent in (("a/*", "allows in part", False), (["a/*", "b/*"], "allows", True)):
        policies = [{"name": "p", "allow": allow}]
        found = told({"a": ["x"], "b": ["both"]}, "go", tools={"go": {"route": route}}, policies=policies)
        assert found.rules is not None
        assert ([rule["effect"] for rule in found.rules], found.sent) == ([effect], sent)


def test_a_server_that_never_answered_is_said_to_be_unknown() -> None:
    found = asked(settings_of({"a": []}), {}, "x")
    assert any("nothing is kept" in line for line in found.absence)


def test_what_would_keep_a_call_from_its_server() -> None:
    assert "maintenance" in told({"a": ["x"]}, "x", a={"maintenance": "back at noon"}).verdict
    closed: dict[str, Any] = {"endpoints": {"/mcp": {"auth": "login"}}, "identity": {"login": {"issuer": "https://h/"}}}
    assert "no API key opens this endpoint" in told({"a": ["x"]}, "x", **closed).verdict
    assert told({"a": ["x"]}, "x", claims={}, **closed).sent
    settings = settings_of({"a": ["x"]})
    locked = settings.model_copy(
        update={"agents": {"bot": settings.agents["bot"].model_copy(update={"disabled": True})}}
    )
    assert "disabled" in asked(locked, {"a": catalogue("a", ["x"])}, "x").verdict
    assert "without a credential" in asked(settings, {"a": catalogue("a", ["x"])}, "x", agent="anonymous").verdict
    open_to_all = settings_of({"a": ["x"]}, endpoints={"/mcp": {"auth": "none"}})
    found = asked(open_to_all, {"a": catalogue("a", ["x"])}, "x")
    assert (found.sent, found.agent) == (True, "anonymous")


LIMITS: list[dict[str, Any]] = [
    {"name": "all", "rate": "100/minute", "by": ["agent", "claims.none"]},
    {"name": "others", "rate": "1/minute", "match": {"agent": "else"}},
    {"name": "exports", "rate": "1/minute", "tools": ["export-*"]},
    {"name": "own", "rate": "6/hour", "burst": 2, "tools": ["a/*"], "mode": "shadow"},
    {"name": "prod", "rate": "5/minute", "match": {"arguments": {"env": "prod"}}},
    {"name": "many", "in_flight": 3, "by": "claims.team"},
]


def counted(*values: Any) -> dict[str, Any]:
    keys = ("name", "by", "bucket", "rate", "burst", "override", "in_flight", "weight", "shadow")
    return dict(zip(keys, values, strict=True))


def test_limits_that_count_it_are_named() -> None:
    found = told({"a": ["x"]}, "x", limits=LIMITS, tools={"x": {"weight": 2}})
    assert found.sent
    assert found.limits == (
        counted("all", ("agent", "claims.none"), ("bot", None), "100/minute", 100, None, None, 2, False),
        counted("own", (), (), "6/hour", 2, None, None, 2, True),
        counted("many", ("claims.team",), ("qa",), None, None, None, 3, 2, False),
    )
    prod = told({"a": ["x"]}, "x", limits=LIMITS, arguments=b'{"env":"prod"}')
    assert [one["name"] for one in prod.limits] == ["all", "own", "prod", "many"]
    settled = told({"a": ["x"]}, "x", limits=LIMITS, tools={"x": {"fixed": {"env": "prod"}}})
    assert "prod" in [one["name"] for one in settled.limits], "limits see arguments as they are sent"


QUOTAS: list[dict[str, Any]] = [
    {"name": "monthly", "by": ["claims.team", "claims.none"], "per": "month", "timezone": "Europe/Berlin", "cost": 250},
    {"name": "others", "per": "day", "calls": 1, "match": {"agent": "else"}},
    {"name": "exports", "per": "day", "calls": 1, "tools": ["export-*"]},
    {"name": "prod", "by": "tool", "rolling": "24h", "calls": 9, "tokens": 80, "mode": "shadow",
     "match": {"arguments": {"env": "prod"}}},
    {"name": "large", "per": "hour", "tokens_in": 5, "cost": 90_000_000},
]  # fmt: skip


def test_quotas_that_count_it_are_named_and_what_it_reserves() -> None:
    tools = {"x": {"reserve": {"tokens": 30}, "price": {"per_call": "0.000000025"}}}
    found = told({"a": ["x"]}, "x", quotas=QUOTAS, tools=tools, arguments=b'{"env":"prod"}')
    by_month = {"per": "month", "timezone": "Europe/Berlin", "rolling": None}
    by_hour = {"per": "hour", "timezone": "UTC", "rolling": None}
    rolling = {"per": None, "timezone": None, "rolling": 86400.0}
    assert found.quotas == (
        {"name": "monthly", "by": ("claims.team", "claims.none"), "subject": ("qa", None), **by_month,
         "amounts": {"cost": "250"}, "reserves": {"cost": "0.000000025"}, "learned": ("cost",), "shadow": False},
        {"name": "prod", "by": ("tool",), "subject": ("x",), **rolling,
         "amounts": {"calls": 9, "tokens": 80}, "reserves": {"calls": 1, "tokens": 30}, "learned": (), "shadow": True},
        {"name": "large", "by": (), "subject": (), **by_hour, "amounts": {"tokens_in": 5, "cost": "90000000"},
         "reserves": {"tokens_in": 1, "cost": "0.00000003"}, "learned": ("tokens_in", "cost"), "shadow": False},
    )  # fmt: skip
    assert [one["name"] for one in told({"a": ["x"]}, "x", quotas=QUOTAS).quotas] == ["monthly", "large"]
    unsure = told({"a": ["x"]}, "x", quotas=QUOTAS, arguments=b'{"env":["prod"]}')
    assert "prod" in [one["name"] for one in unsure.quotas], "what cannot be judged counts"


def test_a_call_that_is_not_sent_counts_nowhere() -> None:
    for name, keys in (("none", {}), ("x", {"policies": []}), ("x", {"a": {"maintenance": "back at noon"}})):
        found = told({"a": ["x"]}, name, limits=LIMITS, quotas=QUOTAS, **keys)
        assert (found.quotas, found.limits) == ((), ())


def test_the_override_that_holds_gives_the_figures() -> None:
    overrides = [
        {"match": {"agent": "else"}, "burst": 1},
        {"match": {"arguments": {"env": "prod"}}, "rate": "3/hour"},
        {"match": {"claims": {"tier": "gold"}}, "burst": 500},
    ]
    limits = [{"name": "all", "rate": "100/minute", "overrides": overrides}]

    def counted(arguments: bytes, claims: Any = None) -> tuple[str | None, int | None, int | None]:
        one = told({"a": ["x"]}, "x", limits=limits, arguments=arguments, claims=claims).limits[0]
        return one["rate"], one["burst"], one["override"]

    assert counted(b'{"env":"prod"}') == ("3/hour", 3, 2)
    assert counted(b'{"env":["prod"]}') == ("3/hour", 3, 2), "it cannot be told which: the slowest that may hold"
    assert counted(b'{"env":"test"}') == ("100/minute", 500, 3)
    assert counted(b"{}", {"tier": "tin"}) == ("100/minute", 100, None)


def test_limits_of_prompts_and_resources() -> None:
    limits = [
        {"name": "p", "rate": "1/minute", "tools": "prompt:*", "by": "tool"},
        {"name": "r", "rate": "1/minute", "tools": "resource:docs:*", "by": ["tool", "server"]},
    ]
    known = {"a": catalogue("a", [], ["greet"], ["docs://x"])}
    settings = settings_of({"a": []}, limits=limits)
    prompt = asked(settings, known, "greet", kind="prompt").limits
    assert [(one["name"], one["bucket"]) for one in prompt] == [("p", ("prompt:greet",))]
    resource = asked(settings, known, "docs://%78", kind="resource").limits
    assert [(one["name"], one["bucket"], one["weight"]) for one in resource] == [("r", (None, "a"), 1)]


def test_arguments_that_the_configuration_settles() -> None:
    curated = {"x": {"fixed": {"env": "prod"}, "defaults": {"n": 1}, "validate": "arguments"}}
    found = told({"a": ["x"]}, "x", tools=curated)
    assert (found.sent, found.fixed, found.defaults) == (True, ("env",), ("n",))
    assert "prod" not in repr(found)
    refused = told({"a": ["x"]}, "x", tools=curated, arguments=b'{"env":"staging"}')
    assert (refused.sent, refused.seen) == (False, True)
    assert refused.verdict.startswith("refused: Invalid arguments")
    policies = [{"name": "p", "match": {"arguments": {"n": 1}}, "allow": "x"}]
    filled = told({"a": ["x"]}, "x", tools=curated, policies=policies)
    assert filled.sent and adds_up(filled), "policies see arguments as they are sent"


def test_a_servers_own_name_of_a_renamed_argument_is_refused_as_the_gateway_does() -> None:
    renamed = {"x": {"to": {"server": "a", "tool": "own", "arguments": {"statement": "sql"}}}}
    assert told({"a": ["own"]}, "x", tools=renamed, arguments=b'{"statement":"1"}').sent
    refused = told({"a": ["own"]}, "x", tools=renamed, arguments=b'{"sql":"1"}')
    assert (refused.sent, refused.verdict.startswith("refused: Invalid arguments")) == (False, True)


# -- prompts and resources ----------------------------------------------------------------------------------------


def test_prompts() -> None:
    settings = settings_of(
        {"a": [], "b": []}, policies=[{"name": "p", "allow": "prompt:greet"}, {"name": "q", "allow": "*"}]
    )
    known = {"a": catalogue("a", ["greet"], ["greet", "both"]), "b": catalogue("b", [], ["both"])}
    found = asked(settings, known, "greet", kind="prompt")
    assert found.sent and found.rules is not None
    assert [rule["effect"] for rule in found.rules] == ["allows", "none"]
    assert [rule["allows"] for rule in found.rules] == [("prompt:greet",), ()], "as they stand in the file"
    hidden = asked(settings, known, "a__both", kind="prompt")
    assert (hidden.sent, hidden.seen, hidden.absence) == (False, False, ())
    assert "a/both is called a__both here" in asked(settings, known, "both", kind="prompt").absence
    server = settings_of({"a": [], "b": []}, a={"tools": ["*"]})
    found = asked(server, known, "greet", kind="prompt")
    assert found.absence == ("a/greet: left out: it is not among `tools` of the server",)
    endpoint = settings_of({"a": [], "b": []}, endpoints={"/mcp": {"tools": ["*"]}})
    found = asked(endpoint, known, "greet", kind="prompt")
    assert found.absence == ("greet: left out: it is not among `tools` of this endpoint",)


def test_resources() -> None:
    policies = [{"name": "p", "allow": "resource:help://*"}, {"name": "q", "deny": "resource:help://secret"}]
    settings = settings_of({"a": [], "b": []}, policies=policies)
    known = {"a": catalogue("a", [], [], ["help://one", "help://secret", "other://x"]), "b": catalogue("b", [])}
    found = asked(settings, known, "help://one", kind="resource")
    assert found.sent and found.goals[0]["server"] == "a"
    assert found.rules is not None and [rule["effect"] for rule in found.rules] == ["allows", "none"]
    denied = asked(settings, known, "help://secret", kind="resource")
    assert denied.rules is not None and [rule["effect"] for rule in denied.rules] == ["allows", "denies"]
    assert not denied.sent
    assert not asked(settings, known, "other://x", kind="resource").sent
    assert not asked(settings, known, "HELP://%73ecret", kind="resource").sent
    alone = settings_of({"a": []}, policies=policies)
    spelled = asked(alone, {"a": known["a"]}, "help://%6fne", kind="resource")
    assert spelled.verdict == "refused: its spelling is not canonical"


def test_by_what_a_uri_leads_to_its_server_or_why_nowhere() -> None:
    known = {
        "a": catalogue("a", [], [], ["help://one", "both://x", "b://cut"]),
        "b": catalogue("b", [], [], ["both://x"]),
        "c": catalogue("c", [], [], ["far://x"]),
    }
    template = parse_definition(DefinitionKind.TEMPLATE, "b", b'{"uriTemplate": "page://{p}", "name": "n"}')
    known["b"] = replace(known["b"], templates=(template,))
    taken = ["resource:help:*", "resource:page:*", "resource:both:*", "resource:a+*", "resource:b+*"]
    here = {"servers": ["a", "b"], "tools": taken}
    settings = settings_of({"a": [], "b": [], "c": []}, endpoints={"/mcp": here}, c={"tools": ["prompt:*"]})

    def led(uri: str) -> tuple[str, str]:
        found = asked(settings, known, uri, kind="resource")
        return found.led, "; ".join(found.absence)

    assert led("help://one") == ("a lists it", "")
    assert led("b+both://x") == ("b lists it", "")
    assert led("page://7") == ("it fits page://{p} of b", "")
    assert led("a+help://two") == ("it carries the alias of a", "")
    assert led("both://x") == ("", "a/both://x is called a+both://x here; b/both://x is called b+both://x here")
    assert led("b://cut") == ("", "a/b://cut is left out: it is not among `tools` of this endpoint")
    assert led("far://x") == ("", "c/far://x is not on this endpoint: c is not among its servers")
    alone = settings_of({"a": []}, a={"tools": ["resource:help:*"]})
    assert asked(alone, known, "help://none", kind="resource").led == "a alone has resources here"
    absence = asked(alone, known, "b://cut", kind="resource").absence
    assert absence == ("a/b://cut is left out: it is not among `tools` of the server",)


# -- the command --------------------------------------------------------------------------------------------------

CONFIG = """
agents:
  bot: {key: "HASH", claims: {team: qa}}
policies:
  - {name: qa, match: {claims: {team: qa}}, allow: ["*", "prompt:*"]}
  - {name: soon, deny: [go, "prompt:*"], mode: shadow}
servers:
  a:
    url: [https://h.example/s/SEKRET/mcp, http://h2.example:99/mcp]
    credential: {header: {X-Api-Key: "${env:SEKRET_KEY}"}}
    timeout: 9s
tools:
  go: {to: {server: a, tool: x, arguments: {q: query}}, attempt_timeout: 3s, weight: 5, reserve: {cost: 0.01}}
  secret-*: {hidden: true}
limits:
  - {name: calls, by: [agent, claims.team], rate: 100/minute, overrides: [{match: {agent: b*}, burst: 20}]}
  - {name: late, by: agent, tools: [x, go], rate: 9/hour, in_flight: 2, mode: shadow}
quotas:
  - {name: monthly, by: claims.team, per: month, calls: 5000, cost: 250.50}
  - {name: new, rolling: 90m, tokens_in: 9, mode: shadow}
""".replace("HASH", HASH)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEKRET_KEY", "SEKRET-value")
    found = tmp_path / "fastgw.yaml"
    found.write_text(CONFIG, encoding="utf-8")
    store(tmp_path / "data" / "catalogue", catalogue("a", ["x", "y", "secret-1", "esc\x1b[2J"]), {})
    return found


def run(file: Path, *words: str) -> int:
    return main(["explain", "--config", str(file), *words])


def test_it_is_printed_for_people(file: Path, capsys: Said) -> None:
    assert run(file, "--agent", "bot", "--tool", "go") == 0
    said = capsys.readouterr().out
    assert "SEKRET" not in said
    for line in (
        "verdict: sent to a as x",
        "  arm 1 to a/x: taken",
        "  qa: allows by *",
        "  soon: denies by go (shadow: not enforced)",
        "in shadow: the policy soon would refuse it",
        "target 1: a, tool x",
        "  instances: h.example:443, h2.example:99; credential: header",
        "  arguments renamed: q to query",
        "timeouts: total 9 s, max 600 s, attempt 3 s, idle 3 s",
        "quotas that count it:",
        "  monthly by claims.team qa: calls 5000, cost 250.5 per month (UTC); the call reserves calls 1, cost 0.01",
        "  new: tokens in 9 in any 90m; the call reserves tokens in 1 or more, by recent calls (shadow: not enforced)",
        "limits that count it:",
        "  calls by agent bot, claims.team qa: 100/minute, at most 20 at once (override 1); the call counts 5",
        "  late by agent bot: 9/hour, at most 9 at once; the call counts 5; at most 2 in flight (shadow: not enforced)",
    ):
        assert line in said.splitlines(), said


def test_it_is_printed_for_programs(file: Path, capsys: Said) -> None:
    assert run(file, "--claims", "team=qa,team=ops,tier=1", "--tool", "y", "--json") == 0
    said = capsys.readouterr().out
    found = json.loads(said)
    assert found["claims"] == {"team": ["qa", "ops"], "tier": "1"} and found["sent"] is True
    assert [(one["name"], one["bucket"]) for one in found["limits"]] == [("calls", ["someone", "qa,ops"])]
    assert "SEKRET" not in said
    assert run(file, "--claims", "team=ops", "--tool", "y", "--json") == 1


def test_statuses(file: Path, capsys: Said) -> None:
    assert run(file, "--agent", "bot", "--tool", "secret-1") == 1
    assert "hidden by the entry secret-*" in capsys.readouterr().out
    assert run(file, "--agent", "nobody", "--tool", "x") == 2
    assert run(file, "--agent", "bot", "--tool", "x", "--endpoint", "/none") == 2
    assert run(file, "--agent", "bot", "--agent-name", "x", "--tool", "x") == 2
    assert run(file.parent / "none.yaml", "--agent", "bot", "--tool", "x") == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 4
    for words in (["--tool", "x"], ["--agent", "bot"], ["--claims", "x", "--tool", "y"],
                  ["--agent", "bot", "--tool", "x", "--arguments", "[]"]):  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            run(file, *words)
        assert ended.value.code == 2


def test_names_of_servers_do_not_command_the_terminal(file: Path, capsys: Said) -> None:
    run(file, "--agent", "bot", "--tool", "esc\x1b[2J")
    assert "\x1b" not in capsys.readouterr().out
