"""Every field of a usage event is there, in the words of schema 1."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fastgw.gateway.access import Access
from fastgw.gateway.context import RequestContext
from fastgw.gateway.dialects import modern
from fastgw.gateway.observers import RequestMetrics, event
from fastgw.policy.limits import BucketCharge, Limit, LimitVerdict
from fastgw.policy.match import Principal
from fastgw.protocol.call import Call
from fastgw.protocol.trace_context import TraceContext
from fastgw.snapshot.model import Endpoint, Snapshot, View
from fastgw.telemetry.counters import MOST_REFUSALS_TOLD, STAGES, Counters
from fastgw.telemetry.refusals import NotedRefusal, RecentRefusals
from fastgw.usage.event import agent_fields
from tests.gateway.fakes import BUY, META, MODERN, MODERN_BUY, FakeAgent, bought, request, staged
from tests.upstream.fakes import FakeAnswer, run

FIELDS = [
    "schema", "requestId", "timestamp", "gateway", "endpoint", "agentId", "userId",
    "credential", "team", "project", "billingAccount", "labels", "method", "tool",
    "mcpServer", "instance", "outcome", "statusCode", "errorCode", "refusedBy", "attempts",
    "failover", "cached", "latencyMs", "overheadMs", "bytesIn", "bytesOut", "tokensIn",
    "tokensOut", "cost", "currency", "rateLimitRemaining", "protocolVersion", "traceId",
]  # fmt: skip
ENDPOINT = Endpoint("/mcp", {}, (View(),), {}, False, 0.0, (), "")
SNAPSHOT = Snapshot(1, {}, {}, {}, frozenset(), frozenset(), 1, 1, (b"s",), "fastgw", "0", "gw-1")
AGENT = Principal("bot", {"team": "engineering"}, "key:f784e848")


def read(**more: Any) -> dict[str, Any]:
    context = RequestContext("req_1", SNAPSHOT, ENDPOINT, modern.DIALECT, {}, frozenset(), 0.0)
    context.method, context.outcome, context.status = "tools/call", "ok", 200
    for name, value in more.items():
        setattr(context, name, value)
    line = event(context, Access(AGENT, View(), 0.0, agent_fields("gw-1", "/mcp", AGENT, (), None)))
    assert "\n" not in line
    return dict(json.loads(line))


def test_all_fields_in_their_order() -> None:
    assert list(read()) == FIELDS


def test_what_is_not_known_is_null_and_what_was_measured_is_not() -> None:
    found = read()
    assert {name for name, value in found.items() if value is None} == {
        "userId", "project", "billingAccount", "tool", "mcpServer", "instance", "errorCode", "refusedBy", "tokensIn",
        "tokensOut", "cost", "rateLimitRemaining", "traceId",
    }  # fmt: skip
    assert found["bytesIn"] == 0


def test_times_have_three_decimals() -> None:
    found = read(latency_us=342_118, overhead_us=211, timestamp=1772116321.0451)
    assert (found["latencyMs"], found["overheadMs"]) == (342.118, 0.211)
    assert found["timestamp"] == "2026-02-26T14:32:01.045Z"


def test_a_refusal_says_by_what() -> None:
    found = read(refused_by='a "limit"\n', error_code=-31029, status=429, outcome="rate_limited")
    assert (found["refusedBy"], found["errorCode"], found["statusCode"]) == ('a "limit"\n', -31029, 429)


def test_what_is_left_is_counted_in_calls_like_this_one() -> None:
    charge = BucketCharge(Limit("l"), ("l", "bot"), None, cost=3)
    assert read(verdict=LimitVerdict(tightest=charge, left=10))["rateLimitRemaining"] == 3
    assert read(verdict=LimitVerdict(tightest=charge, left=0, refused=charge))["rateLimitRemaining"] is None


class Broken:
    def observe(self, context: RequestContext) -> None:
        raise RuntimeError(context.request_id)


@pytest.mark.parametrize("together", [1, 64])
def test_an_event_counts_the_bytes_of_a_refusal_whenever_it_is_made(
    monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    async def story() -> None:
        async with staged(monkeypatch, bought) as stage:
            monkeypatch.setattr("fastgw.gateway.gateway.OBSERVED_TOGETHER", together)
            agent = FakeAgent(MODERN_BUY)
            await stage.ask(agent, {**MODERN, "mcp-name": "sell"})
            stage.gateway.flush()
            [event] = stage.controller.events
            assert (agent.status, event["bytesOut"]) == (400, len(agent.body))

    run(story())


def test_a_request_is_counted_with_its_agent_and_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with staged(monkeypatch, lambda sent: FakeAnswer(body=bought(sent))) as stage:
            await stage.ask(FakeAgent(MODERN_BUY), MODERN)
            stage.gateway.flush()
            counters = stage.gateway.caller._counters
            assert counters.counts["fastgw_requests_total", "/mcp", "tools/call", "ok", "anonymous"] == 1
            assert list(counters.calls) == [("buy", "shop", "ok")]
            assert counters.noted_refusals == []

    run(story())


def test_a_refusal_is_noted_without_what_the_agent_wrote_and_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with staged(monkeypatch, bought) as stage:
            hostile = "<script>alert(1)</script>"
            asked = [
                (request("tools/call", {**BUY, "name": hostile, "_meta": META}), {**MODERN, "mcp-name": hostile}),
                (request(hostile, {"_meta": META}), {**MODERN, "mcp-method": hostile}),
                (MODERN_BUY, {**MODERN, "mcp-name": "sell"}),
                (MODERN_BUY, {**MODERN, "host": "evil.example"}),
            ]  # fmt: skip
            for _ in range(MOST_REFUSALS_TOLD):
                for body, fields in asked:
                    await stage.ask(FakeAgent(body), fields)
            stage.gateway.flush()
            delta = stage.gateway.caller._counters.take()
            assert delta is not None
            refusals = RecentRefusals()
            refusals.merge(delta.noted_refusals)
            found = [(one.agent, one.tool, one.method, one.outcome) for one in refusals]
            assert len(found) == MOST_REFUSALS_TOLD
            assert set(found) == {
                ("anonymous", None, "tools/call", "unknown"), ("anonymous", None, "other", "invalid"),
                ("anonymous", None, "tools/call", "invalid"), (None, None, "none", "invalid"),
            }  # fmt: skip
            assert "script" not in str(delta.noted_refusals)
            assert stage.gateway.caller._counters.room == MOST_REFUSALS_TOLD

    run(story())


def test_of_a_tool_that_others_have_the_name_is_noted() -> None:
    counters = Counters()
    endpoint = replace(ENDPOINT, views=(View(), View({"drop": None})))  # type: ignore[dict-item]
    for name in ("drop", "nothing"):
        context = RequestContext("req_1", SNAPSHOT, endpoint, modern.DIALECT, {}, frozenset(), 0.0)
        context.method, context.outcome, context.status, context.error_code = "tools/call", "unknown", 404, -32602
        context.call = Call(b"1", "tools/call", "2026-07-28", name)
        RequestMetrics(counters).observe(context)
    assert [NotedRefusal(*one).tool for one in counters.noted_refusals] == ["drop", None]  # type: ignore[arg-type]


def test_a_sampled_call_leaves_an_exemplar_and_no_other_does() -> None:
    counters = Counters()
    for sampled in (False, True):
        context = RequestContext("req_1", SNAPSHOT, ENDPOINT, modern.DIALECT, {}, frozenset(), 0.0, timestamp=100.0)
        context.method, context.outcome, context.latency_us, context.overhead_us = "tools/call", "ok", 20_000, 300
        context.trace = TraceContext("ab" * 16, flags="01" if sampled else "00")
        RequestMetrics(counters).observe(context)
        assert len(counters.exemplars) == 3 * sampled
    found = {stage: one for (stage, _), one in counters.exemplars.items()}
    assert {one.trace_id for one in found.values()} == {"ab" * 16}
    assert [found[stage].seconds for stage in STAGES] == pytest.approx([0.02, 0.0197, 0.0003])
    assert found["total"].timestamp == pytest.approx(100.02)


def test_an_observer_that_fails_costs_no_other_request_its_event(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with staged(monkeypatch, lambda sent: FakeAnswer(body=bought(sent))) as stage:
            monkeypatch.setattr("fastgw.gateway.gateway.OBSERVED_TOGETHER", 64)
            stage.gateway.observers.insert(0, Broken())
            for _ in range(3):
                agent = FakeAgent(MODERN_BUY)
                await stage.ask(agent, MODERN)
                assert agent.status == 200
            stage.gateway.flush()
            assert len(stage.controller.events) == 3

    run(story())


def test_a_large_request_does_not_wait_to_be_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with staged(monkeypatch, lambda sent: FakeAnswer(body=bought(sent))) as stage:
            monkeypatch.setattr("fastgw.gateway.gateway.OBSERVED_TOGETHER", 64)
            monkeypatch.setattr("fastgw.gateway.gateway.FREE", 10)
            await stage.ask(FakeAgent(MODERN_BUY), MODERN)
            assert len(stage.controller.events) == 1

    run(story())
