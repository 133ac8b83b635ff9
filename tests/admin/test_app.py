"""The admin face: who may ask, and what it says."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fastgw.admin.app import serve_admin
from fastgw.admin.status import Status
from fastgw.processes.ipc_server import IpcServer
from fastgw.processes.limits import OperatorLimits
from fastgw.processes.plan import Plan
from fastgw.telemetry.metrics import Sums
from fastgw.upstream.tasks import BackgroundTasks
from tests.processes.trivial import Mind

PLAN = Plan(("127.0.0.1", 0), ("127.0.0.1", 0), Path("data"), settings={"word": "w"})


def ask(path: str, token: str | None = None, **headers: str) -> tuple[int, str]:
    """Status and text of one request to an admin face of its own."""

    async def main() -> tuple[int, str]:
        listener = socket.create_server(("127.0.0.1", 0))
        status = Status(IpcServer(BackgroundTasks()), Mind(PLAN), Sums(), dict)
        ipc_server = IpcServer(BackgroundTasks())
        desk = OperatorLimits(ipc_server.operate, tuple, Path("nowhere"))
        runner = await serve_admin(listener, status, token, desk)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}{path}"
        try:
            async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
                assert "access-control-allow-origin" not in answer.headers
                return answer.status, await answer.text()
        finally:
            await runner.cleanup()

    return asyncio.run(main())


@pytest.mark.parametrize("path", ["/", "/livez", "/metrics", "/backends", "/catalogue", "/limits"])
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
