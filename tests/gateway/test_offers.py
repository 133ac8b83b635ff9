"""From what a request names to the grant it goes by: what is checked is what is sent, and nothing beside it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastgw.catalog.elements import DIALECTS
from fastgw.catalog.route import Arm, Deadlines, Route, Target
from fastgw.catalog.uris import ServerUris, Uris
from fastgw.errors import Fault, Kind
from fastgw.gateway import offers
from fastgw.protocol.call import Call
from fastgw.protocol.envelope import members
from fastgw.snapshot.model import EMPTY_LISTING, Endpoint, Grant, Listing, View

TIMES = Deadlines(1.0, 1.0, 1.0, 1.0)


def prompt(name: str, own: str) -> Grant:
    arm = Arm(None, (Target("s", own, json.dumps(own).encode()),), TIMES)
    return Grant(True, (), Route(name, (arm,), (), ()), (arm,))


def endpoint(*completes: str) -> Endpoint:
    return Endpoint(
        path="/mcp",
        routes={},
        views=(),
        view_of={},
        anonymous=False,
        fresh_until=0.0,
        servers=("s",),
        instructions="",
        uris=Uris("on_collision", (ServerUris("s", "s", ("doc:own",)),)),
        readers={"s": Arm(None, (), TIMES)},
        completes=frozenset(completes),
    )


SEEN = View(prompts={"hello": prompt("hello", "own-hello")})
LISTED = View(lists={"resources/list": Listing(((b"{}",) * len(DIALECTS),))})
BLIND = View(lists={"resources/list": EMPTY_LISTING})


def completion(ref: dict[str, Any]) -> Call:
    call = Call(b"1", "completion/complete", "2026-07-28")
    call.params = {"ref": json.dumps(ref).encode(), "argument": b"{}"}
    return call


@pytest.mark.parametrize(
    ("ref", "own"),
    [
        (
            {"type": "ref/prompt", "name": "hello", "uri": "doc:hidden", "title": "t"},
            {"name": "own-hello", "title": "t"},
        ),
        ({"type": "ref/resource", "uri": "s+doc:own", "name": "hidden"}, {"uri": "doc:own"}),
    ],
)
def test_a_reference_keeps_no_name_that_was_not_checked(ref: dict[str, Any], own: dict[str, Any]) -> None:
    call = completion(ref)
    offers.grant_of(call, endpoint("s"), SEEN)
    sent = {name: json.loads(value) for name, value in members(call.params["ref"]).items()}
    assert sent == {"type": ref["type"], **own}


@pytest.mark.parametrize(("view", "there"), [(SEEN, True), (LISTED, True), (BLIND, False), (View(), False)])
def test_completion_is_known_to_those_who_see_something_to_complete(view: View, there: bool) -> None:
    assert offers.completes(endpoint("s"), view) is there
    assert not offers.completes(endpoint(), view)
    with pytest.raises(Fault) as refused:
        offers.grant_of(completion({"type": "ref/prompt", "name": "nobodys"}), endpoint("s"), view)
    assert refused.value.kind is (Kind.UNKNOWN_NAME if there else Kind.UNKNOWN_METHOD)


@pytest.mark.parametrize("uri", ["doc:nowhere", "s+doc:nowhere", "other:thing"])
def test_values_are_asked_for_what_is_listed_alone(uri: str) -> None:
    """Its server would say of a missing one in its own words what we say of a hidden one in ours."""
    with pytest.raises(Fault) as told:
        offers.grant_of(completion({"type": "ref/resource", "uri": uri}), endpoint("s"), LISTED)
    assert (told.value.kind, told.value.data) == (Kind.UNKNOWN_RESOURCE, {"uri": uri})
    offers.grant_of(completion({"type": "ref/resource", "uri": "s+doc:own"}), endpoint("s"), LISTED)
