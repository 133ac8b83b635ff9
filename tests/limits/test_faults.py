"""A store that stops, dies, is slow, full, emptied or talks nonsense, under load.

Every call has its verdict soon, none that may go on fails for the store's sake, and a second after the store is well
again it decides as before, and has been told what was spent without it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from time import monotonic

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from fastgw.config.schema.store import StorePlace
from fastgw.policy.bucket import bucket_rate
from fastgw.policy.limits import BucketCharge
from tests.limits.loads import (
    ALLOW,
    AT_ONCE,
    COUNT,
    DENY,
    EXACT,
    KEYS,
    LEASE,
    NORMAL,
    RATES,
    Load,
    hows,
    in_thread,
    kept,
    loaded,
    place_at,
    quiet,
    run,
)
from tests.limits.slow_proxy import SlowProxy
from tests.limits.tls_proxy import TlsProxy
from tests.limits.valkeys import Valkey
from tests.limits.workers import Worker

VERDICT_WITHIN = 0.15  # seconds
BACK_WITHIN = 1.0  # seconds from when the store answers others
NOTICED_WITHIN = 0.5
Step = Callable[[], Awaitable[object]]


@pytest.fixture
def server() -> Iterator[Valkey]:
    with Valkey() as started:
        yield started


@pytest.fixture
def proxy(server: Valkey) -> Iterator[SlowProxy]:
    with SlowProxy(server.port) as listening:
        yield listening


async def answers(place: StorePlace) -> None:
    """Return when a client can write there."""
    [(host, port)] = place.hosts
    tls = {"ssl": True, "ssl_ca_certs": place.ca} if place.tls else {}
    client = redis.Redis(host, port, retry=Retry(NoBackoff(), 0), socket_timeout=0.2, protocol=2, **tls)

    def written() -> bool:
        try:
            return bool(client.set("plain", "x", px=1000))
        except redis.RedisError:
            return False

    async with asyncio.timeout(20):
        while not await in_thread(written):
            await asyncio.sleep(0.005)
    client.close()


@dataclass
class Fault:
    """What happens to a store.

    Args:
        lasts: seconds.
        share: of what was let through that the store knows of in the end.
    """

    breaks: Step
    heals: Step
    lasts: float = 0.6
    share: float = 1.0


async def suffer(load: Load, fault: Fault, well: Step) -> float:
    """The fault, from end to end; when it began."""
    await load.normal()
    began = monotonic()
    await fault.breaks()
    await until_away(load)
    await quiet(fault.lasts)
    await fault.heals()
    await well()
    healed = monotonic()
    while not load.up:
        assert monotonic() - healed < BACK_WITHIN + 5 * load.late
        await asyncio.sleep(0.001)
    print(f"\nback after {(monotonic() - healed) * 1000:.0f} ms", end="")
    await load.normal()
    return began


async def until_away(load: Load) -> None:
    """Return when every worker has noticed."""
    began = monotonic()
    while any(worker.shared.state == "up" for worker in load.workers):
        assert monotonic() - began < NOTICED_WITHIN + 5 * load.late
        await asyncio.sleep(0.001)


def assert_served(load: Load, began: float) -> None:
    """What holds for every fault, when the load is over."""
    assert max(call.took for call in load.calls) < VERDICT_WITHIN + 3 * load.late
    without = hows(load.since(began))
    assert min(without[EXACT.name, "local"], without[ALLOW.name, "allow"], without[DENY.name, "deny"]) > 5
    refused = [call for call in load.calls if call.verdict.refused is not None]
    assert {(call.kind, call.verdict.how) for call in refused} == {(DENY.name, "deny")}
    assert not any(worker.counted["fastgw_store_errors_total", "defect"] for worker in load.workers)
    let_through = sum(worker.counted["fastgw_limit_fail_open_total", ALLOW.name] for worker in load.workers)
    assert let_through == hows(load.calls)[ALLOW.name, "allow"]


def assert_told(load: Load, client: redis.Redis, *, share: float = 1.0, times: int = 1) -> None:
    """The store knows of all that was let through, or nearly all; it may know of a little more: what it decided and
    nobody heard of was decided again, and of leases a worker lost one it had and one it did not hear of each time."""
    for charge in RATES:
        admitted = load.admitted(charge.limit)
        assert kept(client, charge) >= share * admitted, charge.limit.name
        leases = 0 if charge.limit.exact else COUNT * (1 + 2 * times) * LEASE
        assert kept(client, charge) <= admitted + leases + 100
    assert not client.exists(KEYS.bucket(*AT_ONCE.bucket)), "a call that is over still counts"


def through(server: Valkey, place: StorePlace, fault: Fault) -> None:
    """The whole story of one fault."""

    async def story() -> None:
        async with loaded(place) as load:
            began = await suffer(load, fault, lambda: answers(place))
        assert_served(load, began)
        assert_told(load, server.client(), share=fault.share)

    run(story)


def step(work: Callable[..., object], *arguments: object) -> Step:
    return lambda: in_thread(work, *arguments)


@pytest.mark.parametrize("lasts", [0.3, 2.0])
def test_a_store_that_stops(server: Valkey, lasts: float) -> None:
    through(server, place_at(server.url), Fault(step(server.stop_answering), step(server.go_on), lasts))


def test_a_store_that_dies_and_comes_again_empty(server: Valkey) -> None:
    through(server, place_at(server.url), Fault(step(server.kill), step(server.start), share=0.9))


def test_a_store_that_answers_after_five_seconds(server: Valkey, proxy: SlowProxy) -> None:
    through(server, place_at(proxy.url), Fault(step(proxy.delay, 5.0), step(proxy.pass_on)))


def test_a_store_behind_tls_that_says_nothing(server: Valkey) -> None:
    with TlsProxy(server.port) as proxy:
        place = place_at(proxy.url, ca=str(proxy.ca))
        through(server, place, Fault(step(proxy.hold), step(proxy.pass_on)))


def test_a_store_whose_network_is_gone(server: Valkey, proxy: SlowProxy) -> None:
    through(server, place_at(proxy.url), Fault(step(proxy.refuse), step(proxy.pass_on)))


def test_a_store_that_is_full(server: Valkey) -> None:
    full, free = (step(server.ask, "CONFIG", "SET", "maxmemory", size) for size in ("1", "0"))
    through(server, place_at(server.url), Fault(full, free))


def test_a_store_that_has_become_a_replica(server: Valkey) -> None:
    replica, primary = step(server.ask, "REPLICAOF", "127.0.0.1", "1"), step(server.ask, "REPLICAOF", "NO", "ONE")
    through(server, place_at(server.url), Fault(replica, primary))


NONSENSE = [
    b"-LOADING Valkey is loading the dataset in memory\r\n", b"-NOPERM no\r\n", b"+OK\r\n", b"$3\r\n\x96\x01\xa1\r\n",
    b":5\r\n", b"*-1\r\n", b"*2\r\n:1\r\n$1\r\nx\r\n", b"$-1\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"\x15\x03\x01\x00\x02\x02\x16", b"-MOVED 1 127.0.0.1:1\r\n", b"-\r\n", b"\r\n",
]  # fmt: skip


@pytest.mark.parametrize("part", [0, 1])
def test_a_store_that_talks_nonsense(server: Valkey, proxy: SlowProxy, part: int) -> None:
    dice = random.Random(part)
    texts = iter([*NONSENSE[part::2], *(dice.randbytes(dice.randint(1, 100)) for _ in range(100))])

    async def nonsense() -> None:
        await in_thread(proxy.garble, next(texts))

    async def all_kinds_of_it() -> None:
        for _ in range(30):
            await in_thread(proxy.garble, next(texts))
            await asyncio.sleep(0.03)
        await in_thread(proxy.pass_on)

    through(server, place_at(proxy.url), Fault(nonsense, all_kinds_of_it))


# -- over before it can be counted as away ---------------------------------------------------------------------------


def test_connections_that_are_closed_cost_a_moment(server: Valkey) -> None:
    async def story() -> None:
        async with loaded(place_at(server.url)) as load:
            for _ in range(3):
                await quiet(0.1)
                began = monotonic()
                await in_thread(server.ask, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                await asyncio.sleep(0.02)
                while not load.up:
                    assert monotonic() - began < BACK_WITHIN + 5 * load.late
                    await asyncio.sleep(0.001)
            await quiet(0.3)
        assert max(call.took for call in load.calls) < VERDICT_WITHIN + 3 * load.late
        assert_told(load, server.client(), times=3)

    run(story)


def test_a_store_that_is_emptied_is_told_what_it_had(server: Valkey) -> None:
    """FLUSHALL again and again: nobody notices, and no bucket is full again."""

    async def story() -> None:
        async with loaded(place_at(server.url)) as load:
            for _ in range(5):
                await quiet(0.3)
                await in_thread(server.ask, "FLUSHALL")
                await in_thread(server.ask, "SCRIPT", "FLUSH")
            await quiet(0.3)
        assert hows(load.calls)[EXACT.name, "store"] > 0.5 * sum(call.kind == EXACT.name for call in load.calls)
        assert_told(load, server.client(), share=0.9, times=5)

    run(story)


def test_a_bucket_that_was_nearly_empty_is_so_again(server: Valkey) -> None:
    """A thousand calls and no more, through three workers, the store emptied on the way."""
    limits = DENY, replace(DENY, exact=False)  # the second is leased in tens
    thousand = [BucketCharge(limit, (f"thousand{limit.exact}", "a"), bucket_rate(1, 86_400, 1000)) for limit in limits]

    async def drain(worker: Worker, charge: BucketCharge, admitted: list[float]) -> None:
        while (verdict := await worker.call(charge)).how in {*NORMAL, "deny"}:
            if verdict.refused is None:
                admitted.append(monotonic())
            elif verdict.how != "deny":  # which a machine that is slow may bring
                return
            await asyncio.sleep(0.001)

    async def story() -> None:
        async with loaded(place_at(server.url)) as load:
            for charge in thousand:
                admitted: list[float] = []
                agents = [asyncio.create_task(drain(one, charge, admitted)) for one in load.workers]
                for part in (300, 600, 900):
                    while len(admitted) < part:
                        await asyncio.sleep(0.001)
                    await in_thread(server.ask, "FLUSHALL")
                await asyncio.gather(*agents)
                print(f"\n{charge.bucket[0]}: {len(admitted)} of 1000", end="")
                assert 900 < len(admitted) <= 1100

    run(story)
