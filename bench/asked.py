"""Decisions over four buckets that a Valkey of its own makes, many calls at the same time.

The reference is `evalsha` by redis-py for one check of four buckets, prepared beforehand, one after the other on the
same kind of connection.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from itertools import cycle, islice
from pathlib import Path

import uvloop
from redis.asyncio import Redis

from bench import processes
from bench.beside import Measured, measured
from bench.decisions import OWN, SHARED, Scene
from bench.started import START, started
from fastgw.config.schema.store import StorePlace
from fastgw.limits import embedded
from fastgw.limits.batch import AwaitedAdmission
from fastgw.limits.batcher import Batcher
from fastgw.limits.redis_connection import RedisConnection
from fastgw.limits.script import DIGEST, ENFORCE, SOURCE, ScriptRequest, ScriptRow, StoreKeys, encode
from fastgw.limits.shared_buckets import SharedBuckets
from fastgw.policy.limits import BucketCharge
from fastgw.upstream.call_context import BackgroundTasks

AT_ONCE = 32
PAUSE = 0.1
"""Seconds between two looks whether the store is in use again."""
LOOKS = 5
"""Until nothing was decided without the store, which has 50 ms to answer: a busy machine may not give it so many."""
WANTED = 0.4
"""Of what an unbatched call of the script costs."""


class NotAsked(Exception):
    """A decision was not made by the store, or not as it must be: what was measured is not what was meant."""


@contextmanager
def store(folder: Path) -> Iterator[tuple[int, Path]]:
    """The embedded store by itself: its pid and its socket.

    Raises:
        embedded.NoStore: there is no program for this machine.
        NotStarted: it does not come up.
    """
    socket = folder / "socket"
    with started(embedded.command(embedded.program(), socket, folder), folder / "valkey.log", socket.exists) as pid:
        yield pid, socket


class Stage:
    """Both sides, one worker's, with as many agents as there are calls at once.

    Args:
        pid: of the store.
        calls: four charges each.
    """

    def __init__(self, pid: int, socket: Path, calls: Sequence[list[BucketCharge]]) -> None:
        self._pid = pid
        self._calls = calls
        self._registry = BackgroundTasks()
        self._client = Redis(unix_socket_path=str(socket), protocol=2)
        connection, keys = RedisConnection(StorePlace("embedded"), str(socket)), StoreKeys("bench")
        batcher = Batcher(connection, keys, os.urandom(8).hex(), self._registry.spawn)
        self._batcher = batcher
        self._shared = SharedBuckets(keys, batcher, lambda *_: None, 1)
        self._connection = connection
        self._prepared = [_prepared(keys, charges) for charges in calls]

    async def begin(self) -> None:
        """Connect.

        Raises:
            NotAsked: the store does not do what it is asked.
        """
        try:
            await asyncio.wait_for(self._shared.begin(), START)
        except TimeoutError:
            raise NotAsked(f"the store was not found within {START:g} s") from None
        await self._client.script_load(SOURCE)

    async def end(self) -> None:
        """Hang up."""
        await self._registry.close()
        await self._connection.close()
        await self._client.aclose()

    async def alone(self, times: int) -> float:
        """CPU microseconds of one check that goes by itself."""
        return await self._bill(self._one_by_one(times), times)

    async def together(self, times: int) -> float:
        """CPU microseconds of one decision where many are asked for at once.

        Raises:
            NotAsked: the store did not make them, or the machine was too busy for it to answer in time, at every look.
        """
        each, others = times // len(self._calls), dict[str, int]()
        for _ in range(LOOKS):
            others.clear()
            agents = [self._agent(one, each, others) for one in self._calls]
            cost = await self._bill(asyncio.gather(*agents), each * len(self._calls))
            if not others:
                return cost
            for _ in range(round(START / PAUSE)):
                if not self._batcher.away:
                    break
                await asyncio.sleep(PAUSE)
        raise NotAsked(f"decided otherwise: {others}, of {times}")

    async def _one_by_one(self, times: int) -> None:
        evalsha = self._client.evalsha
        for keys, argument in islice(cycle(self._prepared), times):
            await evalsha(DIGEST, len(keys), *keys, argument)

    async def _agent(self, charges: list[BucketCharge], times: int, others: dict[str, int]) -> None:
        """As the limiter asks (`gateway.limiter`); what the store does not let through is counted in `others`."""
        shared = self._shared
        for _ in range(times):
            admission = AwaitedAdmission(charges)
            verdict = shared.decide(charges, int(time.monotonic() * 1e6))
            if verdict is None:
                shared.ask(admission)
                verdict = await admission.wait()
            if verdict.how != "store" or verdict.refused is not None:
                others[verdict.how] = others.get(verdict.how, 0) + 1

    async def _bill(self, work: Awaitable[object], times: int) -> float:
        """What both processes spend for one of as many."""
        before, begun = processes.read(self._pid), time.process_time()
        await work
        own = time.process_time() - begun
        return (own + processes.spent(before, processes.read(self._pid))) / times * 1e6


def _prepared(keys: StoreKeys, charges: Sequence[BucketCharge]) -> tuple[list[str], bytes]:
    """Keys and argument of the script for this check."""
    rows = [ScriptRow(keys.bucket(*charge.bucket), charge.rate) for charge in charges]
    check = [part for place, charge in enumerate(charges, 1) for part in (place, charge.cost, ENFORCE)]
    request = ScriptRequest(rows, [check])
    return keys.of(request), encode(request, "reference", "epoch")


async def _rounds(stages: Sequence[Stage], rounds: int, times: int) -> tuple[list[list[float]], list[float]]:
    """What each costs in each round, and what a check alone costs around it."""
    own: list[list[float]] = [[] for _ in stages]
    references = []
    async with AsyncExitStack() as stack:
        for stage in stages:
            stack.push_async_callback(stage.end)
            await stage.begin()
            await stage.together(times)
        alone = stages[0].alone
        earlier = await alone(times // 2)
        for _ in range(rounds):
            for stage, costs in zip(stages, own, strict=True):
                costs.append(await stage.together(times))
            later = await alone(times // 2)
            references.append((earlier + later) / 2)
            earlier = later
    return own, references


def rows(folder: Path, rounds: int, times: int) -> list[Measured]:
    """The reference, and the decisions beside it.

    Raises:
        NotAsked: it was not as meant.
    """
    kinds = {
        f"by the store, {AT_ONCE} agents, three of four buckets shared": SHARED,
        "the same, all four buckets its own": OWN,
    }
    agents = [f"agent-{number}" for number in range(AT_ONCE)]
    with store(folder) as (pid, socket):
        scenes = [Scene(limits, exact=True) for limits in kinds.values()]
        stages = [Stage(pid, socket, [scene.charges(one) for one in agents]) for scene in scenes]
        own, references = uvloop.run(_rounds(stages, rounds, times))
    first = measured("evalsha by redis-py, one at a time", None, references, references)
    return [first, *(measured(name, WANTED, costs, references) for name, costs in zip(kinds, own, strict=True))]
