"""Ways above a limit that were open once: stores that come and go, rate that change, orders that are repeated."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fastgw.limits.script import ENFORCE, FILL, TAKE, ScriptRequest, ScriptRow
from fastgw.policy.bucket import MICROS, bucket_rate
from fastgw.policy.limits import BucketCharge, Limit
from tests.limits.fakes import Caller, until
from tests.limits.played import Played
from tests.limits.test_leases import at_once, charge, clock, held, played
from tests.limits.valkeys import Valkey
from tests.limits.workers import WORKERS, Clock, Deployment, Worker
from tests.policy.test_bucket import START

__all__ = ["clock"]
LOCAL = Limit("local", exact=True)
HOUR = bucket_rate(80, 3600, 80)
"""Ten for each of eight workers, and no more within a test."""
WIDE, NARROW = bucket_rate(100_000, 1, 100_000), bucket_rate(60, 3600, 60)


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    with Valkey() as found:
        yield found


async def lost_and_found(deployment: Deployment, worker: Worker, calls: int) -> int:
    """The store goes, so many calls are decided without it, the store is back; how many got through."""
    deployment.store.goes()
    verdicts = [await worker.call(charge(LOCAL, HOUR)) for _ in range(calls)]
    assert {verdict.how for verdict in verdicts} == {"local"}
    deployment.store.returns()
    await until(lambda: worker.shared.state == "up")
    await worker.rest()
    return sum(verdict.refused is None for verdict in verdicts)


def test_a_store_that_comes_and_goes_brings_no_full_share_each_time(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await deployment.worker()
        through = [await lost_and_found(deployment, worker, 15) for _ in range(4)]
        assert through == [HOUR.burst // WORKERS, 0, 0, 0]
        clock.go_on(3600 * MICROS)
        assert await lost_and_found(deployment, worker, 15) == 10, "a share fills as buckets do"

    played(clock, story)


def test_calls_allotted_by_a_wider_limit_are_not_begun_under_a_narrower_one(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await deployment.worker()
        for _ in range(30):
            assert (await worker.call(at_once(1000))).refused is None
        assert (await worker.call(at_once(20))).refused is not None

    played(clock, story)


def test_tokens_leased_at_a_higher_rate_are_not_spent_at_a_lower_one(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await deployment.worker()
        for _ in range(2):
            await worker.call(charge(rate=WIDE))
        assert held(worker) == 1000
        verdicts = [await worker.call(charge(rate=NARROW)) for _ in range(80)]
        assert {verdict.how for verdict in verdicts} == {"store"}
        assert sum(verdict.refused is None for verdict in verdicts) <= NARROW.burst

    played(clock, story)


def test_an_order_makes_a_bucket_full_once_whoever_repeats_it(server: Valkey) -> None:
    script, bucket = Played(server.client(), "orders"), "{orders}:1:b:1"
    rate = bucket_rate(1, 3600, 10)

    def ask(amount: int, mode: int, worker: str, later: int) -> int:
        request = ScriptRequest([ScriptRow(bucket, rate)], [[1, amount, mode]])
        return -(-script.ask(request, worker, START + later).checks[0][3] // rate.price)

    assert ask(10, TAKE, "w1", 0) == 10
    assert ask(7, FILL, "w1", 1) == 0
    assert ask(4, TAKE, "w2", 2) == 4
    assert ask(7, FILL, "w2", 3) == 4, "the same order"
    assert ask(8, FILL, "w2", 4) == 0, "another one"


def test_a_full_bucket_remembers_the_order_while_it_is_repeated(server: Valkey) -> None:
    script, bucket = Played(server.client(), "kept"), "{kept}:1:b:1"
    rate = bucket_rate(1, 1, 10)
    script.ask(ScriptRequest([ScriptRow(bucket, rate)], [[1, 7, FILL]]), "w1", START)
    assert server.client().exists(bucket) == 1
    script.ask(ScriptRequest([ScriptRow(bucket, rate)], [[1, 10, TAKE]]), "w1", START + MICROS)
    told = script.ask(ScriptRequest([ScriptRow(bucket, rate)], [[1, 7, FILL]]), "w2", START + 2 * MICROS)
    assert told.checks[0][3] == 9 * rate.price


def test_what_a_worker_holds_stays_its_own_when_the_bucket_is_made_full(server: Valkey) -> None:
    script, bucket = Played(server.client(), "lent"), "{lent}:1:b:1"
    rate = bucket_rate(1, 3600, 100)
    lent = script.ask(ScriptRequest([ScriptRow(bucket, rate, ahead=5)], [[1, 1, ENFORCE]]), "w1", START)
    assert lent.held == [5]
    told = script.ask(ScriptRequest([ScriptRow(bucket, rate)], [[1, 7, FILL]]), "w2", START + 1)
    assert told.checks[0][3] == 5 * rate.price, "full but for what is lent: together no more than the whole"


def test_one_key_in_two_rows_is_one_bucket(server: Valkey) -> None:
    script, bucket = Played(server.client(), "twice"), "{twice}:1:b:1"
    rate = bucket_rate(1, 3600, 100)
    request = ScriptRequest([ScriptRow(bucket, rate), ScriptRow(bucket, rate)], [[1, 40, TAKE], [2, 1, ENFORCE]])
    assert script.ask(request, "w1", START).checks[1][3] == 41 * rate.price


def test_what_is_owed_is_told_however_long_nobody_asked_about_its_bucket(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker, asked = await deployment.worker(), charge(Limit("allowed", on_failure="allow", exact=True), HOUR)
        deployment.store.goes()
        for _ in range(41):
            assert (await worker.call(asked)).how == "allow"
        for _ in range(3):
            worker.shared.heartbeat(clock.now)
        deployment.store.returns()
        await until(lambda: worker.shared.state == "up")
        await worker.rest()
        through = [await worker.call(asked) for _ in range(60)]
        assert sum(verdict.refused is None for verdict in through) == 80 - 41

    played(clock, story)


def test_resets_that_cannot_be_taken_cost_no_call_and_no_permit(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await deployment.worker()
        asked: BucketCharge = at_once(5)

        broken: list[object] = []

        def breaks(resets: object) -> None:
            broken.append(resets)
            raise RuntimeError("a defect")

        worker.shared.on_resets = breaks
        worker.shared.repeat("a reset")
        caller = Caller([asked])
        worker.shared.ask(caller)
        worker.shared.heartbeat(clock.now)
        verdict = await caller.wait()
        await worker.rest()
        assert (len(caller.heard), verdict.how, worker.shared.state == "up") == (1, "store", True)
        assert ["a reset"] in broken
        worker.shared.release(verdict.permits)
        await worker.rest()
        for _ in range(5):
            assert (await worker.call(asked)).refused is None
        assert (await worker.call(asked)).refused is not None

    played(clock, story)


def test_a_whole_limit_is_made_full_in_steps(clock: Clock) -> None:
    async def story(deployment: Deployment) -> None:
        worker = await deployment.worker()
        agents = [charge(LOCAL, HOUR, 80, f"agent-{at}") for at in range(700)]
        for one in agents:
            assert (await worker.call(one)).refused is None
        before = len(deployment.store.asked)
        worker.shared.reset_all(LOCAL.name, 1)
        await worker.rest()
        assert len(deployment.store.asked) - before >= 3, "256 in a batch"
        for one in agents:
            assert (await worker.call(one)).refused is None

    played(clock, story)
