"""Both questions of an operator, one command each, on what a gateway itself wrote; through a kill of all of it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway import Gateway, fingerprint, running_beside, until
from tests.e2e.http import exchange, modern
from tests.e2e.servers import Call, Toolbox, serving

AT_ONCE = 20
TEAMS = ("payments", "../../etc\n<b>")
KEYS = {f"agent-{number}": f"fgw_key_{number}" for number in range(4)}
SETTINGS: dict[str, Any] = {
    "agents": {
        name: {"key": fingerprint(key), "claims": {"team": TEAMS[at % 2], "billing_account": "acme"}}
        for at, (name, key) in enumerate(KEYS.items())
    },
    "tools": {
        tool: {
            "tokens": {"in": "_meta.usage.in", "out": "_meta.usage.out"},
            "price": {"per_call": price, "per_million_tokens_in": 3.000000001, "per_million_tokens_out": 15},
        }
        for tool, price in (("cheap", 0.000000001), ("dear", 12.345678901))
    },
    "usage": {"sinks": ["file:usage.jsonl"]},
}


async def answers(call: Call) -> None:
    usage = json.dumps({"usage": {"in": call.arguments["in"], "out": call.arguments["out"]}}).encode()
    is_error = b"true" if call.arguments["fails"] else b"false"
    await call.result(b'{"content":[],"isError":%s,"_meta":%s}' % (is_error, usage))


def ask(gateway: Gateway, *options: str) -> list[dict[str, Any]]:
    """What `fastgw usage` answers as JSON."""
    return list(json.loads(said(gateway, *options, "--format", "json"), parse_float=Decimal))


def said(gateway: Gateway, *options: str) -> str:
    command = [sys.executable, "-m", "fastgw", "usage", "--from", "2020-01-01", *options]
    environment = {**os.environ, "FASTGW_SECRET": "a secret for tests, 32 bytes long"}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        command, cwd=gateway.folder, env=environment, check=True, timeout=60, capture_output=True, text=True
    )
    return done.stdout


async def traffic(gateway: Gateway, count: int) -> None:
    dice = random.Random(5)
    free = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        arguments = {"in": dice.randrange(10**6), "out": dice.randrange(10**6), "fails": dice.random() < 0.2}
        asked = modern(
            "tools/call",
            {"name": dice.choice(("cheap", "dear")), "arguments": arguments},
            key=dice.choice(list(KEYS.values())),
        )
        async with free:
            assert (await exchange(gateway.url, asked)).status == 200

    await asyncio.gather(*(one() for _ in range(count)))


def counted(events: Sequence[dict[str, Any]], key: str) -> dict[str, list[Any]]:
    """Calls, errors and cost, counted again from the lines that a sink got."""
    found: dict[str, list[Any]] = defaultdict(lambda: [0, 0, Decimal(0)])
    for event in events:
        sums = found[event[key]]
        sums[0] += 1
        sums[1] += event["outcome"] == "tool_error"
        sums[2] += event["cost"]
    return found


def rows(answer: Sequence[dict[str, Any]], key: str) -> dict[str, list[Any]]:
    return {row[key]: [row["calls"], row["errors"], row["cost"]] for row in answer}


@pytest.mark.parametrize("count", [1500, pytest.param(100_000, marks=pytest.mark.soak)])
def test_the_answers_are_those_of_an_independent_count_before_and_after_a_kill(tmp_path: Path, count: int) -> None:
    async def delivered(gateway: Gateway) -> list[dict[str, Any]]:
        file = gateway.folder / "usage.jsonl"
        texts = file.read_text().splitlines() if file.exists() else []
        events = [json.loads(text, parse_float=Decimal) for text in texts]
        return events if len(events) == count else []

    async def calls(gateway: Gateway) -> bool:
        return sum(row["calls"] for row in await asyncio.to_thread(ask, gateway)) == count

    async def archived(gateway: Gateway) -> bool:
        manifest = gateway.folder / "data" / "usage" / "archive.json"
        return manifest.exists() and sum(one["rows"] for one in json.loads(manifest.read_text())["parquet"]) == count

    async def story() -> None:
        async with serving(Toolbox("modern", {"cheap": answers, "dear": answers})) as server:
            more = {"servers": {"main": {"url": f"http://127.0.0.1:{server.port}/mcp"}}, **SETTINGS}
            async with running_beside(more, tmp_path) as gateway:
                await traffic(gateway, count)
                await until(lambda: calls(gateway))
                events = await until(lambda: delivered(gateway))
                await asyncio.to_thread(agree, gateway, events)
                gateway.kill()
                await asyncio.to_thread(agree, gateway, events)
                gateway.start_again()
                await until(lambda: archived(gateway))
                await asyncio.to_thread(agree, gateway, events)
                await asyncio.to_thread(gateway.wait_until_ready)
                status, text = await asyncio.to_thread(
                    gateway.ask_admin, "/usage?from=2020-01-01&by=team&metric=calls,errors,cost"
                )
                assert (status, rows(json.loads(text, parse_float=Decimal), "team")) == (200, counted(events, "team"))
                assert (await asyncio.to_thread(gateway.ask_admin, "/usage?by=password"))[0] == 400

    asyncio.run(story())


def agree(gateway: Gateway, events: Sequence[dict[str, Any]]) -> None:
    """Which team cost most; which tool fails most often."""
    teams = ask(gateway, "--by", "team", "--metric", "cost,calls,errors")
    assert rows(teams, "team") == counted(events, "team")
    assert teams[0]["team"] == max(counted(events, "team").items(), key=lambda row: row[1][2])[0]
    tools = ask(gateway, "--by", "tool", "--metric", "error_rate,errors,calls,cost")
    assert rows(tools, "tool") == counted(events, "tool")
    assert tools[0]["error_rate"] == max(row["error_rate"] for row in tools)
    assert "<b>" not in said(gateway, "report", "--billing-account", "acme", "--month", "this")
