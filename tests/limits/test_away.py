"""What becomes of calls while the store is away, and what it is told when it is back or has lost what it knew.

By clocks that are set by hand; the store is a model in the test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from fastgw.policy.bucket import MICROS, BucketRate, bucket_rate
from fastgw.policy.limits import BucketCharge, Limit
from tests.limits.fakes import Caller, until
from tests.limits.test_leases import at_once, charge, clock, held, lacking, leased, played, running
from tests.limits.workers import WORKERS, Clock, Deployment, Worker

__all__ = ["clock"]
EIGHTY = bucket_rate(1, 1, 80)  # ten for each of eight workers
TRIGGER = Limit("trigger", exact=True)
LOCAL, ALLOW, DENY = (Limit(how, on_failure=how, exact=True) for how in ("local", "allow", "deny"))


def of(limit: Limit, rate: BucketRate = EIGHTY, cost: int = 1) -> BucketCharge:
    return charge(limit, rate, cost)


async def away(deployment: Deployment) -> Worker:
    """A worker that has lost its store."""
    worker = await deployment.worker()
    deployment.store.goes()
    await worker.call(of(TRIGGER))
    assert worker.shared.state == "away"
    return worker


async def back(deployment: Deployment) -> None:
    """The store returns, and all workers have found it and said what they had to say."""
    deployment.store.returns()
    for worker in deployment.workers:
        await until(lambda worker=worker: worker.shared.state == "up")
        await worker.rest()


# -- decided without it ----------------------------------------------------------------------------------------------


def test_each_worker_grants_its_share_and_no_more(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await away(deployment)
        verdicts = [await worker.call(of(LOCAL)) for _ in range(12)]
        assert {one.how for one in verdicts} == {"local"}
        assert [one.refused is None for one in verdicts] == [True] * 10 + [False] * 2
        assert verdicts[-1].wait == 8.0, "an eighth of the rate"
        assert [one.left for one in verdicts[:10]] == [*range(9, -1, -1)]
        clock.go_on(8 * MICROS - 1)
        assert (await worker.call(of(LOCAL))).refused is not None
        clock.go_on(1)
        assert (await worker.call(of(LOCAL))).refused is None

    played(clock, story)


def test_a_share_is_one_call_at_least(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker, asked = await away(deployment), of(LOCAL, bucket_rate(1, 60, 3), cost=3)
        assert (await worker.call(asked)).refused is None
        assert (await worker.call(asked)).wait == 60.0 * WORKERS

    played(clock, story)


def test_a_limit_that_must_hold_denies(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await away(deployment)
        verdict = await worker.call(of(ALLOW), of(LOCAL), of(DENY))
        assert (verdict.how, verdict.refused) == ("deny", of(DENY))
        assert (await worker.call(of(replace(DENY, shadow=True)))).refused is None

    played(clock, story)


def test_a_limit_that_may_give_way_lets_through_and_counts(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await away(deployment)
        for _ in range(100):
            verdict = await worker.call(of(ALLOW))
            assert (verdict.how, verdict.refused) == ("allow", None)
        assert worker.counted["fastgw_limit_fail_open_total", "allow"] == 100
        both = [(await worker.call(of(ALLOW), of(LOCAL))).refused for _ in range(11)]
        assert both == [None] * 10 + [of(LOCAL)._replace(rate=EIGHTY.among(WORKERS))]

    played(clock, story)


def test_calls_at_the_same_time_are_shared_out_too(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker, asked = await away(deployment), at_once(3 * WORKERS)
        verdicts = [await worker.call(asked) for _ in range(4)]
        assert [one.refused is None for one in verdicts] == [True, True, True, False]
        worker.shared.release(verdicts[0].permits)
        assert (await worker.call(asked)).refused is None
        await back(deployment)
        assert running(deployment, asked) == 3

    played(clock, story)


def test_what_was_taken_in_advance_is_still_good(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await deployment.worker()
        await leased(worker, charge())
        deployment.store.goes()
        verdicts = [await worker.call(charge()) for _ in range(12)]
        assert [one.how for one in verdicts] == ["lease"] * 10 + ["local"] * 2

    played(clock, story)


def test_all_that_was_under_way_is_decided_without_it(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await deployment.worker()
        deployment.store.wrong = lambda: None
        callers = [Caller([of(one)]) for one in (LOCAL, ALLOW, DENY) for _ in range(50)]
        for caller in callers:
            worker.shared.ask(caller)
        verdicts = [await caller.wait() for caller in callers]
        assert [one.how for one in verdicts] == ["local"] * 50 + ["allow"] * 50 + ["deny"] * 50
        assert sum(one.refused is None for one in verdicts[:50]) == 10
        assert worker.counted["fastgw_store_errors_total", "timeout"] == 1
        deployment.store.goes()

    played(clock, story)


def test_an_agent_that_left_meanwhile_keeps_no_permit(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker, asked = await deployment.worker(), at_once(WORKERS)
        deployment.store.goes()
        caller = Caller([asked])
        caller.gone = True
        worker.shared.ask(caller)
        await caller.wait()
        assert (await worker.call(asked)).refused is None

    played(clock, story)


# -- told when it is back --------------------------------------------------------------------------------------------


def test_what_was_spent_meanwhile_is_told(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await deployment.worker()
        await worker.call(of(LOCAL), of(ALLOW))
        deployment.store.goes()
        for _ in range(12):
            await worker.call(of(LOCAL))
            await worker.call(of(ALLOW, cost=3))
        await back(deployment)
        assert (lacking(deployment, of(LOCAL)), lacking(deployment, of(ALLOW))) == (11, 37)
        assert (await worker.call(of(LOCAL))).how == "store"

    played(clock, story)


def test_more_than_a_bucket_leaves_it_empty(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await away(deployment)
        for _ in range(200):
            await worker.call(of(ALLOW))
        await back(deployment)
        verdict = await worker.call(of(ALLOW))
        assert (verdict.refused, verdict.wait) == (of(ALLOW), 1.0)

    played(clock, story)


def test_what_was_to_be_told_is_told_though_the_store_goes_again(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await away(deployment)
        for _ in range(10):
            await worker.call(of(LOCAL))
        gone = _answering(deployment, probes=2)
        await until(gone)  # the batch that tells is lost
        await back(deployment)
        assert lacking(deployment, of(LOCAL)) == 10

    played(clock, story)


def _answering(deployment: Deployment, *, probes: int) -> Callable[[], bool]:
    """The store answers so many questions, then it is away; whether it is so far."""
    store, left = deployment.store, [probes]
    decide = store.decide
    store.returns()

    async def some(keys: list[str], argument: bytes) -> object:
        if left[0] == 0:
            store.decide, store.wrong = decide, None  # type: ignore[method-assign]
            store.goes()
        left[0] -= 1
        return await decide(keys, argument)

    store.decide = some  # type: ignore[method-assign]
    return lambda: left[0] < 0


def test_a_store_that_comes_and_goes_brings_no_full_share_each_time(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await away(deployment)
        admitted = 0
        for _ in range(3):
            admitted += sum([(await worker.call(of(LOCAL))).refused is None for _ in range(11)])
            await back(deployment)
            deployment.store.goes()
            await worker.call(of(TRIGGER))
            assert worker.shared.state == "away"
        assert admitted == 10
        clock.go_on(8 * MICROS)
        assert [(await worker.call(of(LOCAL))).refused is None for _ in range(2)] == [True, False]

    played(clock, story)


# -- a store that lost all it knew -----------------------------------------------------------------------------------


@pytest.mark.parametrize("meanwhile", ["there", "away"])
def test_a_store_that_lost_its_buckets_hears_what_they_lacked(clock: Clock, meanwhile: str) -> None:
    async def story(deployment: Deployment) -> None:
        one, other = await deployment.worker(), await deployment.worker()
        for _ in range(40):
            for worker in (one, other):
                assert (await worker.call(of(LOCAL))).refused is None
        permits = (await one.call(at_once(5))).permits
        if meanwhile == "away":
            deployment.store.goes()
            await one.call(of(DENY))
        deployment.store.empty()
        await back(deployment)
        assert (await one.call(of(LOCAL))).refused is None, "it knew of 79"
        assert (await one.call(of(LOCAL))).refused == of(LOCAL)
        assert (await other.call(of(LOCAL))).refused == of(LOCAL)
        assert running(deployment, at_once(5)) == 1
        one.shared.release(permits)

    played(clock, story)


def test_a_store_that_lost_its_buckets_twice_hears_of_them_twice(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await deployment.worker()
        await worker.call(of(LOCAL, cost=80))
        for _ in range(3):
            deployment.store.empty()
            assert (await worker.call(of(LOCAL))).refused == of(LOCAL)

    played(clock, story)


def test_what_it_lacked_is_told_though_the_store_goes_before_it_heard(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await deployment.worker()
        await worker.call(of(DENY, cost=80))
        deployment.store.empty()
        gone = _answering(deployment, probes=1)  # that it was emptied is heard; the batch that tells is lost
        assert (await worker.call(of(DENY))).how == "deny"
        assert gone()
        await back(deployment)
        assert (await worker.call(of(DENY))).how == "store"
        assert lacking(deployment, of(DENY)) == 80

    played(clock, story)


def test_a_lease_of_a_bucket_that_was_lost_is_not_used(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await deployment.worker()
        await leased(worker, charge())
        deployment.store.empty()
        await worker.heartbeat()
        assert lacking(deployment, charge()) - held(worker) >= 2, "what it holds now was taken from the new bucket"

    played(clock, story)


def test_five_hundred_buckets_are_told(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await deployment.worker()
        asked = [charge(LOCAL, EIGHTY, 80, f"agent{one}") for one in range(500)]
        for one in asked:
            await worker.call(one)
        deployment.store.empty()
        await worker.heartbeat()
        assert [lacking(deployment, one) for one in asked] == [80] * 500

    played(clock, story)
