"""What workers know of an instance, together; which instance an order means."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fastgw.admin.instances import InstanceOrder, OperatorInstances
from fastgw.admin.orders import AuditLog
from fastgw.snapshot.model import Address, Backend
from tests.upstream.fakes import backend

SECRET = "hush-hush"
KEYS = ("shop|http://a:1/mcp", f"shop|http://b:1/{SECRET}/mcp", "shop|http://a:1/other")


def shop() -> Backend:
    shown = ("http://a:1/mcp", "http://b:1/${env:PATH_SECRET}/mcp", "http://a:1/other")
    urls = [key.partition("|")[2] for key in KEYS]
    addresses = [
        Address(key, "shop", url, "modern", "", text) for key, url, text in zip(KEYS, urls, shown, strict=True)
    ]
    return backend(instances=tuple(addresses))


def report(**changes: Any) -> dict[str, Any]:
    """Of one instance, by one worker; `Instance.report` has the same members."""
    breaker = {"state": "closed", "until": 0.0, "opened": 0, "why": "", "since": 0.0, "failures": 0}
    usual = {"in_flight": 0, "calls": 0, "latency_ms": None, "last_error": None, "taken_over_by": None}
    return {**usual, **changes, "breaker": {**breaker, **changes.get("breaker", {})}}


class Desk:
    """Where operators are served, and what was carried out there."""

    def __init__(self, folder: Path, *reports: dict[str, Any] | None) -> None:
        self.reports = list(reports)
        self.done: list[tuple[str, str, str]] = []
        self.audit = folder / "audit.jsonl"
        self.told = {"health": "healthy", "checked_at": 0.5, "health_error": "", "drained": None}
        known = {"shop": {"tools": 1, "instances": [{"era": "modern"} for _ in KEYS]}}
        self.instances = OperatorInstances(
            self._ask, lambda: [shop()], lambda: json.loads(json.dumps(known)), lambda _: self.told,
            lambda do, _, key, who: self.done.append((do, key, who)), AuditLog(self.audit),
        )  # fmt: skip

    async def _ask(self, verb: str, args: tuple[Any, ...]) -> list[Any]:
        assert (verb, args) == ("instances", ())
        return self.reports

    def first(self) -> dict[str, Any]:
        found: dict[str, Any] = asyncio.run(self.instances.report())["shop"]["instances"][0]
        return found

    def order(self, instance: int | str, server: str = "shop") -> dict[str, Any]:
        return asyncio.run(self.instances._order("drain", InstanceOrder(server, instance), "me"))


def test_without_a_worker_it_is_what_the_controller_knows(tmp_path: Path) -> None:
    assert Desk(tmp_path).first() == {
        "era": "modern", "address": "a:1", "health": "healthy", "checked_at": "1970-01-01T00:00:00Z",
        "health_error": "", "drained": False, "in_flight": 0, "calls": 0, "latency_ms": None, "last_error": None,
        "breaker": {"state": "closed", "since": None, "why": "", "failures": 0, "opens_for": None},
        "taken_over_by": None,
    }  # fmt: skip


def test_workers_are_added_up_and_the_latency_goes_by_their_calls(tmp_path: Path) -> None:
    one = report(in_flight=2, calls=30, latency_ms=10.0, last_error=("old", 1.0), taken_over_by="shop at b:1")
    two = report(in_flight=1, calls=10, latency_ms=50.0, last_error=("new", 61.0))
    found = Desk(tmp_path, {KEYS[0]: one}, {KEYS[0]: two}, {KEYS[0]: report()}, None, {}).first()
    assert (found["in_flight"], found["calls"], found["latency_ms"]) == (3, 40, 20.0)
    assert found["last_error"] == {"text": "new", "at": "1970-01-01T00:01:01Z"}
    assert found["taken_over_by"] == "shop at b:1"


@pytest.mark.parametrize(
    ("states", "state"),
    [
        (("closed", "open", "half-open"), "open"), (("half-open", "closed"), "half-open"),
        (("closed", "closed"), "closed"), (("open", "open"), "open"),
    ],
)  # fmt: skip
def test_a_breaker_that_is_open_anywhere_is_open(tmp_path: Path, states: tuple[str, ...], state: str) -> None:
    until = time.monotonic() + 100
    reports = [report(breaker={"state": one, "until": until, "since": 60.0, "failures": 3}) for one in states]
    breaker = Desk(tmp_path, *({KEYS[0]: one} for one in reports)).first()["breaker"]
    assert (breaker["state"], breaker["failures"], breaker["since"]) == (state, 3, "1970-01-01T00:01:00Z")
    if state == "open":
        assert 90 < breaker["opens_for"] <= 100
    else:
        assert breaker["opens_for"] is None


def test_what_a_careless_server_repeats_of_our_secrets_is_not_shown(tmp_path: Path) -> None:
    said = f"no s3cret at /{SECRET}/mcp"
    one = report(last_error=(said, 1.0), breaker={"state": "open", "why": said})
    desk = Desk(tmp_path, {KEYS[0]: one})
    assert desk.first()["last_error"]["text"] == desk.first()["breaker"]["why"] == "no *** at /***/mcp"


def test_a_drain_says_who_ordered_it_and_when(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.told["drained"] = {"who": "me", "at": 60.0}
    assert desk.first()["drained"] == {"who": "me", "at": "1970-01-01T00:01:00Z"}


@pytest.mark.parametrize(("instance", "number"), [(1, 0), (2, 1), ("b:1", 1), (3, 2)])
def test_an_order_names_an_instance_by_number_or_address(tmp_path: Path, instance: int | str, number: int) -> None:
    desk = Desk(tmp_path)
    entry = desk.order(instance)
    assert desk.done == [("drain", KEYS[number], "me")]
    assert json.loads(desk.audit.read_text()) == entry
    assert SECRET not in desk.audit.read_text()


@pytest.mark.parametrize(
    ("instance", "words"),
    [(0, "no instance 0"), (4, "no instance 4"), ("c:1", "no instance 'c:1'"), ("a:1", "more than one instance 'a:1'")],
)
def test_an_order_that_names_none_or_several_is_refused_and_says_which_there_are(
    tmp_path: Path, instance: int | str, words: str
) -> None:
    desk = Desk(tmp_path)
    with pytest.raises(web.HTTPBadRequest) as wrong:
        desk.order(instance)
    assert wrong.value.text == f"shop has {words}; there are 1 (a:1), 2 (b:1), 3 (a:1)"
    assert (desk.done, desk.audit.exists()) == ([], False)


def test_what_cannot_be_written_down_is_not_done(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.audit.mkdir()
    with pytest.raises(OSError):
        desk.order(1)
    assert desk.done == []
