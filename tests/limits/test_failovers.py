"""The primary dies under load, and another takes its place: behind sentinels, and in a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

import redis
from redis.cluster import ClusterNode

from tests.limits.loads import (
    DENY,
    EXACT,
    KEYS,
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
from tests.limits.test_faults import BACK_WITHIN, VERDICT_WITHIN, until_away
from tests.limits.valkeys import HOST, Cluster, Sentinels

Step = Callable[[], Awaitable[object]]


def written(client: redis.Redis | redis.RedisCluster) -> bool:
    """Whether it can be written where our keys are."""
    try:
        return bool(client.set(f"{KEYS.epoch}:plain", "x", px=1000))
    except redis.RedisError:
        return False


async def fail_over(load: Load, kills: Step, client: redis.Redis | redis.RedisCluster) -> None:
    """The primary is killed; how long everything takes."""
    await load.normal()
    began = monotonic()
    await kills()
    await until_away(load)
    async with asyncio.timeout(20):
        while not await in_thread(written, client):
            await asyncio.sleep(0.005)
        another = monotonic()
        while not load.up:
            await asyncio.sleep(0.001)
    back = monotonic()
    print(f"\nanother primary after {another - began:.2f} s, back {(back - another) * 1000:.0f} ms after that", end="")
    assert back - another < BACK_WITHIN + 5 * load.late
    await load.normal()
    without = hows([call for call in load.calls if began < call.at < back])
    assert min(without[EXACT.name, "local"], without[DENY.name, "deny"]) > 5
    assert max(call.took for call in load.calls) < VERDICT_WITHIN + 3 * load.late
    refused = {(call.kind, call.verdict.how) for call in load.calls if call.verdict.refused is not None}
    assert refused == {(DENY.name, "deny")}


def errors(load: Load) -> set[str]:
    """Kinds of what went wrong with the store."""
    counted = [labels for worker in load.workers for labels in worker.counted]
    return {labels[1] for labels in counted if labels[0] == "fastgw_store_errors_total"}


def assert_told(load: Load, client: redis.Redis | redis.RedisCluster) -> None:
    """The last writes of the old primary may be lost, but no more."""
    for charge in RATES:
        assert kept(client, charge) >= 0.9 * load.admitted(charge.limit), charge.limit.name


def test_behind_sentinels() -> None:
    with Sentinels() as watched:
        known = [(HOST, sentinel.port) for sentinel in watched.sentinels]
        client = redis.Sentinel(known, socket_timeout=0.2).master_for(watched.NAME, socket_timeout=0.2)

        async def story() -> None:
            async with loaded(place_at(watched.url)) as load:
                await fail_over(load, lambda: in_thread(watched.kill_primary), client)
            assert_told(load, client)

        run(story)
        client.close()


def test_in_a_cluster() -> None:
    with Cluster(replicas=1) as cluster:
        owner = cluster.node_of(KEYS.epoch)
        known = [ClusterNode(HOST, node.port) for node in cluster.nodes if node is not owner]
        client = redis.RedisCluster(startup_nodes=known, socket_timeout=0.2)

        async def story() -> None:
            async with loaded(place_at(cluster.url)) as load:
                await fail_over(load, lambda: in_thread(cluster.kill, owner), client)
            assert_told(load, client)

        run(story)
        client.close()


def test_a_replica_that_dies_is_not_missed() -> None:
    with Cluster(replicas=1) as cluster:
        replica = cluster.nodes[-1]

        async def story() -> None:
            async with loaded(place_at(cluster.url)) as load:
                await load.normal()
                await in_thread(cluster.kill, replica)
                await quiet(0.6)
                await load.normal()
            assert errors(load) <= {"timeout"}, "this machine may be slow, but nothing is missing"

        run(story)
