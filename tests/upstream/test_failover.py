"""Where a call goes after a failure, and where it must not go."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from fastgw.catalog.route import Arm, Target
from fastgw.errors import Fault, Kind
from fastgw.policy.match import Principal
from fastgw.snapshot.model import Address, Backend
from fastgw.telemetry.counters import Counters
from fastgw.upstream.attempts import UpstreamCaller
from fastgw.upstream.breaker import BreakerNews, BreakerState
from fastgw.upstream.call_context import Attempt
from fastgw.upstream.failover import LEAST_AT_ONCE, RetryBudget
from fastgw.upstream.instances import Instance, Instances
from fastgw.upstream.transports import down, late, lost
from fastgw.upstream.transports.streamable_http import StreamableHttp
from tests.upstream.fakes import (  # fmt: skip
    OURS,
    PATIENT,
    SSE,
    FakeAnswer,
    FakeKeeper,
    FakeWire,
    Sent,
    backend,
    call,
    error,
    event,
    played,
    registry,
    result,
    run,
)

FIRST, SECOND = Target("shop", "buy", b'"buy"'), Target("market", "purchase", b'"purchase"')
DONE = b'{"content": []}'
REFUSED = Fault(Kind.NO_SERVER, detail="status 403", data={"reason": "credential"}, sent=True, failure="refused")
EVERYTHING = ("unavailable", "timeout", "throttled", "tool_error")


def good(request: Sent) -> FakeAnswer:
    return result(request, {"content": []})


def overloaded(request: Sent) -> FakeAnswer:
    return result(request, {"content": [{"type": "text", "text": "Model Overloaded"}], "isError": True})


def internal(request: Sent) -> FakeAnswer:
    return error(request, -32603, message="model is overloaded")


def throttled(_: Sent) -> FakeAnswer:
    return FakeAnswer(429, {"retry-after": "7"})


def unavailable(_: Sent) -> FakeAnswer:
    return FakeAnswer(503)


def bounded(field: Field, name: str, most: int, queue: int = 0) -> None:
    """The server has so many places from now on."""
    field.backends[name] = replace(field.backends[name], max_in_flight=most, queue=queue)
    field.caller.bulkheads.load(field.backends)


def stream(*messages: Any, end: Any = b"") -> Callable[[Sent], FakeAnswer]:
    def answer(request: Sent) -> FakeAnswer:
        own = {"jsonrpc": "2.0"}
        made = [
            event({**own, **one} if "method" in one else {**own, "id": request.json["id"], **one}) for one in messages
        ]
        return FakeAnswer(200, SSE, None, [*made, end])

    return answer


class Field:
    """A worker's caller, servers `shop` and `market` of so many instances, and the answers that come in turn."""

    def __init__(self, spawn: Any, *answers: Any, shop: int = 1, market: int = 1, era: str = "modern") -> None:
        self.left = list(answers)
        self.asked: list[str] = []
        self.counters = Counters()
        self.controller = FakeKeeper(era)
        self.instances = Instances(spawn)
        self.backends = {
            name: self._server(name, count, era, spawn) for name, count in [("shop", shop), ("market", market)]
        }
        self.caller = UpstreamCaller(self.controller, self.instances, spawn, self.counters)

    def _server(self, name: str, count: int, era: str, spawn: Any) -> Backend:
        urls = [f"http://{name}{number}/mcp" for number in range(count)]
        of = backend(name=name, instances=tuple(Address(f"{name}|{url}", name, url, era, "") for url in urls))
        for address in of.instances:
            one = self.instances._live[address.key] = Instance(of, address)
            wire = FakeWire(lambda request, url=address.url: self._answer(url, request))
            one.http, one.transport = wire, StreamableHttp(wire, spawn, OURS, 1 << 20)
        return of

    def _answer(self, url: str, request: Sent) -> Any:
        self.asked.append(url.removeprefix("http://").removesuffix("/mcp"))
        found = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        return found(request) if callable(found) else replace_fault(found)

    def one(self, name: str) -> Instance:
        server = name.rstrip("0123456789")
        return self.instances.find(f"{server}|http://{name}/mcp")

    async def ask(self, arm: Arm | None = None, **more: Any) -> tuple[list[Attempt], Any]:
        """The attempts of one call, and its last message, or the fault."""
        attempts: list[Attempt] = []
        arm = arm or Arm(None, (FIRST,), PATIENT)
        try:
            reply = played(await self.caller.forward(call(**more), Principal("a"), arm, self.backends, attempts))
            message = await reply.next()
            while message.method is not None:
                message = await reply.next()
        except Fault as fault:
            if attempts:
                self.caller.verdicts.blame(attempts[-1], fault)
            return attempts, fault
        return attempts, message.result or message.error


def replace_fault(fault: Fault) -> Fault:
    return Fault(**{name: getattr(fault, name) for name in fault.__dataclass_fields__ if name != "_"})


def played_in(story: Callable[[Any], Any]) -> None:
    async def play() -> None:
        async with registry() as found:
            await story(found.spawn)

    run(play())


SAID = {"method": "notifications/message", "params": {"level": "info", "data": 1}}
UNSENT, LOST, LATE = down("refused"), lost("reset"), late(1.0, "total")
SAFE = {"repeatable": True}
ALL = {"repeatable": True, "failover_on": EVERYTHING, "tool_error": "(?i)overloaded"}


@pytest.mark.parametrize(
    ("failing", "settings", "instance", "target"),
    [
        # what happened, what the operator said; whether another instance, and whether the next target is asked
        (UNSENT, {}, True, True),
        (UNSENT, {"failover_on": ("timeout",)}, True, False),
        (throttled, {}, True, False),
        (throttled, {"failover_on": ("throttled",)}, True, True),
        (LOST, {}, False, False),
        (LOST, SAFE, True, True),
        (LOST, {**SAFE, "failover_on": ("timeout",)}, True, False),
        (LATE, {}, False, False),
        (LATE, SAFE, False, False),
        (LATE, {"failover_on": EVERYTHING}, False, False),
        (LATE, ALL, True, True),
        (unavailable, {}, False, False),
        (unavailable, SAFE, True, True),
        (REFUSED, {}, False, False),
        (REFUSED, SAFE, True, True),
        (overloaded, {}, False, False),
        (overloaded, {"failover_on": EVERYTHING, "tool_error": "(?i)overloaded"}, False, False),
        (overloaded, {**SAFE, "tool_error": "(?i)overloaded"}, False, False),
        (overloaded, {**ALL, "tool_error": "out of memory"}, False, False),
        (overloaded, ALL, False, True),
        (internal, SAFE, False, False),
        (internal, ALL, False, True),
        (stream({"result": {"content": []}}), {}, False, False),
        (stream(end=LOST), {}, False, False),
        (stream(end=LOST), SAFE, True, True),
        (
            stream({"method": "notifications/message", "params": {"level": "info", "data": 1}}, end=LOST),
            ALL,
            False,
            False,
        ),
        (stream({"error": {"code": -32603, "message": "overloaded"}}), ALL, False, True),
        (Fault(Kind.INTERNAL, sent=True), ALL, False, False),
        (Fault(Kind.TIMEOUT), ALL, False, False),
    ],
)
def test_what_may_be_asked_after_a_failure(failing: Any, settings: Any, instance: bool, target: bool) -> None:
    async def story(spawn: Any) -> None:
        two = Field(spawn, failing, good, shop=2)
        attempts, _ = await two.ask(Arm(None, (FIRST,), PATIENT, **settings))
        assert len(two.asked) == len(attempts) == 1 + instance, two.asked
        assert len(set(two.asked)) == len(two.asked)
        both = Field(spawn, failing, good)
        attempts, ended = await both.ask(Arm(None, (FIRST, SECOND), PATIENT, **settings))
        assert both.asked == ["shop0", "market0"][: 1 + target], both.asked
        if target:
            assert ended == DONE
            assert attempts[-1].target.tool == "purchase"
            assert both.counters.counts["fastgw_failovers_total", "shop", "market"] == 1
            assert both.one("shop0").taken_over_by is not None
        assert all(one.in_flight == 0 for one in [*two.instances, *both.instances])

    played_in(story)


@pytest.mark.parametrize("method", ["resources/read", "prompts/get", "completion/complete"])
def test_whatever_is_no_tool_may_be_asked_again(method: str) -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, LOST, good, shop=2)
        attempts, ended = await field.ask(method=method)
        assert (len(attempts), ended) == (2, DONE)

    played_in(story)


def test_the_servers_own_error_is_told_where_no_other_can_answer() -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, overloaded, UNSENT)
        attempts, ended = await field.ask(Arm(None, (FIRST, SECOND), PATIENT, **ALL))
        assert json.loads(ended)["isError"] is True
        assert attempts[-1].address.server == "shop"
        streaming = Field(spawn, stream({"result": {"isError": True, "content": ["overloaded"]}}), UNSENT)
        _, ended = await streaming.ask(Arm(None, (FIRST, SECOND), PATIENT, **ALL))
        assert json.loads(ended)["isError"] is True

    played_in(story)


def test_a_call_that_was_sent_once_says_so_whatever_came_after() -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, LOST, UNSENT, shop=2)
        _, fault = await field.ask(Arm(None, (FIRST,), PATIENT, **SAFE))
        assert (fault.kind, fault.may_have_run) == (Kind.NO_SERVER, True)

    played_in(story)


def test_backups_stand_in_under_the_tools_own_name_and_are_asked_before_the_next_target() -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, UNSENT, good)
        field.backends["shop"] = replace(field.backends["shop"], backup=("market",))
        attempts, ended = await field.ask(Arm(None, (FIRST,), PATIENT, failover_on=("timeout",)))
        assert field.asked == ["shop0", "market0"]
        assert (attempts[-1].target.tool, ended) == ("buy", DONE)
        closed = replace(field.backends["shop"], maintenance="back at noon")
        field.backends["shop"] = closed
        attempts, _ = await field.ask()
        assert [one.address.server for one in attempts] == ["market"]

    played_in(story)


def test_who_was_asked_for_input_is_asked_again_and_nobody_else() -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, good, shop=3)
        for number in range(3):
            key = field.one(f"shop{number}").address.key
            attempts, _ = await field.ask(Arm(None, (SECOND, FIRST), PATIENT), instance=key)
            assert [one.address.key for one in attempts] == [key]

    played_in(story)


def test_an_instance_that_never_answered_does_not_bind_calls_to_the_others() -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, good, shop=3)
        field.one("shop0").address = replace(field.one("shop0").address, era=None)
        for _ in range(60):
            await field.ask()
        assert set(field.asked) == {"shop0", "shop1", "shop2"}

    played_in(story)


# -- breakers -----------------------------------------------------------------------------------------------------


def test_a_breaker_opens_after_five_failures_and_everybody_is_told() -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, UNSENT, shop=1)
        for _ in range(5):
            await field.ask()
        (key, news) = field.controller.news[0]
        assert (key, news.state, len(field.controller.news)) == ("shop|http://shop0/mcp", "open", 1)
        assert not field.one("shop0").usable
        other = Field(spawn, good, shop=2)
        other.instances.adopt("shop|http://shop0/mcp", news, news.until - 1)
        for _ in range(20):
            await other.ask()
        assert set(other.asked) == {"shop1"}

    played_in(story)


@pytest.mark.parametrize("failing", [UNSENT, LOST, LATE, internal, unavailable, stream(end=LOST)])
def test_failures_of_the_server_count(failing: Any) -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, failing)
        for _ in range(5):
            await field.ask()
        assert field.one("shop0").breaker.state is BreakerState.OPEN
        assert sum(field.counters.counts.values()) >= 5

    played_in(story)


@pytest.mark.parametrize(
    "answer", [throttled, REFUSED, overloaded, lambda sent: error(sent, -32602), Fault(Kind.INTERNAL)]
)
def test_what_is_no_failure_of_the_server_does_not(answer: Any) -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, answer)
        for _ in range(9):
            await field.ask()
        assert len(field.asked) == 9
        assert field.one("shop0").breaker.state is BreakerState.CLOSED

    played_in(story)


def test_the_last_instance_gets_one_call_at_a_time_and_the_first_good_one_closes_it() -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, UNSENT)
        for _ in range(5):
            await field.ask()
        field.one("shop0").breaker.begin_trial(time.monotonic())
        attempts, fault = await field.ask()
        assert (attempts, fault.kind) == ([], Kind.NO_SERVER)
        assert 20 <= fault.retry_after <= 40
        field.one("shop0").breaker.withdraw_trial()
        field.left = [good]
        _, ended = await field.ask()
        assert ended == DONE
        assert field.one("shop0").usable
        assert [news.state for _, news in field.controller.news] == ["open", "closed"]

    played_in(story)


def test_a_due_trial_goes_first_and_its_failure_is_nobodys() -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, UNSENT, good, shop=2)
        ill = field.one("shop0")
        ill.breaker.adopt(BreakerNews("open", 0.0, 1, "down", 1.0), 0.0)
        ill.judge()
        attempts, ended = await field.ask()
        assert ([one.address.url for one in attempts], ended) == (["http://shop0/mcp", "http://shop1/mcp"], DONE)
        assert [news.state for _, news in field.controller.news] == ["half-open", "open"]
        assert ill.breaker.opened == 2

    played_in(story)


def test_an_instance_that_is_drained_gets_nothing_even_as_the_last() -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, good)
        field.instances.mark("shop|http://shop0/mcp", healthy=True, drained=True)
        attempts, fault = await field.ask()
        assert (attempts, fault.kind) == ([], Kind.NO_SERVER)
        field.instances.mark("shop|http://shop0/mcp", healthy=False, drained=False)
        assert (await field.ask())[1] == DONE  # unhealthy, and the last

    played_in(story)


@pytest.mark.parametrize(
    ("hint", "seconds"),
    [("7", 7), ("0", 1), ("999999999999", 3600), ("", 1), ("soon", 1), ("-5", 1), ("Fri, 31 Dec 1999 23:59:59 GMT", 1)],
)
def test_how_long_a_server_wants_rest(hint: str, seconds: int) -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, lambda _: FakeAnswer(429, {"retry-after": hint}))
        assert (await field.ask())[1].retry_after == seconds

    played_in(story)


def test_a_date_says_when_to_come_back_and_that_the_call_was_not_run() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)

    async def story(spawn: Any) -> None:
        field = Field(spawn, lambda _: FakeAnswer(503, {"retry-after": soon}), good, shop=2)
        attempts, ended = await field.ask()
        assert ([one.failed_with for one in attempts], ended) == (["throttled", ""], DONE)
        rest = max(one.rests_until for one in field.instances) - time.monotonic()
        assert 60 < rest < 101

    played_in(story)


def test_a_throttled_instance_rests_while_there_is_another() -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, throttled, good, shop=2)
        await field.ask()
        first = field.asked[0]
        for _ in range(20):
            await field.ask()
        assert field.asked.count(first) == 1
        field.one(first).rests_until = 1.0
        for _ in range(40):
            await field.ask()
        assert field.asked.count(first) > 1

    played_in(story)


# -- the retry budget -----------------------------------------------------------------------------------------------


def test_repeats_are_a_fifth_of_the_calls_and_three_at_once_at_least() -> None:
    budget = RetryBudget()
    assert [budget.take(0) for _ in range(5)] == [True] * LEAST_AT_ONCE + [False] * 2
    budget.running = 0
    assert [budget.take(0) for _ in range(4)] == [True] * LEAST_AT_ONCE + [False]
    assert sum(budget.take(100) for _ in range(100)) == 20
    budget.running = LEAST_AT_ONCE
    assert not budget.take(104)
    assert (budget.left(104), budget.left(105), budget.left(10**6)) == (0, 1, 1000)
    assert budget.take(105)
    budget.running = 0
    assert budget.left(105) == LEAST_AT_ONCE


def test_an_outage_is_not_multiplied() -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, LOST, shop=2)
        for one in field.instances:
            one.breaker.policy = one.breaker.policy._replace(failures=10**6)
        field.caller.verdicts.budgets["shop"].running = LEAST_AT_ONCE
        attempts = [len((await field.ask(Arm(None, (FIRST,), PATIENT, **SAFE)))[0]) for _ in range(15)]
        assert sum(attempts) <= 18
        assert field.counters.counts["fastgw_retries_refused_total", "shop"] > 0

    played_in(story)


# -- places at a server -------------------------------------------------------------------------------------------


def places(field: Field) -> tuple[float, float]:
    gauges = field.counters.gauges
    return gauges["fastgw_bulkhead_in_flight", "shop"], gauges["fastgw_bulkhead_waiting", "shop"]


@pytest.mark.parametrize(
    "answer",
    [
        good, overloaded, internal, throttled, UNSENT, LOST,
        stream(SAID, {"result": {"content": []}}), stream(SAID, {"error": {"code": -32603, "message": ""}}),
        stream(SAID, end=LOST), stream(end=LOST),
    ],
)  # fmt: skip
@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_however_a_call_ends_its_place_is_given_back_once(era: str, answer: Any) -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, answer, shop=2, era=era)
        bounded(field, "shop", 3)
        for _ in range(5):
            await field.ask(Arm(None, (FIRST, SECOND), PATIENT, failover_on=EVERYTHING, tool_error="overloaded"))
            assert places(field) == (0, 0)

    played_in(story)


def test_a_stream_keeps_its_place_until_it_is_closed() -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, stream(SAID, SAID))
        bounded(field, "shop", 1)
        reply = await field.caller.forward(call(), Principal("a"), Arm(None, (FIRST,), PATIENT), field.backends, [])
        await reply.next()  # type: ignore[union-attr]
        assert places(field) == (1, 0)
        _, fault = await field.ask()
        assert (fault.kind, fault.data, fault.sent) == (Kind.NO_SERVER, {"reason": "busy"}, False)
        reply.close()  # type: ignore[union-attr]
        assert places(field) == (0, 0)

    played_in(story)


def test_a_full_server_is_passed_over_where_another_has_room() -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, good)
        bounded(field, "shop", 1, 5)
        held = field.caller.bulkheads._known["shop"]
        assert held.enter("x") is None
        both = Arm(None, (FIRST, SECOND), PATIENT, failover_on=("unavailable",))
        assert (await field.ask(both))[1] == DONE
        assert field.asked == ["market0"]
        bounded(field, "market", 1, 0)
        assert field.caller.bulkheads._known["market"].enter("x") is None
        waits = asyncio.ensure_future(field.ask(both))  # nobody has room: it waits where it wanted to go
        while not held.waiting:
            await asyncio.sleep(0)
        held.leave()
        assert (await waits)[1] == DONE
        assert field.asked == ["market0", "shop0"]

    played_in(story)


def test_a_target_it_may_not_go_on_to_is_no_way_out() -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, good)
        bounded(field, "shop", 1, 1)
        held = field.caller.bulkheads._known["shop"]
        assert held.enter("x") is None
        waits = asyncio.ensure_future(field.ask(Arm(None, (FIRST, SECOND), PATIENT, failover_on=("throttled",))))
        while not held.waiting:
            await asyncio.sleep(0)
        held.leave()
        assert (await waits)[1] == DONE
        assert field.asked == ["shop0"]

    played_in(story)


def test_who_waits_in_vain_was_never_sent() -> None:
    async def story(spawn: Any) -> None:
        field = Field(spawn, good)
        bounded(field, "shop", 1, 1)
        assert field.caller.bulkheads._known["shop"].enter("x") is None
        impatient = replace(PATIENT, total=0.02)
        attempts, fault = await field.ask(Arm(None, (FIRST,), impatient))
        assert (fault.kind, fault.data, fault.sent, fault.retry_after) == (Kind.NO_SERVER, {"reason": "busy"}, False, 1)
        assert (field.asked, attempts[0].failed_with, places(field)) == ([], "full", (1, 0))
        assert field.one("shop0").breaker.failures == 0

    played_in(story)
