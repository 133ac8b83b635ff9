"""Alerts reach a webhook that fails at first; one that is never there is given up, and its address is in no log."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from fastgw.telemetry.alerts import MOST, Webhook
from fastgw.telemetry.counters import Counters
from fastgw.upstream.call_context import BackgroundTasks
from tests.e2e.ports import free_port


@asynccontextmanager
async def receiver(statuses: Iterator[int], got: list[dict[str, Any]]) -> Any:
    async def take(request: web.Request) -> web.Response:
        got.append(await request.json())
        return web.Response(status=next(statuses), headers={"location": "/elsewhere"})

    app = web.Application()
    app.router.add_post("/hook/secret", take)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}/hook/secret"
    finally:
        await runner.cleanup()


def hook(url: str | None) -> tuple[Webhook, Counters, BackgroundTasks]:
    counters, tasks = Counters(), BackgroundTasks()
    made = Webhook("gw-1", counters, tasks.spawn)
    made.url, made.pauses = url, (0.0, 0.0, 0.0)
    return made, counters, tasks


async def counted(counters: Counters, outcome: str, times: int = 1) -> None:
    async with asyncio.timeout(10):
        while counters.counts.get(("fastgw_alerts_total", outcome), 0) < times:
            await asyncio.sleep(0.005)


def test_it_is_tried_again_until_it_is_taken() -> None:
    async def story() -> None:
        got: list[dict[str, Any]] = []
        async with receiver(iter((500, 302, 204)), got) as url:
            made, counters, tasks = hook(url)
            made.send("quota_warning", "80 % of a quota", {"quota": "q"})
            await counted(counters, "sent")
            await tasks.close()
        assert len(got) == 3 and got[0] == got[2]
        assert {name: got[0][name] for name in ("kind", "text", "gateway", "quota")} == {
            "kind": "quota_warning", "text": "80 % of a quota", "gateway": "gw-1", "quota": "q",
        }  # fmt: skip

    asyncio.run(story())


def test_what_nobody_takes_is_given_up_and_no_log_has_the_address(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        made, counters, tasks = hook(f"http://127.0.0.1:{free_port()}/hook/secret")
        made.send("quota_warning", "text", {})
        await counted(counters, "failed")
        await tasks.close()

    with caplog.at_level(logging.DEBUG, "fastgw"):
        asyncio.run(story())
    assert "127.0.0.1" in caplog.text and "secret" not in caplog.text


def test_without_an_address_nothing_is_sent_and_a_flood_is_bounded() -> None:
    async def story() -> None:
        made, counters, tasks = hook(None)
        made.send("quota_warning", "text", {})
        assert not counters.counts
        made.url = f"http://127.0.0.1:{free_port()}/"
        for _ in range(MOST + 5):
            made.send("quota_warning", json.dumps({}), {})
        assert counters.counts["fastgw_alerts_total", "failed"] == 5
        await tasks.close()

    asyncio.run(story())
