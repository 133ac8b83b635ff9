"""Fifty agents at once, a fifth of their calls given up, crooked servers: nobody reads another's answer, nothing leaks.

All four pairs of eras in one storm. Ids are the same for all agents: only the nonce tells whose an answer is.
"""

from __future__ import annotations

import asyncio
import random
import re
import resource
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.crooked import AGAIN, WAYS, Crooked
from tests.e2e.gateway import KEY, WORKERS, fingerprint, until
from tests.e2e.http import PATIENCE, Connection, Reply, connected, exchange, legacy
from tests.e2e.pairs import PAIRS, Pair, World, world

AGENTS, LANES, CALLS = 50, 4, 200
PATIENT = 0.02  # seconds after which an agent that gives up has done so
NONCE = re.compile(rb"nonce-\d+-\d+-")
LOST = -31003
POOL = 512  # connections of one worker to one instance of a server
BURST = 1200  # so many that each worker gets more calls than it has connections
FILES = 8192


def key_of(agent: int) -> str:
    return f"fgw_test_agent_{agent}"


@dataclass
class Storm:
    """What came of all calls."""

    found: World
    calls: int
    counts: Counter[str] = field(default_factory=Counter)
    sent: Counter[Pair] = field(default_factory=Counter)

    async def agent(self, number: int) -> None:
        """All calls of one agent, some at a time; every second agent is a legacy one."""
        era = "legacy" if number % 2 else "modern"
        if era == "legacy":
            await self.found.open(key_of(number))
        lanes = [range(lane, self.calls, LANES) for lane in range(LANES)]
        await asyncio.gather(*[self.lane(era, number, calls) for calls in lanes])

    async def lane(self, era: str, agent: int, calls: range) -> None:
        for call in calls:
            dice = random.Random(f"agent {agent} {call}")
            pair = Pair(era, dice.choice(("modern", "legacy")))
            await self.call(pair, agent, call, dice)

    async def call(self, pair: Pair, agent: int, call: int, dice: random.Random) -> None:
        """One call. Its agent reads its own nonce, or that the answer was lost, or nothing if it gave up."""
        self.sent[pair] += 1
        nonce = f"nonce-{agent}-{call}-"
        asked = self.found.asked(pair, "nonce", {"nonce": nonce}, id=call, token=call, key=key_of(agent))
        gives_up = dice.random() < 0.2
        async with connected(self.found.gateway.url) as connection:
            connection.send(asked)
            if not gives_up:
                reply = await (await connection.answer()).rest()
                self.judge(reply, nonce, call)
                return
            await asyncio.sleep(dice.random() * PATIENT)
            if pair.agent == "modern" or dice.random() < 0.5:
                self.counts["left"] += 1
                return
            await self.cancel(agent, call)
            await self.silenced(connection, nonce)

    async def cancel(self, agent: int, call: int) -> None:
        key = key_of(agent)
        session = self.found.sessions[key]
        note = legacy("notifications/cancelled", {"requestId": call}, key=key, id=None, session=session)
        assert (await exchange(self.found.gateway.url, note)).status == 202

    async def silenced(self, connection: Connection, nonce: str) -> None:
        """A cancelled call is answered with nothing, unless the answer was faster; never with another's."""
        async with asyncio.timeout(PATIENCE):
            text = await connection.reader.read()
        assert set(NONCE.findall(text)) <= {nonce.encode()}, (nonce, text)
        assert text.startswith(b"HTTP/1.1 200 "), text
        self.counts["cancelled"] += 1

    def judge(self, reply: Reply, nonce: str, call: int) -> None:
        assert set(NONCE.findall(reply.body)) <= {nonce.encode()}, (nonce, reply)
        answer = reply.json()
        assert (reply.status, answer["id"]) == (200, call), reply
        if "error" in answer:
            assert answer["error"]["code"] == LOST, answer
            self.counts["lost"] += 1
        else:
            assert answer["result"]["content"] == [{"type": "text", "text": nonce}], answer
            self.counts["right"] += 1


@asynccontextmanager
async def storming(folder: Path, crooked: Crooked) -> AsyncIterator[World]:
    """The crooked servers behind a gateway that knows fifty agents."""
    agents = {f"agent-{number}": {"key": fingerprint(key_of(number))} for number in range(AGENTS)}
    more = {"tester": {"key": fingerprint(KEY)}}
    async with world(folder, crooked.tools(), agents={**agents, **more}) as found:
        yield found


@pytest.fixture
def files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        pytest.skip(f"{FILES} open files are needed, the system allows {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES), hard))


@pytest.mark.usefixtures("files")
def test_nobody_reads_anothers_nonce_and_no_connection_slot_is_lost(tmp_path: Path) -> None:
    crooked = Crooked()

    async def story() -> None:
        async with storming(tmp_path, crooked) as found:
            storm = Storm(found, CALLS)
            await asyncio.gather(*[storm.agent(number) for number in range(AGENTS)])
            all_of_them = AGENTS * CALLS
            counts = storm.counts
            assert storm.sent.total() == counts.total() == all_of_them
            assert min(storm.sent[pair] for pair in PAIRS) > all_of_them / 5
            assert counts["left"] > all_of_them / 10
            assert counts["cancelled"] > all_of_them / 33
            assert counts["right"] > 0.95 * (counts["right"] + counts["lost"]), counts
            assert len(crooked.ways) == len(WAYS) + len(AGAIN), crooked.ways
            for server in ("modern", "legacy"):
                await pools_are_whole(found, crooked, server)

    asyncio.run(story())


async def pools_are_whole(found: World, crooked: Crooked, server: str) -> None:
    """More calls at once than there are connections: exactly so many are at the server as connections may be."""
    crooked.gate.clear()
    other = "legacy" if server == "modern" else "modern"
    calls = [asyncio.ensure_future(through(found, Pair("modern", server))) for _ in range(BURST)]
    try:
        await until(lambda: has_come(crooked, POOL * WORKERS), within=PATIENCE)
        # The other server's calls do not wait for this one's.
        for number in range(8):
            asked = found.asked(Pair("modern", other), "nonce", {"nonce": f"nonce-0-{number}-"}, token=1)
            assert b"nonce-0-" in (await exchange(found.gateway.url, asked)).body
        assert crooked.waiting == POOL * WORKERS
    finally:
        crooked.gate.set()
    assert Counter(await asyncio.gather(*calls)) == {True: BURST}


async def has_come(crooked: Crooked, number: int) -> bool:
    return crooked.waiting >= number


async def through(found: World, pair: Pair) -> Any:
    reply = await exchange(found.gateway.url, found.asked(pair, "gate"))
    return b'"through"' in reply.body or reply
