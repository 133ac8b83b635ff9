"""Ways to spend more than a quota, to be refused what is left, or to cost others the store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from time import monotonic, sleep

import msgspec
import pytest
import uvloop

from fastgw.limits import quota_accounts, quota_store, redis_connection
from fastgw.limits.batcher import DEADLINE, StoreAway
from fastgw.limits.quota_ledger import LocalLedger
from fastgw.limits.quota_script import AccountRow, LedgerReply, decode_reply
from fastgw.limits.script import BadReply
from fastgw.policy.limits import Subject
from fastgw.policy.quotas import Period, Quota
from tests.limits.loads import place_at
from tests.limits.quota_worlds import CALL, KEYS, MONTH, ROLLING, HandClock, QuotaWorker, WorkerView, calls
from tests.limits.valkeys import Valkey

PATIENT = 5.0
"""Seconds for an answer: a machine that is busy is not to be taken for a store that is away."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (quota_store, redis_connection):
        monkeypatch.setattr(place, "CONNECT_WITHIN", PATIENT)
    monkeypatch.setattr(quota_store, "DEADLINE", PATIENT)


class DeadLedger:
    """A ledger that never answers."""

    async def ask(self, rows: list[AccountRow], index: str = "", most: int = 0) -> LedgerReply:
        return await asyncio.get_running_loop().create_future()


class BrokenLedger(WorkerView):
    """A ledger whose client fails in a way that nobody knows of, a few times."""

    times = 3

    async def ask(self, rows: list[AccountRow], index: str = "", most: int = 0) -> LedgerReply:
        self.times -= 1
        if self.times >= 0:
            raise LookupError("a defect")
        return await super().ask(rows, index, most)


def local(clock: HandClock | None = None) -> LocalLedger:
    return LocalLedger(None, "w", clock or HandClock())


async def found_again(worker: QuotaWorker) -> None:
    async with asyncio.timeout(10):
        while worker.accounts.away:
            await asyncio.sleep(0)


def test_a_quota_in_shadow_neither_refuses_nor_delays() -> None:
    """Also where the store hangs: each call has its verdict at once, and what would have been refused is counted."""

    async def story() -> None:
        worker, quota = QuotaWorker(DeadLedger(), clock=HandClock()), calls(3, shadow=True)
        charges = [(worker.accounts.find(quota, "bot"), CALL)]
        verdicts = [worker.accounts.admit(charges) for _ in range(5)]
        assert [verdict is not None and verdict.refused for verdict in verdicts] == [None] * 5
        assert [len(verdict.shadowed) for verdict in verdicts if verdict is not None] == [0, 0, 0, 1, 1]
        await worker.close()

    asyncio.run(story())


def test_what_is_spent_in_shadow_is_told_and_seen_by_the_others() -> None:
    async def story() -> None:
        kept, quota = local(), calls(3, shadow=True)
        workers = [QuotaWorker(WorkerView(kept, f"w{at}"), 2, HandClock()) for at in (0, 1)]
        for worker in workers:
            assert all([await worker.call(quota) for _ in range(2)])
            await worker.rest()
        verdict = await workers[1].reserve(quota)
        assert (verdict.refused, verdict.shadowed) == (None, (quota,))
        (state,) = await workers[0].accounts.states([quota], 10)
        assert state.used[0] == 4
        for worker in workers:
            await worker.close()

    asyncio.run(story())


def test_other_things_are_counted_while_calls_are_in_flight() -> None:
    """What a call has not reserved it cannot give back: neither units that nobody granted, nor less than nothing."""

    async def story() -> None:
        old, new = calls(10), Quota("q", ("agent",), amounts=(10, 100, -1, -1, -1))
        worker = QuotaWorker(local(), clock=HandClock())
        for before, after in ((old, new), (new, old)):
            verdict = await worker.reserve(before, (1, 90, 1, 1, 1))
            assert await worker.call(after, used=(1, 1, 0, 0, 0))
            worker.accounts.settle(verdict.taken, (1, 2, 0, 0, 0))
            await worker.rest()
            (state,) = await worker.accounts.states([after], 10)
            assert (state.in_flight, state.reserved, state.held) == (0, (0,) * 5, (0,) * 5)
        (state,) = await worker.accounts.states([new], 10)
        assert state.used[:2] == (4, 3), "two of the tokens were used while nobody counted them"
        await worker.close()

    asyncio.run(story())


def test_another_by_is_another_account() -> None:
    async def story() -> None:
        worker = QuotaWorker(local(), clock=HandClock())
        assert await worker.call(calls(1))
        teams = replace(calls(1), by=("claims.team",))
        assert await worker.call(teams), "a team called as that agent has spent nothing"
        assert [state.quota.by for state in await worker.accounts.states([teams], 10)] == [("claims.team",)]
        await worker.close()

    asyncio.run(story())


def test_an_amount_of_money_in_coarser_units_begins_anew() -> None:
    async def story() -> None:
        fine = Quota("q", ("agent",), amounts=(-1, -1, -1, -1, 8 * 10**15))
        coarse = replace(fine, amounts=(-1, -1, -1, -1, 2 * 10**15), unit=10)
        worker = QuotaWorker(local(), clock=HandClock())
        assert await worker.call(fine, used=(1, 0, 0, 0, 7 * 10**15))
        assert await worker.call(coarse), "units of one are not read as those of the other"
        await worker.close()

    asyncio.run(story())


def test_no_answer_and_no_number_is_too_large() -> None:
    """What a result claims to have cost does not keep the store from anybody."""

    async def story(place: object) -> None:
        worker = QuotaWorker.of_store(place, "w0")  # type: ignore[arg-type]
        quota = Quota("q", ("agent",), amounts=(-1, -1, -1, -1, 10**9))
        assert await worker.call(quota, used=(1, 0, 0, 0, 10**40))
        await worker.rest()
        assert (await worker.reserve(quota, (1, 1, 1, 1, 10**30))).how == "store"
        assert (await worker.reserve(quota, CALL, "another")).refused is None
        assert not worker.counted
        await worker.close()

    with Valkey() as server:
        asyncio.run(story(place_at(server.url)))


@pytest.mark.parametrize("now", [2**62, 10**15])
def test_a_store_without_a_clock_is_away(now: int) -> None:
    with pytest.raises(BadReply):
        decode_reply(msgspec.msgpack.encode((1, "e", now, [], [])), 0)


def test_what_strangers_wrote_into_the_store_costs_nobody_else() -> None:
    async def story(server: Valkey) -> None:
        worker, client = QuotaWorker.of_store(place_at(server.url), "w0"), server.client()
        key = KEYS.account(calls(1).kept_as, "bot")
        client.hset(key, mapping={"nonsense": "1", str(MONTH): "nan -5 0x10 1e400 1.5 ; ;;w0x1 99;w0x1"})
        assert (await worker.reserve(calls(5))).how == "store"
        assert not worker.counted
        await worker.close()

    with Valkey() as server:
        asyncio.run(story(server))


def test_defects_while_the_store_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_accounts, "LOOK_AGAIN", 0.0)

    async def story() -> None:
        worker = QuotaWorker(BrokenLedger(local(), "w"), clock=HandClock())
        assert not await worker.call(calls(1, on_failure="deny"))
        await found_again(worker)
        assert await worker.call(calls(1, on_failure="deny"))
        await worker.close()

    asyncio.run(story())


def test_an_answer_that_was_lost_leaves_nothing_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store granted the only unit, and nobody knows it."""
    monkeypatch.setattr(quota_accounts, "LOOK_AGAIN", 0.0)

    class Forgetful(WorkerView):
        async def ask(self, rows: list[AccountRow], index: str = "", most: int = 0) -> LedgerReply:
            reply = await super().ask(rows, index, most)
            if rows and not self.down:
                self.down = True
                raise StoreAway("timeout", "no answer in time")
            return reply

    async def story() -> None:
        view = Forgetful(local(), "w")
        worker = QuotaWorker(view, clock=HandClock())
        assert not await worker.call(calls(1, on_failure="deny"))
        view.down = False
        view.__class__ = WorkerView
        await found_again(worker)
        assert await worker.call(calls(1, on_failure="deny"))
        await worker.close()

    asyncio.run(story())


def test_a_store_that_forgot_everything_hears_it_from_idle_workers_too() -> None:
    async def story(server: Valkey) -> None:
        workers = [QuotaWorker.of_store(place_at(server.url), f"w{at}", 2) for at in (0, 1)]
        assert all([await workers[0].call(calls(10)) for _ in range(9)])
        await workers[0].rest()
        server.client().flushall()
        await workers[0].rest()  # no call, only its heartbeat
        assert sum([await workers[1].call(calls(10)) for _ in range(5)]) == 1
        for worker in workers:
            await worker.close()

    with Valkey() as server:
        asyncio.run(story(server))


def test_a_store_that_answers_only_what_changes_nothing_is_asked_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one whose memory is full: looked for longer each time, and not a line in the log for each call."""
    monkeypatch.setattr(quota_accounts, "LOOK_AGAIN", 0.05)

    async def story(server: Valkey) -> None:
        worker = QuotaWorker.of_store(place_at(server.url), "w0")
        assert await worker.call(calls(9, on_failure="deny"))
        server.ask("CONFIG", "SET", "maxmemory", "1")
        end = monotonic() + 0.8
        while monotonic() < end:
            await worker.call(calls(9, on_failure="deny"))
            await asyncio.sleep(0.01)
        assert 1 <= sum(worker.counted.values()) <= 6, worker.counted
        await worker.close()

    with Valkey() as server:
        asyncio.run(story(server))


@pytest.mark.parametrize("period", [ROLLING, Period("hour")])
def test_an_operators_order_counts_once_whoever_repeats_it_and_when(period: Period) -> None:
    async def story() -> None:
        clock, quota = HandClock(MONTH + 3_599_999), calls(5, period=period)
        kept = local(clock)
        workers = [QuotaWorker(WorkerView(kept, f"w{at}"), 2, clock) for at in (0, 1)]
        for worker in workers:
            worker.accounts.raise_by(quota, "bot", 7, (2, 0, 0, 0, 0))
            await worker.rest()
            clock.now += 1  # the other hears it in the next slot
        (state,) = await workers[1].accounts.states([quota], 10)
        assert state.raised[0] == (2 if period.rolling else 0)
        for worker in workers:
            await worker.close()

    asyncio.run(story())


def test_an_operators_order_is_for_the_period_in_which_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is away until that is over."""
    monkeypatch.setattr(quota_accounts, "LOOK_AGAIN", 0.0)

    async def story() -> None:
        clock, quota = HandClock(), calls(5, period=Period("hour"), on_failure="deny")
        view = WorkerView(local(clock), "w")
        worker = QuotaWorker(view, 1, clock)
        assert await worker.call(quota)
        await worker.rest()
        view.down = True
        worker.accounts.raise_by(quota, "bot", 7, (2, 0, 0, 0, 0))
        await worker.rest()
        clock.now += 3_600_000
        view.down = False
        await found_again(worker)
        await worker.rest()
        (state,) = await worker.accounts.states([quota], 10)
        assert state.raised[0] == 0
        await worker.close()

    asyncio.run(story())


def test_local_spends_no_more_than_its_part_however_long_the_store_is_away() -> None:
    """Of a rolling window, and of two accounts of which one refuses."""

    async def story() -> None:
        clock = HandClock()
        view = WorkerView(local(clock), "w")
        worker = QuotaWorker(view, 2, clock)
        rolling = calls(20, period=ROLLING, on_failure="local")
        small = replace(rolling, name="small", amounts=(2, -1, -1, -1, -1))
        assert await worker.call(rolling) and await worker.call(small)
        await worker.rest()
        view.down = True
        passed = 0
        for _ in range(50):
            clock.now += rolling.period.width
            worker.time_went_on()
            both = [(worker.accounts.find(one, "bot"), CALL) for one in (rolling, small)]
            verdict = worker.accounts.admit(both) or await worker.accounts.ask(both)
            assert verdict.refused is not None, "one is left, of which this worker's part is none"
            passed += await worker.call(rolling)
        assert passed == 9
        await worker.close()

    asyncio.run(story())


def test_local_in_a_new_period() -> None:
    async def story() -> None:
        clock = HandClock()
        view = WorkerView(local(clock), "w")
        worker, quota = QuotaWorker(view, 1, clock), calls(3, period=Period("hour"), on_failure="local")
        assert [await worker.call(quota) for _ in range(4)] == [True] * 3 + [False]
        view.down = True
        clock.now += 3_600_000
        worker.time_went_on()
        assert [await worker.call(quota) for _ in range(4)] == [True] * 3 + [False]
        await worker.close()

    asyncio.run(story())


def test_a_refused_call_leaves_what_others_can_use() -> None:
    async def story() -> None:
        quota = Quota("q", ("agent",), amounts=(100, 10, -1, -1, -1))
        kept = local()
        workers = [QuotaWorker(WorkerView(kept, f"w{at}"), 2, HandClock()) for at in (0, 1)]
        assert await workers[0].call(quota, (1, 3, 0, 0, 0), (1, 3, 0, 0, 0))
        assert (await workers[0].reserve(quota, (1, 8, 0, 0, 0))).refused is not None
        async with asyncio.timeout(1):
            while workers[0].accounts._sending:
                await asyncio.sleep(0)
        assert await workers[1].call(quota, (1, 7, 0, 0, 0), (1, 7, 0, 0, 0))
        for worker in workers:
            await worker.close()

    asyncio.run(story())


def test_accounts_that_come_and_go_leave_no_trace_but_what_they_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that calls once a day for a month: the store keeps no register of lives that are over."""
    monkeypatch.setattr(quota_accounts, "FORGET_AFTER", 0.5)

    async def story(server: Valkey) -> None:
        worker, quota = QuotaWorker.of_store(place_at(server.url), "w0"), calls(40)
        sizes = []
        for _ in range(30):
            assert await worker.call(quota)
            async with asyncio.timeout(5):
                while list(worker.accounts):
                    await worker.rest()
            await worker.rest()
            (text,) = server.client().hgetall(KEYS.account(quota.kept_as, "bot")).values()
            sizes.append(len(text))
        assert max(sizes) - min(sizes) < 5
        assert sum([await worker.call(quota) for _ in range(12)]) == 10
        await worker.close()

    with Valkey() as server:
        asyncio.run(story(server))


def test_an_account_is_not_forgotten_while_a_call_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_accounts, "FORGET_AFTER", 0.5)

    async def story() -> None:
        kept = local()
        worker, quota = QuotaWorker(WorkerView(kept, "w"), clock=HandClock()), calls(10)
        assert await worker.call(quota)
        await worker.rest()
        (account,) = worker.accounts
        account.used_at -= 1
        asked = asyncio.ensure_future(worker.reserve(quota))
        await asyncio.sleep(0)
        for _ in range(3):
            worker.accounts.heartbeat()
        worker.accounts.settle((await asked).taken, None)
        await worker.rest()
        (slot,) = kept.accounts[account.key].slots.values()
        assert slot.used[0] == 1, "what the second reserved is back"
        await worker.close()

    asyncio.run(story())


@pytest.mark.parametrize("who", ["\ud800", ("a", None), ("\udfff\n", "b" * 10_000)])
def test_subjects_that_are_no_text(who: Subject) -> None:
    async def story(place: object) -> None:
        quota = replace(calls(1), by=("agent",) if isinstance(who, str) else ("agent", "claims.team"))
        worker = QuotaWorker.of_store(place, "w0")  # type: ignore[arg-type]
        charges = [(worker.accounts.find(quota, who), CALL)]
        assert (await worker.accounts.ask(charges)).refused is None
        assert (await worker.accounts.ask(charges)).refused is not None
        another = QuotaWorker.of_store(place, "w1")  # type: ignore[arg-type]
        (state,) = await another.accounts.states([quota], 10)
        assert state.used[0] == 1
        assert msgspec.json.encode(state.report())
        for one in (worker, another):
            await one.close()

    with Valkey() as server:
        asyncio.run(story(place_at(server.url)))


def test_a_report_does_not_take_the_warning_from_operators() -> None:
    async def story() -> None:
        kept = local()
        workers = [QuotaWorker(WorkerView(kept, f"w{at}"), 2, HandClock()) for at in (0, 1)]
        assert all([await workers[0].call(calls(10)) for _ in range(9)])
        await workers[1].accounts.states([calls(10, warn_at=500)], 10)  # a reload, and a look
        assert sum(len(worker.warned) for worker in workers) == 1
        for worker in workers:
            await worker.close()

    asyncio.run(story())


def test_what_a_call_used_beyond_its_reservation_is_told_at_once() -> None:
    """So a worker that is killed a moment later has lost nothing: the store knows without any further call."""

    async def story(server: Valkey) -> None:
        worker = QuotaWorker.of_store(place_at(server.url), "w0")
        quota = Quota("q", ("agent",), amounts=(-1, -1, -1, -1, 10**12))
        verdict = await worker.reserve(quota, (1, 1, 1, 1, 1))
        worker.accounts.settle(verdict.taken, (1, 0, 0, 0, 5 * 10**9))
        key = KEYS.account(quota.kept_as, "bot")
        async with asyncio.timeout(1):
            while (text := next(iter(server.client().hgetall(key).values()))).split()[4] != b"5000000000":
                await asyncio.sleep(0.001)
        assert text
        await worker.close()  # as by SIGKILL: nothing more is said

    with Valkey() as server:
        asyncio.run(story(server))


def test_after_a_failover_that_lost_the_last_second_idle_workers_say_it_again() -> None:
    """The new primary has what the old one had a moment before; all connections are cut; nobody calls any more."""

    async def story(server: Valkey) -> None:
        worker, client = QuotaWorker.of_store(place_at(server.url), "w0"), server.client()
        key = KEYS.account(calls(20).kept_as, "bot")
        assert all([await worker.call(calls(20)) for _ in range(5)])
        replicated = client.dump(key)
        assert all([await worker.call(calls(20)) for _ in range(7)])
        await worker.rest()
        client.restore(key, 0, replicated, replace=True)
        client.client_kill_filter(_type="normal", skipme=True)
        async with asyncio.timeout(5):
            while [text.split()[0] for text in client.hgetall(key).values()] != [b"12"]:
                worker.accounts.heartbeat()
                await asyncio.sleep(0.01)
        await worker.close()

    with Valkey() as server:
        asyncio.run(story(server))


def test_a_worker_that_was_late_itself_does_not_take_the_store_for_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_store, "DEADLINE", DEADLINE)

    async def story(server: Valkey) -> None:
        worker, quota = QuotaWorker.of_store(place_at(server.url), "w0"), calls(100, on_failure="deny")
        passed = 0
        for _ in range(8):
            asked = asyncio.ensure_future(worker.reserve(quota))
            for _ in range(4):
                await asyncio.sleep(0)
            sleep(0.2)  # the whole process stands still, while the answer comes
            passed += (await asked).refused is None
            await found_again(worker)
        assert passed >= 6, "on a busy machine the store itself may be late"
        await worker.close()

    with Valkey() as server:
        uvloop.run(story(server))
