"""A month over restarts, failovers and clocks that jump; money with 200 calls in flight; what a store away allows."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
import redis

from fastgw.limits.quota_ledger import LocalLedger
from fastgw.limits.quota_script import AccountRow, decode_reply, encode_question
from fastgw.policy.quotas import Amounts, Period, Quota
from tests.limits.loads import place_at
from tests.limits.quota_worlds import (
    CALL,
    KEYS,
    MONTH,
    PLAYED,
    ROLLING,
    HandClock,
    QuotaWorker,
    WorkerView,
    calls,
    ledger,
)
from tests.limits.valkeys import Sentinels, Valkey

DAY = 86_400_000


def test_a_month_survives_restarts(tmp_path: Path) -> None:
    """Nothing is closed in order: each life of the worker ends as by SIGKILL."""

    async def story() -> None:
        clock, passed = HandClock(), 0
        for day in range(30):
            clock.now = MONTH + day * DAY
            worker = QuotaWorker(ledger(tmp_path, clock), clock=clock)
            for _ in range(5):
                passed += await worker.call(calls(100))
            await worker.spawner.close()
        assert passed == 100
        clock.now = MONTH + 30 * DAY
        worker = QuotaWorker(ledger(tmp_path, clock), clock=clock)
        assert await worker.call(calls(100)), "another month"
        await worker.close()

    asyncio.run(story())


def test_a_cut_journal_and_a_bad_line(tmp_path: Path) -> None:
    async def story() -> None:
        clock = HandClock()
        for _ in range(3):
            worker = QuotaWorker(ledger(tmp_path, clock), clock=clock)
            assert await worker.call(calls(3))
            await worker.close()
            with (tmp_path / "journal.jsonl").open("ab") as file:
                file.write(b'nonsense\n["cut')
        worker = QuotaWorker(ledger(tmp_path, clock), clock=clock)
        assert not await worker.call(calls(3))
        await worker.close()

    asyncio.run(story())


def test_a_disk_that_cannot_be_written_costs_no_call(tmp_path: Path) -> None:
    async def story() -> None:
        (tmp_path / "file").write_text("no folder")
        counted: list[str] = []
        kept = LocalLedger(tmp_path / "file", "w", HandClock(), lambda *labels: counted.append(labels[0]))
        worker = QuotaWorker(kept, clock=HandClock())
        assert [await worker.call(calls(2)) for _ in range(3)] == [True, True, False]
        assert set(counted) == {"fastgw_quota_journal_errors_total"}
        await worker.close()

    asyncio.run(story())


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
def test_a_year_of_days_has_no_day_twice(tmp_path: Path, zone: str) -> None:
    """Every half hour a call: each day of the zone lets three through, also those of 23 and 25 hours."""

    async def story() -> None:
        clock = HandClock()
        quota = calls(3, period=Period("day", zone))
        worker = QuotaWorker(LocalLedger(None, "w", clock), clock=clock)
        days: dict[int, int] = {}
        for _ in range(48 * 220):
            clock.now += 1_800_000
            for account in worker.accounts._accounts.values():
                account.until = account.refused_until = 0.0  # monotonic time went on as well
            days[quota.period.boundaries(clock.now)[1]] = days.get(quota.period.boundaries(clock.now)[1], 0) + (
                await worker.call(quota)
            )
        assert set(list(days.values())[1:-1]) == {3}
        await worker.close()

    asyncio.run(story())


def test_a_clock_that_jumps_a_day_and_comes_back() -> None:
    async def story() -> None:
        clock = HandClock(MONTH + DAY)
        kept = LocalLedger(None, "w", clock)
        quota, passed = calls(5, period=Period("day")), []
        for jump in (0, DAY, -DAY, -DAY, DAY):
            clock.now += jump
            worker = QuotaWorker(WorkerView(kept, f"w{len(passed)}"), clock=HandClock(MONTH))
            passed.append(sum([await worker.call(quota) for _ in range(7)]))
            await worker.close()
        assert passed == [5, 5, 0, 5, 0], "what a day had left it has still"

    asyncio.run(story())


def test_two_machines_whose_clocks_are_5_s_apart() -> None:
    """The store's clock decides, also where one machine's boundaries do not hold its now."""

    async def story() -> None:
        clock = HandClock(MONTH + 2_000)
        kept = LocalLedger(None, "w", clock)
        passed = 0
        workers = [
            QuotaWorker(WorkerView(kept, f"w{at}"), 2, HandClock(clock.now + apart))
            for at, apart in enumerate((-5000, 0))
        ]
        for turn in range(12):
            passed += await workers[turn % 2].call(calls(10))
        assert passed == 10
        for worker in workers:
            await worker.close()

    asyncio.run(story())


def test_a_rolling_window_is_never_exceeded() -> None:
    async def story() -> None:
        clock, dice = HandClock(), random.Random(5)
        worker = QuotaWorker(LocalLedger(None, "w", clock), clock=clock)
        passed: list[int] = []
        for _ in range(3000):
            clock.now += dice.randrange(200_000)
            for account in worker.accounts._accounts.values():
                account.until = account.refused_until = 0.0
            if await worker.call(calls(20, period=ROLLING)):
                passed.append(clock.now)
        assert all(late - early >= ROLLING.rolling for early, late in zip(passed, passed[20:], strict=False))
        assert len(passed) > 1000
        await worker.close()

    asyncio.run(story())


@pytest.mark.parametrize("workers", [8])
def test_workers_never_exceed_a_quota_of_calls(workers: int) -> None:
    async def story(place: object) -> None:
        made = [QuotaWorker.of_store(place, f"w{at}", workers) for at in range(workers)]  # type: ignore[arg-type]

        async def agent(worker: QuotaWorker) -> int:
            passed = 0
            for turn in range(250):
                passed += await worker.call(calls(3000, warn_at=800))
                if turn % 50 == 49:
                    await worker.rest()
            return passed

        assert sum(await asyncio.gather(*[agent(worker) for worker in made for _ in range(2)])) <= 3000
        for worker in made:
            await worker.rest()
        left = [await made[0].call(calls(3000)) for _ in range(60)]
        assert not left[-1]
        (state,) = await made[0].accounts.states([calls(3000)], 10)
        assert state.used[0] == 3000
        assert sum(len(worker.warned) for worker in made) == 1
        for worker in made:
            await worker.close()

    with Valkey() as server:
        asyncio.run(story(place_at(server.url)))


def test_money_is_exceeded_by_no_more_than_200_calls_cost_beyond_their_reservation() -> None:
    async def story() -> None:
        quota = Quota("q", ("agent",), amounts=(-1, -1, -1, -1, 10_000))
        worker = QuotaWorker(LocalLedger(None, "w", HandClock()), clock=HandClock())
        verdicts = [await worker.reserve(quota, (1, 1, 1, 1, 10)) for _ in range(200)]
        (state,) = await worker.accounts.states([quota], 10)
        assert (state.in_flight, state.reserved[4]) == (200, 2000)
        for verdict in verdicts:
            assert verdict.refused is None
            worker.accounts.settle(verdict.taken, (1, 0, 0, 0, 75))
        await worker.rest()
        assert (await worker.reserve(quota, (1, 1, 1, 1, 10))).refused is not None
        (state,) = await worker.accounts.states([quota], 10)
        assert state.used[4] == 15_000 <= 10_000 + 200 * (75 - 10)
        await worker.close()

    asyncio.run(story())


def test_what_was_refused_later_gives_back_all() -> None:
    async def story() -> None:
        worker = QuotaWorker(LocalLedger(None, "w", HandClock()), clock=HandClock())
        for _ in range(50):
            verdict = await worker.reserve(calls(1))
            assert verdict.refused is None
            worker.accounts.settle(verdict.taken, None)
        await worker.close()

    asyncio.run(story())


def test_lowered_raised_and_ordered() -> None:
    async def story() -> None:
        worker = QuotaWorker(LocalLedger(None, "w", HandClock()), clock=HandClock())
        assert [await worker.call(calls(5)) for _ in range(4)] == [True] * 4
        assert not await worker.call(calls(3)), "lowered below what is spent"
        assert [await worker.call(calls(6)) for _ in range(3)] == [True, True, False]
        more: Amounts = (2, 0, 0, 0, 0)
        for _ in range(3):
            worker.accounts.raise_by(calls(6), "bot", 7, more)  # the same order, repeated
        await worker.rest()
        assert [await worker.call(calls(6)) for _ in range(3)] == [True, True, False]
        await worker.close()

    asyncio.run(story())


@pytest.mark.parametrize(("failure", "passed"), [("deny", 0), ("local", 5), ("allow", 30)])
def test_while_the_store_is_away(failure: str, passed: int) -> None:
    async def story() -> None:
        clock = HandClock()
        kept = LocalLedger(None, "w", clock)
        view = WorkerView(kept, "w0")
        worker = QuotaWorker(view, 2, clock)
        quota = calls(20, on_failure=failure)
        assert [await worker.call(quota) for _ in range(10)] == [True] * 10
        await worker.rest()
        view.down = True
        assert sum([await worker.call(quota) for _ in range(30)]) == passed
        view.ledger = LocalLedger(None, "w", clock)  # and it comes back empty
        view.down = False
        async with asyncio.timeout(5):
            while worker.accounts.away:
                await asyncio.sleep(0.01)
        await worker.rest()
        (state,) = await worker.accounts.states([quota], 10)
        assert state.used[0] == 10 + passed, "it is told all that was spent"
        await worker.close()

    asyncio.run(story())


def test_a_failover_forgets_nothing() -> None:
    """The primary is killed while a worker spends: the new one is told what the old one had not passed on."""

    async def story(watched: Sentinels) -> None:
        worker = QuotaWorker.of_store(place_at(watched.url), "w0")
        quota = calls(100_000, on_failure="allow")
        passed = 0
        for _ in range(300):
            passed += await worker.call(quota)
        await asyncio.to_thread(watched.kill_primary)
        async with asyncio.timeout(20):
            while not worker.counted or worker.accounts.away:
                passed += await worker.call(quota)
                await worker.rest()
                await asyncio.sleep(0.01)
        await worker.rest()
        (state,) = await worker.accounts.states([quota], 10)
        assert state.used[0] == passed
        await worker.close()

    with Sentinels() as watched:
        asyncio.run(story(watched))


def test_lua_and_python_say_the_same() -> None:
    """Random rows, by a clock that is played: thrown forward and back by a day now and then."""
    dice, clock = random.Random(3), HandClock(1_700_000_000_000)
    kept, sequences = LocalLedger(None, "w", clock), dict.fromkeys([w + k for w in "abc" for k in "123"], 1)
    granted: dict[tuple[str, int], list[int]] = {}
    with Valkey() as server:
        client = server.client()
        for _ in range(2500):
            clock.now += dice.choice([0, 1, 1000, 60_000, 3_600_000, -1000, -5000])
            clock.now += dice.choice([DAY, -DAY]) if dice.random() < 0.02 else 0
            worker, account = dice.choice("abc"), dice.choice("123")
            sequences[worker + account] += dice.choice([1, 1, 1, 0])
            about = clock.now + dice.choice([0, 0, 3_600_000, 9_000_000])
            period = (0, *Period("hour").boundaries(about)) if account == "1" else (1, 60_000, 3_600_000)
            told = [(slot, *had) for (who, slot), had in granted.items() if who == worker + account][-3:]
            row = AccountRow(
                f"acc{account}", "index", f'"{account}"', period,
                (1000, 5000, -1, -1, 10**9) if account != "3" else (-1, -1, -1, -1, 50),
                dice.choice([0, 800]), sequences[worker + account],
                [(slot, *[max(0, one + dice.choice([0, 0, 1, -1, 3])) for one in had]) for slot, *had in told],
                _random(dice, 0, 1, 5, 40), _random(dice, 0, 0, 2),
                dice.choice([(), (), (dice.randint(1, 60), 1, 2, 0, 0, 3)]), ended=int(dice.random() < 0.05),
            )  # fmt: skip
            (mine,) = kept.decide(worker, [row]).rows
            argument = encode_question([row], worker, "e", 0)
            answer = client.eval(PLAYED, 3, KEYS.epoch, row.key, row.index, argument, clock.now)
            (theirs,) = decode_reply(answer, 1).rows
            assert mine == theirs, row
            if mine.status < 2:
                had = granted.setdefault((worker + account, mine.slot), [0] * 5)
                granted[worker + account, mine.slot] = [a + b for a, b in zip(had, mine.granted, strict=True)]


def _random(dice: random.Random, *values: int) -> Amounts:
    a, b, c, d, e = (dice.choice(values) for _ in range(5))
    return a, b, c, d, e


@pytest.mark.parametrize("who", ["../../etc", "a\nb", "é" * 10_000, "", ";w0 9 9 9 9 9 9"])
def test_hostile_subjects_have_accounts_of_their_own(who: str) -> None:
    async def story(place: object) -> None:
        worker = QuotaWorker.of_store(place, "w0")  # type: ignore[arg-type]
        assert (await worker.reserve(calls(1), CALL, who)).refused is None
        assert (await worker.reserve(calls(1), CALL, who)).refused is not None
        assert (await worker.reserve(calls(1), CALL, "another")).refused is None
        assert len(await worker.accounts.states([calls(1)], 10)) == 2
        await worker.close()

    with Valkey() as server:
        asyncio.run(story(place_at(server.url)))
        assert all(len(key) < 80 for key in redis.Redis.from_url(server.url).scan_iter())
