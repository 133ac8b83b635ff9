"""Resources and templates: whose each is, under which URI it is shown, and to whom."""

from __future__ import annotations

from typing import Any

import pytest

from fastgw.catalog.route import Arm, Deadlines
from fastgw.catalog.uris import Owned
from fastgw.snapshot.model import Snapshot
from tests.snapshot.compiling import HASH, compiled, items, noticed, resources, shown, templates, view


def bringing(*uris: Any, **more: Any) -> dict[str, Any]:
    return {"resources": uris, **more}


def readable(snapshot: Snapshot, uri: str, agent: str = "bot", path: str = "/mcp") -> Owned | None:
    """Where a read of this agent leads; None where it finds nothing."""
    endpoint = snapshot.endpoints[path]
    owned = endpoint.uris.owner(uri)
    if owned is None or owned.server not in endpoint.readers:
        return None
    return owned if endpoint.uris.permits(view(snapshot, agent, path).uri_rules, uri, owned) else None


def test_what_is_listed_can_be_read() -> None:
    bring = {"b": bringing("docs://z", "docs://a"), "a": bringing("docs://m", templates=["docs://m/{x}"])}
    snapshot = compiled(bring)
    assert (resources(snapshot), templates(snapshot)) == (["docs://z", "docs://a", "docs://m"], ["docs://m/{x}"])
    assert readable(snapshot, "docs://z") == Owned("b", "docs://z")
    assert readable(snapshot, "docs://m/7") == Owned("a", "docs://m/7")
    assert readable(snapshot, "docs://no") is None


@pytest.mark.parametrize(
    ("naming", "expected"),
    [
        ("none", ["docs://r", "docs://x"]),
        ("on_collision", ["a+docs://r", "docs://x", "b+docs://r"]),
        ("always", ["a+docs://r", "a+docs://x", "b+docs://r"]),
    ],
)
def test_two_servers_with_one_uri(naming: str, expected: list[str]) -> None:
    bring = {"a": bringing("docs://r", "docs://x"), "b": bringing("docs://r")}
    snapshot, notices = noticed(bring, endpoints={"/mcp": {"naming": naming}})
    assert resources(snapshot) == expected
    assert all(readable(snapshot, uri) for uri in expected)
    assert any("b/docs://r" in one.subject and one.endpoint == "/mcp" for one in notices) == (naming != "always")


@pytest.mark.parametrize("other", [["docs://r"], []])
def test_a_deny_of_an_alias_holds_whether_there_is_a_collision_or_not(other: list[str]) -> None:
    """As with tools: what another server lists today opens no door."""
    bring = {"a": bringing("docs://r", "docs://x"), "b": bringing(*other, capabilities=["resources"])}
    deny = [{"name": "p", "allow": "resource:*", "deny": "resource:a+docs://r*"}]
    snapshot = compiled(bring, policies=deny)
    assert resources(snapshot) == ["docs://x", *(f"b+{uri}" for uri in other)]
    assert [readable(snapshot, uri) for uri in ("docs://r", "a+docs://r", "a+docs://r#x")] == [None] * 3
    assert readable(compiled(bring), "a+docs://r") == Owned("a", "docs://r")


@pytest.mark.parametrize("uri", ["docs://r", "ui://x/page", "docs://" + "r" * 8180])
@pytest.mark.parametrize("pattern", ["a/*", "b/*", "b+*", "b/docs://r*"])
def test_a_deny_of_a_backup_holds_for_what_it_would_be_asked(pattern: str, uri: str) -> None:
    policies = [{"name": "p", "allow": "resource:*", "deny": f"resource:{pattern}"}]
    snapshot = compiled({"a": bringing(uri), "b": bringing(uri)}, a={"backup": ["b"]}, policies=policies)
    is_denied = uri.startswith("docs:") or pattern in ("a/*", "b/*")
    assert (resources(snapshot), readable(snapshot, uri) is None) == ([] if is_denied else [uri], is_denied)


def test_each_dialect_gets_the_servers_own_words() -> None:
    told = {"uri": "docs://r", "name": "r", "title": "T", "mimeType": "text/plain", "size": 7}
    seen = view(compiled({"a": bringing(told)}, endpoints={"/mcp": {"naming": "always"}}))
    assert items(seen, "resources/list") == [{**told, "uri": "a+docs://r"}]
    oldest = {key: value for key, value in told.items() if key != "title"}
    assert items(seen, "resources/list", "2025-03-26") == [{**oldest, "uri": "a+docs://r"}]


AGENTS = {team: {"key": HASH, "claims": {"team": team}} for team in ("red", "blue")}
POLICIES = [
    {"name": "r", "match": {"claims": {"team": "red"}}, "allow": ["resource:docs://*"], "deny": "resource:*secret*"},
    {"name": "b", "match": {"claims": {"team": "blue"}}, "allow": ["*", "resource:b/*"]},
]


def test_each_class_lists_what_it_may_read_and_nothing_else() -> None:
    bring = {
        "a": bringing("docs://open", "docs://secret", "file:///x", templates=["docs://t/{x}", "file:///t/{x}"]),
        "b": bringing("db://rows", templates=["db://t/{x}"]),
    }
    snapshot = compiled(bring, agents=AGENTS, policies=POLICIES)
    assert resources(snapshot, "red") == ["docs://open"]
    assert templates(snapshot, "red") == ["docs://t/{x}"]
    assert resources(snapshot, "blue") == ["db://rows"]
    assert templates(snapshot, "blue") == ["db://t/{x}"]
    assert resources(snapshot, "anonymous") == templates(snapshot, "anonymous") == []
    every = ["docs://open", "docs://secret", "file:///x", "db://rows"]
    for agent in ("red", "blue", "anonymous"):
        assert [uri for uri in every if readable(snapshot, uri, agent)] == resources(snapshot, agent)
    assert readable(snapshot, "docs://t/secret", "red") is None
    assert readable(snapshot, "docs://t/1", "red") == Owned("a", "docs://t/1")


def test_a_star_allows_tools_only() -> None:
    assert resources(compiled({"a": bringing("docs://r")}, policies=[{"name": "p", "allow": "*"}])) == []


def test_policies_that_look_at_arguments_open_no_resource() -> None:
    looking = {"arguments": {"env": "prod"}}
    policies = [{"name": "p", "match": looking, "allow": "resource:*"}]
    assert resources(compiled({"a": bringing("docs://r")}, policies=policies)) == []
    policies = [{"name": "p", "allow": "resource:*"}, {"name": "q", "match": looking, "deny": "resource:*"}]
    assert resources(compiled({"a": bringing("docs://r")}, policies=policies)) == ["docs://r"]


def test_agents_of_one_sight_share_a_view() -> None:
    policies = [
        {"name": "r", "match": {"claims": {"team": "red"}}, "allow": "resource:docs://*"},
        {"name": "b", "match": {"claims": {"team": "blue"}}, "allow": "resource:docs://*"},
    ]
    endpoint = compiled({"a": bringing("docs://r")}, agents=AGENTS, policies=policies).endpoints["/mcp"]
    assert len(endpoint.views) == 2
    assert endpoint.view_of["red"] == endpoint.view_of["blue"] != endpoint.view_of["anonymous"]


def test_a_server_gives_only_what_is_taken() -> None:
    bring = {
        "a": bringing("docs://pub/1", "docs://x", templates=["docs://pub/{id}", "docs://y/{id}"]),
        "b": bringing("docs://x"),
    }
    snapshot = compiled(bring, a={"tools": ["resource:docs://pub/*"]})
    assert (resources(snapshot), templates(snapshot)) == (["docs://pub/1", "docs://x"], ["docs://pub/{id}"])
    assert readable(snapshot, "docs://x") == Owned("b", "docs://x")
    assert readable(snapshot, "a+docs://x") is None
    assert readable(snapshot, "a+docs://pub/%2e%2e/x") is None
    assert readable(snapshot, "docs://pub/7") == Owned("a", "docs://pub/7")


def test_who_may_give_no_resource_reads_nothing() -> None:
    snapshot = compiled({"a": bringing("docs://x"), "b": bringing("docs://y")}, a={"tools": ["*", "prompt:*"]})
    endpoint = snapshot.endpoints["/mcp"]
    assert list(endpoint.readers) == ["b"]
    assert resources(snapshot) == ["docs://y"]
    # The only one that is left answers for everything.
    assert readable(snapshot, "docs://x") == Owned("b", "docs://x")


def test_an_endpoint_takes_what_it_names() -> None:
    endpoints: dict[str, Any] = {
        "/seen": {"tools": ["resource:a+docs://*"]},
        "/own": {"tools": ["resource:b/docs://*"]},
        "/tools": {"tools": ["*"]},
        "/b": {"servers": ["b"]},
    }
    bring = {"a": bringing("docs://r", "docs://x", tools=["t"]), "b": bringing("docs://r", "file:///y")}
    snapshot = compiled(bring, endpoints=endpoints)
    assert resources(snapshot, path="/seen") == ["a+docs://r"]
    assert resources(snapshot, path="/own") == ["b+docs://r"]
    assert resources(snapshot, path="/tools") == []
    assert resources(snapshot, path="/b") == ["docs://r", "file:///y"]
    assert readable(snapshot, "docs://x", path="/seen") is None
    assert readable(snapshot, "docs://r", path="/tools") is None
    assert not snapshot.endpoints["/tools"].readers


def test_readers_have_the_times_of_their_server() -> None:
    bring = {"a": bringing("docs://r"), "b": bringing("docs://s"), "c": {"tools": ["t"]}, "d": None}
    endpoints = {"/mcp": {"timeout": "7s"}}
    readers = compiled(bring, endpoints=endpoints, a={"timeout": "3s"}).endpoints["/mcp"].readers
    assert readers == {
        "a": Arm(None, (), Deadlines(connect=3.0, first_byte=3.0, idle=3.0, total=3.0, longest=600.0), repeatable=True),
        "b": Arm(None, (), Deadlines(connect=5.0, first_byte=7.0, idle=7.0, total=7.0, longest=600.0), repeatable=True),
    }


def test_what_servers_declare() -> None:
    declaring = {"a": ["resources", "logging"], "b": ["completions", "prompts"], "c": ["tools"]}
    bring: dict[str, Any] = {name: {"capabilities": declared} for name, declared in declaring.items()}
    snapshot = compiled({**bring, "never": None}, endpoints={"/mcp": {}, "/a": {"servers": "a"}})
    assert {name for name, backend in snapshot.backends.items() if backend.logs} == {"a"}
    assert (set(snapshot.endpoints["/mcp"].readers), set(snapshot.endpoints["/mcp"].completes)) == ({"a"}, {"b"})
    assert snapshot.endpoints["/a"].completes == frozenset()
    # It has none to list, and is asked for all of them.
    assert readable(snapshot, "any://thing") == Owned("a", "any://thing")


def test_a_catalogue_that_knows_no_capabilities_counts_by_its_lists() -> None:
    bring = {"a": bringing(templates=["docs://{x}"]), "b": bringing("file:///x"), "c": {"prompts": ["p"]}}
    snapshot = compiled(bring)
    assert set(snapshot.endpoints["/mcp"].readers) == {"a", "b"}
    assert not snapshot.endpoints["/mcp"].completes
    assert not any(backend.logs for backend in snapshot.backends.values())


PAGE = {"name": "show", "_meta": {"ui": {"resourceUri": "ui://page", "x": 1}, "k": 2}}


@pytest.mark.parametrize(("naming", "uri"), [("none", "ui://page"), ("always", "ui://a/page")])
def test_tools_name_their_page_as_agents_know_it(naming: str, uri: str) -> None:
    bring = {"a": bringing("ui://page", tools=[PAGE, "plain"]), "b": bringing("ui://other")}
    snapshot = compiled(bring, endpoints={"/mcp": {"naming": naming}})
    name = "show" if naming == "none" else "a__show"
    assert shown(snapshot, name)["_meta"] == {"ui": {"resourceUri": uri, "x": 1}, "k": 2}
    assert readable(snapshot, uri) == Owned("a", "ui://page")


def test_a_page_that_collides_is_renamed_in_its_tool() -> None:
    bring = {"a": bringing("ui://page", tools=[PAGE]), "b": bringing("ui://page")}
    snapshot = compiled(bring, tools={"view": {"to": "a/show"}})
    assert shown(snapshot, "view")["_meta"]["ui"]["resourceUri"] == "ui://a/page"
    assert resources(snapshot) == ["ui://a/page", "ui://b/page"]
