"""Who may see what: the same views that agents list from."""

from __future__ import annotations

from typing import Any

from fastgw.snapshot.access import MOST_NAMED, who_sees
from tests.snapshot.compiling import HASH, compiled, view

AGENTS = {name: {"key": HASH.replace("ab", f"{at:02x}"), "claims": {"team": name[0]}} for at, name in enumerate("ab")}
TEAMS = [
    {"name": "a", "match": {"claims": {"team": "a"}}, "allow": ["*", "prompt:*", "resource:x://*"]},
    {"name": "b", "match": {"claims": {"team": "b"}, "arguments": {"env": "test"}}, "allow": ["read"]},
]
BRINGS = {"one": {"tools": ["read", "write"], "prompts": ["greet"], "resources": ["x://a", "y://b"]}}


def found(find: str = "", most: int = 50, **keys: Any) -> dict[str, Any]:
    return who_sees(compiled(BRINGS, **{"agents": AGENTS, "policies": TEAMS, **keys}).endpoints, find, most)


def test_each_kind_with_where_it_leads_and_who_sees_it() -> None:
    rows = {(row["kind"], row["name"]): row for row in found()["rows"]}
    assert {key: row["agents"] for key, row in rows.items()} == {
        ("tool", "read"): ["a", "b"], ("tool", "write"): ["a"], ("prompt", "greet"): ["a"],
        ("resource", "x://a"): ["a"], ("resource", "y://b"): [],
    }  # fmt: skip
    assert rows["tool", "read"]["to"] == ["one/read"]
    assert rows["tool", "read"]["endpoint"] == "/mcp"
    assert rows["tool", "read"]["conditional"], "what b may depends on the arguments"
    assert not rows["tool", "write"]["conditional"]


def test_it_is_what_agents_see() -> None:
    snapshot = compiled(BRINGS, agents=AGENTS, policies=TEAMS)
    for row in who_sees(snapshot.endpoints, "", 50)["rows"]:
        if row["kind"] == "tool":
            assert row["agents"] == [agent for agent in "ab" if row["name"] in view(snapshot, agent).grants]


def test_finding_goes_by_name_and_by_place_and_says_how_many() -> None:
    assert [row["name"] for row in found("wri")["rows"]] == ["write"]
    assert found("one/")["found"] == 5
    cut = found("", 2)
    assert (cut["found"], len(cut["rows"])) == (5, 2)
    assert found("nothing") == {"found": 0, "rows": []}


def test_thousands_of_agents_are_counted() -> None:
    crowd = {f"a{n}": {"key": f"sha256:{n:064x}", "claims": {"team": "a"}} for n in range(1000)}
    (row,) = found("write", agents=crowd)["rows"]
    assert row["seen_by"] == 1000
    assert len(row["agents"]) == MOST_NAMED


def test_where_nobody_needs_a_credential_the_anonymous_see_it() -> None:
    endpoints = {"/mcp": {"auth": "none"}}
    (row,) = found("write", endpoints=endpoints, policies=None)["rows"]
    assert row["agents"][0] == "anonymous"
