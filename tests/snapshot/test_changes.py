"""What a comparison of two configurations says: names, who sees them, settings."""

from __future__ import annotations

from typing import Any

import pytest

from fastgw.config.schema.settings import Settings
from fastgw.snapshot.changes import changes
from tests.snapshot.compiling import catalogue

KNOWN = {
    "one": catalogue("one", "read", "write", prompts=["greet"], resources=["x://a"]),
    "two": catalogue("two", "query"),
}
URL = {"one": {"url": "http://127.0.0.1:9/one"}, "two": {"url": "http://127.0.0.1:9/two"}}
AGENTS = {name: {"key": f"sha256:{at:064x}", "claims": {"team": name[0]}} for at, name in enumerate(("a", "b1", "b2"))}
BASE: dict[str, Any] = {"servers": URL, "agents": AGENTS}
POLICIES = [
    {"name": "a", "match": {"claims": {"team": "a"}}, "allow": ["*", "prompt:*"]},
    {"name": "b", "match": {"claims": {"team": "b"}}, "allow": ["read"]},
]


def compared(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    sides = (Settings.model_validate({**BASE, **side}) for side in (before, after))
    return changes(*sides, KNOWN)


def test_the_same_settings_are_no_change() -> None:
    assert compared({}, {}) == {"names": [], "access": [], "settings": [], "unknown": []}


def test_a_server_brings_and_takes_away_names() -> None:
    found = compared({"servers": {"one": URL["one"]}}, {"servers": {"two": URL["two"]}})
    rows = [(row["kind"], row["name"], row["before"], row["after"]) for row in found["names"]]
    assert rows == [
        ("tools", "query", None, ["two/query"]), ("tools", "read", ["one/read"], None),
        ("tools", "write", ["one/write"], None), ("prompts", "greet", ["one/greet"], None),
        ("resources", "x://a", ["one/x://a"], None),
    ]  # fmt: skip
    assert found["settings"] == [
        {"setting": "servers.one", "change": "removed"}, {"setting": "servers.two", "change": "added"},
    ]  # fmt: skip
    agents = ["a", "b1", "b2"]
    gone = ["prompt:greet", "read", "write"]
    assert found["access"] == [{"endpoint": "/mcp", "agents": agents, "gains": ["query"], "loses": gone}]


def test_a_tool_that_leads_elsewhere() -> None:
    found = compared({"tools": {"q": {"to": "two/query"}}}, {"tools": {"q": {"to": ["one/read", "two/query"]}}})
    row = {"endpoint": "/mcp", "kind": "tools", "name": "q"}
    assert {**row, "before": ["two/query"], "after": ["one/read", "two/query"]} in found["names"]
    assert found["settings"] == [{"setting": "tools.q.to", "change": "changed"}]


def test_agents_who_gain_and_lose_the_same_are_one_row() -> None:
    other = [POLICIES[0], {**POLICIES[1], "allow": ["write", "query"]}]
    found = compared({"policies": POLICIES}, {"policies": other})
    row = {"endpoint": "/mcp", "agents": ["b1", "b2"], "gains": ["query", "write"], "loses": ["read"]}
    assert (found["access"], found["names"]) == ([row], [])
    assert found["settings"] == [{"setting": "policies.b.allow", "change": "changed"}]


def test_agents_and_endpoints_come_and_go() -> None:
    fewer = {"agents": {"a": AGENTS["a"]}, "endpoints": {"/mcp": {}, "/few": {"servers": ["two"]}}}
    found = compared({"policies": POLICIES, "endpoints": {"/mcp": {}}}, {"policies": POLICIES, **fewer})
    assert [(row["endpoint"], row["agents"], row["gains"], row["loses"]) for row in found["access"]] == [
        ("/mcp", ["b1", "b2"], [], ["read"]), ("/few", ["a"], ["query"], []),
    ]  # fmt: skip
    assert [(row["endpoint"], row["name"]) for row in found["names"]] == [("/few", "query")]


def test_a_policy_about_arguments_is_named_though_lists_are_the_same() -> None:
    about = {**POLICIES[0], "match": {"claims": {"team": "a"}, "arguments": {"table": "t"}}}
    found = compared({"policies": [about]}, {"policies": [{**about, "match": {"claims": {"team": "a"}}}]})
    assert (found["access"], found["settings"]) == (
        [], [{"setting": "policies.a.match.arguments", "change": "changed"}],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "row"),
    [
        ({"timeout": "10s"}, {"timeout": "20s"}, {"setting": "timeout", "before": 10.0, "after": 20.0}),
        (
            {"limits": [{"name": "l", "rate": "5/minute"}]},
            {"limits": [{"name": "l", "rate": "9/hour"}]},
            {"setting": "limits.l.rate", "before": "5/minute", "after": "9/hour"},
        ),
        (
            {"limits": [{"name": "l", "rate": "5/minute"}]},
            {"limits": [{"name": "l", "rate": "5/minute", "burst": 7}]},
            {"setting": "limits.l.burst", "change": "added", "before": None, "after": 7},
        ),
        ({"workers": 1}, {"workers": 2}, {"setting": "workers", "before": 1, "after": 2}),
    ],
)
def test_numbers_and_rates_are_shown(before: dict[str, Any], after: dict[str, Any], row: dict[str, Any]) -> None:
    assert compared(before, after)["settings"] == [{"change": "changed", **row}]


def test_texts_are_not_since_some_are_secrets() -> None:
    def server(secret: str) -> dict[str, Any]:
        plain = {"headers": {"X-Plain": secret}, "credential": {"bearer": secret}}
        return {
            "servers": {**URL, "one": {"url": f"http://127.0.0.1:9/{secret}", **plain}},
            "tools": {"read": {"fixed": {"key": secret, "pin": len(secret)}}},
            "secret": secret * 4,
            "admin": {"listen": "127.0.0.1:1", "token": secret},
            "alerts": {"webhook": f"https://x.example/{secret}"},
        }

    found = compared(server("canary"), server("canary-2"))
    assert "canary" not in str(found)
    assert {row["setting"] for row in found["settings"]} == {
        "servers.one.url", "servers.one.headers", "servers.one.credential", "tools.read.fixed", "secret", "admin.token",
        "alerts.webhook",
    }  # fmt: skip
    assert all(row.keys() == {"setting", "change"} for row in found["settings"])


def test_a_server_that_has_never_answered_is_named() -> None:
    more = {"servers": {**URL, "new": {"url": "http://127.0.0.1:9/new"}}}
    assert compared({}, more)["unknown"] == ["new"]


def test_whoever_shows_no_credential_is_told_of_where_none_is_needed() -> None:
    found = compared({"endpoints": {"/mcp": {}}}, {"endpoints": {"/mcp": {"auth": "none", "servers": ["two"]}}})
    rows = {tuple(row["agents"]): row for row in found["access"]}
    assert rows["anonymous",]["gains"] == ["query"]
