"""Random calls of every outcome, reports, raises, reloads, faults: never too many, and used is what was used."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from fastgw.limits import quota_accounts
from fastgw.limits.batcher import StoreAway
from fastgw.limits.quota_ledger import LocalLedger
from fastgw.limits.quota_script import AccountRow, LedgerReply
from fastgw.policy.quotas import Amounts, Period, Quota
from tests.limits.quota_worlds import ROLLING, HandClock, QuotaWorker


class ShakyLedger:
    """A ledger as one worker sees it: late, and now and then lost, before or after it has done what it was asked."""

    def __init__(self, ledger: LocalLedger, name: str, dice: random.Random, faults: float) -> None:
        self.ledger, self.name, self.dice, self.faults = ledger, name, dice, faults

    async def ask(self, rows: list[AccountRow], index: str = "", most: int = 0) -> LedgerReply:
        await self._late()
        reply = self.ledger.decide(self.name, rows, index, most)
        await self._late()
        return reply

    async def _late(self) -> None:
        for _ in range(self.dice.randrange(4)):
            await asyncio.sleep(0)
        if self.dice.random() < self.faults:
            raise StoreAway("connection", "lost")


class Crowd:
    """Workers that share one account, agents that call by them, and what these really used, by slots of time.

    Args:
        period: of the quota; in a month no time passes, and operators raise the amount now and then.
    """

    def __init__(self, seed: int, workers: int, faults: float, period: Period) -> None:
        self.dice, self.clock = random.Random(seed), HandClock()
        self.ledger = LocalLedger(None, "w", self.clock)
        self.views = [ShakyLedger(self.ledger, f"w{at}", self.dice, faults) for at in range(workers)]
        self.workers = [QuotaWorker(view, workers, self.clock) for view in self.views]
        amounts: Amounts = (self.dice.choice([30, 100, 300]), 30_000, -1, -1, 10**9)
        self.quota = Quota("q", ("agent",), amounts=amounts, on_failure="deny", period=period)
        self.most = amounts[0]
        self.used: dict[int, list[int]] = {}

    async def agent(self, worker: QuotaWorker, calls: int) -> None:
        for _ in range(calls):
            await self._call(worker)
            await asyncio.sleep(0)

    async def _call(self, worker: QuotaWorker) -> None:
        dice, quota = self.dice, self.quota
        tokens = dice.choice([1, 10, 100])
        asked = asyncio.ensure_future(worker.reserve(quota, (1, tokens, tokens, 1, dice.choice([1, 10**6]))))
        if dice.random() < 0.1:
            await asyncio.sleep(0)
            asked.cancel()  # the agent leaves
        await asyncio.wait((asked,))
        if asked.cancelled() or (verdict := asked.result()).refused is not None:
            return
        ((_, _, register),) = verdict.taken
        assert register is not None
        used = self.used.setdefault(register.start, [0] * 5)
        used[0] += 1
        assert self.calls_in_window(register.start) <= self.most, "more calls than the quota"
        for _ in range(dice.randrange(6)):
            await asyncio.sleep(0)
        if dice.random() < 0.3:  # refused later, or never sent
            used[0] -= 1
            worker.accounts.settle(verdict.taken, None)
            return
        actual = (1, dice.choice([0, 5, 50, 500]), 3, 2, dice.choice([0, 1, 5 * 10**6]))
        used[1:] = [a + b for a, b in zip(used[1:], actual[1:], strict=True)]
        worker.accounts.settle(verdict.taken, actual)

    def calls_in_window(self, end: int) -> int:
        """Of the slots that count where it is that one."""
        return sum(used[0] for start, used in self.used.items() if end - self.quota.period.rolling <= start <= end)

    async def operator(self, turns: int) -> None:
        for number in range(1, turns + 1):
            for _ in range(self.dice.randrange(10, 25)):  # longer than a question takes
                await asyncio.sleep(0)
            what = self.dice.random()
            if what < 0.5:
                await self.dice.choice(self.workers).accounts.states([self.quota], 10)
            elif self.quota.period.per != "month":
                self.clock.now += self.dice.choice([1, 59_999, 600_000, 3_600_000])
                for worker in self.workers:
                    worker.time_went_on()
            elif what < 0.8:
                self.most += 5
                for worker in self.workers:
                    worker.accounts.raise_by(self.quota, "bot", number, (5, 0, 0, 0, 0))
            else:
                self.quota = replace(self.quota, warn_at=self.dice.randrange(1000))  # a reload

    async def rest(self) -> None:
        for view in self.views:
            view.faults = 0.0
        async with asyncio.timeout(5):
            while any(worker.accounts.away for worker in self.workers):
                await asyncio.sleep(0)
        for _ in range(3):
            for worker in self.workers:
                await worker.rest()


MONTHLY = Period("month")


@pytest.mark.parametrize(
    ("faults", "period"), [(0.0, MONTHLY), (0.02, MONTHLY), (0.0, Period("hour")), (0.0, ROLLING), (0.02, ROLLING)]
)
def test_used_is_what_was_used_after_any_calls(monkeypatch: pytest.MonkeyPatch, faults: float, period: Period) -> None:
    """Nothing in flight: nothing reserved or held, and used is the sum of what calls really used."""
    monkeypatch.setattr(quota_accounts, "LOOK_AGAIN", 0.0)

    async def story(seed: int) -> None:
        crowd = Crowd(seed, 3, faults, period)
        agents = [crowd.agent(worker, 60) for worker in crowd.workers for _ in range(4)]
        await asyncio.gather(*agents, crowd.operator(30))
        await crowd.rest()
        for worker in crowd.workers:
            (state,) = await worker.accounts.states([crowd.quota], 10)
            assert (state.in_flight, state.reserved, state.held) == (0, (0,) * 5, (0,) * 5)
        (account,) = crowd.ledger.accounts.values()
        for start, slot in account.slots.items():
            if start > crowd.clock.now - 3_600_000:  # of older ones nobody asks any more
                assert slot.used[:2] == crowd.used.get(start, [0] * 5)[:2], f"seed {seed}"
                assert slot.used[4] == crowd.used.get(start, [0] * 5)[4], f"seed {seed}"
        for worker in crowd.workers:
            await worker.close()

    for seed in range(6):
        asyncio.run(story(seed))
