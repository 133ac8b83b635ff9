"""A server that hangs, with calls waiting for it: the calls of the others take no longer, and memory does not grow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pytest

from tests.e2e.asking import listed
from tests.e2e.faulty import Faulty, faulty
from tests.e2e.gateway import Gateway, running_beside, until
from tests.e2e.load import Load, Outcome, loaded, many, percentile, tool, words
from tests.e2e.memory import memory
from tests.e2e.servers import Call

pytestmark = pytest.mark.usefixtures("many_files")
SLOWEST = 2.0
"""Seconds for one call of a server that is well, on a busy machine too; who waits for the hung one takes 60."""


class Hung(Faulty):
    """A server whose calls wait until they are let go, if it is to hang."""

    def __init__(self, era: str) -> None:
        super().__init__(era, "hung-")
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def call(self, call: Call) -> None:
        await self.goes_on.wait()
        await super().call(call)


@dataclass
class Pair:
    """Two servers behind one gateway, of which one will hang."""

    gateway: Gateway
    hung: Hung


@asynccontextmanager
async def pair(folder: Path, era: str) -> AsyncIterator[Pair]:
    hung = Hung(era)
    async with faulty(hung) as bad, faulty(Faulty(era, "well-")) as good:
        servers = {"hung": {"url": bad.url, "timeout": "60s"}, "well": {"url": good.url}}
        async with running_beside({"servers": servers, "drain": "1s"}, folder) as gateway:
            await listed(gateway, "hung-unsafe", "well-unsafe")
            yield Pair(gateway, hung)


async def crowd(found: Pair, calls: int) -> Load:
    """So many calls that wait for the hung server."""
    found.hung.goes_on.clear()
    waiting, before = Load(), found.hung.asked_for["tools/call"]
    for number in range(calls):
        waiting.begin(found.gateway.url, tool("hung-unsafe"), f"w{number}")
        if number % 20 == 19:
            await asyncio.sleep(0)

    async def all_there() -> bool:
        return found.hung.asked_for["tools/call"] - before >= calls or not waiting.in_flight

    await until(all_there, 20)
    return waiting


async def let_go(found: Pair, waiting: Load) -> None:
    """End the hanging: whoever has waited is answered."""
    found.hung.goes_on.set()
    await waiting.ended()
    assert not waiting.wrong, words(waiting.wrong)


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_the_others_are_answered_while_calls_wait_for_it(tmp_path: Path, era: str) -> None:
    async def story() -> None:
        async with pair(tmp_path, era) as found:
            await many(found.gateway.url, tool("well-unsafe"), map(str, range(50)))
            waiting = await crowd(found, 300)
            assert len(waiting.in_flight) == 300
            begun = time.monotonic()
            others = await many(found.gateway.url, tool("well-unsafe"), map(str, range(200)))
            assert all(one.is_right for one in others), words(others)
            assert max(one.seconds for one in others) < SLOWEST
            assert time.monotonic() - begun < 60, "nobody waited for the hung one"
            assert len(waiting.in_flight) == 300
            await let_go(found, waiting)
            assert max(found.hung.executions.runs.values()) == 1

    asyncio.run(story())


@pytest.mark.soak
def test_it_costs_the_others_neither_time_nor_memory(tmp_path: Path) -> None:
    """In turns, since machines have moods: some seconds with calls that wait, some without."""

    async def measured(found: Pair) -> list[Outcome]:
        async with loaded(found.gateway.url, 200, tool("well-unsafe")) as load:
            await asyncio.sleep(12)
        assert not load.wrong, words(load.wrong)
        return load.outcomes

    async def story() -> None:
        async with pair(tmp_path, "modern") as found:
            await measured(found)
            alone: list[float] = []
            beside: list[float] = []
            for _ in range(8):
                alone.append(percentile(await measured(found), 0.99))
                before = memory(found.gateway)
                waiting = await crowd(found, 500)
                filled = memory(found.gateway)
                beside.append(percentile(await measured(found), 0.99))
                assert memory(found.gateway) <= filled * 1.05, (before, filled)
                await let_go(found, waiting)
            assert median(beside) <= median(alone) * 1.1 + 0.001, (alone, beside)

    asyncio.run(story())
