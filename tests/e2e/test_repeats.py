"""Answers that get lost on their way: nothing that is not known to be repeatable runs twice, and what is goes on.

Two instances, each a process that fails a share of its calls and writes down what it ran.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fastgw.upstream.failover import LEAST_AT_ONCE
from tests.e2e.asking import listed
from tests.e2e.faulty import FaultyProcess, ledger_of
from tests.e2e.gateway import Gateway, running_beside, until
from tests.e2e.load import Outcome, many, tool, words
from tests.e2e.ports import free_port

SHARE = 0.05
AMPLIFIED = 1.2
"""How often a repeatable call may run at most, on average."""
BATCH = 10_000
LANES = 8
CALLS = 300
"""So few where the gateway opens sessions one after the other, a second apart."""
HELD, WORKERS = 0.5, 2
REFUSED = 'fastgw_retries_refused_total{server="box"}'
SIZES = [1000, pytest.param(1_000_000, marks=pytest.mark.soak)]


@dataclass
class Place:
    """A gateway before two instances of one server, and their ledgers."""

    gateway: Gateway
    instances: list[FaultyProcess]
    files: list[Path]

    async def inject(self, fault: str | None, rate: float = 1.0) -> None:
        for one in self.instances:
            await one.inject(fault, "tools/call", rate=rate)


@asynccontextmanager
async def two_instances(folder: Path, options: dict[str, Any] | None = None, **more: Any) -> AsyncIterator[Place]:
    """`options` are those of `Faulty`, `more` of the gateway."""
    files = [folder / "ledger-1", folder / "ledger-2"]
    for file in files:
        file.touch()
    async with AsyncExitStack() as stack:
        made = [FaultyProcess(free_port(), file, **(options or {})) for file in files]
        await asyncio.gather(*[stack.enter_async_context(one) for one in made])
        settings = {"servers": {"box": {"url": [one.url for one in made]}}, **more}
        gateway = await stack.enter_async_context(running_beside(settings, folder))
        await listed(gateway, "safe", "unsafe")
        yield Place(gateway, made, files)


async def called(place: Place, name: str, calls: int) -> AsyncIterator[tuple[list[Outcome], Counter[str]]]:
    """Calls of a tool in batches, with what has run of each; what runs late shows in the next, as nobody's."""
    for first in range(0, calls, BATCH):
        nonces = [f"{name}{number}" for number in range(first, min(first + BATCH, calls))]
        outcomes = await many(place.gateway.url, tool(name), nonces, LANES)
        ran = ledger_of(*place.files)
        assert set(ran) <= set(nonces)
        is_told_the_truth(outcomes, ran)
        for file in place.files:
            os.truncate(file, 0)
        yield outcomes, ran


def is_told_the_truth(outcomes: list[Outcome], ran: Counter[str]) -> None:
    """Who hears that his call did not run, or that it did, hears what the ledgers say."""
    for one in outcomes:
        if one.is_right:
            assert ran[one.nonce] >= 1, one
        elif not one.may_have_run:
            assert ran[one.nonce] == 0, one


LEGACY, STREAMING = {"era": "legacy"}, {"streams": True}
CASES: list[Any] = [
    ("reset before the answer", {}, 1000),
    ("reset in the body", {}, 1000),
    ("503", {}, 1000),
    ("a stream without a response", STREAMING, 1000),
    ("a stream cut in an event", STREAMING, 1000),
    ("reset before the answer", LEGACY, 1000),
    pytest.param("reset before the answer", {}, 1_000_000, marks=pytest.mark.soak),
]


@pytest.mark.parametrize(("fault", "options", "calls"), CASES)
def test_no_unsafe_call_runs_twice(tmp_path: Path, fault: str, options: dict[str, Any], calls: int) -> None:
    async def story() -> None:
        lost = 0
        async with two_instances(tmp_path, options, breaker={"failures": 100}) as place:
            await place.inject(fault, SHARE)
            async for outcomes, ran in called(place, "unsafe", calls):
                assert max(ran.values()) == 1, ran.most_common(3)
                lost += sum(not one.is_right for one in outcomes)
        assert calls * SHARE * 0.4 < lost < calls * SHARE * 2.5, "so many were to be lost"

    asyncio.run(story())


def test_a_lost_session_is_opened_anew_and_no_call_runs_twice(tmp_path: Path) -> None:
    """A server that refuses sessions now and then: by 404 it says that it has not run the call."""

    async def story() -> None:
        wrong = 0
        async with two_instances(tmp_path, LEGACY, breaker={"failures": 100}) as place:
            await place.inject("404", SHARE)
            async for outcomes, ran in called(place, "unsafe", CALLS):
                assert max(ran.values()) == 1, ran.most_common(3)
                wrong += sum(not one.is_right for one in outcomes)
        assert wrong < CALLS * SHARE * 0.5, "most are asked again in another session"

    asyncio.run(story())


@pytest.mark.parametrize("calls", SIZES)
def test_repeatable_calls_go_on_and_are_not_repeated_without_end(tmp_path: Path, calls: int) -> None:
    async def story() -> None:
        more = {"breaker": {"failures": 100}, "tools": {"safe": {"repeatable": True}}}
        async with two_instances(tmp_path, **more) as place:
            await place.inject("reset before the answer", SHARE)
            runs, wrong = 0, []
            async for outcomes, ran in called(place, "safe", calls):
                runs += ran.total()
                wrong += [one for one in outcomes if not one.is_right]
            # Both instances fail one call of 400.
            assert len(wrong) <= calls * 0.01, words(wrong)
            assert calls < runs <= calls * AMPLIFIED

    asyncio.run(story())


def test_a_budget_bounds_the_repeats_where_much_fails(tmp_path: Path) -> None:
    """More load is not what servers in trouble need: a fifth of the calls, and a few at a time in any case."""

    async def story() -> None:
        more = {"breaker": {"failures": 10_000}, "tools": {"safe": {"repeatable": True}}}
        async with two_instances(tmp_path, {"delay": HELD}, **more) as place:
            await place.inject("reset before the answer", 0.4)
            begun, calls = time.monotonic(), 400
            await many(place.gateway.url, tool("safe"), (f"b{n}" for n in range(calls)), 100)
            # Each repeat takes as long as a call is held, so that no busy machine lets more of them follow each other.
            in_any_case = WORKERS * LEAST_AT_ONCE * math.ceil((time.monotonic() - begun) / HELD)
            assert ledger_of(*place.files).total() <= calls * AMPLIFIED + in_any_case

            async def refused() -> bool:
                if await asyncio.to_thread(place.gateway.metric, REFUSED) > 0:
                    return True
                # On a slow machine few fail at the same time.
                ids = (f"c{time.monotonic_ns()}-{n}" for n in range(100))
                await many(place.gateway.url, tool("safe"), ids, 100)
                return False

            assert await until(refused)

    asyncio.run(story())


def test_a_killed_instance_costs_what_it_had_in_hand(tmp_path: Path) -> None:
    """SIGKILL between the run and the answer: the agent hears that it may have run, and it did."""

    async def story() -> None:
        async with two_instances(tmp_path) as place:
            await place.inject("silent")
            waiting = [
                asyncio.create_task(many(place.gateway.url, tool("unsafe"), [f"k{n}"], 1)) for n in range(20)
            ]  # fmt: skip
            while ledger_of(*place.files).total() < 20:
                await asyncio.sleep(0.02)
            await asyncio.gather(*[one.kill() for one in place.instances])
            outcomes = [one for found in await asyncio.gather(*waiting) for one in found]
            assert {(one.code, one.may_have_run) for one in outcomes} == {(-31003, True)}, words(outcomes)
            assert ledger_of(*place.files) == {f"k{n}": 1 for n in range(20)}

    asyncio.run(story())
