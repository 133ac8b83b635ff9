"""Eight workers as real processes before a real store: what they let through together, and what a dead one leaves.

Normally for seconds; for a minute in `make soak`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from fastgw.config.schema.store import StorePlace, StoreSettings
from tests.limits.processes import Crowd, Together
from tests.limits.tls_proxy import TlsProxy
from tests.limits.valkeys import Cluster, Sentinels, Valkey
from tests.limits.worker import FEW, MOST, Task, at_once
from tests.limits.workers import connected

COUNT = 8
MINUTE = pytest.param(60.0, marks=pytest.mark.soak)


@pytest.fixture(scope="module")
def crowd() -> Iterator[Crowd]:
    with Crowd(COUNT) as started:
        yield started


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered


def place_at(url: str, **more: str) -> StorePlace:
    return StoreSettings(url=url, **more).place(COUNT)


def assert_shared(together: Together) -> None:
    """No bucket let through more than it may, those that are exact no less, and no store was thought to be away."""
    print(f"\n{together}")
    assert together.errors == {}
    assert set(together.hows) == {"store", "lease"}
    together.check_windows()
    least, most = together.exactness()
    assert least < 1.01
    assert most > 0.99
    assert len(together.ratios()) == 1 + 3 + 9
    at_once = together.at_the_same_time()
    assert 0 < at_once["few"] <= MOST["few"]
    assert 0.5 * MOST["many"] < at_once["many"] <= MOST["many"]


@pytest.mark.parametrize("seconds", [3.0, MINUTE])
def test_before_one_server(crowd: Crowd, stack: ExitStack, seconds: float) -> None:
    server = stack.enter_context(Valkey())
    assert_shared(crowd.work(place_at(server.url), seconds))


@pytest.mark.parametrize("seconds", [2.0, MINUTE])
def test_before_a_cluster(crowd: Crowd, stack: ExitStack, seconds: float) -> None:
    cluster = stack.enter_context(Cluster())
    assert_shared(crowd.work(place_at(cluster.url), seconds))


@pytest.mark.parametrize("seconds", [2.0, MINUTE])
def test_behind_sentinels(crowd: Crowd, stack: ExitStack, seconds: float) -> None:
    watched = stack.enter_context(Sentinels())
    assert_shared(crowd.work(place_at(watched.url), seconds))


@pytest.mark.parametrize("seconds", [2.0, MINUTE])
def test_through_tls(crowd: Crowd, stack: ExitStack, seconds: float) -> None:
    server = stack.enter_context(Valkey())
    proxy = stack.enter_context(TlsProxy(server.port))
    assert_shared(crowd.work(place_at(proxy.url, ca=str(proxy.ca)), seconds))


def test_a_worker_that_is_killed_leaves_its_calls_for_five_seconds_at_the_most(stack: ExitStack) -> None:
    server, crowd = stack.enter_context(Valkey()), stack.enter_context(Crowd(1))
    place, [process], [pipe] = place_at(server.url), crowd.processes, crowd.pipes
    pipe.send(Task("dies", place, 60, MOST["few"]))
    assert crowd.hear(0) == "ready"
    pipe.send("go")
    assert crowd.hear(0) == MOST["few"]

    async def story() -> float:
        async with connected(place, "lives") as worker:
            await asyncio.sleep(1.0)  # it gives signs of life
            assert (await worker.call(at_once(FEW))).refused == at_once(FEW)
            process.kill()
            killed = time.monotonic()
            async with asyncio.timeout(10):
                while (await worker.call(at_once(FEW))).refused is not None:
                    await asyncio.sleep(0.02)
            return time.monotonic() - killed

    took = asyncio.run(story())
    print(f"\nback after {took:.2f} s")
    assert 3.0 < took < 5.0
