"""Every fault of one instance of two, for everything that is asked of a server: who may be asked again hears nothing of
it, and nothing else runs twice.

One gateway, one server of two instances for each fault and era. A first call tells which instance the agent has; that
one fails from then on, at everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.aside import aside
from tests.e2e.asking import Agent
from tests.e2e.faults import FAULTS
from tests.e2e.faulty import CALLS, Door, Faulty, faulty
from tests.e2e.gateway import Gateway, running_beside, until
from tests.e2e.http import Reply
from tests.e2e.test_fault_matrix import (
    BREAKING,
    CASES,
    FAILED,
    LATE,
    LOST,
    ROWS,
    Told,
    asked_of,
    certificates,
    sent_as,
    told_by,
)
from tests.upstream.test_tls import Authority

TIMES = 4
"""How often each is asked: agents of the modern era get now this instance, now that one."""
ENDLESS = ("a body that drips", "comments for ever")
"""Answers that have begun, and go on: `attempt_timeout` does not end them, and after `timeout` nobody else is asked."""
UNANSWERED = ("full", "plain")
"""States of a door at which a connection takes seconds to fail: nothing is sent, so nothing need be waited for."""
RELAYED = ("a stream without a response", "a stream cut in an event", "an array", "a result that is no object")
"""Answers that have begun, or look sound until they are handed on: then nobody else is asked."""
KINDS = ("safe", "unsafe", *CALLS[1:])
"""What is asked: a repeatable tool, another one, and what is repeatable by nature."""


@dataclass
class Two:
    """One server of two instances, the first of which is to fail."""

    name: str
    era: str
    fault: str
    boxes: list[Faulty]
    doors: list[Door]
    heard: dict[str, list[tuple[str, Reply]]] = field(default_factory=dict)
    failed: int = 0

    def ran(self, nonce: str) -> int:
        return sum(box.executions.runs[nonce] for box in self.boxes)

    async def ask(self, agent: Agent) -> None:
        """Have the agent's own instance fail, then ask for everything."""
        assert (await agent.call(f"{self.name}-unsafe", {"nonce": "first"})).status == 200
        if self.boxes[1].executions.runs["first"]:
            self.boxes.reverse()
            self.doors.reverse()
        self.boxes[0].inject(self.fault)
        await self.doors[0].become(FAULTS[self.fault].door or "open")
        times = 1 if self.fault in ENDLESS else 2 if LATE in ROWS[self.fault].told else TIMES
        asked = [(kind, number) for kind in KINDS for number in range(times)]
        # One after the other, or in pairs where each takes seconds: repeats at the same time are few. Of a pair, modern
        # agents would have the second one from the other instance.
        pairs = self.era == "legacy" and LATE in ROWS[self.fault].told
        together = len(asked) if FAULTS[self.fault].door in UNANSWERED else 2 if pairs else 1
        for at in range(0, len(asked), together):
            await asyncio.gather(*[self.ask_for(agent, *one) for one in asked[at : at + together]])

    async def ask_for(self, agent: Agent, kind: str, number: int) -> None:
        method, nonce = kind if kind in CALLS else CALLS[0], f"{kind.replace('/', '-')}-{number}"
        params = asked_of(self.name, method, nonce)
        if method == CALLS[0]:
            params["name"] = f"{self.name}-{kind}"
        reply = await agent.ask(method, params)
        self.heard.setdefault(kind, []).append((sent_as(self.name, method, nonce), reply))


async def run_all(folder: Path) -> dict[tuple[str, str], Two]:
    """Open every server and the gateway, and ask for everything."""
    ours, found = Authority(folder, "ours"), {}
    made = certificates(ours, Authority(folder, "stranger"))
    servers: dict[str, Any] = {}
    tools: dict[str, Any] = {}
    async with AsyncExitStack() as stack:
        for number, (era, fault) in enumerate(CASES):
            name, is_tls = f"s{number:03}", FAULTS[fault].door in ("plain", "expired", "foreign")
            boxes, doors = [], []
            for _ in range(2):
                boxes.append(Faulty(era, f"{name}-"))
                doors.append(Door(made if is_tls else None))
                await stack.enter_async_context(faulty(boxes[-1], doors[-1]))
            found[era, fault] = Two(name, era, fault, boxes, doors)
            slow = LATE in ROWS[fault].told or is_tls or fault == "backlog full"
            timeout = "4s" if fault in ENDLESS else "20s"
            servers[name] = {"url": [door.url for door in doors], "timeout": timeout}
            servers[name] |= {"attempt_timeout": "1500ms"} if slow else {}
            servers[name] |= {"tls": {"ca": ours.path}} if is_tls else {}
            failover = {"failover_on": ["unavailable", "timeout", "throttled"]}
            tools |= {f"{name}-safe": {"repeatable": True, **failover}, f"{name}-unsafe": failover}
        more = {"servers": servers, "tools": tools, "max_reply": "64KiB", "breaker": {"failures": 1000}}
        async with running_beside(more, folder) as gateway:
            await until(lambda: lists_all(gateway), 40)
            await asyncio.gather(*[two.ask(Agent(gateway.url)) for two in found.values()])
            with suppress(AssertionError):  # its test says which is not
                await until(lambda: counted(gateway, found), 3)
    return found


async def lists_all(gateway: Gateway) -> bool:
    return len(await Agent(gateway.url).names()) == 2 * len(CASES)


async def counted(gateway: Gateway, found: dict[tuple[str, str], Two]) -> bool:
    """Counters arrive a moment later; which failures there must be, the tests say."""
    text = (await asyncio.to_thread(gateway.ask_admin, "/metrics"))[1].decode()
    by_name = {two.name: two for two in found.values()}
    for two in found.values():
        two.failed = 0
    for server, _, count in FAILED.findall(text):
        by_name[server].failed += int(count)
    return all(two.failed or not ROWS[two.fault].counted for two in found.values())


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], Two]]:
    with aside() as loop:
        yield loop.run(run_all(tmp_path_factory.mktemp("pairs")))


cases = pytest.mark.parametrize(("era", "fault"), CASES)


def is_the_servers_own(told: Told) -> bool:
    """An error of the server's, which no other instance is asked about."""
    return (told.code is not None and told.code > -31000) or told.code in (-32601, -32602, -32603)


@cases
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "unsafe"])
def test_who_may_be_asked_again_sees_nothing_of_it(
    pairs: dict[tuple[str, str], Two], era: str, fault: str, kind: str
) -> None:
    two = pairs[era, fault]
    for nonce, reply in two.heard[kind]:
        told = told_by(reply)
        if told == LATE and (fault in ENDLESS or kind != "safe"):
            continue  # `failover_on: timeout` is a setting of tools
        if told == LOST and fault in RELAYED:
            continue
        assert told.code is None or (told in ROWS[fault].told and is_the_servers_own(told)), reply.json()
        assert 1 <= two.ran(nonce) <= 2


@cases
def test_nothing_else_runs_twice(pairs: dict[tuple[str, str], Two], era: str, fault: str) -> None:
    two = pairs[era, fault]
    allowed = ROWS[fault].told
    for nonce, reply in two.heard["unsafe"]:
        told = told_by(reply)
        assert two.ran(nonce) <= 1
        if told.code is None:
            assert two.ran(nonce) == 1
        else:
            assert told in allowed, reply.json()
            assert told.may_have_run is not False, "it was not sent: the other instance would have answered"


@cases
def test_it_was_there_that_it_failed(pairs: dict[tuple[str, str], Two], era: str, fault: str) -> None:
    """Else the tests above have seen nothing."""
    two = pairs[era, fault]
    if set(ROWS[fault].counted) & BREAKING:
        assert two.failed > 0
