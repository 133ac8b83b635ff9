"""Percentiles of a real gateway's calls: what every agent waited for, over two workers of which one is killed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastgw.cli.main import main
from tests.e2e.gateway import KEY, Gateway, running_beside, until
from tests.e2e.http import exchange, modern
from tests.e2e.servers import Call, Toolbox, serving

HELD = 0.03
"""Seconds that the server keeps an agent waiting."""
STAGES = ("total", "upstream", "overhead")


@asynccontextmanager
async def staged(folder: Path, **more: Any) -> AsyncIterator[Gateway]:
    """A gateway in front of a server with one tool, which the gateway lists."""
    async with serving(Toolbox("modern", {"slow": slow})) as server:
        settings = {"servers": {"stage": {"url": server.url}}, **more}
        async with running_beside(settings, folder) as gateway:
            await until(lambda: listed(gateway))
            yield gateway


async def listed(gateway: Gateway) -> bool:
    reply = await exchange(gateway.url, modern("tools/list", key=KEY))
    return bool(reply.json()["result"]["tools"])


async def slow(call: Call) -> None:
    await asyncio.sleep(HELD)
    await call.text("done")


async def call(gateway: Gateway, tool: str = "slow") -> float:
    """How long one call took, in milliseconds."""
    begun = time.perf_counter()
    await exchange(gateway.url, modern("tools/call", {"name": tool, "arguments": {}}, key=KEY))
    return (time.perf_counter() - begun) * 1000


async def told(gateway: Gateway, count: int, tool: str = "slow") -> dict[str, Any]:
    """`/stats` as soon as its windows hold so many calls."""

    async def there() -> dict[str, Any] | None:
        status, body = await asyncio.to_thread(gateway.ask_admin, "/stats")
        assert status == 200
        windows = json.loads(body)["windows"]
        rows = [row for row in windows["start"] if (row["tool"], row["stage"]) == (tool, "total")]
        return windows if rows and rows[0]["count"] == count else None

    return await until(there)


def test_calls_of_two_workers_are_summed_also_when_one_is_killed(tmp_path: Path, capsys: Any) -> None:
    async def steps() -> None:
        async with staged(tmp_path) as gateway:
            took = [await call(gateway) for _ in range(20)]
            await told(gateway, 20)
            os.kill(gateway.child("worker-1"), signal.SIGKILL)
            await until(lambda: both_serve(gateway))
            took += [await call(gateway) for _ in range(20)]
            agrees(await told(gateway, 40), sorted(took))
            shown(gateway, tmp_path, capsys)

    asyncio.run(steps())


async def both_serve(gateway: Gateway) -> bool:
    ready = json.loads((await asyncio.to_thread(gateway.ask_admin, "/readyz"))[1])
    restarts = await asyncio.to_thread(gateway.metric, "fastgw_worker_restarts_total")
    return restarts == 1 and ready["workers"]["active"] == 2


def agrees(windows: dict[str, Any], took: list[float]) -> None:
    """Every window has one row for each stage, within what the agent waited for."""
    assert list(windows) == ["1m", "1h", "start"]
    for rows in windows.values():
        mine = [row for row in rows if row["tool"] == "slow"]
        assert [(row["server"], row["outcome"], row["stage"]) for row in mine] == [
            ("stage", "ok", stage) for stage in STAGES
        ]
        total, upstream, overhead = mine
        assert {row["count"] for row in mine} == {len(took)}
        for field, waited in (("p50", took[len(took) // 2 - 1]), ("p90", took[len(took) * 9 // 10 - 1])):
            assert HELD * 990 <= upstream[field] <= total[field] <= waited * 1.001
        assert overhead["p50"] < upstream["p50"]
        assert total["p50"] <= total["p90"] <= total["p95"] <= total["p99"] <= total["p999"] <= total["max"]


def shown(gateway: Gateway, folder: Path, capsys: Any) -> None:
    """The command, the export and the gauges say the same."""
    text = gateway.ask_admin("/metrics")[1].decode()
    labels = 'tool="slow",server="stage",outcome="ok",stage="upstream",quantile="0.5"'
    found = re.search(rf"^fastgw_call_quantile_seconds{{{labels}}} (\S+)$", text, re.M)
    assert found is not None
    assert float(found[1]) >= HELD * 0.99
    assert re.search(r'^fastgw_upstream_seconds_bucket{le="5e-05"} 0$', text, re.M)
    assert re.search(r'^fastgw_upstream_seconds_bucket{le="300.0"} 40$', text, re.M)
    assert main(["stats", "--admin", gateway.admin, "--window", "start"]) == 0
    table = capsys.readouterr().out.splitlines()[1:]
    assert table[1].split()[:5] == ["slow", "stage", "ok", "total", "40"]
    log = str(folder / "a.hlog")
    assert main(["stats", "--admin", gateway.admin, "--hlog", log]) == 0
    assert main(["stats", log]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == table


def test_refused_calls_have_rows_of_their_own(tmp_path: Path) -> None:
    async def steps() -> None:
        limit = {"name": "one", "by": ["agent"], "rate": "1/hour", "burst": 1}
        async with staged(tmp_path, workers=1, limits=[limit]) as gateway:
            for _ in range(3):
                await call(gateway)
            await until(lambda: refused_twice(gateway))

    asyncio.run(steps())


async def refused_twice(gateway: Gateway) -> bool:
    rows = json.loads((await asyncio.to_thread(gateway.ask_admin, "/stats?window=1h"))[1])["windows"]["1h"]
    found = {(row["server"], row["outcome"]): row["count"] for row in rows if row["stage"] == "total"}
    return found == {("stage", "ok"): 1, (None, "rate_limited"): 2}
