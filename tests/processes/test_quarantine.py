"""Calls that crash workers: refused after the second time, for a while; who kills workers by hand says nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from fastgw.processes.quarantine import FOR, Quarantine, shared_slots
from tests.e2e.asking import listed
from tests.e2e.gateway import KEY, Gateway, running_beside, until
from tests.e2e.http import Reply, exchange, modern
from tests.e2e.servers import Call, Toolbox, serving

POISON, OTHER, LATER = 11, -12, 13


def ended(quarantine: Quarantine, calls: list[int], code: int, now: float) -> bool:
    slots = shared_slots()
    slots[5] = 0
    for at, one in enumerate(calls):
        slots[at * 7] = one
    found = quarantine.worker_ended(slots, code, now)
    assert not any(slots), "the next worker begins with nothing"
    return found


def test_what_was_in_flight_twice_is_refused_for_a_while() -> None:
    quarantine = Quarantine()
    assert not ended(quarantine, [POISON, OTHER], -signal.SIGSEGV, 0.0)
    assert quarantine.ends() is None
    assert ended(quarantine, [LATER, POISON], -signal.SIGABRT, 100.0)
    assert quarantine.refused(100.0) == [POISON]
    assert quarantine.ends() == 100.0 + FOR
    assert quarantine.refused(100.0 + FOR) == []


def test_crashes_far_apart_are_not_laid_to_one_call() -> None:
    quarantine = Quarantine()
    assert not ended(quarantine, [POISON], -signal.SIGSEGV, 0.0)
    assert not ended(quarantine, [POISON], -signal.SIGSEGV, FOR)


@pytest.mark.parametrize("code", [-signal.SIGKILL, -signal.SIGTERM, 0, 1])
def test_other_ends_say_nothing(code: int) -> None:
    quarantine = Quarantine()
    for now in range(5):
        assert not ended(quarantine, [POISON], code, float(now))


def test_a_call_that_crashes_workers_twice_is_kept_from_them(tmp_path: Path) -> None:
    async def hold(call: Call) -> None:
        if call.arguments["poison"]:
            await asyncio.Event().wait()
        await call.text("fine")

    async def ask(gateway: Gateway, poison: bool) -> Reply:
        params = {"name": "hold", "arguments": {"poison": poison}}
        return await exchange(gateway.url, modern("tools/call", params, key=KEY))

    async def story() -> None:
        toolbox = Toolbox("modern", {"hold": hold})
        async with serving(toolbox) as server:
            more = {"servers": {"main": {"url": f"http://127.0.0.1:{server.port}/mcp"}}}
            async with running_beside(more, tmp_path) as gateway:
                await listed(gateway, "hold")
                for times in (1, 2):
                    under_way = asyncio.create_task(ask(gateway, True))
                    await until(lambda times=times: held(toolbox, times))
                    for worker in ("worker-1", "worker-2"):
                        os.kill(gateway.child(worker), signal.SIGSEGV)
                    await asyncio.wait([under_way])
                    assert under_way.exception() is not None, "its connection ends with its worker"
                    await until(lambda times=times: restarted(gateway, 2 * times))
                    await asyncio.to_thread(gateway.wait_until_ready)
                for _ in range(6):
                    error = (await ask(gateway, True)).json()["error"]
                    assert (error["code"], error["data"]["mayHaveRun"]) == (-32603, False)
                    assert (await ask(gateway, False)).json()["result"]["content"][0]["text"] == "fine"

    asyncio.run(story())


async def held(toolbox: Toolbox, times: int) -> bool:
    return len(toolbox.ledger) >= times


async def restarted(gateway: Gateway, times: int) -> bool:
    return await asyncio.to_thread(gateway.metric, "fastgw_worker_restarts_total") >= times
