"""What operators hear of quotas and do about them: a warning by webhook, once; an account raised, in both workers."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.e2e import asking
from tests.e2e.gateway import KEY, Gateway, launch, settings, until
from tests.e2e.http import Reply, exchange, modern
from tests.e2e.ports import free_port
from tests.e2e.servers import Call, Toolbox, serving

TOKEN = "the operators' token"
ENVIRONMENT = {
    "FASTGW_ADMIN_TOKEN": TOKEN,
    "OPERATORS_TOKEN": TOKEN,
    "FASTGW_SECRET": "a secret for tests, 32 bytes long",
}
CALLS = 10
QUOTA = {"name": "monthly", "by": ["agent"], "per": "month", "calls": CALLS, "warn_at": "50%"}


async def echo(call: Call) -> None:
    await call.text("hi")


@asynccontextmanager
async def webhook(got: list[dict[str, Any]]) -> AsyncIterator[str]:
    async def take(request: web.Request) -> web.Response:
        got.append(await request.json())
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}/hook"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def counting(folder: Path, workers: int, got: list[dict[str, Any]]) -> AsyncIterator[Gateway]:
    async with serving(Toolbox("modern", {"echo": echo})) as server, webhook(got) as hook:
        listen, admin = free_port(), free_port()
        more = {
            "workers": workers,
            "admin": {"listen": f"127.0.0.1:{admin}", "token": "${env:OPERATORS_TOKEN}"},
            "servers": {"main": {"url": server.url}},
            "quotas": [QUOTA],
            "alerts": {"webhook": hook},
        }
        (folder / "fastgw.yaml").write_text(json.dumps(settings(more, listen, admin)))
        process = launch(folder, ENVIRONMENT)
        gateway = Gateway(f"http://127.0.0.1:{listen}/mcp", f"http://127.0.0.1:{admin}", folder, process, ENVIRONMENT)
        try:
            await asyncio.to_thread(gateway.wait_until_ready)
            await asking.listed(gateway, "echo")
            yield gateway
            assert await asyncio.to_thread(gateway.stop) == 0, gateway.log()
        finally:
            gateway.kill()


async def call(gateway: Gateway) -> Reply:
    return await exchange(gateway.url, modern("tools/call", {"name": "echo", "arguments": {}}, key=KEY))


async def command(gateway: Gateway, *words: str) -> str:
    """What `fastgw quota` says."""
    line = (sys.executable, "-m", "fastgw", "quota", *words, "--config", str(gateway.folder / "fastgw.yaml"))
    around = {**os.environ, **ENVIRONMENT}
    process = await asyncio.create_subprocess_exec(*line, env=around, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode()


async def calls_used(gateway: Gateway) -> dict[str, Any]:
    [account] = json.loads(await command(gateway, "--json"))["quotas"]
    return dict(account["amounts"]["calls"])


@pytest.mark.parametrize("workers", [2, 1])
def test_operators_are_warned_once_and_raise_an_account(tmp_path: Path, workers: int) -> None:
    async def story() -> None:
        got: list[dict[str, Any]] = []
        async with counting(tmp_path, workers, got) as gateway:
            replies = [await call(gateway) for _ in range(CALLS + 3)]
            assert [reply.status for reply in replies] == [200] * CALLS + [429] * 3
            error = replies[-1].json()["error"]
            assert (error["code"], error["data"]["quota"], error["data"]["by"]) == (-31030, "monthly", ["agent"])
            assert error["data"]["resetAt"].endswith("-01T00:00:00Z")

            async def warned() -> bool:
                return bool(got)

            await until(warned)
            table = await command(gateway)
            assert "monthly" in table and "100%" in table
            assert (await calls_used(gateway))["used"] == CALLS
            assert "2 calls more" in await command(gateway, "raise", "monthly", "tester", "--calls", "2")

            async def goes_again() -> bool:
                return (await call(gateway)).status == 200

            await until(goes_again)
            await until(goes_again)
            assert [(await call(gateway)).status for _ in range(4)] == [429] * 4
            used = await calls_used(gateway)
            assert (used["amount"], used["raised"], used["used"]) == (CALLS, 2, CALLS + 2)
        [alert] = got
        assert (alert["kind"], alert["quota"], alert["subject"]) == ("quota_warning", "monthly", "tester")
        assert "monthly of tester" in alert["text"]

    asyncio.run(story())
