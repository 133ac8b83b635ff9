"""What a worker holds of a store's buckets, by clocks that are set by hand; the store is a model in the test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from fastgw.limits.leases import HELD_FOR, IDLE
from fastgw.limits.script import ScriptRequest, StoreKeys
from fastgw.policy.bucket import MICROS, BucketRate, bucket_rate
from fastgw.policy.limits import BucketCharge, Limit
from tests.limits.fakes import Caller, until
from tests.limits.workers import Clock, Deployment, Worker

LIMIT, EXACT, SHADOW = Limit("agent"), Limit("exact", exact=True), Limit("shadow", shadow=True)
THOUSAND = bucket_rate(1, 1, 1000)  # a lease is ten tokens
KEYS = StoreKeys("fastgw")


def charge(limit: Limit = LIMIT, rate: BucketRate = THOUSAND, cost: int = 1, subject: str = "a") -> BucketCharge:
    return BucketCharge(limit, (limit.name, subject), rate, cost)


def at_once(most: int, limit: Limit = LIMIT) -> BucketCharge:
    return BucketCharge(limit, (f"{limit.name}\n*", "a"), None, 1, most)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """The workers' clock, and the store's."""
    clock = Clock()
    for module in ("shared_buckets", "batcher"):
        monkeypatch.setattr(f"fastgw.limits.{module}.monotonic", clock.seconds)
    yield clock


def played(clock: Clock, story: Callable[[Deployment], Awaitable[None]]) -> None:
    async def main() -> None:
        deployment = Deployment(clock)
        try:
            async with asyncio.timeout(20):
                await story(deployment)
        finally:
            await deployment.close()

    asyncio.run(main())


def lacking(deployment: Deployment, asked: BucketCharge) -> int:
    """Tokens that a bucket lacks at the store."""
    bucket = deployment.store.model.buckets[KEYS.bucket(*asked.bucket)]
    assert asked.rate is not None
    return bucket.arithmetic.units() // asked.rate.price


def held(worker: Worker) -> int:
    """Tokens that it holds."""
    return sum(worker.shared.held().values())


async def leased(worker: Worker, asked: BucketCharge) -> None:
    """It holds a whole lease of a bucket that lacks that and two tokens."""
    for _ in range(2):
        assert (await worker.call(asked)).how == "store"
    assert held(worker) == 10


def test_a_busy_bucket_is_granted_from_what_was_taken_in_advance(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await deployment.worker()
        verdicts = [await worker.call(charge()) for _ in range(24)]
        assert [one.how for one in verdicts] == ["store"] * 2 + ["lease"] * 10 + ["store"] + ["lease"] * 10 + ["store"]
        assert [one.left for one in verdicts[:13]] == [*range(999, 986, -1)]
        assert {one.tightest for one in verdicts} == {charge()}
        assert held(worker) == 10
        assert lacking(deployment, charge()) == 34

    played(clock, story)


def test_a_bucket_that_is_asked_about_now_and_then_is_never_leased(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await deployment.worker()
        for _ in range(10):
            assert (await worker.call(charge())).how == "store"
            clock.go_on(300_000)
        assert held(worker) == 0

    played(clock, story)


def test_an_exact_limit_is_never_leased(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await deployment.worker()
        for _ in range(50):
            assert (await worker.call(charge(EXACT), at_once(500, EXACT))).how == "store"
        assert all(row.ahead == 0 for _, request in deployment.store.asked for row in request.rows)
        assert held(worker) == 0

    played(clock, story)


@pytest.mark.parametrize(("burst", "lease"), [(199, 0), (200, 2), (1000, 10), (5_000_000, 10_000)])
def test_a_hundredth_is_leased_and_at_least_two_tokens(clock: Clock, burst: int, lease: int) -> None:
    async def story(deployment: Deployment) -> None:
        worker, asked = await deployment.worker(), charge(rate=bucket_rate(1, 1, burst))
        for _ in range(2):
            await worker.call(asked)
        assert held(worker) == lease

    played(clock, story)


def test_nothing_is_leased_where_less_than_ten_leases_are_left(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await deployment.worker()
        await worker.call(charge(cost=899))
        await worker.call(charge())
        assert held(worker) == 10
        other = await deployment.worker()
        for _ in range(3):
            assert (await other.call(charge())).how == "store"
        assert held(other) == 0

    played(clock, story)


def test_a_lease_is_not_used_after_it_ran_out(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await deployment.worker()
        await leased(worker, charge())
        clock.go_on(HELD_FOR - 1)
        assert (await worker.call(charge())).how == "lease"
        clock.go_on(1)
        assert (await worker.call(charge())).how == "store"
        assert held(worker) == 0
        assert deployment.store.asked[-1][1].rows[0].held == 0
        clock.go_on(1 * MICROS)
        await worker.call(charge())
        # 12 were gone, 2 of them not lent: these came back for 1.6 s, then what was lent for 1 s, and 2 were taken
        assert lacking(deployment, charge()) == int(12 - 1.6 - 1 + 2)

    played(clock, story)


def test_a_lease_that_lies_idle_goes_back(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await deployment.worker()
        await leased(worker, charge())
        await worker.call(charge())
        clock.go_on(IDLE)
        await worker.heartbeat()
        assert held(worker) == 9
        clock.go_on(1)
        await worker.heartbeat()
        assert held(worker) == 0
        assert lacking(deployment, charge()) == 2, "of the three that were spent half a one is back"

    played(clock, story)


def test_all_or_nothing_is_held_for_a_grant(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker, other = await deployment.worker(), charge(EXACT)
        await leased(worker, charge())
        assert (await worker.call(charge(), other)).how == "store"
        assert (lacking(deployment, charge()), lacking(deployment, other)) == (12, 1)
        assert held(worker) == 9, "one of those held was taken for it"

    played(clock, story)


def test_a_refusal_gives_back_what_was_held_for_the_call(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker, narrow = await deployment.worker(), charge(EXACT, bucket_rate(1, 60, 1))
        await leased(worker, charge())
        assert (await worker.call(narrow)).refused is None
        for _ in range(3):
            verdict = await worker.call(charge(cost=3), narrow)
            assert (verdict.refused, verdict.wait, verdict.how) == (narrow, 60.0, "store")
        assert held(worker) == 10
        assert lacking(deployment, charge()) == 12

    played(clock, story)


def test_a_limit_in_shadow_refuses_nobody_and_charges_the_others(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker, narrow = await deployment.worker(), charge(SHADOW, bucket_rate(1, 60, 1))
        shadowed = [(await worker.call(narrow, charge())).shadowed for _ in range(3)]
        assert shadowed == [(), (SHADOW,), (SHADOW,)]
        assert (lacking(deployment, narrow), lacking(deployment, charge())) == (1, 12), (
            "the third call came out of the lease"
        )

    played(clock, story)


def test_a_rate_that_changes_holds_for_what_was_held_before(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await deployment.worker()
        await leased(worker, charge())
        small = charge(rate=bucket_rate(1, 1, 20))
        admitted = [(await worker.call(small)).refused is None for _ in range(50)]
        assert admitted.count(True) <= 20

    played(clock, story)


# -- calls at the same time ------------------------------------------------------------------------------------------


def running(deployment: Deployment, asked: BucketCharge) -> int:
    """Calls that the store counts."""
    return deployment.store.model.buckets[KEYS.bucket(*asked.bucket)].lent()


def test_permits_are_given_back_when_calls_are_over(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker, asked = await deployment.worker(), at_once(2)
        first, second = await worker.call(asked), await worker.call(asked)
        assert (await worker.call(asked)).refused == asked
        worker.shared.release(first.permits)
        await until(lambda: running(deployment, asked) == 1)
        assert (await worker.call(asked)).refused is None
        worker.shared.release([*second.permits, asked])
        await until(lambda: running(deployment, asked) == 0)

    played(clock, story)


def test_an_agent_that_left_before_the_verdict_keeps_no_permit(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker, asked = await deployment.worker(), at_once(2)
        for _ in range(5):
            caller = Caller([asked, charge()])
            worker.shared.ask(caller)
            caller.gone = True
            assert (await caller.wait()).permits == (asked,)
        await until(lambda: running(deployment, asked) == 0)
        assert lacking(deployment, charge()) >= 5, "a token that was taken stays taken"

    played(clock, story)


def test_what_was_allotted_to_an_idle_worker_is_not_used_when_it_ran_out(clock: Clock) -> None:
    """Two workers of which one was silent for as long as the store waits: never more than `most` at the same time."""

    async def story(deployment: Deployment) -> None:
        one, other, asked = await deployment.worker(), await deployment.worker(), at_once(1000)
        verdict = await one.call(asked)
        one.shared.release(verdict.permits)
        await one.rest()
        clock.go_on(4 * MICROS)
        first = [(await other.call(asked)).refused for _ in range(1001)]
        assert first.count(None) == 1000
        assert (await one.call(asked)).refused == asked

    played(clock, story)


def test_what_is_allotted_is_granted_without_asking(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker, asked = await deployment.worker(), at_once(1000)
        verdicts = [await worker.call(asked) for _ in range(12)]
        assert [one.how for one in verdicts] == ["store"] + ["lease"] * 10 + ["store"]
        assert running(deployment, asked) == 22

    played(clock, story)


def test_calls_that_run_are_told_as_long_as_they_do(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        one, other, asked = await deployment.worker(), await deployment.worker(), at_once(1)
        verdict = await one.call(asked)
        for _ in range(20):
            clock.go_on(500_000)
            await one.heartbeat()
            assert (await other.call(asked)).refused == asked
        one.shared.release(verdict.permits)
        await until(lambda: running(deployment, asked) == 0)
        assert (await other.call(asked)).refused is None

    played(clock, story)


# -- now and then ----------------------------------------------------------------------------------------------------


def test_buckets_that_are_full_again_are_forgotten(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await deployment.worker()
        await worker.call(*(charge(subject=f"{one}") for one in range(50)), at_once(5))
        await worker.call(charge(subject="slow", rate=bucket_rate(1, 3600, 5)))
        clock.go_on(1 * MICROS - 1)
        for _ in range(3):
            await worker.heartbeat()
        assert len(list(worker.shared.bucket_states(clock.now))) == 52
        clock.go_on(1)
        for _ in range(3):
            await worker.heartbeat()
        assert {one.subject for one in worker.shared.bucket_states(clock.now)} == {"a", "slow"}

    played(clock, story)


def test_an_operator_makes_a_bucket_full_here_and_at_the_store(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await deployment.worker()
        await leased(worker, charge())
        await worker.call(charge(cost=800))
        worker.shared.reset_all("agent", 1)
        await worker.rest()
        assert lacking(deployment, charge()) == held(worker) == 10
        assert (await worker.call(charge())).left == 999

    played(clock, story)


def test_the_request_of_a_worker_that_knows_nothing_is_empty(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await deployment.worker()
        await worker.heartbeat()
        assert deployment.store.asked[-1][1] == ScriptRequest(heartbeat=True, known=deployment.store.epoch)
        assert worker.shared.workers == 8

    played(clock, story)
