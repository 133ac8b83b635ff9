"""The deadline sweep: quick requests cost it nothing, slow bodies end, watchers are set once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from fastgw.gateway.context import PERIOD, DeadlineSweep, RequestContext
from fastgw.gateway.dialects import modern
from fastgw.snapshot.model import Endpoint, Snapshot, View

NOWHERE = Endpoint("", {}, (View(),), {}, False, 0.0, (), "")
SNAPSHOT = Snapshot(1, {}, {}, {}, frozenset(), frozenset(), 1, 1, (b"s",), "fastgw", "0", "gw")


def context(started: float) -> RequestContext:
    return RequestContext("req_1", SNAPSHOT, NOWHERE, modern.DIALECT, {}, frozenset(), started)


class Watched:
    """A connection that is to be looked at."""

    def __init__(self, seen: Callable[[], None]) -> None:
        self._seen = seen

    def watch(self, left: Callable[[], None]) -> None:
        self._seen()


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not done():
            await asyncio.sleep(0)


def test_a_request_that_lasts_is_watched_once() -> None:
    async def main() -> None:
        sweep = DeadlineSweep()
        one = context(time.monotonic())
        watched: list[float] = []
        one.watched = Watched(lambda: watched.append(time.monotonic() - one.started))
        sweep.add(one)
        await until(lambda: bool(watched))
        assert watched[0] >= PERIOD
        assert one.watched is None
        sweep.remove(one)
        await until(lambda: sweep._timer is None)
        assert len(watched) == 1

    asyncio.run(main())


def test_a_request_that_is_over_is_left_alone() -> None:
    async def main() -> None:
        sweep = DeadlineSweep()
        quick, slow = context(time.monotonic() - 1), context(time.monotonic() - 1)
        seen: list[str] = []
        quick.watched = Watched(lambda: seen.append("quick"))
        slow.watched = Watched(lambda: seen.append("slow"))
        sweep.add(quick)
        sweep.add(slow)
        sweep.remove(quick)
        await until(lambda: bool(seen))
        sweep.remove(slow)
        await until(lambda: sweep._timer is None)
        assert seen == ["slow"]

    asyncio.run(main())


def test_a_body_that_does_not_come_ends_the_wait() -> None:
    async def main() -> None:
        sweep = DeadlineSweep()
        one = context(time.monotonic())

        async def wait() -> str:
            one.task = asyncio.current_task()
            one.body_due = one.started + 0.001
            sweep.add(one)
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                return "too slow" if one.too_slow else "cancelled"
            return "read"

        async with asyncio.timeout(5):
            assert await wait() == "too slow"

    asyncio.run(main())
