"""What operators see of limits and order of them: reports put together, orders weighed and written down."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from fastgw.admin.limits import OperatorLimits, ResetOrder
from fastgw.admin.orders import AuditLog
from fastgw.config.rules import FAILED_CREDENTIALS
from fastgw.config.schema.rules import LimitSettings
from fastgw.gateway.admission import Reset

LIMITS = [
    LimitSettings.model_validate({"name": "per-agent", "by": ["agent"], "rate": "100/minute"}),
    LimitSettings.model_validate({"name": "writes", "by": ["claims.team", "tool"], "rate": "10/hour", "burst": 50}),
    LimitSettings.model_validate({"name": "at-a-time", "by": ["agent"], "in_flight": 5}),
    LimitSettings.model_validate({"name": "everybody", "rate": "10/second"}),
]
Report = dict[str, Any]


class Stage:
    """Limits as operators meet them, and the workers behind them."""

    def __init__(self, folder: Path, *reports: Report | None) -> None:
        self.reports = list(reports)
        self.audit = folder / "data" / "audit.jsonl"
        self.heard: list[Reset] = []
        self.written_when_heard: list[int] = []
        self.limits = OperatorLimits(self._ask, lambda: LIMITS, AuditLog(self.audit))

    async def _ask(self, verb: str, args: tuple[Any, ...]) -> list[Any]:
        if verb == "report":
            return self.reports
        assert verb == "reset"
        self.heard.append(msgspec.json.decode(*args, type=Reset))
        self.written_when_heard.append(len(self.lines()))
        return [None for _ in self.reports]

    def lines(self) -> list[dict[str, Any]]:
        """What was written down."""
        return [json.loads(line) for line in self.audit.read_text().splitlines()] if self.audit.exists() else []

    def report(self) -> Report:
        return asyncio.run(self.limits.report())

    def reset(self, limit: str, subject: list[str | None] | None = None) -> dict[str, Any]:
        order = ResetOrder(limit, None if subject is None else tuple(subject))
        return asyncio.run(self.limits.reset(order, "me"))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def report(*buckets: Report, refused: tuple[tuple[str, str, int], ...] = (), store: str = "up") -> Report:
    rows = [{"limit": limit, "subject": subject, "calls": calls} for limit, subject, calls in refused]
    return {"store": store, "buckets": list(buckets), "refused": rows}


def bucket(subject: str, left: int, burst: int, *, at_once: bool = False) -> Report:
    return {
        "limit": "x", "subject": subject, "used": 1 - left / burst, "left": left, "burst": burst, "at_once": at_once,
    }  # fmt: skip


# -- reports --------------------------------------------------------------------------------------------------------


def test_of_a_bucket_what_most_is_known_of_it(tmp_path: Path) -> None:
    """Each worker knows how full a bucket was when it last heard: the fullest word is the newest, or nearly."""
    found = Stage(tmp_path, report(bucket("a", 90, 100)), report(bucket("a", 20, 100), bucket("b", 40, 100))).report()
    assert [(row["subject"], row["used"], row["left"]) for row in found["buckets"]] == [("a", 0.8, 20), ("b", 0.6, 40)]


def test_calls_at_the_same_time_are_summed(tmp_path: Path) -> None:
    """Each worker counts its own."""
    found = Stage(
        tmp_path,
        report(bucket("a", 7, 10, at_once=True), bucket("a", 50, 100)),
        report(bucket("a", 6, 10, at_once=True)),
        report(bucket("a", 10, 10, at_once=True)),
    ).report()
    at_once, rate = found["buckets"]
    assert (at_once["used"], at_once["left"], at_once["burst"]) == (0.7, 3, 10)
    assert (rate["used"], rate["at_once"]) == (0.5, False)


def test_more_calls_than_may_be_leave_none_and_not_less(tmp_path: Path) -> None:
    """While the store is away each worker lets its share run; with one at least they may be too many together."""
    found = Stage(tmp_path, *(report(bucket("a", 0, 1, at_once=True)) for _ in range(3))).report()
    assert (found["buckets"][0]["left"], found["buckets"][0]["used"]) == (0, 3.0)


def test_refusals_are_summed_and_the_most_frequent_comes_first(tmp_path: Path) -> None:
    found = Stage(
        tmp_path,
        report(refused=(("x", "a", 3), ("x", "b", 4))),
        report(refused=(("x", "a", 2), ("y", "a", 1))),
    ).report()
    assert [(row["limit"], row["subject"], row["calls"]) for row in found["refused"]] == [
        ("x", "a", 5), ("x", "b", 4), ("y", "a", 1),
    ]  # fmt: skip


def test_states_of_the_store_are_counted(tmp_path: Path) -> None:
    found = Stage(tmp_path, report(), report(store="away"), report()).report()
    assert found["store"] == {"away": 1, "up": 2}


def test_a_worker_that_ends_while_it_is_asked_is_left_out(tmp_path: Path) -> None:
    found = Stage(tmp_path, None, report(bucket("a", 1, 2))).report()
    assert (found["store"], len(found["buckets"])) == ({"up": 1}, 1)


def test_without_workers_there_is_nothing_to_say(stage: Stage) -> None:
    assert stage.report() == {"store": {}, "buckets": [], "refused": []}


# -- orders ---------------------------------------------------------------------------------------------------------


def test_an_order_is_written_down_then_given(stage: Stage) -> None:
    said = stage.reset(limit="writes", subject=["web", None])
    [reset] = stage.heard
    assert (reset.limit, reset.subject) == ("writes", ("web", None))
    assert stage.written_when_heard == [1], "written down before a worker heard of it"
    assert stage.lines() == [json.loads(json.dumps(said))]
    assert {key: said[key] for key in ("who", "do", "limit", "subject")} == {
        "who": "me", "do": "reset", "limit": "writes", "subject": ("web", None),
    }  # fmt: skip


def test_what_cannot_be_written_down_is_not_done(stage: Stage) -> None:
    stage.audit.mkdir(parents=True)  # a folder in its place
    with pytest.raises(OSError, match="Is a directory"):
        stage.reset(limit="per-agent")
    assert stage.heard == []


def test_no_two_resets_have_one_number(stage: Stage) -> None:
    for _ in range(50):
        stage.reset(limit="per-agent")
    assert len({one.number for one in stage.heard}) == 50


def test_a_line_is_a_line_whatever_a_subject_holds(stage: Stage) -> None:
    hostile = 'a\n{"do": "reset"}\u2028\x9b2J'
    stage.reset(limit="per-agent", subject=[hostile])
    assert [one["subject"] for one in stage.lines()] == [[hostile]]
    assert stage.audit.read_text().isascii()


def test_the_limit_of_wrong_credentials_can_be_reset(stage: Stage) -> None:
    stage.reset(limit=FAILED_CREDENTIALS)
    assert stage.heard[0].limit == FAILED_CREDENTIALS


def test_a_limit_with_one_bucket_for_all(stage: Stage) -> None:
    stage.reset(limit="everybody", subject=[])
    assert stage.heard[0].subject == ()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            {"limit": "other"},
            "there is no limit 'other'; there are per-agent, writes, at-a-time, everybody, failed-credentials",
        ),
        ({"limit": "writes", "subject": ["web"]}, "subject must be the values of [claims.team, tool], in this order"),
        ({"limit": "everybody", "subject": ["web"]}, "subject must be the values of [], in this order"),
        ({"limit": "at-a-time"}, "limit at-a-time has no rate: calls at the same time end by themselves"),
    ],
)
def test_a_reset_that_cannot_be(stage: Stage, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(web.HTTPBadRequest) as wrong:
        stage.reset(**asked)
    assert wrong.value.text == words
    assert (stage.heard, stage.lines()) == ([], [])
