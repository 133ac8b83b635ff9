"""Events of a whole gateway at three receivers at once, each of them killed in the middle, and their feeder too."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis import Redis

from tests.e2e.gateway import KEY, Gateway, running, until
from tests.e2e.http import exchange, modern
from tests.e2e.ports import free_port
from tests.limits.valkeys import Valkey
from tests.usage.sinks.receivers import HttpReceiver

CALLS = 100
"""In each of the four rounds between two kills."""
SECRET = "hush-hush"


async def call(gateway: Gateway) -> set[str]:
    """Calls of a tool that does not exist, a few at a time; the ids of their events."""

    async def some() -> list[str]:
        asked = modern("tools/call", {"name": "nothing", "arguments": {}}, key=KEY)
        replies = [await exchange(gateway.url, asked) for _ in range(CALLS // 4)]
        return [str(reply.header("x-request-id")) for reply in replies]

    return {request for found in await asyncio.gather(*(some() for _ in range(4))) for request in found}


def in_stream(server: Valkey) -> set[str]:
    with Redis(port=server.port, password=SECRET, decode_responses=True) as client:
        entries: Any = client.xrange("events")
    assert all(json.loads(fields["event"])["requestId"] == fields["requestId"] for _, fields in entries)
    return {fields["requestId"] for _, fields in entries}


def in_logs(receiver: HttpReceiver) -> set[str]:
    found = set()
    for request in receiver.requests():
        for resource in json.loads(request.body)["resourceLogs"]:
            records = resource["scopeLogs"][0]["logRecords"]
            found |= {json.loads(record["body"]["stringValue"])["requestId"] for record in records}
    return found


def in_rows(receiver: HttpReceiver) -> set[str]:
    assert all(request.headers["x-clickhouse-key"] == SECRET for request in receiver.requests())
    return {json.loads(line)["requestId"] for request in receiver.requests() for line in request.lines()}


async def is_missed(gateway: Gateway, label: str) -> bool:
    return await asyncio.to_thread(gateway.metric, f'fastgw_usage_sink_errors_total{{sink="{label}"}}') > 0


async def without(gateway: Gateway, label: str, receiver: Valkey | HttpReceiver) -> set[str]:
    """Calls while a receiver is dead, which is started again once it was missed."""
    receiver.kill()
    made = await call(gateway)
    await until(lambda: is_missed(gateway, label))
    await asyncio.to_thread(receiver.start)
    return made


async def has(look: Callable[[], set[str]], made: set[str]) -> bool:
    return await asyncio.to_thread(look) == made


async def another(gateway: Gateway, before: int) -> bool:
    return gateway.child("usage") not in (0, before)


def test_every_receiver_has_every_event_after_a_kill_of_each(tmp_path: Path) -> None:
    server = Valkey(requirepass=SECRET, appendonly="yes", appendfsync="always")
    with server, HttpReceiver(tmp_path, "otlp") as logs, HttpReceiver(tmp_path, "clickhouse") as table:
        password = "${env:SINK_PASSWORD}"
        labels = {
            "stream": f"redis://127.0.0.1:{server.port}",
            "logs": f"otlp://{logs.place}",
            "table": f"clickhouse://{table.place}",
        }
        sinks = [
            {"url": f"{labels['stream']}/events", "password": password},
            {"url": labels["logs"], "password": password},
            {"url": f"{labels['table']}/u.usage_events", "username": "eve", "password": password},
        ]
        more = {"servers": {"main": {"url": f"http://127.0.0.1:{free_port()}/mcp"}}, "usage": {"sinks": sinks}}

        async def story(gateway: Gateway) -> None:
            made = await call(gateway)
            made |= await without(gateway, labels["stream"], server)
            made |= await without(gateway, labels["logs"], logs)
            usage = gateway.child("usage")
            os.kill(usage, signal.SIGKILL)
            made |= await call(gateway)
            await until(lambda: another(gateway, usage))
            made |= await without(gateway, labels["table"], table)
            assert len(made) == 5 * CALLS
            for look in (lambda: in_stream(server), lambda: in_logs(logs), lambda: in_rows(table)):
                await until(lambda look=look: has(look, made), within=20)  # type: ignore[misc]

        with running(more, tmp_path, {"SINK_PASSWORD": SECRET}) as gateway:
            asyncio.run(story(gateway))
        assert "not active" not in gateway.log()
        assert "usage events wait for clickhouse://" in gateway.log()
        assert SECRET not in gateway.log()
