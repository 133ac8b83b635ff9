"""Agents that are known by claims alone: each is put into the class of those that policies and routes cannot tell from
it, and sees what an agent of the configuration with the same claims sees.
"""

from __future__ import annotations

import gc
import random
from typing import Any

import pytest

from fastgw.policy.match import Claim, Principal
from fastgw.snapshot.cache import CompileCache
from fastgw.snapshot.codec import EncodedSnapshot, SnapshotDecoder
from fastgw.snapshot.compiler import Learned, compile_snapshot
from fastgw.snapshot.model import Snapshot
from fastgw.snapshot.visibility import SPARE, AgentClass
from tests.snapshot.compiling import HASH, brought, settings

BRING: dict[str, Any] = {
    "one": {"tools": ["get", "get-more", "put"], "prompts": ["greet"], "resources": ["help://a"], "instructions": "x"},
    "two": ["drop", "other"],
}
IDENTITY = {"login": {"issuer": "https://login.example.com/"}, "other": {"issuer": "https://o.example/"}}
TEAMS = ["red", "blue", "green", "nobody", "reddish"]


def stranger(claims: dict[str, Claim], name: str = "a", issuer: str = "login") -> Principal:
    return Principal(f"{issuer}:{name}", claims, issuer, None, frozenset())


class Compiler:
    """Compiles one configuration again and again, and gives what a worker has of it."""

    def __init__(self, **keys: Any) -> None:
        self._settings = settings(BRING, identity=IDENTITY, **keys)
        self._cache = CompileCache(self._settings)
        self._learned = Learned(catalogues={name: brought(name, what) for name, what in BRING.items()})
        self._generation = 0
        self._decoder = SnapshotDecoder()
        self._encoded: EncodedSnapshot | None = None

    def compile(self, *strangers: Principal, path: str = "/mcp") -> Snapshot:
        self._generation += 1
        self._cache.strangers = {path: strangers}
        made = compile_snapshot(self._settings, self._learned, self._generation, self._cache)[0]
        encoded = self._encoded = EncodedSnapshot(self._generation, made, self._encoded)
        for key, text in encoded.lacked(self._decoder.parts):
            list(self._decoder.take(key, text))
        found: Snapshot = self._decoder.whole(encoded.root, ())[0]
        return found


def seen(snapshot: Snapshot, principal: Principal, path: str = "/mcp") -> Any:
    endpoint = snapshot.endpoints[path]
    view = endpoint.view_for(principal)
    if view is None:
        return None
    lists = {method: listing.entries for method, listing in view.lists.items()}
    arms = {name: [(arm.targets, arm.match) for arm in grant.arms] for name, grant in view.grants.items()}
    return lists, arms, sorted(view.prompts), endpoint.guide(principal)


def _policy(chance: random.Random, at: int) -> dict[str, Any]:
    def match() -> dict[str, Any]:
        claims = {"team": chance.sample([*TEAMS, "red*", "*e*", "b?ue"], chance.randint(1, 2))}
        if chance.random() < 0.3:
            claims["tier"] = chance.sample(["in", "out", "o*"], 1)
        return {"claims": claims}

    allow = chance.sample(["get*", "put", "drop", "*", "prompt:*", "resource:help://*", "two/*"], chance.randint(1, 3))
    found = {"name": f"p{at}", "match": match(), "allow": allow}
    if chance.random() < 0.4:
        found["except"] = match()
    if chance.random() < 0.4:
        found["deny"] = chance.sample(["put", "get-more", "two/drop"], 1)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_a_stranger_sees_what_an_agent_with_its_claims_sees(seed: int) -> None:
    chance = random.Random(seed)
    people: dict[str, dict[str, Claim]] = {}
    for at in range(12):
        claims: dict[str, Claim] = {"email": f"{at}@example.com"}
        if chance.random() < 0.9:
            claims["team"] = chance.choice([*TEAMS, ("red", "green"), ("nobody", "blue")])
        if chance.random() < 0.5:
            claims["tier"] = chance.choice(["in", "out"])
        people[f"agent-{at}"] = claims
    policies = [_policy(chance, at) for at in range(chance.randint(1, 5))]
    route = [
        {"match": {"claims": {"team": ["r*"]}}, "to": "one/get"},
        {"match": {"claims": {"tier": "in"}}, "to": "two/drop"},
    ]
    shared = {"policies": policies, "tools": {"routed": {"route": route}}}
    agents = {name: {"key": f"sha256:{at:064x}", "claims": claims} for at, (name, claims) in enumerate(people.items())}
    known = Compiler(agents=agents, **shared).compile()
    compiler = Compiler(agents={}, **shared)
    empty, whole = compiler.compile(), compiler.compile(*[stranger(claims, name) for name, claims in people.items()])
    for name, claims in people.items():
        expected = seen(known, Principal(name, claims))
        assert seen(whole, stranger(claims, name)) == expected
        # One of each class is enough, and what is seen at all depends on nobody else.
        alone = compiler.compile(stranger(claims, name))
        assert seen(alone, stranger({**claims, "email": "x"}, "another")) == expected
        assert seen(empty, stranger(claims, name)) in (None, expected)


def test_classes_are_as_many_as_policies_can_tell_apart() -> None:
    policies = [
        {"name": "p", "match": {"claims": {"email": "*@corp.example", "team": ["red", "blue"]}}, "allow": ["get"]}
    ]
    compiler = Compiler(agents={}, policies=policies)
    people = [stranger({"email": f"{at}@corp.example", "team": "red", "seat": str(at)}, str(at)) for at in range(50)]
    others = [stranger({"email": f"{at}@else.example", "team": "green"}, f"o{at}") for at in range(50)]
    snapshot = compiler.compile(people[0])
    assert all(list(seen(snapshot, one)[1]) == ["get"] for one in people)
    assert all(list(seen(snapshot, one)[1]) == [] for one in others)  # as whoever has no claims at all
    assert len(snapshot.endpoints["/mcp"].view_of_class) == 2


def test_classes_that_come_no_more_are_forgotten() -> None:
    names = [f"t{number}" for number in range(3 * SPARE)]
    policies = [{"name": name, "match": {"claims": {"team": name}}, "allow": ["get"]} for name in names]
    compiler = Compiler(policies=policies)
    for name in names:
        comer = stranger({"team": name})
        assert "get" in seen(compiler.compile(comer), comer)[1]
    first = stranger({"team": names[0]})
    assert "get" in seen(compiler.compile(first), first)[1]
    gc.collect()
    found = [one for one in gc.get_objects() if isinstance(one, AgentClass) and one.applying.outright.bit_length() > 9]
    assert 0 < len(found) < 2 * SPARE


def test_without_policies_nobody_waits_for_a_class() -> None:
    snapshot = Compiler(agents={"a": {"key": HASH}}).compile()
    assert seen(snapshot, stranger({"team": "red"})) == seen(snapshot, Principal("a"))


def test_policies_by_the_name_of_an_agent() -> None:
    policies = [
        {"name": "all", "match": {"agent": "login:*"}, "allow": ["*"]},
        {"name": "not", "match": {"agent": ["login:trial-*", "a"]}, "deny": ["put"]},
    ]
    compiler = Compiler(agents={"a": {"key": HASH}}, policies=policies)
    full, trial = stranger({}, "x"), stranger({}, "trial-1")
    snapshot = compiler.compile(full, trial)
    assert "put" in seen(snapshot, full)[1]
    assert "put" not in seen(snapshot, trial)[1]
    assert seen(snapshot, stranger({}, "trial-2")) == seen(snapshot, trial)
    assert seen(snapshot, Principal("a"))[1] == {}


def test_an_endpoint_knows_the_strangers_of_its_issuers_alone() -> None:
    endpoints = {"/mcp": {"auth": ["other"]}, "/keys": {"auth": "keys"}}
    compiler = Compiler(agents={"a": {"key": HASH}}, endpoints=endpoints)
    own, foreign = stranger({}, issuer="other"), stranger({})
    snapshot = compiler.compile(own)
    assert seen(snapshot, own)
    for principal, path in ((foreign, "/mcp"), (own, "/keys"), (Principal("a"), "/mcp")):
        assert seen(snapshot, principal, path) is None
    assert snapshot.endpoints["/keys"].view_of_class == {}
    assert snapshot.endpoints["/mcp"].resources == ("http://127.0.0.1:8080/mcp",)


def test_scopes_are_those_of_every_target() -> None:
    tools = {
        "both": {"to": ["one/get", "two/drop"], "failover_on": ["unavailable"]},
        "two/drop": {"scopes": ["drop", "admin"]},
        "one/get": {"scopes": ["get"]},
        "p*": {"scopes": ["put"]},
    }
    snapshot = Compiler(agents={"a": {"key": HASH}}, tools=tools).compile()
    grants = snapshot.endpoints["/mcp"].view_for(Principal("a")).grants  # type: ignore[union-attr]
    found = {name: grant.arms[0].scopes for name, grant in grants.items()}
    assert found == {"both": ("get", "drop", "admin"), "get-more": (), "put": ("put",), "other": ()}
