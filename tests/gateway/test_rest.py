"""Tools for callers without an MCP client: calls, refusals, lists."""

from __future__ import annotations

import json
from dataclasses import replace
from urllib.parse import unquote

import pytest

from fastgw.errors import CREDENTIAL_WANTED
from fastgw.gateway import connection
from fastgw.policy.authorise import Condition
from fastgw.policy.match import Match
from fastgw.protocol import names
from fastgw.snapshot.model import View
from tests.gateway.asking import INVOKE, answers, ask, begin, changed, load, newest, sells, view_of
from tests.gateway.fakes import FakeAgent, Server, bought, event, staged
from tests.upstream.fakes import run, settle

# -- calls ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["modern", "legacy"])
def test_a_tool_is_called_by_its_path(monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells, server) as stage:
            agent = await ask(stage, INVOKE, b' {"n": 1.00, "n":12345678901234567890123} ')
            assert (agent.status, agent.json()) == (200, {"content": [{"type": "text", "text": "bought"}]})
            assert agent.headers[b"content-type"] == b"application/json"
            [call] = [sent for sent in stage.wire.sent if sent.method == "tools/call"]
            assert b'"arguments":{"n": 1.00, "n":12345678901234567890123}' in call.body
            [told] = stage.controller.events
            assert (told["method"], told["tool"], told["statusCode"]) == ("tools/call", "buy", 200)
            assert (told["protocolVersion"], told["outcome"]) == ("rest", "ok")
            assert told["requestId"] == agent.headers[b"x-request-id"].decode()

    run(story())


@pytest.mark.parametrize("fields", [{"content-length": "0", "content-type": ""}, {"content-length": ""}])
def test_no_body_is_no_arguments(monkeypatch: pytest.MonkeyPatch, fields: dict[str, str]) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            agent = await ask(stage, INVOKE, b"", fields)
            assert agent.status == 200
            assert stage.wire.sent[-1].json["params"]["arguments"] == {}

    run(story())


def test_the_result_is_bare(monkeypatch: pytest.MonkeyPatch) -> None:
    meta = {names.META_SERVER: {"name": "shop"}, names.RESERVED + "x": 1, "shop/own": 2}
    result = {"resultType": "complete", "ttlMs": 5, "cacheScope": "public", "isError": True, "content": [], "x": [1]}

    async def story() -> None:
        for given, told in (({**result, "_meta": meta}, {"shop/own": 2}), (result, None)):
            async with staged(monkeypatch, answers(result=given)) as stage:
                agent = await ask(stage, INVOKE, b"{}")
                kept = {"isError": True, "content": [], "x": [1], **({"_meta": told} if told else {})}
                assert (agent.status, agent.json()) == (200, kept)
                assert stage.controller.events[0]["outcome"] == "tool_error"

    run(story())


def test_structured_content_need_not_be_an_object(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        result = {"resultType": "complete", "content": [], "structuredContent": [1]}
        async with staged(monkeypatch, answers(result=result)) as stage:
            assert (await ask(stage, INVOKE, b"{}")).json() == {"content": [], "structuredContent": [1]}

    run(story())


def test_a_stream_becomes_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "KEEP_ALIVE", 0.0)

    async def story() -> None:
        server = Server()
        async with staged(monkeypatch, server.streams) as stage:
            agent = FakeAgent(b"{}")
            fields = {"accept": "application/json, text/event-stream", "mcp-param-x": "1"}
            task = begin(stage, agent, INVOKE, fields)
            while not server.answers:
                await settle()
            sent, answer = server.asked[0], server.answers[0]
            params = {"level": "emergency", "data": "x"}
            log = {"jsonrpc": "2.0", "method": "notifications/message", "params": params}
            answer.more.put_nowait(event(json.dumps(log).encode()))
            await settle()
            assert agent.sent == []
            assert "progressToken" not in sent.json["params"].get("_meta", {})
            answer.more.put_nowait(event(bought(sent)))
            await task
            assert agent.json()["content"][0]["text"] == "bought"
            assert agent.headers[b"content-type"] == b"application/json"

    run(story())


def test_who_leaves_withdraws_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        server = Server()
        async with staged(monkeypatch, server.ponders) as stage:
            agent = FakeAgent(b"{}")
            task = begin(stage, agent, INVOKE)
            while not server.asked:
                await settle()
            for context in list(stage.gateway._running):
                context.check_deadlines(0.0)
            agent.leaves()
            await task
            await settle()
            assert server.stopped == 1
            assert (agent.sent, stage.controller.events[0]["outcome"]) == ([], "cancelled")

    run(story())


# -- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"[]", 400, -32602),
        (b"[{}]", 400, -32602),
        (b'[{"jsonrpc":"2.0","id":1,"method":"tools/call"}]', 400, -32602),
        (b'"x"', 400, -32602),
        (b"null", 400, -32602),
        (b"7", 400, -32602),
        (b" ", 400, -32700),
        (b"{", 400, -32700),
        (b"{}{}", 400, -32700),
        (b'{"a":}', 400, -32700),
        (b'{"a":"\xff"}', 400, -32700),
        (b'{"a":"\\ud800"}', 400, -32700),
        (b"\xef\xbb\xbf{}", 400, -32700),
        (b"\xff\xfe{\x00}\x00", 400, -32700),
        (b'{"a":' * 150, 400, -32700),
    ],
    ids=str,
)
def test_a_body_must_be_one_object(monkeypatch: pytest.MonkeyPatch, body: bytes, status: int, code: int) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            agent = await ask(stage, INVOKE, body)
            told = agent.json()
            assert (agent.status, told["code"], told["mayHaveRun"]) == (status, code, False)
            assert told["requestId"] == agent.headers[b"x-request-id"].decode()
            assert isinstance(told["error"], str)
            assert "jsonrpc" not in told
            assert stage.wire.sent == []

    run(story())


def test_a_body_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            agent = FakeAgent(b'{"a":"' + b"x" * 1000 + b'"}')
            agent.leaves()
            await begin(stage, agent, INVOKE)
            assert (agent.status, agent.json()["limitBytes"], agent.json()["code"]) == (413, 1000, -32600)
            assert stage.wire.sent == []

    run(story())


def test_a_body_nested_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            snapshot = newest(stage)
            load(stage, replace(snapshot, max_body=1 << 22))
            agent = await ask(stage, INVOKE, b'{"a":' + b"[" * 1_000_000)
            assert (agent.status, agent.json()["error"]) == (400, "Parse error: nested too deep")

    run(story())


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"content-type": ""}, 415),
        ({"content-type": "", "content-length": "2"}, 415),
        ({"content-type": "Application/JSON; charset=utf-8"}, 200),
        ({"accept": "text/event-stream"}, 406),
        ({"accept": "application/json;q=0"}, 406),
        ({"accept": "application/json"}, 200),
        ({"accept": "application/*, text/html"}, 200),
        ({"accept": "*/*"}, 200),
        ({"host": "evil.example"}, 421),
        ({"origin": "http://evil.example"}, 403),
    ],
)
def test_headers_are_checked(monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], status: int) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            agent = await ask(stage, INVOKE, b"{}", fields)
            assert agent.status == status
            assert status == 200 or set(agent.json()) == {"error", "code", "requestId", "mayHaveRun"}

    run(story())


@pytest.mark.parametrize(
    ("verb", "path", "allowed"),
    [
        ("GET", INVOKE, b"POST"),
        ("OPTIONS", INVOKE, b"POST"),
        ("DELETE", INVOKE, b"POST"),
        ("POST", "/mcp/tools", b"GET, HEAD"),
        ("PUT", "/mcp/openapi.json", b"GET, HEAD"),
        ("HEAD", INVOKE, b"POST"),
    ],
)
def test_other_methods_are_not_allowed(monkeypatch: pytest.MonkeyPatch, verb: str, path: str, allowed: bytes) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            agent = await ask(stage, path, b"", verb=verb)
            assert (agent.status, agent.headers[b"allow"], agent.json()["code"]) == (405, allowed, -32600)

    run(story())


@pytest.mark.parametrize(
    "name", ["sell", "BUY", "buy%20", "%62uy%00", "buy%2F", "%ff", "..", "buy/../buy", "x" * 5000, "", "%252e"]
)
def test_what_is_not_there_is_told_alike(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            agent = await ask(stage, f"/mcp/tools/{name}/invoke", b"{}")
            shown = unquote(name, errors="replace")[:128]
            told = agent.json()
            assert (agent.status, told["code"], told["name"]) == (404, -32602, shown)
            assert told["error"] == f"Unknown tool: {shown}"
            assert (stage.wire.sent, stage.controller.events[0]["tool"]) == ([], None)

    run(story())


def test_a_server_s_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        data = {"mayHaveRun": False, "requestId": "forged"}
        for extra, told_data in (({}, {}), ({"data": data}, {"data": data}), ({"data": None}, {"data": None})):
            error = {"code": -32050, "message": "no stock", **extra}
            async with staged(monkeypatch, answers(error=error)) as stage:
                agent = await ask(stage, INVOKE, b"{}")
                about = {"requestId": agent.headers[b"x-request-id"].decode(), "mayHaveRun": True}
                assert agent.json() == {"error": "no stock", "code": -32050, **told_data, **about}
                assert (agent.status, stage.controller.events[0]["statusCode"]) == (502, 502)

    run(story())


def test_these_arguments_are_not_for_this_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            snapshot = newest(stage)
            grant = snapshot.endpoints["/mcp"].views[0].grants["buy"]
            denied = replace(grant, conditions=(Condition("p", False, Match()),))
            changed(stage, views=(View({"buy": denied}),))
            agent = await ask(stage, INVOKE, b"{}")
            assert (agent.status, agent.json()["code"]) == (403, -31040)

    run(story())


def test_a_worker_that_is_full_says_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            stage.gateway.gates[0].most = 0
            agent = await ask(stage, INVOKE, b"{}")
            assert (agent.status, agent.json()["code"], agent.json()["retryAfter"]) == (503, -31004, 1)
            assert agent.headers[b"retry-after"] == b"1"

    run(story())


@pytest.mark.parametrize("path", [INVOKE, "/mcp/tools", "/mcp/openapi.json"])
def test_strangers_are_told_in_the_same_form(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            changed(stage, anonymous=False)
            agent = await ask(stage, path, b"{}", verb="POST" if path == INVOKE else "GET")
            assert (agent.status, agent.json()["error"]) == (401, CREDENTIAL_WANTED)
            assert agent.headers[b"www-authenticate"] == b"Bearer"
            assert stage.controller.events == []

    run(story())


def test_a_body_that_breaks_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            agent = FakeAgent()
            agent.says(b'{"a"', more=True)
            agent.leaves()
            await begin(stage, agent, INVOKE)
            assert (agent.status, stage.wire.sent) == (400, [])

    run(story())


# -- lists ----------------------------------------------------------------------------------------------------------


def test_tools_are_listed_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            tools = [{"name": str(at)} for at in range(1001)]
            changed(stage, views=(view_of(*tools),))
            first = await ask(stage, "/mcp/tools", verb="GET")
            assert (first.status, first.json()["tools"]) == (200, tools[:1000])
            assert first.headers[b"cache-control"] == b"private, no-cache"
            assert set(first.json()) == {"tools", "nextCursor"}
            second = await ask(stage, f"/mcp/tools?x=1&cursor={first.json()['nextCursor']}", verb="GET")
            assert second.json() == {"tools": tools[1000:]}
            for query in ("cursor=made-up", "cursor=", "cursor=%ff", "cursor=a&cursor=b", "&".join(["x=1"] * 200)):
                wrong = await ask(stage, f"/mcp/tools?{query}", verb="GET")
                assert (wrong.status, wrong.json()["code"]) == (400, -32602), query
            assert (await ask(stage, "/mcp/tools", fields={"accept": "text/html"}, verb="GET")).status == 406

    run(story())
