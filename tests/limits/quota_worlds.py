"""Workers that share accounts of quotas: `QuotaAccounts` before a ledger of the test's own, or a real store."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Self

import redis

from fastgw.config.schema.store import StorePlace
from fastgw.limits.batcher import StoreAway
from fastgw.limits.quota_accounts import QuotaAccounts, QuotaVerdict
from fastgw.limits.quota_ledger import LocalLedger
from fastgw.limits.quota_script import QUOTA_SOURCE, AccountRow, LedgerReply, QuotaKeys, QuotaLedger
from fastgw.limits.quota_store import StoreLedger
from fastgw.limits.redis_connection import RedisConnection
from fastgw.policy.quotas import Amounts, Period, Quota, QuotaState
from tests.limits.fakes import Spawner

MONTH = 1_793_491_200_000  # 2026-11-01 in UTC, in ms
KEYS = QuotaKeys("fastgw")
CALL: Amounts = (1, 1, 1, 1, 1)


def calls(most: int, **more: object) -> Quota:
    return Quota("q", ("agent",), amounts=(most, -1, -1, -1, -1), **more)  # type: ignore[arg-type]


class HandClock:
    """Unix ms, set by hand."""

    def __init__(self, now: int = MONTH) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


class WorkerView:
    """A ledger as one worker sees it; `down`: it is away."""

    def __init__(self, ledger: LocalLedger, name: str) -> None:
        self.ledger, self.name, self.down = ledger, name, False

    async def ask(self, rows: list[AccountRow], index: str = "", most: int = 0) -> LedgerReply:
        await asyncio.sleep(0)
        if self.down:
            raise StoreAway("connection", "refused")
        return self.ledger.decide(self.name, rows, index, most)


PLAYED = QUOTA_SOURCE.replace("local time = redis.call('TIME')\n", "").replace(
    "time[1] * 1000 + floor(time[2] / 1000)", "tonumber(ARGV[2])"
)
"""The script with a clock set from outside, in its second argument: Unix ms."""
assert "redis.call('TIME')" not in PLAYED


class PlayedStore:
    """A `quota_store.ScriptRunner`: the script on a real store, by a clock that a test sets."""

    def __init__(self, client: redis.Redis, clock: HandClock) -> None:
        self.client, self.clock = client, clock

    async def close(self) -> None:
        pass

    async def run(self, _: tuple[str, str], keys: list[str], argument: bytes) -> object:
        return self.client.eval(PLAYED, len(keys), *keys, argument, self.clock.now)


class QuotaWorker:
    """One worker; it calls as the gate does."""

    def __init__(self, ledger: QuotaLedger, workers: int = 1, clock: HandClock | None = None) -> None:
        self.spawner = Spawner()
        self.counted: Counter[tuple[str, ...]] = Counter()
        self.accounts = QuotaAccounts(ledger, KEYS, self.spawner.spawn, self._count, workers)
        if clock is not None:
            self.accounts._clock = lambda: clock.now / 1000
        self.warned: list[QuotaState] = []
        self.accounts.on_warning = self.warned.append

    @classmethod
    def of_store(cls, place: StorePlace, name: str, workers: int = 1) -> Self:
        return cls(StoreLedger(RedisConnection(place), KEYS, name), workers)

    def time_went_on(self) -> None:
        """Monotonic time, too, however little passed: what was leased or refused is so no longer."""
        for account in self.accounts:
            account.until = account.refused_until = 0.0

    def _count(self, *labels: str) -> None:
        self.counted[labels] += 1

    async def reserve(self, quota: Quota, amounts: Amounts = CALL, who: str = "bot") -> QuotaVerdict:
        charges = [(self.accounts.find(quota, who), amounts)]
        if taken := self.accounts.take(charges):
            return QuotaVerdict(tuple(taken))
        return self.accounts.admit(charges) or await self.accounts.ask(charges)

    async def call(self, quota: Quota, amounts: Amounts = CALL, used: Amounts = CALL) -> bool:
        verdict = await self.reserve(quota, amounts)
        if verdict.refused is None:
            self.accounts.settle(verdict.taken, used)
        return verdict.refused is None

    async def rest(self) -> None:
        """What lies idle goes back, and nothing is under way."""
        for account in self.accounts._accounts.values():
            account.used_at, account.refused_until = monotonic() - 1, 0.0
        self.accounts.heartbeat()
        async with asyncio.timeout(5):
            while self.accounts._sending:
                await asyncio.sleep(0.001)

    async def close(self) -> None:
        await self.spawner.close()
        assert self.spawner.failed == []


LIVES = count()


def ledger(folder: Path, clock: HandClock) -> LocalLedger:
    return LocalLedger(folder, f"w{next(LIVES)}", clock)


ROLLING = Period("", "UTC", 3_600_000)
