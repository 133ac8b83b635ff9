"""The log: a reload changes level and form of processes that run."""

from __future__ import annotations

import asyncio
import json
import signal
from itertools import count
from pathlib import Path
from typing import Any

from tests.e2e.gateway import KEY, Gateway, running
from tests.e2e.http import exchange, modern

ORIGINS = count()


async def stray(gateway: Gateway, times: int) -> None:
    """Calls from pages that are not let in: the log warns of each one's origin."""
    for _ in range(times):
        asked = modern("ping", key=KEY).having("Origin", f"https://page-{next(ORIGINS)}.example")
        assert (await exchange(gateway.url, asked)).status == 403


def by(gateway: Gateway, since: int = 0) -> dict[str, list[dict[str, Any]]]:
    """The lines of JSON in the log, by process."""
    found: dict[str, list[dict[str, Any]]] = {}
    for text in gateway.log()[since:].splitlines():
        if text.startswith("{"):
            line = json.loads(text)
            found.setdefault(line["process"], []).append(line)
    return found


def test_a_reload_changes_the_log_of_processes_that_run(tmp_path: Path) -> None:
    with running({"log": {"level": "error", "format": "text"}}, tmp_path) as gateway:
        pids = [gateway.child(role) for role in ("worker-1", "worker-2", "controller", "usage")]
        asyncio.run(stray(gateway, 4))
        assert "page-" not in gateway.log() and "operators:" not in gateway.log()
        gateway.configure({"log": {"level": "info", "format": "json"}})
        gateway.process.send_signal(signal.SIGHUP)
        assert gateway.logs('"process": "controller", "message": "the configuration was read again')
        for _ in range(30):
            asyncio.run(stray(gateway, 1))
            if {"worker-1", "worker-2"} <= by(gateway).keys():
                break
        assert all("page-" in by(gateway)[f"worker-{number}"][0]["message"] for number in (1, 2))
        assert pids == [gateway.child(role) for role in ("worker-1", "worker-2", "controller", "usage")]
        assert gateway.stop() == 0
        assert "stopping" in by(gateway)["supervisor"][0]["message"]
