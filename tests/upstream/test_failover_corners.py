"""Failures beside others: what must not run twice, who must not be blamed, which breakers must open and close."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from fastgw.catalog.route import Arm
from fastgw.errors import Fault, Kind
from fastgw.protocol.envelope import Message
from fastgw.snapshot.model import Address
from fastgw.upstream.balancer import Wish, pick
from fastgw.upstream.breaker import BreakerNews, BreakerState
from fastgw.upstream.failover import LEAST_AT_ONCE, RetryBudget, says_tool_error
from fastgw.upstream.instances import Instance
from tests.upstream.fakes import PATIENT, FakeAnswer, Sent
from tests.upstream.test_failover import (
    ALL,
    DONE,
    FIRST,
    LATE,
    LOST,
    REFUSED,
    SAFE,
    SAID,
    SECOND,
    UNSENT,
    Field,
    good,
    overloaded,
    played_in,
    replace_fault,
    stream,
    throttled,
)

BOTH = (FIRST, SECOND)
OVERLOADED = {"result": {"isError": True, "content": ["overloaded"]}}


def opened(instance: Instance, until: float = 0.0) -> Instance:
    instance.breaker.adopt(BreakerNews("open", until, 1, "down", 1.0), 0.0)
    instance.judge()
    return instance


def at_first(field: Field, answer: Any, other: Any = good) -> None:
    """Have `shop0` answer so, and all others as `other`."""

    def answered(url: str, request: Sent) -> Any:
        field.asked.append(url.removeprefix("http://").removesuffix("/mcp"))
        found = answer if field.asked[-1] == "shop0" else other
        return found(request) if callable(found) else replace_fault(found)

    field._answer = answered  # type: ignore[method-assign]


# -- what is asked next --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("doubt", [Fault(Kind.NO_SERVER, failure="unreachable"), Fault(Kind.TIMEOUT)])
def test_a_call_that_may_have_run_is_not_run_again_where_its_servers_era_cannot_be_asked(doubt: Fault) -> None:
    async def story(spawn: Any) -> None:
        async def doubt_era(instance: str, believed: str) -> str:
            raise doubt

        field = Field(spawn, lambda _: FakeAnswer(404, body=b"<html>"), good, shop=2)
        field.controller.doubt_era = doubt_era  # type: ignore[method-assign]
        _, fault = await field.ask()
        assert len(field.asked) == 1
        assert (fault.kind, fault.may_have_run) == (Kind.LOST, True)

    played_in(story)


def test_a_tool_error_passes_over_the_other_instances_to_the_next_target() -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, overloaded, good, shop=2)
        attempts, ended = await field.ask(Arm(None, BOTH, PATIENT, **ALL))
        assert [one.address.server for one in attempts] == ["shop", "market"]
        assert ended == DONE

    played_in(story)


@pytest.mark.parametrize("second", [stream(end=LOST), stream(OVERLOADED), UNSENT])
def test_a_streams_own_error_is_told_whatever_the_next_ones_stream_does(second: Any) -> None:
    async def story(spawn: Any) -> None:
        first = {"result": {"isError": True, "content": ["Overloaded, the first"]}}
        field = Field(spawn, stream(first), second)
        attempts, ended = await field.ask(Arm(None, BOTH, PATIENT, **ALL))
        assert json.loads(ended) == first["result"]
        assert attempts[-1].address.server == "shop"
        assert all(one.in_flight == 0 for one in field.instances)

    played_in(story)


def test_the_last_instance_is_not_shut_out_where_the_next_target_is_not_for_this() -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, good)
        opened(field.one("shop0"), time.monotonic() + 100)
        _, ended = await field.ask(Arm(None, BOTH, PATIENT, failover_on=("timeout",)))
        assert (field.asked, ended) == (["shop0"], DONE)

    played_in(story)


@pytest.mark.parametrize(("failover_on", "asked"), [("unavailable", "shop0"), ("throttled", "market0")])
def test_while_an_instance_rests_calls_go_on_as_they_did_when_it_was_throttled(failover_on: str, asked: str) -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, good)
        at_first(field, throttled)
        arm = Arm(None, BOTH, PATIENT, failover_on=(failover_on,))
        await field.ask(arm)
        assert field.asked[-1] == asked
        field.asked.clear()
        await field.ask(arm)
        assert field.asked == [asked]

    played_in(story)


# -- who is blamed -------------------------------------------------------------------------------------------------


def test_what_is_wrong_with_a_call_stays_the_answer_where_another_server_has_no_instance() -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, Fault(Kind.BAD_PARAMS))
        del field.instances._live["market|http://market0/mcp"]
        for _ in range(6):
            _, fault = await field.ask(Arm(None, BOTH, PATIENT))
            assert fault.kind is Kind.BAD_PARAMS
        assert field.one("shop0").breaker.failures == 0

    played_in(story)


@pytest.mark.parametrize("answer", [throttled, REFUSED])
def test_an_instance_that_turns_its_trial_away_does_not_get_every_call(answer: Any) -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, good, shop=2)
        at_first(field, answer)
        ill = opened(field.one("shop0"))
        for _ in range(20):
            field.one("shop1").latency, field.one("shop1").measured = 0.05, time.monotonic()
            await field.ask()
        assert field.asked.count("shop0") == 1
        assert ill.breaker.state is BreakerState.CLOSED

    played_in(story)


def test_a_trial_that_fails_after_another_workers_closed_the_breaker_is_one_failure() -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, good)
        one = opened(field.one("shop0"))

        def slow(_: Sent) -> Any:
            field.instances.adopt(one.address.key, BreakerNews("closed", 0.0, 0, "", 2.0), time.monotonic())
            return replace_fault(LATE)

        field.left = [slow]
        await field.ask()
        assert (one.breaker.state, one.breaker.failures, one.usable) == (BreakerState.CLOSED, 1, True)

    played_in(story)


def test_streams_that_begin_well_and_end_ill_open_the_breaker() -> None:
    async def story(spawn: Any) -> None:
        for ending in (stream(SAID, end=LOST), stream(SAID, {"error": {"code": -32603, "message": "broken"}})):
            field = Field(spawn, ending)
            for _ in range(5):
                await field.ask()
            assert field.one("shop0").breaker.state is BreakerState.OPEN
        field = Field(spawn, *[UNSENT] * 4, stream(SAID, {"result": {}}), UNSENT)
        for _ in range(6):
            await field.ask()
        assert field.one("shop0").breaker.failures == 1

    played_in(story)


def test_an_answer_that_turns_out_unsound_is_no_success() -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, good)
        for _ in range(5):
            attempts, _ = await field.ask()
            field.caller.verdicts.blame(attempts[-1], replace_fault(LOST))  # as who relays it does
        assert field.one("shop0").breaker.state is BreakerState.OPEN

    played_in(story)


# -- bounds --------------------------------------------------------------------------------------------------------


def test_repeats_are_counted_where_calls_fail() -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, LOST, good, market=2)
        opened(field.one("shop0"), time.monotonic() + 100)
        await field.ask(Arm(None, BOTH, PATIENT, **SAFE))
        assert set(field.caller.verdicts.budgets) == {"market"}
        assert field.caller.verdicts.budgets["market"].running == 0

    played_in(story)


def test_what_was_saved_up_stays_when_instances_leave() -> None:
    budget = RetryBudget()
    assert budget.take(1000)
    budget.running = LEAST_AT_ONCE
    assert budget.take(10)


def test_a_hostile_error_costs_a_search_for_tool_error_little() -> None:
    arm = Arm(None, (FIRST,), tool_error="(?i)overloaded.*later")
    text = b'{"code":1,"message":"' + b"overloaded" * 6500 + b'"}'
    began = time.process_time()
    assert not says_tool_error(arm, Message(None, None, None, None, text))
    assert time.process_time() - began < 0.1


def test_what_a_choice_costs_grows_with_the_instances_and_not_with_their_square(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, good, shop=40, era="legacy")
        instances = field.caller.instances.of(field.backends["shop"])
        asked = []
        monkeypatch.setattr(Address, "share", property(lambda _: asked.append(1) or 0.01))
        assert pick(instances, Wish("session:a:1"), [], 1.0) in instances
        assert len(asked) <= 4 * len(instances)

    played_in(story)
