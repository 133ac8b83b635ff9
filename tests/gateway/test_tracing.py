"""One request in its trace: what servers hear of it, and which spans are made."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import wraps
from types import SimpleNamespace
from typing import Any

import pytest

from fastgw.gateway import tracing
from fastgw.telemetry.spans import SpanRecord
from tests.gateway.asking import INVOKE, answers, ask, load, newest, sells
from tests.gateway.fakes import BUY, META, MODERN, FakeAgent, Stage, request, staged
from tests.upstream.fakes import FakeAnswer, Sent, run

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT, UNSAMPLED = (f"00-{TRACE}-{SPAN}-0{flag}" for flag in (1, 0))
OTHER = f"00-{'a' * 32}-{'b' * 16}-01"
ALL, NONE = 2**64, 0


class Heard:
    """A server that sells, and keeps what it was sent."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []

    def __call__(self, sent: Sent) -> FakeAnswer:
        if sent.method == "tools/call":
            self.sent.append(sent)
        return sells(sent)

    @property
    def meta(self) -> dict[str, Any]:
        """`_meta` of the last call."""
        return dict(self.sent[-1].json["params"].get("_meta", {}))

    @property
    def headers(self) -> dict[str, str]:
        """Those of the last call that say something of its trace."""
        found = self.sent[-1].headers
        return {name: found[name] for name in ("traceparent", "tracestate", "baggage") if name in found}


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """The test as pytest knows it."""

    @wraps(test)
    def running(*args: Any, **fixtures: Any) -> None:
        run(test(*args, **fixtures))

    return running


def record(stage: Stage, sample: int | None) -> list[SpanRecord]:
    """Record this part of what begins here; the list gets the spans."""
    load(stage, replace(newest(stage), sample=sample))
    spans: list[SpanRecord] = []
    stage.gateway.write_spans = spans.extend
    return spans


async def buy(stage: Stage, meta: dict[str, Any] | None = None, **fields: str) -> FakeAgent:
    agent = FakeAgent(request("tools/call", {**BUY, "_meta": {**META, **(meta or {})}}, "call-7"))
    await stage.ask(agent, {**MODERN, **fields})
    stage.gateway.flush()
    return agent


@pytest.fixture(params=["modern", "legacy"])
def era(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


@in_loop
async def test_an_agents_trace_goes_on_unchanged(monkeypatch: pytest.MonkeyPatch, era: str) -> None:
    """Where nothing is recorded, and where its own flag says so."""
    heard = Heard()
    async with staged(monkeypatch, heard, era) as stage:
        for sample, parent in ((None, PARENT), (None, UNSAMPLED), (NONE, UNSAMPLED), (ALL, UNSAMPLED)):
            spans = record(stage, sample)
            for meta, fields in (({"traceparent": parent, "tracestate": "a=1"}, {"traceparent": OTHER}),
                                 ({}, {"traceparent": parent, "tracestate": "a=1"})):  # fmt: skip
                assert (await buy(stage, meta, **fields)).status == 200
                wanted = {"traceparent": parent, "tracestate": "a=1"}
                assert heard.headers == wanted
                assert {name: heard.meta[name] for name in wanted} == wanted
                assert spans == []


@in_loop
async def test_no_trace_stays_none(monkeypatch: pytest.MonkeyPatch, era: str) -> None:
    heard = Heard()
    async with staged(monkeypatch, heard, era) as stage:
        for sample in (None, NONE):
            spans = record(stage, sample)
            await buy(stage, {"own": 1})
            assert heard.headers == {}
            assert "traceparent" not in heard.meta
            assert heard.meta["own"] == 1
            assert spans == []


@in_loop
async def test_agents_have_so_many_recorded_and_no_more(monkeypatch: pytest.MonkeyPatch, era: str) -> None:
    heard = Heard()
    async with staged(monkeypatch, heard, era) as stage:
        monkeypatch.setattr(tracing, "MOST_BY_AGENTS", 0)
        spans = record(stage, ALL // 2)
        within, beyond = (f"00-{'a' * 16}{half}{'1' * 15}-{SPAN}-01" for half in "19")
        await buy(stage, {"traceparent": beyond})
        assert (spans, heard.headers["traceparent"]) == ([], beyond)
        await buy(stage, {"traceparent": within})
        assert {span.trace_id for span in spans} == {within[3:35]}
    room, moment = tracing.RequestSpans(), SimpleNamespace(started=7.0)
    monkeypatch.setattr(tracing, "MOST_BY_AGENTS", 3)
    taken = [room.has_room(moment) for moment.started in (7.0, 7.1, 7.2, 7.9, 8.0, 8.1)]  # type: ignore[arg-type]
    assert taken == [True] * 3 + [False] + [True] * 2


@in_loop
async def test_what_is_recorded_names_our_span(monkeypatch: pytest.MonkeyPatch, era: str) -> None:
    heard = Heard()
    async with staged(monkeypatch, heard, era) as stage:
        spans = record(stage, NONE)  # the agent's word counts
        agent = await buy(stage, {"traceparent": PARENT, "tracestate": "a=1", "baggage": "k=v", "own": 1})
        assert agent.status == 200
        server, client = spans
        assert (server.trace_id, server.parent_id, server.kind, server.state) == (TRACE, SPAN, "server", "a=1")
        assert (client.trace_id, client.parent_id, client.kind) == (TRACE, server.span_id, "client")
        wanted = {"traceparent": f"00-{TRACE}-{client.span_id}-01", "tracestate": "a=1", "baggage": "k=v"}
        assert heard.headers == wanted
        assert {name: heard.meta[name] for name in (*wanted, "own")} == {**wanted, "own": 1}
        assert server.start <= client.start <= client.end <= server.end
        names = {"mcp.method.name": "tools/call", "gen_ai.tool.name": "buy", "gen_ai.operation.name": "execute_tool"}
        assert names.items() <= server.attributes.items()
        assert names.items() <= client.attributes.items()
        assert server.name == client.name == "tools/call buy"
        assert server.attributes["jsonrpc.request.id"] == "call-7"
        assert server.attributes["mcp.protocol.version"] == "2026-07-28"
        assert client.attributes["mcp.protocol.version"] == {"modern": "2026-07-28", "legacy": "2025-11-25"}[era]
        assert (server.error, client.error) == ("", "")
        assert server.attributes["fastgw.request.id"] == agent.headers[b"x-request-id"].decode()


@in_loop
async def test_a_trace_that_begins_here(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard()
    async with staged(monkeypatch, heard) as stage:
        spans = record(stage, ALL)
        await buy(stage)
        server, client = spans
        assert server.parent_id == ""
        assert heard.headers == {"traceparent": f"00-{server.trace_id}-{client.span_id}-01"}
        assert int(server.trace_id, 16) > 0


@in_loop
async def test_the_part_that_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged(monkeypatch, Heard()) as stage:
        spans = record(stage, 2**62)
        for _ in range(200):
            await buy(stage)
        traces = {span.trace_id for span in spans}
        assert 20 <= len(traces) <= 80  # of 200 a quarter: so far off it is once in a million times
        assert all(int(trace[16:], 16) < 2**62 for trace in traces)


@pytest.mark.parametrize("parent", ["00-1", PARENT.upper(), f"00-{'0' * 32}-{SPAN}-01", "<script>", PARENT + "-x", 7])
@in_loop
async def test_an_unsound_trace_is_neither_refused_nor_handed_on(monkeypatch: pytest.MonkeyPatch, parent: Any) -> None:
    heard = Heard()
    async with staged(monkeypatch, heard) as stage:
        record(stage, None)
        agent = await buy(stage, {"traceparent": parent, "tracestate": "a=1", "own": 1}, traceparent=str(parent))
        assert agent.status == 200
        assert heard.headers == {}
        assert {"traceparent", "tracestate"}.isdisjoint(heard.meta)
        assert heard.meta["own"] == 1
        assert str(parent) not in agent.body.decode() or parent == 7


@in_loop
async def test_a_failed_call_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    error = {"code": -32050, "message": "broken"}
    async with staged(monkeypatch, answers(error=error)) as stage:
        spans = record(stage, ALL)
        await buy(stage)
        for span in spans:
            assert (
                span.error == span.attributes["error.type"] == span.attributes["rpc.response.status_code"] == "-32050"
            )
    async with staged(monkeypatch, answers(result={"content": [], "isError": True})) as stage:
        spans = record(stage, ALL)
        await buy(stage)
        assert [span.error for span in spans] == ["tool_error"] * 2
        assert all("rpc.response.status_code" not in span.attributes for span in spans)


@in_loop
async def test_names_that_do_not_exist_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged(monkeypatch, Heard()) as stage:
        spans = record(stage, ALL)
        asked = {"name": "</script>", "arguments": {"secret": "hush"}, "_meta": META}
        await stage.ask(FakeAgent(request("tools/call", asked)), {**MODERN, "mcp-name": "</script>"})
        (span,) = spans
        assert (span.name, span.error) == ("tools/call", "-32602")
        assert "script" not in repr(span)
        assert "hush" not in repr(span)


@in_loop
async def test_lists_and_plain_http_have_spans_too(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard()
    async with staged(monkeypatch, heard) as stage:
        spans = record(stage, NONE)
        listing = FakeAgent(request("tools/list", {"_meta": {**META, "traceparent": PARENT}}))
        await stage.ask(listing, {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"})
        await ask(stage, INVOKE, json.dumps({"n": 1}).encode(), {"traceparent": OTHER})
        stage.gateway.flush()
        listed, invoked, client = spans
        assert (listed.name, listed.trace_id, listed.parent_id) == ("tools/list", TRACE, SPAN)
        assert (invoked.name, invoked.trace_id) == ("tools/call buy", "a" * 32)
        assert "mcp.protocol.version" not in invoked.attributes
        assert heard.headers == {"traceparent": f"00-{'a' * 32}-{client.span_id}-01"}


@in_loop
async def test_an_event_carries_the_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged(monkeypatch, Heard()) as stage:
        events: list[dict[str, Any]] = []
        stage.gateway.write_event = lambda line: events.append(json.loads(line))
        record(stage, None)
        await buy(stage, {"traceparent": UNSAMPLED})
        await buy(stage)
        spans = record(stage, ALL)
        await buy(stage)
        assert [one["traceId"] for one in events] == [TRACE, None, spans[0].trace_id]
        unread = {"name": "buy", "arguments": 7, "_meta": META}
        await stage.ask(FakeAgent(request("tools/call", unread)), {**MODERN, "traceparent": PARENT})
        stage.gateway.flush()
        assert events[-1]["traceId"] == TRACE  # also of what was refused before it was a call
