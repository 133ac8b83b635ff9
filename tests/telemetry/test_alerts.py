"""Alerts reach a webhook that fails at first, signed; one never there is given up, and its address is in no log."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fastgw.config.schema.settings import signing_key
from fastgw.telemetry.alerts import MOST, Webhook, signed
from fastgw.telemetry.counters import Counters
from fastgw.upstream.call_context import BackgroundTasks
from tests.e2e.ports import free_port


@asynccontextmanager
async def serving(handler: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/hook/secret", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}/hook/secret"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def receiver(statuses: Iterator[int], got: list[dict[str, Any]]) -> AsyncIterator[str]:
    async def take(request: web.Request) -> web.Response:
        got.append(await request.json())
        return web.Response(status=next(statuses), headers={"location": "/elsewhere"})

    async with serving(take) as url:
        yield url


def hook(url: str | None, keys: tuple[bytes, ...] = ()) -> tuple[Webhook, Counters, BackgroundTasks]:
    counters, tasks = Counters(), BackgroundTasks()
    made = Webhook("gw-1", counters, tasks.spawn)
    made.aim(url, keys)
    made.pauses = (0.0, 0.0, 0.0)
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


def test_a_name_makes_no_link_and_calls_nobody() -> None:
    """As https://docs.slack.dev/messaging/formatting-message-text has it, "Escaping text"."""

    async def story() -> None:
        got: list[dict[str, Any]] = []
        async with receiver(iter((204,)), got) as url:
            made, counters, tasks = hook(url)
            name = "<!channel> & <https://evil.example|log in>"
            made.send("anomaly", f"agent {name}", {"subject": name})
            await counted(counters, "sent")
            await tasks.close()
        assert got[0]["text"] == "agent &lt;!channel&gt; &amp; &lt;https://evil.example|log in&gt;"
        assert got[0]["subject"] == name, "for programs"

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
        made.aim(f"http://127.0.0.1:{free_port()}/")
        for _ in range(MOST + 5):
            made.send("quota_warning", json.dumps({}), {})
        assert counters.counts["fastgw_alerts_total", "failed"] == 5
        await tasks.close()

    asyncio.run(story())


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """Their own example; any library of theirs verifies it."""
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = signed("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', [key])
    assert found == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def example(page: str) -> dict[str, Any]:
    """What the page gives to copy."""
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], names)
    return names


def test_the_example_of_the_page_takes_what_is_sent_and_nothing_else() -> None:
    """Each attempt is signed anew under the same id, with both secrets while one takes the place of the other."""
    verified = example((Path(__file__).parents[2] / "docs" / "anomalies.md").read_text(encoding="utf-8"))["verified"]

    async def story() -> None:
        asked: list[tuple[Any, bytes]] = []

        async def take(request: web.Request) -> web.Response:
            asked.append((request.headers, await request.read()))
            return web.Response(status=503 if len(asked) == 1 else 204)

        async with serving(take) as url:
            made, counters, tasks = hook(url, (b"old" * 8, b"new" * 8))
            made.send("anomaly", "text", {})
            await counted(counters, "sent")
            await tasks.close()
        (first, body), (second, again) = asked
        assert (first["webhook-id"], body) == (second["webhook-id"], again)
        for secret in (b"old" * 8, b"new" * 8):
            assert verified(second, body, secret)
        assert not verified(second, body + b" ", b"new" * 8)
        assert not verified(second, body, b"other" * 8)
        assert not verified(
            {**second, "webhook-timestamp": str(int(second["webhook-timestamp"]) - 301)}, body, b"new" * 8
        )
        stale = signed("msg_1", int(time.time()) - 301, body, [b"new" * 8])
        assert not verified(stale, body, b"new" * 8)

    asyncio.run(story())


def test_a_redirect_is_not_followed_inward() -> None:
    async def story() -> None:
        inward: list[str] = []

        async def inner(request: web.Request) -> web.Response:
            inward.append(request.method)
            return web.Response(status=204)

        async with serving(inner) as place:

            async def away(_: web.Request) -> web.Response:
                return web.Response(status=next(statuses), headers={"location": place})

            statuses = iter((301, 307, 308))
            async with serving(away) as url:
                made, counters, tasks = hook(url)
                made.send("anomaly", "text", {})
                await counted(counters, "failed")
                await tasks.close()
        assert inward == []

    asyncio.run(story())


def test_without_a_secret_nothing_pretends_to_be_signed() -> None:
    assert "webhook-signature" not in signed("msg_1", 1, b"{}", ())
    assert signing_key("sixteen letters.") == b"sixteen letters."
    with pytest.raises(ValueError, match="openssl rand"):
        signing_key("whsec_###")
