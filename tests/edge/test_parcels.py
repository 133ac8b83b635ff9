"""A snapshot in parcels and whole again."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

from fastgw.config.snapshot import Grant, Snapshot
from fastgw.edge.parcels import GRANTS, Unpacking, packed
from tests.config.test_compile import HASH, compiled

OTHER = "sha256:" + "cd" * 32
TWO_CLASSES: dict[str, Any] = {
    "agents": {"bot": {"key": HASH}, "other": {"key": OTHER}},
    "policies": [
        {"name": "all", "match": {"agent": "bot"}, "allow": ["*"]},
        {"name": "few", "match": {"agent": "other"}, "allow": ["t1*"]},
    ],
}


def arrived(snapshot: Any) -> Any:
    """What a worker has after every parcel went through its pickle."""
    unpacking = Unpacking()
    for message in packed(7, snapshot):
        name, *rest = pickle.loads(pickle.dumps(message))
        if name == "load":
            assert rest[0] == 7
            return unpacking.whole(rest[1])
        if name != "begin":
            for _ in unpacking.take((name, *rest)):
                pass
    raise AssertionError("the last parcel is missing")


def many() -> Snapshot:
    return compiled({"a": [f"t{number}" for number in range(3 * GRANTS)], "b": ["t1", "x"]}, **TWO_CLASSES)


def test_what_arrives_is_what_was_sent_less_what_only_operators_see() -> None:
    sent = many()
    endpoints = {path: replace(endpoint, routes={}) for path, endpoint in sent.endpoints.items()}

    assert arrived(sent) == replace(sent, endpoints=endpoints)


def test_names_keep_their_order_in_every_view() -> None:
    for before, after in zip(many().endpoints["/mcp"].views, arrived(many()).endpoints["/mcp"].views, strict=True):
        assert list(before.grants) == list(after.grants)


def test_two_views_share_their_grants_and_pages_as_before() -> None:
    def objects(snapshot: Snapshot) -> tuple[int, int]:
        views = snapshot.endpoints["/mcp"].views
        grants: list[Grant] = [grant for view in views for grant in view.grants.values()]
        return len(grants), len({id(grant) for grant in grants})

    assert objects(arrived(many())) == objects(many())
    assert objects(many())[1] < objects(many())[0]


def test_no_parcel_holds_more_grants_than_unpack_in_a_moment() -> None:
    assert max(len(message[1]) for message in packed(1, many()) if message[0] == "grants") == GRANTS


def test_what_is_no_snapshot_travels_whole() -> None:
    assert arrived("a word") == "a word"
