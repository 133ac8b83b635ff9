"""What is logged of refused Hosts and Origins: each with what to add, and never more than was bargained for."""

from __future__ import annotations

import logging
from itertools import count

import pytest

from fastgw.errors import Kind
from fastgw.gateway.pipeline import serve
from fastgw.gateway.refusals import LONGEST, MOST, QUIET, RefusalLog
from tests.gateway.asking import sells
from tests.gateway.fakes import FakeAgent, Stage, staged
from tests.upstream.fakes import run


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return found


async def ask(stage: Stage, *headers: tuple[bytes, bytes]) -> int:
    agent = FakeAgent(b"{}")
    scope = {
        "type": "http", "method": "POST", "path": "/mcp", "raw_path": b"/mcp", "query_string": b"",
        "headers": list(headers),
    }  # fmt: skip
    await serve(stage.gateway, stage.life, scope, agent.receive, agent.send)
    return agent.status


def test_a_refusal_says_what_to_add(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            here = (b"host", b"localhost")
            assert await ask(stage, (b"host", b"GW.example:8080")) == 421
            [line] = said(caplog)
            assert "421: the Host 'gw.example:8080' is not served here" in line
            assert "public_url: http://gw.example:8080" in line
            assert await ask(stage, here, (b"origin", b"https://app.example")) == 403
            [line] = said(caplog)
            assert "403: pages of the Origin 'https://app.example' may not call" in line
            assert "origins: [https://app.example]" in line
            assert await ask(stage, (b"host", b"gw.example:8080"), (b"origin", b"x")) == 421
            assert await ask(stage, here, (b"origin", b"https://app.example")) == 403
            assert said(caplog) == [], "within a minute"
            for headers in [(here, here), (), (here, (b"origin", b"null"))]:
                assert await ask(stage, *headers) in (403, 421)
            assert said(caplog) == [
                "421: the Host (more than one) is not served here",
                "421: the Host (none) is not served here",
                "403: pages of the Origin 'null' may not call",
            ], "nothing could be added"
            assert await ask(stage, here) == 415
            assert said(caplog) == [], "other refusals"

    with caplog.at_level(logging.WARNING, "fastgw"):
        run(story())


def test_hostile_values_fill_neither_log_nor_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            context = stage.gateway.begin({"headers": [(b"host", b"x")]})
            log, numbers = RefusalLog(), count()

            def refused(value: str, now: float) -> None:
                context.headers[b"host"], context.started = value.encode("latin-1"), now
                log.note(Kind.BAD_HOST, context)

            refused("\x1b[2J\x85\n" + "é" * 10_000, 0.0)
            [line] = said(caplog)
            assert line.isascii() and line.isprintable() and len(line) < 10 * LONGEST
            assert "public_url" not in line
            for now in range(6):
                for _ in range(1000):
                    refused(f"h{next(numbers)}", now * QUIET / 3)
            lines = said(caplog)
            assert len([line for line in lines if "some are not logged" in line]) == 2
            assert len(lines) == 2 * MOST - 1 + 2, "a minute's worth twice, less the first"
            assert len(log._logged) <= MOST
            refused("late", 100 * QUIET)
            refused("late", 100 * QUIET)
            assert len(said(caplog)) == 1
            stage.gateway.end(context)

    with caplog.at_level(logging.WARNING, "fastgw"):
        run(story())
