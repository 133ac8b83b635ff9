"""Workers under load before a real store, all in this process, that keep count while a test breaks the store.

Each agent makes one kind of call after another: of a limit that is exact and never refilled in time (so that every
token can be counted at the store), of one that is leased, of limits that give way or must hold while the store is away,
and of calls at the same time. No limit is near: whatever is refused is refused for the store's sake.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import redis
import uvloop

from fastgw.config.schema.store import StorePlace, StoreSettings
from fastgw.limits.script import StoreKeys
from fastgw.policy.bucket import bucket_rate
from fastgw.policy.limits import BucketCharge, Limit, LimitVerdict
from tests.limits.workers import Worker, connected

COUNT, AGENTS = 3, 4
EVERY = 0.02  # seconds between two calls of an agent
PLENTY = bucket_rate(1, 86_400, 50_000)
LEASE = 500  # tokens: a hundredth
FEW = 6  # open files
KEYS = StoreKeys("fastgw")
EXACT, LEASED = Limit("exact", exact=True), Limit("leased")
ALLOW, DENY = Limit("allow", on_failure="allow", exact=True), Limit("deny", on_failure="deny", exact=True)
RATES = [BucketCharge(limit, (limit.name, "a"), PLENTY) for limit in (EXACT, LEASED, ALLOW, DENY)]
AT_ONCE = BucketCharge(EXACT, ("exact\n*", "a"), None, 1, 3000)
KINDS = [[one] for one in RATES] + [[AT_ONCE, RATES[0]]]
NORMAL = {"store", "lease"}


@dataclass
class Call:
    """One call: when it was made, how long its verdict took, what it said."""

    at: float
    took: float
    kind: str
    verdict: LimitVerdict


@dataclass
class Load:
    """All that was asked so far; `late`: the most that this process was late by itself."""

    workers: list[Worker]
    calls: list[Call] = field(default_factory=list)
    late: float = 0.0
    over: bool = False

    async def agent(self, worker: Worker, turn: int) -> None:
        while not self.over:
            charges = KINDS[turn % len(KINDS)]
            turn += 1
            began = monotonic()
            verdict = await worker.call(*charges)
            self.calls.append(Call(began, monotonic() - began, charges[0].limit.name, verdict))
            await asyncio.sleep(EVERY)
            worker.shared.release(verdict.permits)

    async def watch(self) -> None:
        while not self.over:
            before = monotonic()
            await asyncio.sleep(0.005)
            self.late = max(self.late, monotonic() - before - 0.005)

    @property
    def up(self) -> bool:
        """Whether all workers use the store."""
        return all(worker.shared.state == "up" for worker in self.workers)

    def admitted(self, limit: Limit) -> int:
        """Tokens that calls took of a limit's bucket."""
        return sum(call.verdict.refused is None for call in self.calls if call.kind == limit.name)

    async def normal(self) -> None:
        """Return when for a while the store, or what was taken of it, has decided everything."""
        for _ in range(10):
            began = monotonic()
            await asyncio.sleep(0.2)
            if self.up and {call.verdict.how for call in self.since(began)} == NORMAL:
                return
        raise AssertionError("nothing is as before")

    def since(self, at: float) -> list[Call]:
        """Calls that were made after that."""
        return [call for call in self.calls if call.at > at]

    def table(self) -> str:
        """Latencies in ms by who decided."""
        lines = [f"late by itself {self.late * 1000:.1f} ms"]
        for how in sorted({call.verdict.how for call in self.calls}):
            took = sorted(1000 * call.took for call in self.calls if call.verdict.how == how)
            p99 = took[int(0.99 * len(took))]
            lines.append(
                f"  {how:6} {len(took):6}  p50 {took[len(took) // 2]:6.2f}  p99 {p99:6.2f}  max {took[-1]:6.2f}"
            )
        return "\n".join(lines)


@asynccontextmanager
async def loaded(place: StorePlace) -> AsyncIterator[Load]:
    """Workers with their agents; when it is over every call has had its verdict."""
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(connected(place, f"w{at}", COUNT)) for at in range(COUNT)]
        load = Load(workers)
        agents = [load.agent(worker, turn) for worker in workers for turn in range(AGENTS)]
        running = [asyncio.create_task(one) for one in (*agents, load.watch())]
        try:
            yield load
        finally:
            load.over = True
            async with asyncio.timeout(5):
                await asyncio.gather(*running)
                while any(len(worker.spawner.tasks) > 1 for worker in workers):
                    await asyncio.sleep(0)  # what is still to be said
            print(f"\n{load.table()}")


def kept(client: redis.Redis, charge: BucketCharge) -> int:
    """Tokens that a bucket lacks at the store, those that are lent among them."""
    value = client.get(KEYS.bucket(*charge.bucket))
    assert charge.rate is not None
    return -(-int(value.split()[0]) // charge.rate.price) if isinstance(value, bytes) else 0


def run(story: Callable[[], Awaitable[None]]) -> None:
    """The story, on the loop that gateways use; no connection may be left open by it."""
    before = _open_files()

    async def main() -> None:
        async with asyncio.timeout(60):
            await story()

    uvloop.run(main())
    end = monotonic() + 5  # a proxy of the test closes its ends in threads of its own
    while _open_files() > before + FEW:
        assert monotonic() < end, "more than the test's own clients"
        sleep(0.01)


def _open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def place_at(url: str, **more: str) -> StorePlace:
    return StoreSettings(url=url, **more).place(COUNT)


async def in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    """What takes time beside the load."""
    return await asyncio.to_thread(work, *arguments)


async def quiet(seconds: float) -> None:
    """Let the load go on."""
    await asyncio.sleep(seconds)


def hows(calls: list[Call]) -> Counter[tuple[str, str]]:
    """Verdicts by limit and who decided."""
    return Counter((call.kind, call.verdict.how) for call in calls)
