"""Every fault of a server for what health checks ask it (`ping`, or `server/discover`): whether it counts as dead.

A server that answers is alive, whatever it says. One that counts as dead is called where there is no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.aside import aside
from tests.e2e.asking import Agent
from tests.e2e.faults import FAULTS
from tests.e2e.faulty import OPENINGS, Door, Faulty, faulty
from tests.e2e.gateway import Gateway, running_beside, until
from tests.e2e.http import Reply
from tests.e2e.test_fault_matrix import CASES, ROWS, WELL, backends, certificates
from tests.upstream.test_tls import Authority

HEALTH = {"interval": "1s", "timeout": "1s", "unhealthy_after": 2, "healthy_after": 2}
ANSWERS = [
    "307 elsewhere", "400", "401", "403", "404", "408", "421", "429", "429 with Retry-After", "isError",
    "a result that is no object", "-32603", "-32602", "-32601",
]  # fmt: skip
"""Faults by which a server says at least that it is there."""


@dataclass
class Checked:
    """A server whose health is looked at; what it counted as while it failed and afterwards, and a call meanwhile."""

    name: str
    fault: str
    box: Faulty
    door: Door
    failing: str = ""
    after: str = ""
    called: Reply | None = None

    @property
    def is_dead(self) -> bool:
        return ROWS[self.fault] is not WELL and self.fault not in ANSWERS


async def health(gateway: Gateway) -> dict[str, str]:
    found = await backends(gateway)
    return {name: one["instances"][0]["health"] for name, one in found.items()}


async def settled(gateway: Gateway, wanted: dict[str, str]) -> dict[str, str]:
    """What is believed of all servers, when that is as wanted or there was time enough."""

    async def as_wanted() -> bool:
        return await health(gateway) == wanted

    with suppress(AssertionError):  # its tests say which is not
        await until(as_wanted, 20)
    return await health(gateway)


async def run_all(folder: Path) -> dict[tuple[str, str], Checked]:
    ours, found = Authority(folder, "ours"), {}
    made = certificates(ours, Authority(folder, "stranger"))
    servers: dict[str, Any] = {}
    async with AsyncExitStack() as stack:
        for number, (era, fault) in enumerate(CASES):
            is_tls = FAULTS[fault].door in ("plain", "expired", "foreign")
            name = f"h{number:03}"
            one = Checked(name, fault, Faulty(era, f"{name}-"), Door(made if is_tls else None))
            await stack.enter_async_context(faulty(one.box, one.door))
            servers[name] = {"url": one.door.url, "timeout": "5s", **({"tls": {"ca": ours.path}} if is_tls else {})}
            found[era, fault] = one
        async with running_beside({"servers": servers, "max_reply": "64KiB", "health": HEALTH}, folder) as gateway:
            await fail(gateway, list(found.values()))
    return found


async def fail(gateway: Gateway, checked: list[Checked]) -> None:
    """Let all fail, then be well; calls go to all of them while they fail."""
    await settled(gateway, {one.name: "healthy" for one in checked})
    for one in checked:
        one.box.inject(one.fault, *OPENINGS)
        await one.door.become(FAULTS[one.fault].door or "open")
    failing = await settled(gateway, {one.name: "unhealthy" if one.is_dead else "healthy" for one in checked})
    agent = Agent(gateway.url)
    replies = await asyncio.gather(*[agent.call(f"{one.name}-unsafe", {"nonce": "during"}) for one in checked])
    for one, reply in zip(checked, replies, strict=True):
        one.failing, one.called = failing[one.name], reply
        one.box.inject(None, *OPENINGS)
        await one.door.become("open")
    after = await settled(gateway, {one.name: "healthy" for one in checked})
    for one in checked:
        one.after = after[one.name]


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], Checked]]:
    with aside() as loop:
        yield loop.run(run_all(tmp_path_factory.mktemp("health")))


cases = pytest.mark.parametrize(("era", "fault"), CASES)


@cases
def test_whether_it_counts_as_dead(checked: dict[tuple[str, str], Checked], era: str, fault: str) -> None:
    one = checked[era, fault]
    assert one.failing == ("unhealthy" if one.is_dead else "healthy")
    assert one.after == "healthy"


@cases
def test_it_is_called_all_the_same(checked: dict[tuple[str, str], Checked], era: str, fault: str) -> None:
    one = checked[era, fault]
    assert one.called is not None
    said = one.called.json()
    if FAULTS[fault].door:
        assert said["error"]["code"] in (-31001, -31002, -31003)
    elif era == "modern":
        assert said["result"]["content"][0]["text"] == "during"
    else:  # its session has to be opened, which fails
        assert one.box.executions.runs["during"] == ("result" in said)
