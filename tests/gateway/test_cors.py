"""Browsers: pages that may call can read every answer, others are refused; who asks first is told."""

from __future__ import annotations

import pytest

from fastgw.gateway.pipeline import serve
from tests.gateway.asking import INVOKE, ask, changed, sells
from tests.gateway.fakes import FakeAgent, staged
from tests.upstream.fakes import run

PAGE = "http://localhost:6274"


def test_a_page_that_may_call_can_read_every_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            changed(stage, origins=frozenset((PAGE,)))
            asked = [
                (INVOKE, b"{}", "POST", 200),
                (INVOKE, b"[]", "POST", 400),
                ("/mcp/tools/x/invoke", b"{}", "POST", 404),
                ("/mcp/tools", b"", "GET", 200),
                ("/mcp/tools", b"", "PUT", 405),
                ("/mcp", b"{", "POST", 400),
            ]
            for path, body, verb, status in asked:
                agent = await ask(stage, path, body, {"origin": PAGE}, verb)
                assert (agent.status, agent.headers[b"access-control-allow-origin"]) == (status, PAGE.encode())
                assert agent.headers[b"vary"] == b"Origin"
                exposed = agent.headers[b"access-control-expose-headers"].decode()
                assert {"Mcp-Session-Id", "X-Request-Id", "Retry-After", "WWW-Authenticate"} < set(exposed.split(", "))
                assert b"access-control-allow-credentials" not in agent.headers
                silent = await ask(stage, path, body, verb=verb)
                assert not [name for name in silent.headers if name.startswith(b"access-control")]

    run(story())


@pytest.mark.parametrize(
    "said",
    [
        ["http://localhost"],
        ["null"],
        [""],
        [PAGE + ".evil.example"],
        [PAGE + ", " + PAGE],
        ["null", PAGE],
        [PAGE, PAGE],
    ],
)
def test_other_pages_are_refused(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            changed(stage, origins=frozenset((PAGE,)))
            for verb, path in (("POST", INVOKE), ("OPTIONS", INVOKE), ("POST", "/mcp"), ("GET", "/mcp/tools")):
                agent = FakeAgent(b"{}")
                scope = {
                    "type": "http", "method": verb, "path": path, "raw_path": path.encode(), "query_string": b"",
                    "headers": [(b"host", b"localhost"), (b"access-control-request-method", b"POST"),
                                *((b"origin", origin.encode()) for origin in said)],
                }  # fmt: skip
                await serve(stage.gateway, stage.life, scope, agent.receive, agent.send)
                assert agent.status == 403
                assert b"access-control-allow-origin" not in agent.headers

    run(story())


def test_a_browser_asks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            changed(stage, origins=frozenset((PAGE,)), anonymous=False)
            wanted = "Authorization, MCP-Param-City,x-evil\tb, cookie, mcp-bad\u00e9, traceparent"
            fields = {"origin": PAGE, "access-control-request-method": "POST", "access-control-request-headers": wanted}
            for path, verbs in ((INVOKE, b"POST"), ("/mcp/tools", b"GET, HEAD"), ("/mcp", b"POST, DELETE")):
                agent = await ask(stage, path, b"", fields, "OPTIONS")
                assert (agent.status, agent.body) == (204, b"")
                assert agent.headers[b"access-control-allow-methods"] == verbs
                allowed = agent.headers[b"access-control-allow-headers"].decode().split(", ")
                assert {"authorization", "content-type", "accept", "mcp-param-city", "traceparent"} < set(allowed)
                assert not {"cookie", "x-evil"} & set(allowed)
                assert all(name.isascii() and " " not in name and "\t" not in name for name in allowed)
                assert int(agent.headers[b"access-control-max-age"]) > 0
                assert b"access-control-allow-credentials" not in agent.headers
            lost = await ask(stage, "/nowhere", b"", fields, "OPTIONS")
            assert lost.status == 403

    run(story())
