"""Traces of the whole gateway: what an OTLP receiver gets, read with the official messages, is what agents and servers
say of the same calls; a receiver that fails costs nobody anything.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.e2e.gateway import KEY, Gateway, running_beside, until
from tests.e2e.http import MODERN, exchange, legacy, modern, open_session
from tests.e2e.servers import Call, Toolbox, answer, failure, serving

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = (f"00-{TRACE}-{SPAN}-0{flag}" for flag in (1, 0))
OTHER = f"00-{'a' * 32}-{'b' * 16}-01"
ERROR = 2
EXPORTED, LOST = (f'fastgw_spans_total{{outcome="{outcome}"}}' for outcome in ("exported", "lost"))
MANY = 40
LONG = 60.0
"""Seconds for the usage process to load what it exports by: it gives way to all others, and a machine may be busy."""


@dataclass
class Receiver:
    """An OTLP receiver: `spans` as they came; `status` is what it answers, None: nothing at all."""

    port: int = 0
    status: int | None = 200
    spans: list[Span] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    asked: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def take(self, request: web.Request) -> web.Response:
        self.asked += 1
        body = await request.read()
        if self.status is None:
            await asyncio.Event().wait()
        if self.status != 200:
            return web.Response(status=self.status or 0)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        for one in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(attributes(one.resource))
            self.spans.extend(span for scope in one.scope_spans for span in scope.spans)
        return web.Response(body=b"", content_type="application/x-protobuf")

    async def of(self, trace: str, count: int) -> list[Span]:
        """The spans of one trace, by their starts; as soon as there are so many."""

        async def found() -> list[Span]:
            spans = [span for span in self.spans if span.trace_id.hex() == trace]
            return spans if len(spans) >= count else []

        spans: list[Span] = await until(found, LONG)
        assert len(spans) == count
        return sorted(spans, key=lambda span: (span.kind != Span.SPAN_KIND_SERVER, span.start_time_unix_nano))


def attributes(owner: Any) -> dict[str, Any]:
    """Attributes of a span, an event or a resource."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in owner.attributes}


@asynccontextmanager
async def receiving(**how: Any) -> AsyncIterator[Receiver]:
    receiver = Receiver(**how)
    app = web.Application()
    app.router.add_post("/v1/traces", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        await runner.cleanup()


class Server(Toolbox):
    """A server whose tools tell what they hear of traces: `heard` has (`_meta`, headers) of each call."""

    def __init__(self, era: str) -> None:
        super().__init__(era, {"echo": self.echo, "broken": self.broken, "wrong": self.wrong, "down": self.down})
        self.heard: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def note(self, call: Call) -> None:
        meta = call.params.get("_meta", {})
        names = ("traceparent", "tracestate", "baggage")
        self.heard.append(({name: meta.get(name) for name in names}, {name: call.got.header(name) for name in names}))

    async def echo(self, call: Call) -> None:
        self.note(call)
        await call.text("hush")

    async def broken(self, call: Call) -> None:
        await call.send(failure(call.id, -32050, "hush"))

    async def wrong(self, call: Call) -> None:
        await call.result(b'{"content":[],"isError":true}')

    async def down(self, call: Call) -> None:
        self.note(call)
        await call.send(answer(b"hush", status="502 Bad Gateway", headers={"Content-Type": "text/plain"}))


@asynccontextmanager
async def scene(folder: Path, receiver: Receiver, more: dict[str, Any] | None = None, **environment: str) -> Any:
    """A gateway with a server of each era, and one whose first of two instances is not there."""
    new, old = Server("modern"), Server("legacy")
    async with serving(new) as first, serving(old) as second:
        written = {
            "servers": {"new": {"url": first.url}, "old": {"url": second.url}},
            "tools": {
                "of-new": {"to": "new/echo"},
                "of-old": {"to": "old/echo"},
                "either": {"to": ["old/down", "new/echo"], "repeatable": True, "failover_on": ["unavailable"]},
            },
            "traces": {"url": receiver.url, "sample": 0},
            "endpoints": {"/mcp": {"server_timing": True}},
            "health": {"interval": "off"},
            **(more or {}),
        }
        async with running_beside(written, folder, environment) as gateway:
            yield gateway, new, old


async def call(gateway: Gateway, tool: str, meta: dict[str, Any] | None = None, **headers: str) -> Any:
    """A modern agent's call."""
    asked = modern("tools/call", {"name": tool, "arguments": {"secret": "hush"}}, key=KEY, meta=meta)
    for name, value in headers.items():
        asked = asked.having(name, value)
    return await exchange(gateway.url, asked)


def test_spans_stand_where_the_agents_trace_says(tmp_path: Path) -> None:
    """Of modern and legacy agents, at modern and legacy servers; `sample: 0`, so nothing but an agent's word counts."""

    async def story() -> None:
        async with receiving() as receiver, receiving() as second, scene(tmp_path, receiver) as (gateway, new, old):
            await hand_on_what_is_not_recorded(gateway, new, old)
            assert receiver.asked == 0
            seen = [await called(gateway, box, speaks) for box in (new, old) for speaks in ("modern", "legacy")]
            assert (await call(gateway, "either", {"traceparent": SAMPLED})).status == 200
            for number, tool in enumerate(FAILURES, 1):
                await call(gateway, tool, {"traceparent": f"00-{number:032x}-{SPAN}-01"})
            for one in seen:
                check_pair(one, await receiver.of(one.trace, 2))
            check_failover(new, old, await receiver.of(TRACE, 3))
            for number, (tool, kind) in enumerate(FAILURES.items(), 1):
                for span in await receiver.of(f"{number:032x}", 1 if tool == "nothing" else 2):
                    assert (span.status.code, attributes(span)["error.type"]) == (ERROR, kind), tool
            assert span.name == "tools/call", "what does not exist is not told"
            assert not [span for span in receiver.spans if "hush" in str(span)], "neither arguments nor results"
            assert {one["service.name"] for one in receiver.resources} == {"fastgw"}
            await reload(gateway, {"url": second.url, "sample": 1})

            async def recorded() -> bool:
                await call(gateway, "of-new")
                return bool(second.spans)

            await until(recorded, LONG)
            assert new.heard[-1][0]["traceparent"] == new.heard[-1][1]["traceparent"] is not None

    asyncio.run(story())


FAILURES = {"new__broken": "-32050", "new__wrong": "tool_error", "nothing": "-32602"}
"""Tools to `error.type`."""


@dataclass
class Seen:
    """One call of an agent: its trace, what the agent said of it, what the server heard, the id of the answer."""

    trace: str
    tool: str
    version: str
    said: dict[str, Any]
    heard: tuple[dict[str, Any], dict[str, Any]]
    id: str | None


async def called(gateway: Gateway, box: Server, speaks: str) -> Seen:
    """Have the box called by an agent of either kind, which says one trace in `_meta` and another in a header."""
    trace = os.urandom(16).hex()
    said = {"traceparent": f"00-{trace}-{SPAN}-01", "tracestate": "a=1", "baggage": "k=v"}
    tool, version = ("of-new", MODERN) if box.era == "modern" else ("of-old", "2025-11-25")
    if speaks == "modern":
        reply = await call(gateway, tool, said, traceparent=OTHER)
    else:
        session = await open_session(gateway.url, key=KEY)
        params = {"name": tool, "arguments": {"secret": "hush"}, "_meta": said}
        asked = legacy("tools/call", params, key=KEY, session=session)
        reply = await exchange(gateway.url, asked.having("traceparent", OTHER))
    assert reply.status == 200, reply
    assert "forward;dur=" in str(reply.header("server-timing"))
    return Seen(trace, tool, version, said, box.heard[-1], reply.header("x-request-id"))


def check_pair(one: Seen, spans: list[Span]) -> None:
    server, client = spans
    assert (server.kind, client.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT)
    assert server.parent_span_id.hex() == SPAN
    assert client.parent_span_id == server.span_id
    wanted = {**one.said, "traceparent": f"00-{one.trace}-{client.span_id.hex()}-01"}
    assert one.heard == (wanted, wanted)
    assert (server.name, client.name) == (f"tools/call {one.tool}", "tools/call echo")
    assert server.trace_state == client.trace_state == "a=1"
    assert attributes(client)["mcp.protocol.version"] == one.version
    assert attributes(server)["gen_ai.tool.name"] == one.tool
    assert attributes(server)["fastgw.request.id"] == one.id
    assert abs(server.start_time_unix_nano / 1e9 - time.time()) < 60
    assert server.start_time_unix_nano <= client.start_time_unix_nano
    assert client.end_time_unix_nano <= server.end_time_unix_nano


def check_failover(new: Server, old: Server, spans: list[Span]) -> None:
    """Two attempts, the first of which failed."""
    server, failed, answered = spans
    assert (failed.status.code, attributes(failed)["error.type"]) == (ERROR, "server_error")
    assert (answered.status.code, server.status.code) == (0, 0)
    assert [attributes(span)["fastgw.server"] for span in (failed, answered)] == ["old", "new"]
    assert failed.end_time_unix_nano <= answered.start_time_unix_nano
    (event,) = server.events
    assert event.name == "fastgw.failover"
    assert attributes(event)["error.type"] == "server_error"
    heard = [box.heard[-1][1]["traceparent"] for box in (old, new)]
    assert heard == [f"00-{TRACE}-{span.span_id.hex()}-01" for span in (failed, answered)]


async def hand_on_what_is_not_recorded(gateway: Gateway, new: Server, old: Server) -> None:
    nothing = dict.fromkeys(("traceparent", "tracestate", "baggage"))
    for tool, box in (("of-new", new), ("of-old", old)):
        await call(gateway, tool, {}, traceparent=UNSAMPLED, tracestate="a=1")
        wanted = {**nothing, "traceparent": UNSAMPLED, "tracestate": "a=1"}
        assert box.heard[-1] == (wanted, wanted)
        await call(gateway, tool)
        assert box.heard[-1] == (nothing, nothing)
        assert (await call(gateway, tool, {"traceparent": "00-1"}, traceparent="x")).status == 200
        assert box.heard[-1] == (nothing, nothing)


async def reload(gateway: Gateway, traces: dict[str, Any]) -> None:
    file = gateway.folder / "fastgw.yaml"
    file.write_text(json.dumps({**json.loads(file.read_text()), "traces": traces}))
    os.kill(gateway.process.pid, signal.SIGHUP)


def test_spans_counts_and_events_add_up(tmp_path: Path) -> None:
    """What is recorded in a run, by four witnesses; also beyond the end of a usage process."""

    async def story() -> None:
        environment = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20hush", "OTEL_SERVICE_NAME": "gw"}
        more = {"drain": "1s"}
        async with receiving() as receiver:
            more["traces"] = {"url": receiver.url, "sample": 1}  # type: ignore[assignment]
            async with scene(tmp_path, receiver, more, **environment) as (gateway, _new, _old):
                tools = ["of-new", "of-old", "either", "nothing"] * (MANY // 4)
                await asyncio.gather(*[call(gateway, tool) for tool in tools])

                async def exported() -> bool:
                    events = gateway.events()
                    wanted = sum(1 + event["attempts"] for event in events)
                    return len(events) == MANY and await asyncio.to_thread(gateway.metric, EXPORTED) == wanted

                await until(exported, LONG)
                assert await asyncio.to_thread(gateway.metric, LOST) == 0
                for outcome, count in Counter(event["outcome"] for event in gateway.events()).items():
                    row = f'fastgw_requests_total{{endpoint="/mcp",method="tools/call",outcome="{outcome}"}}'
                    await until(partial(counted, gateway, row, count), LONG)
                os.kill(gateway.child("usage"), signal.SIGKILL)
                await call(gateway, "of-old")  # its spans wait for the next usage process
                await until(lambda: arrived(receiver, MANY + 1), LONG)
            calls = receiver.spans
            lines = (tmp_path / "usage.jsonl").read_text().splitlines()
            # Once killed, the usage process may write again what it had written (at least once).
            events = list({event["requestId"]: event for event in map(json.loads, lines)}.values())
            servers = [span for span in calls if span.kind == Span.SPAN_KIND_SERVER]
            assert len(servers) == len(events) == MANY + 1
            ids = {attributes(span)["fastgw.request.id"]: span for span in servers}
            for event in events:
                span = ids[event["requestId"]]
                assert event["traceId"] == span.trace_id.hex()
                assert attributes(span)["fastgw.outcome"] == event["outcome"]
                took = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
                assert abs(took - event["latencyMs"]) < 0.01
                clients = [one for one in calls if one.parent_span_id == span.span_id]
                assert len(clients) == event["attempts"]
            assert len({span.span_id for span in calls}) == len(calls)
            assert receiver.headers[0]["authorization"] == "Bearer hush"
            assert {one["service.name"] for one in receiver.resources} == {"gw"}

    asyncio.run(story())


def test_a_receiver_that_fails_costs_no_call(tmp_path: Path) -> None:
    """It answers 500, then not at all."""

    async def story() -> None:
        async with receiving(status=500) as receiver:
            more = {"traces": {"url": receiver.url, "sample": 1}, "drain": "1s"}
            async with scene(tmp_path, receiver, more) as (gateway, _new, _old):

                async def all_is_lost(count: int) -> None:
                    async def lost() -> bool:
                        return await asyncio.to_thread(gateway.metric, LOST) >= count

                    await until(lost, LONG)

                replies = await asyncio.gather(*[call(gateway, "of-new") for _ in range(MANY)])
                assert {reply.status for reply in replies} == {200}
                await all_is_lost(MANY * 2)
                assert gateway.logs(r"spans are lost so far; .* it answered 500")
                receiver.status = None
                asked = receiver.asked
                await call(gateway, "of-new")
                await until(lambda: began(receiver, asked), LONG)
                replies = await asyncio.gather(*[call(gateway, "of-new") for _ in range(MANY)])
                assert {reply.status for reply in replies} == {200}
                assert await asyncio.to_thread(gateway.metric, EXPORTED) == 0

    asyncio.run(story())


async def counted(gateway: Gateway, row: str, count: int) -> bool:
    return await asyncio.to_thread(gateway.metric, row) == count


async def arrived(receiver: Receiver, requests: int) -> bool:
    return sum(span.kind == Span.SPAN_KIND_SERVER for span in receiver.spans) >= requests


async def began(receiver: Receiver, before: int) -> bool:
    return receiver.asked > before
