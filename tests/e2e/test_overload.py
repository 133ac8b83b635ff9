"""More calls than a server may be given at a time: it works on at full speed, and who is too many hears it at once.

Who waits, who is next, and who gives a place back is in `test_bulkheads.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.e2e.asking import listed
from tests.e2e.faulty import Faulty, faulty
from tests.e2e.gateway import Gateway, running_beside
from tests.e2e.load import Outcome, loaded, many, percentile, tool, words

PLACES, QUEUE, DELAY = 8, 8, 0.2
CAPACITY = PLACES / DELAY
"""Calls a second that the server can do."""
LATE = 2.0
"""Seconds by which a busy machine may be late."""
BUSY = -31001


@asynccontextmanager
async def bounded(folder: Path, box: Faulty) -> AsyncIterator[Gateway]:
    other = Faulty("modern", "other-")
    async with faulty(box) as door, faulty(other) as free:
        full = {"url": door.url, "max_in_flight": PLACES, "queue": QUEUE, "timeout": "30s"}
        settings = {"servers": {"full": full, "free": {"url": free.url}}, "drain": "1s"}
        async with running_beside(settings, folder) as gateway:
            await listed(gateway, "unsafe", "other-unsafe")
            yield gateway


def is_refused(one: Outcome) -> bool:
    """Whether it was turned away before anything was sent, and told when to come back."""
    if one.code != BUSY or one.reply is None:
        return False
    data = one.said["error"]["data"]
    told = (data["reason"], data["mayHaveRun"], one.reply.status, one.reply.header("retry-after"))
    return told == ("busy", False, 503, str(data["retryAfter"])) and data["retryAfter"] >= 1


@pytest.mark.parametrize(("seconds", "refused_within"), [(4, 0.5), pytest.param(60, 0.01, marks=pytest.mark.soak)])
def test_five_times_what_it_can_do(tmp_path: Path, seconds: int, refused_within: float) -> None:
    box = Faulty("modern", delay=DELAY)

    async def story() -> None:
        async with bounded(tmp_path, box) as gateway:
            async with loaded(gateway.url, 5 * CAPACITY, tool("unsafe")) as load:
                await asyncio.sleep(seconds)
                others = await many(gateway.url, tool("other-unsafe"), map(str, range(20)), lanes=2)
            assert all(one.is_right for one in others), words(others)
            right = [one for one in load.outcomes if one.is_right]
            assert len(right) >= 0.9 * CAPACITY * seconds
            assert all(is_refused(one) for one in load.wrong), words(one for one in load.wrong if not is_refused(one))
            assert percentile(load.wrong, 0.5) < refused_within
            assert max(one.seconds for one in right) < (PLACES + QUEUE) / CAPACITY + DELAY + LATE
            assert box.most_in_hand <= PLACES
            assert box.executions.runs.total() == len(right), "who was refused has not run"

    asyncio.run(story())
