"""Buckets of one process, by a clock that is set by hand."""

from __future__ import annotations

import gc
import random
import tracemalloc

from fastgw.limits.memory_buckets import SWEEP, MemoryBuckets
from fastgw.policy.bucket import MICROS, BucketRate, bucket_rate
from fastgw.policy.limits import BucketCharge, BucketState, Limit, LimitVerdict, Subject

START = 5_000 * MICROS
SECOND, MINUTE = bucket_rate(1, 1, 5), bucket_rate(7, 60, 7)
AGENT, TOOL = Limit("agent", ("agent",)), Limit("tool", ("agent", "tool"))


def charge(limit: Limit = AGENT, subject: Subject = "a", rate: BucketRate = SECOND, cost: int = 1) -> BucketCharge:
    return BucketCharge(limit, (limit.name, subject), rate, cost)


def at_once(most: int, subject: Subject = "a", limit: Limit = AGENT) -> BucketCharge:
    return BucketCharge(limit, (f"{limit.name}\n*", subject), None, 1, most)


def test_a_bucket_is_emptied_call_by_call_and_refilled_by_time() -> None:
    memory = MemoryBuckets()
    assert [memory.decide([charge()], START).left for _ in range(5)] == [4, 3, 2, 1, 0]
    verdict = memory.decide([charge()], START)
    assert verdict == LimitVerdict(refused=charge(), wait=1.0, tightest=charge(), left=0, lacking=5 * MICROS)
    assert memory.decide([charge(subject="b")], START).refused is None
    assert memory.decide([charge()], START + MICROS) == LimitVerdict(tightest=charge(), left=0, lacking=5 * MICROS)


def test_a_refused_call_is_admitted_after_its_wait_and_not_before() -> None:
    dice = random.Random(1)
    for _ in range(500):
        memory, burst = MemoryBuckets(), dice.randint(1, 1000)
        rate = bucket_rate(dice.randint(1, 10_000), dice.choice([1, 60, 3600, 86_400]), burst)
        now = START + dice.randrange(MICROS)
        asked = charge(rate=rate, cost=dice.randint(1, burst))
        memory.decide([charge(rate=rate, cost=burst)], now)
        pause = memory.decide([asked], now).wait
        again = now + round(pause * MICROS)
        assert memory.decide([asked], again - 1).refused == asked
        assert memory.decide([asked], again).refused is None


def test_all_or_nothing_and_the_longest_wait_is_told() -> None:
    memory = MemoryBuckets()
    narrow = charge(TOOL, ("a", "t"), MINUTE, 7)
    assert memory.decide([narrow], START).refused is None
    calls = [charge(), charge(TOOL, ("a", "t"), MINUTE), at_once(3)]
    for _ in range(9):
        verdict = memory.decide(calls, START)
        assert (verdict.refused, verdict.tightest) == (calls[1], calls[1])
        assert verdict.wait == 8.571429
        assert verdict.permits == ()
    assert memory.decide([charge(cost=5)], START).refused is None
    verdict = memory.decide(calls, START)
    assert (verdict.refused, verdict.wait, verdict.lacking) == (calls[1], 8.571429, 7 * MINUTE.price)
    assert memory.decide([at_once(1)], START).refused is None


def test_the_tightest_is_the_one_with_the_fewest_calls_left() -> None:
    memory = MemoryBuckets()
    shadow = charge(Limit("shadow", shadow=True), rate=bucket_rate(1, 1, 2))
    calls = [charge(), charge(TOOL, ("a", "t"), bucket_rate(1, 1, 4)), shadow]
    verdict = memory.decide(calls, START)
    assert (verdict.tightest, verdict.left, verdict.lacking) == (calls[1], 3, MICROS)
    assert memory.decide([at_once(9)], START).tightest is None


def test_a_limit_in_shadow_counts_and_refuses_nobody() -> None:
    memory, limit = MemoryBuckets(), Limit("shadow", shadow=True)
    asked = [charge(limit, rate=bucket_rate(1, 1, 2)), charge()]
    assert [memory.decide(asked, START).shadowed for _ in range(4)] == [(), (), (limit,), (limit,)]
    assert memory.decide([asked[1]], START).left == 0
    assert memory.decide(asked, START).shadowed == (limit,)
    assert memory.decide(asked, START + MICROS).shadowed == ()
    shadowed = at_once(1, limit=limit)
    first, second = memory.decide([shadowed], START), memory.decide([shadowed], START)
    assert (first.permits, first.shadowed) == ((shadowed,), ())
    assert (second.permits, second.shadowed, second.refused) == ((), (limit,), None)


def test_permits_are_given_back() -> None:
    memory, asked = MemoryBuckets(), [at_once(2), charge()]
    first = memory.decide(asked, START)
    assert first.permits == (asked[0],)
    assert memory.decide(asked, START).refused is None
    verdict = memory.decide(asked, START)
    assert (verdict.refused, verdict.wait, verdict.tightest) == (asked[0], 0.0, None)
    memory.release(first.permits)
    assert memory.decide(asked, START).refused is None
    assert memory.decide([charge()], START).left == 1, "the refused call took no token"
    for _ in range(2):
        memory.release(first.permits)
    assert len(memory) == 1


def sweep(memory: MemoryBuckets, now: int) -> None:
    """Twice round all that is kept."""
    for _ in range(2 * (len(memory) // SWEEP + 2)):
        memory.heartbeat(now)


def test_only_full_buckets_are_forgotten() -> None:
    memory = MemoryBuckets()
    for one in range(2 * SWEEP + 10):
        memory.decide([charge(subject=f"{one}", cost=1 + one % 2), at_once(3, f"{one}")], START)
    sweep(memory, START + MICROS - 1)
    assert len(memory) == 2 * (2 * SWEEP + 10)
    sweep(memory, START + MICROS)
    assert len(memory) == 3 * (SWEEP + 5)
    assert memory.decide([charge(subject="1", cost=5)], START + MICROS).wait == 1.0
    sweep(memory, START + 2 * MICROS)
    assert len(memory) == 2 * SWEEP + 10, "calls that run are not forgotten"
    assert len(list(memory.bucket_states(START + 2 * MICROS))) == 2 * SWEEP + 10


def test_a_bucket_is_forgotten_by_the_rate_in_force() -> None:
    slow, fast = bucket_rate(1, 60, 5), bucket_rate(1000, 1, 5000)
    like_slow = BucketRate(slow.gain * 1000, *slow[1:])
    for before in (fast, like_slow):
        memory = MemoryBuckets()
        memory.decide([charge(subject="first", rate=before)], START)
        memory.decide([charge(subject="a", rate=slow, cost=5)], START)
        sweep(memory, START + 50 * MICROS)
        assert memory.decide([charge(rate=slow)], START + 50 * MICROS).wait == 10.0, before
        memory.decide([charge(subject="second", rate=before)], START + 50 * MICROS)
        sweep(memory, START + 51 * MICROS)
        assert len(memory) == 0, "full by what counts now"


def test_another_figure_after_a_reload_is_forgotten_and_shown_by_what_is_new() -> None:
    memory = MemoryBuckets()
    memory.decide([charge(rate=bucket_rate(1000, 1, 1000))], START)
    memory.decide([charge(rate=bucket_rate(1, 60, 2), cost=1)], START)
    sweep(memory, START + 59 * MICROS)
    assert len(memory) == 1
    assert list(memory.bucket_states(START + 30 * MICROS)) == [BucketState("agent", "a", 0.251, 1, 2)]
    sweep(memory, START + 61 * MICROS)
    assert len(memory) == 0


def test_operators_make_buckets_full() -> None:
    memory = MemoryBuckets()
    for subject in ("a", "b", None):
        memory.decide([charge(subject=subject, cost=5), charge(TOOL, (subject, "t"), MINUTE)], START)
    memory.reset([charge(subject="a"), charge(subject="nobody"), charge(Limit("unknown"))], 1)
    left = [memory.decide([charge(subject=subject)], START).left for subject in ("a", "b")]
    assert left == [4, 0]
    memory.reset_all("agent", 2)
    assert [memory.decide([charge(subject=subject)], START).left for subject in ("a", "b", None)] == [4, 4, 4]
    assert memory.decide([charge(TOOL, ("a", "t"), MINUTE)], START).left == 5


def test_all_buckets_of_a_limit_are_those_of_its_overrides_too() -> None:
    memory = MemoryBuckets()
    for table in ("agent", "agent\n0", "agents"):
        memory.decide([BucketCharge(AGENT, (table, "a"), SECOND, 5)], START)
    memory.reset_all("agent", 1)
    left = [
        memory.decide([BucketCharge(AGENT, (table, "a"), SECOND)], START).left
        for table in ("agent", "agent\n0", "agents")
    ]
    assert left == [4, 4, 0]


def test_how_full_each_bucket_is() -> None:
    memory = MemoryBuckets()
    memory.decide([charge(cost=4), charge(TOOL, ("a", None), MINUTE), at_once(4)], START)
    found = sorted(memory.bucket_states(START + MICROS), key=lambda one: (one.limit, one.at_once))
    assert found == [
        BucketState("agent", "a", 0.6, 2, 5),
        BucketState("agent", "a", 0.25, 3, 4, at_once=True),
        BucketState("tool", "a -", (60_000_000 - 7_000_000) / 420_000_000, 6, 7),
    ]


def test_a_bucket_takes_less_than_300_bytes() -> None:
    count, memory = 100_000, MemoryBuckets()
    memory.decide([charge()], START)
    gc.collect()
    tracemalloc.start()
    try:
        for one in range(count):
            memory.decide([charge(subject=f"agent-{one:030}")], START + one)
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(memory) == count + 1
    assert taken / count < 300
    print(f"\n{taken / count:.0f} bytes a bucket")
