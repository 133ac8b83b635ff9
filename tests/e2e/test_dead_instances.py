"""One instance of two is dead, hangs, or comes and goes: nobody sees it, and soon hardly a call goes there.

Agents of the modern era, which no session ties to an instance; the tool is known to be repeatable.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.asking import listed
from tests.e2e.faults import FAULTS
from tests.e2e.faulty import Door, Faulty, faulty
from tests.e2e.gateway import WORKERS, Gateway, fingerprint, running_beside, until
from tests.e2e.load import Load, loaded, many, tool, words
from tests.e2e.test_reload import APPLIED, reload

FAILURES = 5
AT_MOST = FAILURES * WORKERS + 10
"""Calls that fail before the breaker is open: each worker counts by itself, and some are under way already."""
AGENTS = 20
"""So many that some begin at each instance, where an agent has its place."""
LEAK = 0.01
"""Share of the calls that may reach a dead instance once its breaker is open, probes included."""


ATTEMPT = 1.5
SAFE = {
    "repeatable": True, "attempt_timeout": f"{ATTEMPT:g}s", "timeout": "20s", "failover_on": ["unavailable", "timeout"]
}  # fmt: skip


def key_of(agent: int) -> str:
    return f"fgw_test_agent_{agent}"


@dataclass
class Place:
    """Two instances of one server behind a gateway."""

    gateway: Gateway
    boxes: list[Faulty]
    doors: list[Door]
    settings: dict[str, Any]

    async def call(self, calls: int, name: str = "safe", mark: str = "n") -> list[Any]:
        """So many calls, shared by all agents."""
        each = []
        for agent in range(AGENTS):
            nonces = [f"{mark}-{agent}-{number}" for number in range(calls // AGENTS)]
            each.append(many(self.gateway.url, tool(name, key_of(agent)), nonces, lanes=1))
        return [one for found in await asyncio.gather(*each) for one in found]

    async def fail(self, fault: str) -> None:
        """The first instance fails so from now on."""
        self.boxes[0].inject(fault, "tools/call")
        await self.doors[0].become(FAULTS[fault].door or "open")


@asynccontextmanager
async def two_instances(folder: Path, **more: Any) -> AsyncIterator[Place]:
    boxes = [Faulty("modern"), Faulty("modern")]
    agents = {f"agent-{number}": {"key": fingerprint(key_of(number))} for number in range(AGENTS)}
    async with faulty(boxes[0]) as one, faulty(boxes[1]) as two:
        settings = {
            "servers": {"box": {"url": [one.url, two.url], "era": "modern"}},
            "agents": agents,
            "tools": {"safe": SAFE},
            "breaker": {"failures": FAILURES, "open_for": "60s"},
            **more,
        }
        async with running_beside(settings, folder) as gateway:
            await listed(gateway, "safe", "unsafe", key=key_of(0))
            yield Place(gateway, boxes, [one, two], settings)


async def instances(gateway: Gateway, server: str) -> dict[str, dict[str, Any]]:
    """What `/backends` says of each instance of a server, by its port."""
    status, body = await asyncio.to_thread(gateway.ask_admin, "/backends")
    assert status == 200
    found = json.loads(body)[server]["instances"]
    return {one["url"].split("/")[2].rpartition(":")[2]: one for one in found}


async def breaker_is(gateway: Gateway, server: str, port: int, *states: str, within: float = 10.0) -> None:
    """Return when the breaker of the instance at this port is in one of these states."""

    async def there() -> bool:
        return (await instances(gateway, server))[str(port)]["breaker"]["state"] in states

    await until(there, within)


@pytest.mark.parametrize("fault", ["refused", "reset before the answer", "500", "silent", "-32603"])
def test_nobody_sees_that_one_is_dead_and_hardly_a_call_goes_there(tmp_path: Path, fault: str) -> None:
    """What a server itself calls its own fault (-32603) its agents hear, until its breaker opens."""

    async def story() -> None:
        async with two_instances(tmp_path) as place:
            assert all(one.is_right for one in await place.call(100, mark="before"))
            assert all(box.asked_for["tools/call"] for box in place.boxes), "each has its share"
            await place.fail(fault)
            first = await place.call(400, mark="first")
            wrong = [one for one in first if not one.is_right]
            assert {one.code for one in wrong} <= {-32603}, words(wrong)
            assert len(wrong) <= (AT_MOST if fault == "-32603" else 0), words(wrong)
            await breaker_is(place.gateway, "box", place.doors[0].port, "open")
            before = place.boxes[0].asked_for["tools/call"]
            then = await place.call(1000, mark="then")
            assert all(one.is_right for one in then), words(one for one in then if not one.is_right)
            assert place.boxes[0].asked_for["tools/call"] - before <= len(then) * LEAK

    asyncio.run(story())


@pytest.mark.parametrize("what", ["a reload", "killed workers", "a killed controller"])
def test_an_open_breaker_survives(tmp_path: Path, what: str) -> None:
    async def story() -> None:
        async with two_instances(tmp_path) as place:
            gateway, dead = place.gateway, place.boxes[0]
            await place.fail("reset before the answer")
            await place.call(400, mark="first")
            await breaker_is(gateway, "box", place.doors[0].port, "open")
            if what == "a reload":
                gateway.configure({**place.settings, "timeout": "31s"})
                await reload(gateway, APPLIED)
            else:
                for role in ["controller"] if "controller" in what else ["worker-1", "worker-2"]:
                    await kill(gateway, role)
            before = dead.asked_for["tools/call"]
            then = await place.call(400, mark="then")
            assert all(one.is_right for one in then), words(one for one in then if not one.is_right)
            assert dead.asked_for["tools/call"] - before <= len(then) * LEAK

    asyncio.run(story())


async def kill(gateway: Gateway, role: str) -> None:
    """Kill it, and return when another is in its place and both workers are active."""
    victim = gateway.child(role)
    os.kill(victim, signal.SIGKILL)

    async def back() -> bool:
        status, text = await asyncio.to_thread(gateway.ask_admin, "/readyz")
        is_active = status == 200 and json.loads(text)["workers"]["active"] == WORKERS
        return is_active and gateway.child(role) not in (0, victim)

    await until(back)


def test_it_has_its_share_again_when_it_is_well(tmp_path: Path) -> None:
    async def story() -> None:
        async with two_instances(tmp_path, breaker={"failures": FAILURES, "open_for": "1s"}) as place:
            await place.fail("reset before the answer")
            await place.call(400, mark="failing")
            await breaker_is(place.gateway, "box", place.doors[0].port, "open", "half-open")
            place.boxes[0].inject(None)
            async with loaded(place.gateway.url, 50, *[tool("safe", key_of(agent)) for agent in range(AGENTS)]) as load:
                await breaker_is(place.gateway, "box", place.doors[0].port, "closed", within=20)
            assert not load.wrong, words(load.wrong)
            before = place.boxes[0].asked_for["tools/call"]
            await place.call(400, mark="again")
            assert place.boxes[0].asked_for["tools/call"] - before > 40

    asyncio.run(story())


def test_one_that_cannot_be_connected_to_costs_an_attempt_timeout(tmp_path: Path) -> None:
    """Not a word comes back, as from a machine that is off."""

    async def story() -> None:
        async with two_instances(tmp_path) as place:
            await place.fail("backlog full")
            outcomes = await place.call(40)
            assert all(one.is_right for one in outcomes), words(outcomes)
            assert max(one.seconds for one in outcomes) < ATTEMPT + 2.0

    asyncio.run(story())


@pytest.mark.parametrize("fault", ["refused", "429", "503 with Retry-After"])
def test_calls_that_were_turned_away_go_elsewhere_whatever_they_do(tmp_path: Path, fault: str) -> None:
    """No tool runs twice by that, so it need not be repeatable."""

    async def story() -> None:
        async with two_instances(tmp_path) as place:
            await place.fail(fault)
            outcomes = await place.call(400, "unsafe")
            assert all(one.is_right for one in outcomes), words(one for one in outcomes if not one.is_right)
            assert max(place.boxes[1].executions.runs.values()) == 1
            assert not place.boxes[0].executions.runs

    asyncio.run(story())


def test_all_throttle(tmp_path: Path) -> None:
    """The agent hears when the first of them wants calls again, and no breaker opens by it."""

    async def story() -> None:
        async with two_instances(tmp_path) as place:
            for box in place.boxes:
                box.inject("429 with Retry-After", "tools/call")
            outcomes = await place.call(200, "unsafe")
            assert {(one.code, one.said["error"]["data"]["reason"]) for one in outcomes} == {(-31001, "busy")}
            assert {one.said["error"]["data"]["retryAfter"] for one in outcomes} <= set(range(1, 8))
            for box in place.boxes:
                box.inject(None)
            again = await place.call(200, "unsafe", mark="again")
            assert all(one.is_right for one in again), words(one for one in again if not one.is_right)

    asyncio.run(story())


def test_the_last_instance_is_never_shut_out(tmp_path: Path) -> None:
    """Where all have failed, some are asked all the same: a breaker must not make an outage longer."""

    async def story() -> None:
        async with two_instances(tmp_path) as place:
            for door in place.doors:
                await door.become("refused")
            failing = await place.call(400, mark="failing")
            assert {one.code for one in failing} == {-31001}, words(failing[:3])
            for door in place.doors:
                await door.become("open")
            again = await place.call(400, mark="again")
            assert sum(one.is_right for one in again) > 350, words(one for one in again if not one.is_right)

    asyncio.run(story())


def test_a_trial_that_hangs_does_not_keep_others_from_the_last_instance(tmp_path: Path) -> None:
    """Each worker has given one call to a server that hangs; then the server is well, and these calls still wait."""

    async def story() -> None:
        box = Faulty("modern")
        servers = {"box": {"url": "", "timeout": "60s"}}
        async with faulty(box) as door:
            servers["box"]["url"] = door.url
            async with running_beside({"servers": servers, "drain": "1s"}, tmp_path) as gateway:
                await listed(gateway, "unsafe")
                await door.become("refused")
                await many(gateway.url, tool("unsafe"), [f"failing-{number}" for number in range(40)])
                await door.become("open")
                box.inject("silent", "tools/call")
                held = Load()
                while len(held.in_flight) < WORKERS:
                    held.begin(gateway.url, tool("unsafe"), f"held-{len(held.outcomes)}")
                    await asyncio.sleep(0.1)
                box.inject(None)

                async def is_well() -> bool:
                    return all(one.is_right for one in await many(gateway.url, tool("unsafe"), ["a", "b", "c"], 1))

                try:
                    await until(is_well, 20)
                finally:
                    await door.become("refused")
                    await held.ended()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("seconds", "turns", "rate"), [(1.0, 3, 100), pytest.param(10.0, 12, 500, marks=pytest.mark.soak)]
)
def test_one_that_comes_and_goes_costs_nobody_a_call(tmp_path: Path, seconds: float, turns: int, rate: int) -> None:
    async def story() -> None:
        async with two_instances(tmp_path, breaker={"failures": FAILURES, "open_for": f"{seconds:g}s"}) as place:
            askings = [tool("safe", key_of(agent)) for agent in range(AGENTS)]
            async with loaded(place.gateway.url, rate, *askings) as load:
                for _ in range(turns):
                    await place.doors[0].become("refused")
                    await asyncio.sleep(seconds)
                    await place.doors[0].become("open")
                    await asyncio.sleep(seconds)
            assert not load.wrong, words(load.wrong)
            assert len(load.outcomes) > rate * seconds * turns

    asyncio.run(story())
