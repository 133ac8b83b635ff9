"""Batches that are due; what finds no room is counted."""

from __future__ import annotations

import asyncio

from fastgw.usage import spool
from fastgw.usage.spool import Spool


class Taker:
    """Takes batches while it is willing."""

    def __init__(self) -> None:
        self.willing = True
        self.batches: list[tuple[int, bytes]] = []
        self.lost = 0
        self.took = asyncio.Event()

    def take(self, events: int, lines: bytes) -> bool:
        if self.willing:
            self.batches.append((events, lines))
            self.took.set()
        return self.willing

    def lose(self, events: int) -> None:
        self.lost += events


def test_few_events_go_together_a_little_later() -> None:
    async def scene() -> None:
        taker = Taker()
        made = Spool(taker.take, taker.lose)
        made.add(b"1")
        made.add(b"2")
        assert taker.batches == []
        await asyncio.wait_for(taker.took.wait(), 2)
        assert taker.batches == [(2, b"1\n2\n")]

    asyncio.run(scene())


def test_without_a_controller_events_wait_and_then_go_in_order() -> None:
    async def scene() -> None:
        taker = Taker()
        taker.willing = False
        made = Spool(taker.take, taker.lose)
        made.add(b"1")
        made.flush()
        taker.willing = True
        made.add(b"2")
        made.flush()
        assert taker.batches == [(2, b"1\n2\n")]
        assert taker.lost == 0

    asyncio.run(scene())


def test_what_finds_no_room_is_counted_and_adding_goes_on() -> None:
    async def scene() -> None:
        taker = Taker()
        taker.willing = False
        made = Spool(taker.take, taker.lose)
        event = b"x" * (spool.ROOM // 8)
        for _ in range(10):
            made.add(event)
        assert taker.lost == 3
        taker.willing = True
        made.flush()
        assert taker.batches[0][0] == 7

    asyncio.run(scene())
