"""An agent that runs wild is seen: in the log, in metrics, on the admin port, by a webhook that checks signatures."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from fastgw.config.schema.settings import signing_key
from fastgw.telemetry.alerts import signed
from fastgw.usage.anomalies import LEAST_CALLS, WEEK, HourCounts, Rollup
from tests.e2e.gateway import KEY, Gateway, running_beside, until
from tests.e2e.http import exchange, modern
from tests.e2e.servers import Got, answer, scripted

SECRET = "whsec_" + "c2l4dGVlbiBsZXR0ZXJzIG1pbmltdW0="
CALLS = 110


def remember(folder: Path) -> None:
    """Five weeks in which the agent made ten calls in this hour, and in the next one."""
    this = int(time.time() // 3600)
    hours = folder / "data" / "usage" / "hourly"
    hours.mkdir(parents=True)
    for hour in (this - WEEK * week + more for week in range(1, 6) for more in (0, 1)):
        name = datetime.fromtimestamp(hour * 3600, UTC).strftime("%Y-%m-%dT%H.json")
        (hours / name).write_bytes(msgspec.json.encode(Rollup({"agent": {"tester": HourCounts(10)}})))


async def run_wild(gateway: Gateway) -> None:
    """Make an agent call too often. A usage process that has just begun looks at once, and not a minute later."""
    before = gateway.metric("fastgw_usage_events_total")
    for _ in range(CALLS):
        reply = await exchange(gateway.url, modern("tools/call", {"name": "nothing", "arguments": {}}, key=KEY))
        assert reply.status == 400

    async def are_written() -> bool:
        return await asyncio.to_thread(gateway.metric, "fastgw_usage_events_total") >= before + CALLS

    await until(are_written)
    if pid := gateway.child("usage"):
        os.kill(pid, signal.SIGKILL)


async def shown(gateway: Gateway) -> list[dict[str, Any]]:
    _, body = await asyncio.to_thread(gateway.ask_admin, "/anomalies")
    return list(json.loads(body)["anomalies"])


def test_an_agent_that_runs_wild_is_told_of(tmp_path: Path) -> None:
    remember(tmp_path)

    async def story() -> None:
        heard: list[Got] = []

        async def take(got: Got, writer: Any) -> None:
            heard.append(got)
            writer.write(answer(b"{}", status="204 No Content"))

        async with scripted(take) as receiver:
            more = {"alerts": {"webhook": f"http://127.0.0.1:{receiver.port}/hook", "secret": "${env:ALERTS_SECRET}"}}
            async with running_beside(more, tmp_path, {"ALERTS_SECRET": SECRET}) as gateway:
                await run_wild(gateway)
                while not await is_told(gateway):  # an hour has ended between the calls: once more
                    await run_wild(gateway)
                (found,) = await shown(gateway)
                counted = await asyncio.to_thread(gateway.metric, 'fastgw_anomalies_total{kind="pace"}')
                assert gateway.logs("unusual: agent tester: ")
                assert (found["subject"], found["usual"], counted) == ({"agent": "tester"}, 10.0, 1.0)
                assert found["value"] >= LEAST_CALLS
                await until(lambda: asyncio.sleep(0, heard))
        message = heard[0].json()
        assert (message["kind"], message["anomaly"]["subject"]) == ("anomaly", {"agent": "tester"})
        sent = {name: heard[0].header(name) or "" for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}
        key = signing_key(SECRET)
        assert signed(sent["webhook-id"], int(sent["webhook-timestamp"]), heard[0].body, [key]) == sent

    asyncio.run(story())


async def is_told(gateway: Gateway) -> bool:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if await shown(gateway):
            return True
        await asyncio.sleep(0.05)
    return False
