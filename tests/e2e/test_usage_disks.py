"""Usage events of the whole gateway on disks that are full, frozen, or shared with another gateway."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from tests.e2e.disks import small_disk
from tests.e2e.gateway import Gateway, running, until
from tests.e2e.http import exchange
from tests.e2e.ports import free_port
from tests.e2e.test_usage import calling, events, has_events, settings

NOT_LATE = 5.0
"""Seconds for so many calls on a busy machine; one that waits for a disk never ends."""


def on(data: Path) -> dict[str, Any]:
    return {**settings(free_port(), sinks=["file:events/usage.jsonl"]), "data": str(data), "drain": "200ms"}


async def calls(gateway: Gateway, count: int) -> list[str]:
    """Their ids; none of them waits."""
    begun = time.monotonic()
    found = [(await exchange(gateway.url, calling("nothing"))).header("x-request-id") or "" for _ in range(count)]
    assert time.monotonic() - begun < NOT_LATE
    return found


def arrived(gateway: Gateway) -> list[str]:
    return sorted(event["requestId"] for event in events(gateway))


def test_a_disk_that_is_full_or_does_not_answer_holds_neither_calls_nor_the_end_and_loses_nothing(
    tmp_path: Path,
) -> None:
    async def refuses() -> bool:
        return await asyncio.to_thread(gateway.metric, "fastgw_usage_write_errors_total") > 0

    async def story() -> None:
        asked = await calls(gateway, 20)
        await until(lambda: has_events(gateway, 20))
        disk.fill()
        asked += await calls(gateway, 100)
        await until(refuses)
        disk.make_room()
        await until(lambda: has_events(gateway, 120))
        disk.freeze()
        asked += await calls(gateway, 100)
        assert len(events(gateway)) == 120
        disk.thaw()
        await until(lambda: has_events(gateway, 220))
        assert arrived(gateway) == sorted(asked)
        disk.freeze()
        await calls(gateway, 20)
        begun = time.monotonic()
        assert await asyncio.to_thread(gateway.stop) == 0
        assert time.monotonic() - begun < 3 * NOT_LATE, "what the disk holds is not waited for"
        # A worker says what it loses, unless it could not end in time and was killed.
        assert gateway.logs(r"[0-9]+ usage events are lost|it was killed")

    with small_disk(tmp_path / "disk") as disk, running(on(disk.folder / "data"), tmp_path) as gateway:
        asyncio.run(story())


def test_two_gateways_on_one_folder_lose_and_double_nothing(tmp_path: Path) -> None:
    """As where a new one begins before the old one has ended."""
    places = tmp_path / "old", tmp_path / "new"
    for place in places:
        place.mkdir()
    more = on(tmp_path / "data")
    more["usage"]["sinks"] = [f"file:{tmp_path}/old/events/usage.jsonl"]

    async def story(old: Gateway, new: Gateway) -> None:
        asked = await calls(old, 20) + await calls(new, 20)
        await until(lambda: has_events(old, 40))
        assert new.logs("another gateway's usage process")
        assert await asyncio.to_thread(old.stop) == 0
        asked += await calls(new, 20)
        await until(lambda: has_events(old, 60))
        assert arrived(old) == sorted(asked)

    with running(more, places[0]) as old, running(more, places[1]) as new:
        asyncio.run(story(old, new))
