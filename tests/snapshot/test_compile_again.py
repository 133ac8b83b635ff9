"""One compile after the other: what is taken over from the last one changes nothing of what comes out."""

from __future__ import annotations

import pickle
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from fastgw.catalog.tools import Catalogue
from fastgw.config.schema.settings import Settings
from fastgw.snapshot.cache import CompileCache
from fastgw.snapshot.compiler import Learned, compile_snapshot
from fastgw.snapshot.model import Snapshot
from tests.snapshot.compiling import HASH, brought, catalogue, settings

SERVERS = ("a", "b", "c", "d")
KEYS: dict[str, Any] = {
    "agents": {f"{team}-{at}": {"key": HASH, "claims": {"team": team}} for team in ("red", "blue") for at in "12"},
    "b": {"tools": ["t*", "ui", "prompt:p*", "resource:docs://*", "resource:ui://*"], "alias": "bee"},
    "c": {"timeout": "3s"},
    "tools": {
        "find": {"to": ["a/t1", "b/t1"]},
        "split": {"route": [{"match": {"agent": "red-*"}, "to": "c/t2"}, {"to": "d/t2"}]},
        "t3": {"hidden": True},
        "a/t*": {"timeout": "2s", "description": "Ours."},
        "d/t1": {"fixed": {"x": 1}},
    },
    "policies": [
        {
            "name": "all",
            "allow": ["t*", "find", "split", "ui", "*__*", "prompt:*", "resource:docs://*", "resource:ui*"],
        },
        {"name": "red", "match": {"claims": {"team": "red"}}, "deny": ["c/*", "prompt:p1", "resource:*2"]},
        {"name": "late", "match": {"arguments": {"x": "1"}}, "deny": ["t2", "prompt:p2"]},
        {"name": "blue", "match": {"claims": {"team": "blue"}}, "allow": ["resource:*", "*+*"]},
        {"name": "soon", "mode": "shadow", "match": {"claims": {"team": "red"}}, "deny": ["a/*", "prompt:*"]},
    ],
    "endpoints": {
        "/mcp": {},
        "/mcp/none": {"naming": "none"},
        "/mcp/always": {"naming": "always", "servers": ["a", "b", "c"]},
        "/mcp/some": {"tools": ["t1", "find", "d/*", "prompt:p*", "resource:docs://*"], "timeout": "4s"},
    },
}


def invented(dice: random.Random, server: str, revision: int) -> Catalogue | None:
    """Some catalogue of this server; its texts may differ from the last one's where its names do not."""
    if dice.random() < 0.1:
        return None
    page = {"name": "ui", "_meta": {"ui": {"resourceUri": "ui://page"}}}
    tools: list[Any] = dice.sample(["t1", "t2", "t3", "t4", "x", "n" * 50, page], 5)
    words = dice.choice(["", f"Revision {revision}."])
    what: dict[str, Any] = {
        "tools": [one if isinstance(one, dict) else {"name": one, "description": words} for one in tools],
        "prompts": [{"name": one, "description": words} for one in dice.sample(["p1", "p2", "p3", "q"], 3)],
        "resources": [
            {"uri": one, "name": "it", "description": words}
            for one in dice.sample(["docs://1", "docs://2", "file:///3", "ui://page", "https://h/4"], 3)
        ],
        "templates": dice.sample(["docs://t/{x}", "file:///{+x}", "{x}"], 2),
        "capabilities": dice.sample(["tools", "prompts", "resources", "completions", "logging"], 4),
        "instructions": dice.choice(["", f"Said in {revision}.", "Always said."]),
    }
    return brought(server, what)


def learned(catalogues: Mapping[str, Catalogue | None]) -> Learned:
    return Learned(catalogues=dict(catalogues), seal_keys=(b"k",))


@pytest.mark.parametrize("seed", range(6))
def test_a_compile_that_follows_others_equals_one_from_nothing(seed: int) -> None:
    dice = random.Random(seed)
    found = settings(dict.fromkeys(SERVERS), **dict(KEYS))
    known = {server: invented(dice, server, 0) for server in SERVERS}
    cache = CompileCache(found)
    for revision in range(1, 25):
        for server in dice.sample(SERVERS, dice.choice([0, 1, 1, 1, 2])):
            known[server] = dice.choice([known[server], invented(dice, server, revision)])
        following = compile_snapshot(found, learned(known), revision, cache)
        fresh = compile_snapshot(found, learned(known), revision)
        assert following == fresh
        assert pickle.loads(pickle.dumps(following[0])) == fresh[0]


def pair(found: Settings, before: Any, after: Any) -> tuple[Snapshot, Snapshot]:
    cache = CompileCache(found)
    first = compile_snapshot(found, learned(before), 1, cache)[0]
    return first, compile_snapshot(found, learned(after), 2, cache)[0]


def test_what_has_not_changed_is_not_made_again() -> None:
    before = {"a": catalogue("a", "x"), "b": catalogue("b", "y")}
    after = {"a": before["a"], "b": catalogue("b", {"name": "y", "description": "New."})}
    first, second = (snapshot.endpoints["/mcp"].views[0] for snapshot in pair(settings(before), before, after))
    assert second.grants["x"] is first.grants["x"]
    assert second.lists["tools/list"] != first.lists["tools/list"]


def test_an_equal_catalogue_changes_nothing() -> None:
    before = {"a": catalogue("a", "x", prompts=["p"]), "b": catalogue("b", "y", resources=["docs://r"])}
    after = {name: replace(one, fetched_at=9.0) for name, one in before.items()}
    again = {"a": catalogue("a", "x", prompts=["p"]), "b": catalogue("b", "y", resources=["docs://r"])}
    for other in (after, again):
        first, second = pair(settings(before), before, other)
        assert second.endpoints["/mcp"].views[0] is first.endpoints["/mcp"].views[0]


def test_a_first_answer_counts_even_if_it_holds_nothing() -> None:
    found = settings({"a": None}, tools={"find": {"to": "a/x"}})
    first, second = pair(found, {"a": None}, {"a": catalogue("a")})
    assert (list(first.endpoints["/mcp"].routes), list(second.endpoints["/mcp"].routes)) == (["find"], [])


def test_another_configuration_takes_nothing_over() -> None:
    known = {"a": catalogue("a", "x", "y")}
    cache = CompileCache(settings(known))
    compile_snapshot(cache.settings, learned(known), 1, cache)
    other = settings(known, tools={"x": {"hidden": True}})
    assert compile_snapshot(other, learned(known), 2, cache) == compile_snapshot(other, learned(known), 2)
