"""Workers that are killed one after the other under load: each costs the calls that it had, and nothing else.

What one such death is to streams and sessions is in `test_processes.py`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.asking import listed
from tests.e2e.faulty import Faulty, faulty
from tests.e2e.gateway import Gateway, running_beside, until
from tests.e2e.load import loaded, tool, words

BACK_WITHIN = 2.0
LATE = 2.0
"""Seconds by which a busy machine may be late."""
DELAY = 0.05
"""Seconds that each call takes at its server: some are in flight at every moment."""


async def gone(pid: int) -> None:
    """Wait for the last thread's end: until then the kernel queues, and resets, connections of a dying listener."""

    async def reaped() -> bool:
        return not Path(f"/proc/{pid}").exists()

    await until(reaped)


async def active(gateway: Gateway) -> bool:
    return await asyncio.to_thread(gateway.metric, 'fastgw_workers{state="active"}') == 2


async def replaced(gateway: Gateway, role: str, victim: int) -> bool:
    return gateway.child(role) not in (0, victim)


@pytest.mark.parametrize(
    ("kills", "rate", "every"), [(4, 100, 0.0), pytest.param(200, 500, 3.0, marks=pytest.mark.soak)]
)
def test_each_costs_only_the_calls_it_had(tmp_path: Path, kills: int, rate: int, every: float) -> None:
    """A call that began before a worker was gone may be lost with it; none that began later. With `every` seconds
    between two deaths none of them dies young, and so is started again without a pause.
    """
    spans: list[tuple[float, float]] = []

    async def story() -> None:
        box = Faulty("modern", delay=DELAY)
        async with (
            faulty(box) as door,
            running_beside({"servers": {"box": {"url": door.url}}}, tmp_path) as gateway,
        ):
            await listed(gateway, "unsafe")
            supervisor = gateway.process.pid
            async with loaded(gateway.url, rate, tool("unsafe")) as load:
                for number in range(kills):
                    await until(lambda: active(gateway))
                    role = f"worker-{1 + number % 2}"
                    victim, begun = gateway.child(role), time.monotonic()
                    os.kill(victim, signal.SIGKILL)
                    await gone(victim)
                    spans.append((begun, time.monotonic()))
                    await until(lambda: replaced(gateway, role, victim))  # noqa: B023 - awaited in the loop
                    await until(lambda: active(gateway))
                    assert time.monotonic() - begun < BACK_WITHIN + LATE
                    await asyncio.sleep(begun + every - time.monotonic())
            assert gateway.process.poll() is None, "the server never exits"
            assert gateway.process.pid == supervisor
            assert gateway.metric("fastgw_worker_restarts_total") == kills
            assert len(load.outcomes) > kills * rate * 0.1
            for one in load.wrong:
                assert one.reply is None, one
                assert any(one.begun <= dead and one.ended >= begun for begun, dead in spans), (one, spans)
            assert len(load.wrong) <= kills * (rate * (DELAY + 0.2) + 10), words(load.wrong)
            assert max(box.executions.runs.values()) == 1

    asyncio.run(story())
