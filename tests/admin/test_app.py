"""The admin face: who may ask, and what it says."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fastgw.admin.app import AdminData, serve_admin
from fastgw.admin.limits import OperatorLimits
from fastgw.admin.orders import AuditLog
from fastgw.admin.status import Readiness
from fastgw.telemetry.latencies import Latencies
from tests.admin.faces import ask_nobody, no_config, no_instances, no_metrics, no_quotas, no_usage


def shown(readiness: Readiness | None = None) -> AdminData:
    """What a gateway without workers shows."""
    found = readiness if readiness is not None else Readiness(list, lambda: 0, lambda: True)
    limits = OperatorLimits(ask_nobody, tuple, AuditLog(Path("nowhere")))
    return AdminData(
        found.report, no_metrics(), no_instances(), dict, limits, Latencies(), no_config(), no_quotas(), no_usage()
    )


def ask(path: str, token: str | None = None, **headers: str) -> tuple[int, str]:
    """Status and text of one request to an admin face of its own."""

    async def main() -> tuple[int, str]:
        listener = socket.create_server(("127.0.0.1", 0))
        runner = await serve_admin(listener, shown(), token)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}{path}"
        try:
            async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
                assert "access-control-allow-origin" not in answer.headers
                return answer.status, await answer.text()
        finally:
            await runner.cleanup()

    return asyncio.run(main())


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/livez",
        "/metrics",
        "/backends",
        "/catalogue",
        "/limits",
        "/stats",
        "/stats/tools",
        "/agents",
        "/config",
        "/config/diff",
    ],
)
def test_paths(path: str) -> None:
    assert ask(path)[0] == 200


def test_without_a_worker_it_is_alive_and_not_ready_and_says_why() -> None:
    status, text = ask("/readyz")
    assert status == 503
    assert "no worker is active" in text


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:1", 200), ("localhost", 200), ("LOCALHOST:80", 200), ("[::1]:80", 200), ("[::1]", 200),
        ("evil.example", 421), ("127.0.0.1.evil.example", 421), ("0.0.0.0", 421),
    ],
)  # fmt: skip
def test_only_loopbacks_own_names_may_ask(host: str, status: int) -> None:
    assert ask("/metrics", Host=host)[0] == status


@pytest.mark.parametrize(
    ("path", "shown", "status"),
    [
        ("/metrics", {"Authorization": "Bearer right"}, 200),
        ("/metrics", {"Authorization": "Bearer wrong"}, 401),
        ("/metrics", {"Authorization": "right"}, 401),
        ("/metrics", {}, 401),
        ("/catalogue", {}, 401),
        ("/livez", {}, 200),
    ],
)
def test_beyond_loopback_a_token_is_needed(path: str, shown: dict[str, Any], status: int) -> None:
    assert ask(path, token="right", Host="gateway.example", **shown)[0] == status


def test_the_index_names_every_page_and_what_it_shows() -> None:
    status, text = ask("/")
    assert status == 200
    for path in (
        "/livez",
        "/readyz",
        "/metrics",
        "/backends",
        "/backends/drain",
        "/backends/open",
        "/backends/close",
        "/catalogue",
        "/config",
        "/config/diff",
        "/reload",
        "/limits",
        "/limits/reset",
        "/stats",
        "/stats.hlog",
    ):
        assert f" {path} " in text


def test_once_a_drain_has_begun_the_answer_waits_until_every_worker_drains() -> None:
    """Whoever has read 503 finds that each answer closes its connection."""
    states = ["active", "draining"]

    async def main() -> None:
        readiness = Readiness(lambda: states, lambda: 1, lambda: True)
        assert (await readiness.report())["ready"]
        readiness.draining = True
        asked = asyncio.ensure_future(readiness.report())
        assert (await asyncio.wait([asked], timeout=0.05))[0] == set()
        states[0] = "draining"
        assert (await asked)["reason"] == "draining"

    asyncio.run(main())


def test_a_worker_that_is_stopped_does_not_hide_the_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastgw.admin.status.DRAIN_KNOWN_WITHIN", 0.01)

    async def main() -> None:
        readiness = Readiness(lambda: ["active"], lambda: 1, lambda: True)
        readiness.draining = True
        assert (await readiness.report())["reason"] == "draining"

    asyncio.run(main())


GARBAGE = (
    b"\x16\x03\x01\x02\x00\x01",
    b"GET /livez HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
)


def test_what_is_no_http_is_a_number_and_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "aiohttp.server")

    async def main() -> None:
        counts = Counter[tuple[str, ...]]()
        data = replace(shown(), count=lambda *series: counts.update([series]), clock=lambda: 0.0)
        listener = socket.create_server(("127.0.0.1", 0))
        runner = await serve_admin(listener, data, None)
        try:
            for number in range(30):
                reader, writer = await asyncio.open_connection(*listener.getsockname())
                writer.write(GARBAGE[number % 3])
                assert b"400 Bad Request" in await reader.read()
                writer.close()
        finally:
            await runner.cleanup()
        assert counts == {("fastgw_admin_refused_total", "bad_http"): 30}

    asyncio.run(main())
    assert ["is no HTTP" in one.getMessage() for one in caplog.records] == [True]
    assert caplog.records[0].exc_info is None
