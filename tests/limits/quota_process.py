"""One worker as a process of its own, that hammers a quota of calls at a real store; run by `test_quota_processes.py`.

It is sent a task, says `ready`, works when it is told anything, and sends how many calls passed that were not given
back.
"""

from __future__ import annotations

import asyncio
import random
from multiprocessing.connection import Connection
from typing import NamedTuple

import uvloop

from fastgw.config.schema.store import StorePlace
from fastgw.limits import quota_store
from tests.limits.quota_worlds import QuotaWorker, calls

AGENTS = 8
PATIENT = 5.0
"""Seconds for an answer: a machine that is busy is not to be taken for a store that is away."""


class Hammering(NamedTuple):
    """What a worker is to do: `tries` calls of each of its agents, of a quota of so many `calls`."""

    place: StorePlace
    name: str
    calls: int
    tries: int


def main(test: Connection) -> None:
    """One task."""
    quota_store.DEADLINE = quota_store.CONNECT_WITHIN = PATIENT
    test.send(uvloop.run(_work(test.recv(), test)))


async def _work(task: Hammering, test: Connection) -> int:
    worker = QuotaWorker.of_store(task.place, task.name, 8)
    test.send("ready")
    await asyncio.to_thread(test.recv)
    beats = asyncio.create_task(_beats(worker))
    passed = await asyncio.gather(*[_agent(worker, task, random.Random(at)) for at in range(AGENTS)])
    beats.cancel()
    await worker.rest()
    assert not worker.counted, worker.counted
    await worker.close()
    return sum(passed)


async def _agent(worker: QuotaWorker, task: Hammering, dice: random.Random) -> int:
    passed = 0
    for _ in range(task.tries):
        verdict = await worker.reserve(calls(task.calls))
        if verdict.refused is not None:
            await asyncio.sleep(0.01)
            continue
        await asyncio.sleep(dice.random() * 0.002)
        is_sent = dice.random() > 0.2
        worker.accounts.settle(verdict.taken, (1, 0, 0, 0, 0) if is_sent else None)
        passed += is_sent
    return passed


async def _beats(worker: QuotaWorker) -> None:
    while True:
        await asyncio.sleep(0.1)
        worker.accounts.heartbeat()
