"""`/metrics` of a real gateway by the eyes of Prometheus' parsers, beside the usage events of the same calls."""

from __future__ import annotations

import asyncio
import http.client
import os
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from tests.e2e.gateway import Gateway, fingerprint, running_beside, until
from tests.e2e.http import exchange, modern
from tests.e2e.servers import Call, Toolbox, serving

KEYS = {name: f"fgw_test_{name}" for name in ("busy", "calm", 'a"b\\c')}
HOSTILE = "<script>alert('x')</script>"
ERRORS = ("tool_error", "server_error", "unavailable", "timeout", "overloaded")
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def echo(call: Call) -> None:
    await call.text("said")


async def fail(call: Call) -> None:
    await call.result(b'{"content":[{"type":"text","text":"no"}],"isError":true}')


def asked(gateway: Gateway, accept: str = "") -> str:
    connection = http.client.HTTPConnection(gateway.admin.removeprefix("http://"), timeout=5)
    connection.request("GET", "/metrics", headers={"Accept": accept})
    return connection.getresponse().read().decode()


def samples(found: Any) -> Samples:
    rows = [((row.name, tuple(sorted(row.labels.items()))), row.value) for one in found for row in one.samples]
    assert len(rows) == len(dict(rows)), "a series stands twice"
    return dict(rows)


def summed(found: Samples, name: str, by: str, **only: str) -> Counter[str]:
    sums: Counter[str] = Counter()
    for (series, pairs), value in found.items():
        labels = dict(pairs)
        if series == name and all(labels[label] == wanted for label, wanted in only.items()):
            sums[labels[by]] += int(value)
    return +sums


async def call(gateway: Gateway, agent: str, tool: str) -> None:
    await exchange(gateway.url, modern("tools/call", {"name": tool, "arguments": {}}, key=KEYS[agent]))


async def calls(gateway: Gateway) -> None:
    for _ in range(20):
        await call(gateway, "busy", "echo")
    for agent in KEYS:
        await call(gateway, agent, "fail")
        await call(gateway, agent, HOSTILE)
    for number in range(30):
        body = modern("tools/call", {"name": "echo", "arguments": {}}, key=f"fgw_stranger_{number}")
        await exchange(gateway.url, body)


def test_metrics_and_usage_events_tell_the_same_also_after_a_worker_was_killed(tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(Toolbox("modern", {"echo": echo, "fail": fail})) as server:
            agents = {name: {"key": fingerprint(key)} for name, key in KEYS.items()}
            limits = [{"name": "calm-down", "by": ["agent"], "rate": "1/hour", "burst": 12}]
            settings = {"servers": {"stage": {"url": server.url}}, "agents": agents, "limits": limits}
            async with running_beside(settings, tmp_path) as gateway:
                await until(lambda: serves(gateway))
                await calls(gateway)
                await until(lambda: counted(gateway, 26))
                os.kill(gateway.child("worker-1"), signal.SIGKILL)
                await until(lambda: restarted(gateway))
                await calls(gateway)
                await until(lambda: counted(gateway, 52))
                await asyncio.to_thread(agree, gateway)

    asyncio.run(story())


async def serves(gateway: Gateway) -> bool:
    reply = await exchange(gateway.url, modern("tools/list", key=KEYS["calm"]))
    return len(reply.json()["result"]["tools"]) == 2


async def counted(gateway: Gateway, calls: int) -> bool:
    """Whether everything has been told, and written as events."""
    found = samples(read_text(await asyncio.to_thread(asked, gateway)))
    known = sum(summed(found, "fastgw_agent_requests_total", "agent").values())
    listed = sum(summed(found, "fastgw_requests_total", "method", method="tools/list").values())
    return known - listed - calls == 30 * calls // 26 and len(gateway.events()) == calls


async def restarted(gateway: Gateway) -> bool:
    found = samples(read_text(await asyncio.to_thread(asked, gateway)))
    # Both have measured themselves.
    connections = found.get(("fastgw_pool_max_connections", (("server", "stage"),)))
    return found["fastgw_worker_restarts_total", ()] == 1 and connections == 2 * 512


def agree(gateway: Gateway) -> None:
    text, modern_text = asked(gateway), asked(gateway, "application/openmetrics-text; version=1.0.0")
    plain, found = samples(read_text(text)), samples(read_openmetrics(modern_text))
    assert plain.keys() == found.keys()
    events = gateway.events()
    made = Counter(event["outcome"] for event in events)
    assert made == {"ok": 12, "rate_limited": 28 + 2, "tool_error": 4, "unknown": 6}
    assert summed(found, "fastgw_requests_total", "outcome", method="tools/call") == made + Counter(denied=0)
    strangers = summed(found, "fastgw_requests_total", "outcome", method="none")
    assert strangers == {"denied": 60}
    assert summed(found, "fastgw_tool_calls_total", "outcome") == made
    assert summed(found, "fastgw_tool_calls_total", "tool") == Counter(event["tool"] or "" for event in events)
    for agent in KEYS:
        mine = Counter(event["outcome"] for event in events if event["agentId"] == agent)
        shown = summed(found, "fastgw_agent_requests_total", "outcome", agent=agent)
        assert shown - Counter(ok=shown["ok"]) == mine - Counter(ok=mine["ok"])
    assert summed(found, "fastgw_agent_requests_total", "outcome", agent="anonymous") == {"denied": 60}
    assert found["fastgw_request_seconds_count", ()] == len(events)
    assert "script" not in text
    assert "stranger" not in text
    measured(found)
    lint(text)


def measured(found: Samples) -> None:
    """What is sampled is there, in its unit."""
    pool = summed(found, "fastgw_pool_connections", "state", server="stage")
    assert sum(pool.values()) <= 4
    assert found["fastgw_retry_budget", (("server", "stage"),)] >= 2 * 3
    assert found["fastgw_upstream_in_flight", (("server", "stage"),)] == 0
    for process in ("controller", "worker", "usage"):
        labels = (("process", process),)
        assert 0.01 < found["fastgw_process_cpu_seconds_total", labels] < 100
        assert 20e6 < found["fastgw_process_resident_memory_bytes", labels] < 2e9
    for process in ("controller", "worker"):
        labels = (("process", process),)
        assert found["fastgw_event_loop_lag_seconds_count", labels] > 3
        assert 0 <= found["fastgw_event_loop_lag_seconds_sum", labels] < 60
    assert found["fastgw_gc_pause_seconds_count", (("process", "controller"),)] > 0
    (build,) = [dict(labels) for name, labels in found if name == "fastgw_build_info"]
    assert build["revisions"] == "2025-03-26 to 2026-07-28"
    lost = summed(found, "fastgw_usage_events_lost_total", "where")
    assert lost == {}
    assert ("fastgw_usage_events_lost_total", (("where", "spool"),)) in found


def lint(text: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("all but the last look was taken; promtool is not there: apt-get install prometheus")
    check = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False)
    assert (check.returncode, check.stdout + check.stderr) == (0, "")
