"""Servers' instructions: each view has those of the servers it has something of, and no others."""

from __future__ import annotations

from typing import Any

import pytest

from fastgw.policy.match import Principal
from fastgw.snapshot.model import Snapshot
from tests.snapshot.compiling import HASH, compiled

A, B = "A speaks.", "B speaks."
AGENTS = {who: {"key": HASH, "claims": {"of": who}} for who in ("all", "only-a", "only-b", "none")}


def bringing(text: str, **more: Any) -> dict[str, Any]:
    return {"tools": ["x"], "instructions": text, **more}


def guide(snapshot: Snapshot, agent: str = "bot", path: str = "/mcp") -> str:
    return snapshot.endpoints[path].guide(Principal(agent))


def policies(only_a: str, only_b: str) -> list[dict[str, Any]]:
    return [
        {"name": "all", "match": {"claims": {"of": "all"}}, "allow": ["*", "prompt:*", "resource:*"]},
        {"name": "a", "match": {"claims": {"of": "only-a"}}, "allow": [only_a]},
        {"name": "b", "match": {"claims": {"of": "only-b"}}, "allow": [only_b]},
        {"name": "none", "match": {"claims": {"of": "none"}}, "allow": ["nothing"]},
    ]


def test_what_one_server_says_is_handed_on_as_it_is() -> None:
    assert guide(compiled({"a": bringing(A)})) == A
    assert guide(compiled({"a": bringing("")})) == ""
    own = {"/mcp": {"instructions": "Own."}}
    assert guide(compiled({"a": bringing(A)}, endpoints=own)) == f"Own.\n\n{A}"
    silent = compiled({"a": bringing(""), "b": None}, endpoints=own)
    assert guide(silent) == "Own."
    assert silent.endpoints["/mcp"].guides == ()


def test_of_several_each_stands_under_the_name_agents_know() -> None:
    bring = {"a": bringing(A), "b": bringing(B, tools=["y"]), "c": bringing("", tools=["z"])}
    assert guide(compiled(bring, b={"alias": "bee"})) == f"a:\n{A}\n\nbee:\n{B}"


KINDS = {
    "tools": ("x", "y", "x", "y"),
    "prompts": ("p", "q", "prompt:p", "prompt:q"),
    "resources": ("docs://p", "docs://q", "resource:docs://p", "resource:docs://q"),
    "templates": ("docs://p/{x}", "docs://q/{x}", "resource:docs://p/*", "resource:docs://q/*"),
}


@pytest.mark.parametrize(("kind", "row"), KINDS.items(), ids=KINDS)
def test_who_sees_nothing_of_a_server_does_not_hear_it(kind: str, row: tuple[str, str, str, str]) -> None:
    bring = {
        "a": {"tools": (), kind: [row[0]], "instructions": A, "capabilities": [kind.replace("templates", "resources")]},
        "b": {"tools": (), kind: [row[1]], "instructions": B, "capabilities": [kind.replace("templates", "resources")]},
    }
    own = {"/mcp": {"instructions": "Own."}}
    snapshot = compiled(bring, agents=AGENTS, policies=policies(row[2], row[3]), endpoints=own)
    assert {who: guide(snapshot, who) for who in AGENTS} == {
        "all": f"Own.\n\na:\n{A}\n\nb:\n{B}",
        "only-a": f"Own.\n\na:\n{A}",
        "only-b": f"Own.\n\nb:\n{B}",
        "none": "Own.",
    }


def test_an_endpoint_tells_of_its_own_servers_only() -> None:
    endpoints: dict[str, Any] = {"/mcp": {}, "/few": {"servers": ["b"]}, "/some": {"tools": ["x"]}}
    snapshot = compiled({"a": bringing(A), "b": bringing(B, tools=["y"])}, endpoints=endpoints)
    assert guide(snapshot, path="/few") == B
    assert guide(snapshot, path="/some") == f"a:\n{A}"
    assert A in guide(snapshot) and B in guide(snapshot)


def test_a_tool_that_is_routed_elsewhere_tells_of_where_it_goes() -> None:
    tools, only_find = {"find": {"to": ["b/y"]}}, [{"name": "p", "allow": ["find"]}]
    snapshot = compiled({"a": bringing(A), "b": bringing(B, tools=["y"])}, tools=tools, policies=only_find)
    assert guide(snapshot) == f"b:\n{B}"
