"""Calendars at a real store: periods begin where the clocks of a zone say, by the store's clock and nobody else's."""

from __future__ import annotations

import asyncio
from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from fastgw.limits.quota_store import StoreLedger
from fastgw.policy.quotas import Period
from tests.limits.quota_worlds import KEYS, HandClock, PlayedStore, QuotaWorker, calls
from tests.limits.valkeys import Valkey

MINUTE = 60_000
DAY = 24 * 60 * MINUTE
CHANGES = {
    "Europe/Berlin": ((2026, 3, 29), (2026, 10, 25)),
    "America/New_York": ((2026, 3, 8), (2026, 11, 1)),
    "Australia/Lord_Howe": ((2026, 4, 5), (2026, 10, 4)),
}
"""Days of 2026 on which the clocks are changed."""


def boundaries(zone: ZoneInfo, per: str, day: tuple[int, int, int]) -> list[int]:
    """When the clocks show a full hour, another date or another month, around a day: by looking at them each minute."""
    noon = int(datetime(*day, 12, tzinfo=zone).timestamp()) * 1000
    around = {"hour": 14 * 60, "day": 50 * 60, "month": 35 * 24 * 60}[per] * MINUTE
    found = []
    for at in range(noon - around, noon + around, MINUTE):
        before, now = (datetime.fromtimestamp(one / 1000, zone) for one in (at - MINUTE, at))
        other = {"hour": now.minute == 0, "day": before.date() != now.date(), "month": before.month != now.month}
        if other[per]:
            found.append(at)
    return found


@pytest.mark.parametrize("zone", CHANGES)
def test_spend_begins_anew_at_each_boundary_and_at_no_other_time(zone: str) -> None:
    async def story(server: Valkey, per: str, day: tuple[int, int, int]) -> None:
        found = boundaries(ZoneInfo(zone), per, day)
        assert len(found) >= 2
        clock, quota = HandClock(found[0]), calls(2, period=Period(per, zone))
        store = PlayedStore(server.client(), clock)
        for number, (start, end) in enumerate(pairwise(found)):
            workers = [QuotaWorker(StoreLedger(store, KEYS, f"w{number}{at}"), 2, HandClock(start)) for at in (0, 1)]
            passed = []
            for at in (start, start + 1, (start + end) // 2, end - 1):
                clock.now = at
                for worker in workers:
                    worker.time_went_on()
                    passed.append(await worker.call(quota))
            assert passed == [True] * 2 + [False] * 6, f"{per} of {day} at {start}"
            for worker in workers:
                await worker.close()
        server.client().flushall()

    with Valkey() as server:
        for day in CHANGES[zone]:
            for per in ("hour", "day", "month"):
                asyncio.run(story(server, per, day))


def test_two_machines_5_s_apart_around_the_end_of_a_day() -> None:
    """One is behind the store and one ahead of it: neither calls in a day that is over, or has not begun."""

    async def story(server: Valkey) -> None:
        zone = "Europe/Berlin"
        (midnight, *_) = boundaries(ZoneInfo(zone), "day", (2026, 10, 25))
        clock, quota = HandClock(), calls(10, period=Period("day", zone))
        store, own = PlayedStore(server.client(), clock), (HandClock(), HandClock())
        workers = [QuotaWorker(StoreLedger(store, KEYS, f"w{at}"), 2, own[at]) for at in (0, 1)]
        passed: list[int] = []
        for now in range(midnight - 12_000, midnight + 12_000, 500):
            clock.now, own[0].now, own[1].now = now, now - 3000, now + 2000
            for worker in workers:
                worker.time_went_on()
                if await worker.call(quota):
                    passed.append(now - midnight)
        assert passed == sorted(2 * [*range(-12_000, -9500, 500), *range(0, 2500, 500)])
        for worker in workers:
            await worker.close()

    with Valkey() as server:
        asyncio.run(story(server))


def test_a_stores_clock_that_jumps_a_day_and_comes_back() -> None:
    """Each day lets through what it has left, whichever worker asks, however often the clock was there."""

    async def story(server: Valkey) -> None:
        clock, quota = HandClock(), calls(5, period=Period("day"))
        store = PlayedStore(server.client(), clock)
        workers = [QuotaWorker(StoreLedger(store, KEYS, f"w{at}"), 2, HandClock(clock.now)) for at in (0, 1)]
        passed = []
        for jump in (0, DAY, -DAY, -DAY, DAY, DAY):
            clock.now += jump
            passed.append(0)
            for turn in range(7):
                workers[turn % 2].time_went_on()
                passed[-1] += await workers[turn % 2].call(quota)
        assert passed == [5, 5, 0, 5, 0, 0]
        for worker in workers:
            await worker.rest()
            await worker.close()

    with Valkey() as server:
        asyncio.run(story(server))
