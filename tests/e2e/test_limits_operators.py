"""What operators see of limits and do about them, at a running gateway: with two workers and the store of its machine,
and with one worker, whose buckets are its own.

Each worker signs the request ids it gives with a beginning of its own: that is how a test knows who answered.
"""

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

from tests.e2e import asking
from tests.e2e.gateway import KEY, Gateway, fingerprint, launch, settings, until
from tests.e2e.http import Asked, Reply, exchange, modern
from tests.e2e.ports import free_port
from tests.e2e.servers import Call, Toolbox, serving

OTHER = "fgw_test_other"
TOKEN = "the operators' token"
ENVIRONMENT = {"OPERATORS_TOKEN": TOKEN, "FASTGW_SECRET": "a secret for tests, 32 bytes long"}
BURST = 20
"""Calls of one agent a day: none comes back while a test runs. Of so few no worker holds any in advance, nor of 100."""

both = pytest.mark.parametrize("workers", [2, 1])


async def echo(call: Call) -> None:
    await call.text("hi")


@asynccontextmanager
async def operated(folder: Path, workers: int) -> AsyncIterator[Gateway]:
    """A gateway whose admin port has a token, when its workers and their store are there."""
    async with serving(Toolbox("modern", {"echo": echo})) as server:
        listen, admin = free_port(), free_port()
        more: dict[str, Any] = {
            "workers": workers,
            "admin": {"listen": f"127.0.0.1:{admin}", "token": "${env:OPERATORS_TOKEN}"},
            "servers": {"main": {"url": server.url}},
            "agents": {"tester": {"key": fingerprint(KEY)}, "other": {"key": fingerprint(OTHER)}},
            "limits": [{"name": "per-agent", "by": ["agent"], "rate": f"{BURST}/day"}],
        }
        (folder / "fastgw.yaml").write_text(json.dumps(settings(more, listen, admin)))
        process = launch(folder, ENVIRONMENT)
        gateway = Gateway(f"http://127.0.0.1:{listen}/mcp", f"http://127.0.0.1:{admin}", folder, process, ENVIRONMENT)
        try:
            await asyncio.to_thread(gateway.wait_until_ready)
            await asking.listed(gateway, "echo")
            await until(lambda: has_stores(gateway, {"up": 2} if workers == 2 else {"memory": 1}))
            yield gateway
            assert await asyncio.to_thread(gateway.stop) == 0, gateway.log()
        finally:
            gateway.kill()


async def report(gateway: Gateway) -> dict[str, Any]:
    asked = Asked(verb="GET", headers=[("Authorization", f"Bearer {TOKEN}")])
    found: dict[str, Any] = (await exchange(f"{gateway.admin}/limits", asked)).json()
    return found


async def has_stores(gateway: Gateway, states: dict[str, int]) -> bool:
    return bool((await report(gateway))["store"] == states)


async def fastgw_limits(gateway: Gateway, *words: str) -> list[str]:
    """What the command prints; it must succeed."""
    file = str(gateway.folder / "fastgw.yaml")
    typed = [sys.executable, "-m", "fastgw", "limits", "--config", file, *words]
    process = await asyncio.create_subprocess_exec(
        *typed, env={**os.environ, **ENVIRONMENT}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, wrong = await process.communicate()
    assert (process.returncode, wrong) == (0, b""), wrong.decode()
    return said.decode().splitlines()


async def call(gateway: Gateway, key: str = KEY) -> Reply:
    return await exchange(gateway.url, modern("tools/call", {"name": "echo", "arguments": {}}, key=key))


async def use_up(gateway: Gateway, key: str = KEY) -> None:
    """Call until it is refused; no more than a full bucket may pass."""
    for _ in range(BURST + 1):
        reply = await call(gateway, key)
        if reply.status == 429:
            return
    raise AssertionError("more than a full bucket was let through")


def sign(reply: Reply) -> str:
    """Who answered."""
    return str(reply.header("x-request-id"))[:14]


def policy(reply: Reply) -> str | None:
    """The figures that the call was counted by."""
    assert reply.status == 200, reply
    return reply.header("ratelimit-policy")


async def through(gateway: Gateway, workers: int) -> dict[str, str | None]:
    """The figures by which each worker counts a call, all of which must be let through."""
    seen: dict[str, str | None] = {}
    while len(seen) < workers:
        reply = await call(gateway)
        seen[sign(reply)] = policy(reply)
    return seen


def audit(gateway: Gateway) -> list[dict[str, Any]]:
    lines = (gateway.folder / "data" / "audit.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@both
def test_a_bucket_that_is_used_up_is_seen_and_made_full(tmp_path: Path, workers: int) -> None:
    async def story() -> None:
        async with operated(tmp_path, workers) as gateway:
            await use_up(gateway)
            shown = await fastgw_limits(gateway)
            state = "store: up (2 workers)" if workers == 2 else "store: memory (1 worker)"
            assert [line.split() for line in shown] == [
                state.split(), [],
                ["fullest", "buckets"], ["limit", "subject", "used", "left"], ["per-agent", "tester", "100%", "0/20"],
                [], ["refused", "most"], ["limit", "subject", "calls"], ["per-agent", "tester", "1"],
            ]  # fmt: skip
            assert json.loads("\n".join(await fastgw_limits(gateway, "--json"))) == await report(gateway)

            assert await fastgw_limits(gateway, "reset", "per-agent", "tester") == ["per-agent tester: full"]
            assert set((await through(gateway, workers)).values()) == {'"per-agent";q=20;w=86400'}
            await use_up(gateway)
            await use_up(gateway, OTHER)

            assert await fastgw_limits(gateway, "reset", "per-agent") == ["per-agent, all buckets: full"]
            await through(gateway, workers)
            assert (await call(gateway, OTHER)).status == 200
            assert [(line["do"], line["limit"], line["subject"]) for line in audit(gateway)] == [
                ("reset", "per-agent", ["tester"]), ("reset", "per-agent", None),
            ]  # fmt: skip

    asyncio.run(story())
