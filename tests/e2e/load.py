"""Calls at a rate, whatever becomes of the ones before (open loop), and what came of each.

async with loaded(gateway.url, 100, unsafe) as load:      # a fresh connection for every call
    ...
load.outcomes                                              # in the order they began; each has ended
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.gateway import KEY
from tests.e2e.http import Asked, Reply, exchange, modern

Asking = Callable[[str], Asked]
"""Makes the call that carries this nonce."""


@dataclass(frozen=True)
class Outcome:
    """One call; `reply` is None where the connection broke. Times in seconds, of a clock of their own."""

    nonce: str
    begun: float
    ended: float
    reply: Reply | None

    @property
    def seconds(self) -> float:
        return self.ended - self.begun

    @property
    def said(self) -> dict[str, Any]:
        """The JSON-RPC answer, empty where there was none."""
        return dict(self.reply.json()) if self.reply is not None else {}

    @property
    def is_right(self) -> bool:
        """Whether it was answered with its own nonce."""
        return bool("result" in self.said and self.said["result"]["content"] == [{"type": "text", "text": self.nonce}])

    @property
    def code(self) -> int | None:
        return self.said["error"]["code"] if "error" in self.said else None

    @property
    def may_have_run(self) -> bool:
        """What the agent knows: who hears nothing must think so."""
        return bool(self.said["error"].get("data", {}).get("mayHaveRun", True)) if "error" in self.said else True


def tool(name: str, key: str = KEY) -> Asking:
    """Calls of a modern agent."""
    return lambda nonce: modern("tools/call", {"name": name, "arguments": {"nonce": nonce}}, key=key)


@dataclass
class Load:
    """What was called so far."""

    outcomes: list[Outcome] = field(default_factory=list)
    in_flight: set[asyncio.Task[None]] = field(default_factory=set)
    how: dict[str, Any] = field(default_factory=dict)

    async def call(self, url: str, asked: Asked, nonce: str) -> None:
        """One call, kept when it has ended."""
        begun, reply = time.monotonic(), None
        with suppress(OSError, EOFError, IndexError):  # reset, cut short, closed before a word
            reply = await exchange(url, asked, **self.how)
        self.outcomes.append(Outcome(nonce, begun, time.monotonic(), reply))

    def begin(self, url: str, asking: Asking, nonce: str) -> None:
        """Begin a call; do not wait for it."""
        task = asyncio.create_task(self.call(url, asking(nonce), nonce))
        self.in_flight.add(task)
        task.add_done_callback(self.in_flight.discard)

    async def ended(self) -> None:
        """Return when all that was begun has ended."""
        await asyncio.gather(*self.in_flight)

    @property
    def wrong(self) -> list[Outcome]:
        return [one for one in self.outcomes if not one.is_right]


@asynccontextmanager
async def loaded(url: str, rate: float, *askings: Asking, **how: Any) -> AsyncIterator[Load]:
    """So many calls a second, of each kind in turn, until the block is left; then those in flight are waited for.
    Connections are opened as `how` says.
    """
    load = Load(how=how)
    pacer = asyncio.create_task(_pace(load, url, rate, askings))
    try:
        yield load
    finally:
        pacer.cancel()
        await asyncio.gather(pacer, return_exceptions=True)
        await load.ended()
        load.outcomes.sort(key=lambda one: one.begun)


async def _pace(load: Load, url: str, rate: float, askings: tuple[Asking, ...]) -> None:
    start, count = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - start) * rate)
        for number in range(count, due):
            load.begin(url, askings[number % len(askings)], f"n{number}")
        count = due
        await asyncio.sleep(1 / rate)


async def many(url: str, asking: Asking, nonces: Iterable[str], lanes: int = 8) -> list[Outcome]:
    """A call for each nonce, so many at a time (closed loop)."""
    load, left = Load(), iter(nonces)

    async def lane() -> None:
        for nonce in left:
            await load.call(url, asking(nonce), nonce)

    await asyncio.gather(*[lane() for _ in range(lanes)])
    return load.outcomes


def percentile(outcomes: Iterable[Outcome], share: float) -> float:
    """The time within which this share of the calls ended, in seconds."""
    times = sorted(one.seconds for one in outcomes)
    return times[min(len(times) - 1, int(len(times) * share))]


def words(outcomes: Iterable[Outcome]) -> str:
    """What those who were not answered rightly heard, for a test that has failed."""
    return json.dumps([one.said or "broken off" for one in outcomes])[:2000]
