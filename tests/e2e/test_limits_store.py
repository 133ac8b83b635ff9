"""Limits of the whole gateway while the store behind them stops, dies, forgets; and a store that gateways share."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.e2e.gateway import Gateway, running_beside, until
from tests.e2e.http import exchange
from tests.e2e.servers import Toolbox, serving
from tests.e2e.test_limits import OTHER, admitted, calling, echo, limited, settings
from tests.limits.valkeys import Valkey

UP = "fastgw_store_up"
SLOW = 5.0
"""Seconds for one call on a busy machine; one that waited for the store as its client is made to would take ten."""
ALONE = 'fastgw_limit_decisions_total{how="local",outcome="admitted"}'
FREE = {"name": "free", "by": ["agent"], "rate": "100000/minute"}
"""A limit that nobody reaches: its calls must not feel the store."""


def store_of(gateway: Gateway) -> int:
    """Process id of the store that the supervisor runs; 0 while there is none."""
    names = {pid: Path(f"/proc/{pid}/comm") for pid in gateway.children()}
    return next((pid for pid, name in names.items() if name.exists() and "valkey" in name.read_text()), 0)


def socket_of(pid: int) -> str:
    """Where the store with this process id listens: it says so in its title."""
    return Path(f"/proc/{pid}/cmdline").read_text().partition("unixsocket:")[2].split("\0")[0].split()[0]


def answers(pid: int) -> bool:
    """Whether the store with this process id can be asked."""
    try:
        with redis.Redis(unix_socket_path=socket_of(pid), socket_timeout=1) as client:
            return bool(client.ping())
    except (OSError, IndexError, redis.RedisError):
        return False


async def nobody_is_without(gateway: Gateway) -> bool:
    """Whether each worker that has lost the store has found it again; each says so at the start, too."""
    log = gateway.log()
    return log.count("the store answers") == log.count("the store is away") + 2


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class Load:
    """Agents that call without a pause, each call on a fresh connection; what they hear is counted."""

    def __init__(self, gateway: Gateway, agents: int = 4) -> None:
        self._gateway = gateway
        self.heard: Counter[int] = Counter()
        self.slowest = 0.0
        self._over = False
        self._agents = [asyncio.create_task(self._call()) for _ in range(agents)]

    async def _call(self) -> None:
        while not self._over:
            began = time.monotonic()
            self.heard[(await exchange(self._gateway.url, calling())).status] += 1
            self.slowest = max(self.slowest, time.monotonic() - began)

    async def some(self, count: int = 50) -> None:
        """Return when so many more calls are over."""
        wanted = self.heard.total() + count

        async def enough() -> bool:
            return self.heard.total() >= wanted

        await until(enough)

    async def end(self) -> Counter[int]:
        self._over = True
        await asyncio.gather(*self._agents)
        return self.heard


async def in_use(gateway: Gateway) -> bool:
    """Whether both workers use the store, by what they last told the controller."""
    return gateway.metric(UP) == 2


async def decided(gateway: Gateway, how: str) -> bool:
    return gateway.metric(f'fastgw_limit_decisions_total{{how="{how}",outcome="admitted"}}') > 0


def test_a_store_that_dies_costs_no_call_and_the_next_one_is_told_how_full_buckets_were(tmp_path: Path) -> None:
    async def story() -> None:
        few = {"name": "few", "by": ["agent"], "match": {"agent": "other"}, "rate": "40/hour"}
        async with limited(tmp_path, FREE, few) as (gateway, _):
            assert await admitted(gateway, 50, OTHER) == 40
            load = Load(gateway)
            await load.some()
            for times in (1, 2):
                os.kill(store_of(gateway), signal.SIGKILL)

                async def back(times: int = times) -> bool:
                    return gateway.metric("fastgw_store_restarts_total") == times and answers(store_of(gateway))

                await until(back)
                await until(lambda: nobody_is_without(gateway))
                await load.some()
                before = gateway.metric(ALONE)
                found = await admitted(gateway, 50, OTHER)

                async def is_known(before: float = before, found: int = found) -> bool:
                    # Of a store that does not answer in 50 ms, on a busy machine, a worker does without meanwhile.
                    return found - (gateway.metric(ALONE) - before) <= 4

                await until(is_known)  # the next store knows what the last one did
            assert set(await load.end()) == {200}
            assert gateway.metric("fastgw_worker_restarts_total") == 0

    asyncio.run(story())


def test_a_store_that_stops_costs_no_call_and_is_in_use_again_within_a_second(tmp_path: Path) -> None:
    async def story() -> None:
        async with limited(tmp_path, FREE) as (gateway, _):
            load = Load(gateway)
            await load.some()
            with frozen(store_of(gateway)):
                await until(lambda: decided(gateway, "local"))
                await load.some(200)
            back = time.monotonic()
            before = gateway.metric('fastgw_limit_decisions_total{how="store",outcome="admitted"}')

            async def used_again() -> bool:
                return gateway.metric('fastgw_limit_decisions_total{how="store",outcome="admitted"}') > before

            await until(used_again)
            assert time.monotonic() - back < 1.0 + 1.5, "a second, and what metrics and a busy machine lag behind"
            assert set(await load.end()) == {200}
            assert load.slowest < SLOW

    asyncio.run(story())


@pytest.mark.parametrize(("failure", "status", "how"), [("deny", 503, "deny"), ("allow", 200, "allow")])
def test_a_limit_may_refuse_or_let_through_while_the_store_is_away(
    tmp_path: Path, failure: str, status: int, how: str
) -> None:
    async def story() -> None:
        limit = {"name": "strict", "by": ["agent"], "rate": "5/hour", "on_store_failure": failure}
        async with limited(tmp_path, limit) as (gateway, _):
            with frozen(store_of(gateway)):
                replies = [await exchange(gateway.url, calling()) for _ in range(12)]
            assert {reply.status for reply in replies} == {status}
            if failure == "deny":
                error = replies[-1].json()["error"]
                assert (error["code"], error["data"]["retryAfter"], error["data"]["mayHaveRun"]) == (-31004, 1, False)
                assert replies[-1].header("retry-after") == "1"
                await until(lambda: in_use(gateway))
                await until(lambda: lets_in(gateway))
            else:
                open_ = 'fastgw_limit_fail_open_total{limit="strict"}'

                async def counted() -> bool:
                    return gateway.metric(open_) == 12

                await until(counted)
                await until(lambda: in_use(gateway))
                await until(lambda: knows_what_was_spent(gateway))

    asyncio.run(story())


async def lets_in(gateway: Gateway) -> bool:
    return (await exchange(gateway.url, calling())).status == 200


async def knows_what_was_spent(gateway: Gateway) -> bool:
    return (await exchange(gateway.url, calling())).status == 429


def test_two_gateways_on_one_store_hold_one_limit(tmp_path: Path) -> None:
    async def story() -> None:
        (tmp_path / "one").mkdir()
        (tmp_path / "two").mkdir()
        limits = ({"name": "l", "by": ["agent"], "rate": "50/hour", "exact": True},)
        with Valkey(requirepass="open-sesame") as store:
            place = {"url": store.url, "password": "${env:STORE_PASSWORD}"}
            around = {"STORE_PASSWORD": "open-sesame"}
            async with (
                serving(Toolbox("both", {"echo": echo})) as server,
                running_beside(settings(server.url, limits, {"store": place}), tmp_path / "one", around) as one,
                running_beside(settings(server.url, limits, {"store": place}), tmp_path / "two", around) as two,
            ):
                # Each has a call first: on a busy machine one of them may take all that is left.
                assert (await admitted(one, 1), await admitted(two, 1)) == (1, 1)
                assert sum(await asyncio.gather(admitted(one, 50), admitted(two, 50))) == 48
                assert "open-sesame" not in one.log() + two.log()

    asyncio.run(story())


def test_a_store_that_is_not_there_keeps_nobody_from_starting(tmp_path: Path) -> None:
    async def story() -> None:
        async with limited(tmp_path, FREE, store="redis://127.0.0.1:9/0") as (gateway, _):
            assert await admitted(gateway, 20) == 20
            assert gateway.logs("the store is not to be had yet")

    asyncio.run(story())


def test_the_store_ends_with_its_supervisor_and_leaves_its_file(tmp_path: Path) -> None:
    async def story() -> dict[str, Any]:
        async with limited(tmp_path, FREE) as (gateway, _):
            assert await admitted(gateway, 5) == 5
            pid = store_of(gateway)
            folder = Path(f"/proc/{pid}/cwd").resolve()
            return {"pid": pid, "folder": folder}

    seen = asyncio.run(story())
    assert not Path(f"/proc/{seen['pid']}").exists()
    assert seen["folder"] == tmp_path / "data" / "store"
    assert list(seen["folder"].rglob("*.incr.aof"))
