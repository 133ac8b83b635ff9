"""Who leaves, who cancels, and what the server learns of it, in all four pairs of eras.

modern agent closes its connection          modern server: its connection closes; legacy: notifications/cancelled
legacy agent closes its connection          nobody learns of it, the call goes on to its end
legacy agent sends notifications/cancelled  as a modern agent that leaves, whichever worker it reaches
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway import KEY, until
from tests.e2e.http import PATIENCE, Connection, connected, exchange, legacy
from tests.e2e.pairs import PAIRS, Pair, World, world
from tests.e2e.servers import STREAM, STREAM_END, Call, event
from tests.e2e.sockets import accepted_by

KINDS = ["unary", "stream"]
LOG = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"error","data":"begun"}}'


class Held:
    """A tool whose calls the test holds: it knows when one is there, and says when it may be answered."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[Call] = asyncio.Queue()
        self.release = asyncio.Event()

    async def unary(self, call: Call) -> None:
        self.arrived.put_nowait(call)
        await self.release.wait()
        await call.text("done")

    async def stream(self, call: Call) -> None:
        await call.send(STREAM + event(LOG))
        self.arrived.put_nowait(call)
        await self.release.wait()
        await call.send(event(call.envelope(b'{"content":[]}')) + STREAM_END)

    async def next(self) -> Call:
        async with asyncio.timeout(PATIENCE):
            return await self.arrived.get()


@asynccontextmanager
async def holding(folder: Path) -> AsyncIterator[tuple[World, Held]]:
    held = Held()
    async with world(folder, {"unary": held.unary, "stream": held.stream}) as found:
        yield found, held


async def begin(found: World, held: Held, connection: Connection, pair: Pair, kind: str, **more: Any) -> Call:
    """Send a call; it is at its server, and its first event, if it has one, at the agent."""
    connection.send(found.asked(pair, kind, level="debug" if pair.agent == "modern" else None, **more))
    call = await held.next()
    if kind == "stream":
        stream = await connection.answer()
        first = await stream.event()
        assert first is not None
        assert first.json()["params"]["data"] == "begun"
    return call


async def is_told(found: World, pair: Pair, call: Call) -> None:
    """Return when the server knows that the call is no longer wanted."""
    if pair.server == "modern":
        async with asyncio.timeout(PATIENCE):
            await call.left()
        return

    async def told() -> bool:
        return call.id in [params["requestId"] for params in found.servers["legacy"].cancelled]

    await until(told)


async def outcomes(found: World, number: int) -> list[str]:
    """How the calls ended, when so many have, in the words of usage events."""

    async def ended() -> Any:
        events = [event["outcome"] for event in found.gateway.events() if event["method"] == "tools/call"]
        return events if len(events) >= number else None

    return list(await until(ended))


def test_a_modern_agent_that_leaves_withdraws_its_call(tmp_path: Path) -> None:
    async def story() -> None:
        async with holding(tmp_path) as (found, held):
            pairs = [pair for pair in PAIRS if pair.agent == "modern"]
            for pair in pairs:
                for kind in KINDS:
                    async with connected(found.gateway.url) as connection:
                        call = await begin(found, held, connection, pair, kind)
                    await is_told(found, pair, call)
            assert await outcomes(found, 4) == ["cancelled"] * 4
            assert len(found.servers["legacy"].cancelled) == 2
            assert found.servers["modern"].cancelled == [], "a modern server takes no such notification over HTTP"

    asyncio.run(story())


def test_a_legacy_agent_that_leaves_withdraws_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with holding(tmp_path) as (found, held):
            calls = []
            for pair in PAIRS:
                for kind in KINDS:
                    if pair.agent == "legacy":
                        async with connected(found.gateway.url) as connection:
                            calls.append(await begin(found, held, connection, pair, kind))
            # A modern agent's leaving, seen through both workers afterwards, shows that news would be here by now.
            for pair in [pair for pair in PAIRS if pair.agent == "modern"] * 4:
                async with connected(found.gateway.url) as connection:
                    call = await begin(found, held, connection, pair, "unary", id="later")
                await is_told(found, pair, call)
            assert [call.id for call in calls if call.has_left()] == []
            withdrawn = [params["requestId"] for params in found.servers["legacy"].cancelled]
            assert len(withdrawn) == 4
            assert not {call.id for call in calls} & set(withdrawn)
            held.release.set()
            assert sorted(await outcomes(found, 12)) == ["cancelled"] * 8 + ["ok"] * 4

    asyncio.run(story())


@pytest.mark.parametrize("where", ["the same worker", "the other worker"])
def test_a_cancelled_call_ends_whichever_worker_hears_of_it(tmp_path: Path, where: str) -> None:
    async def story() -> None:
        async with holding(tmp_path) as (found, held):
            session = found.sessions[KEY]
            url = found.gateway.url
            for number, (pair, kind) in enumerate((pair, kind) for pair in PAIRS for kind in KINDS):
                if pair.agent == "modern":
                    continue
                ident: int | str = number if number % 2 else f"call {number}"
                async with connected(url) as connection:
                    call = await begin(found, held, connection, pair, kind, id=ident)
                    has_it = await accepted_by(found.gateway, connection.port)
                    note = legacy("notifications/cancelled", {"requestId": ident}, key=KEY, id=None, session=session)
                    assert await told_by(found, has_it, note, where) == 202
                    await is_told(found, pair, call)
                    # The answer ends without a word about the call.
                    async with asyncio.timeout(PATIENCE):
                        rest = await connection.reader.read()
                    assert b'"id"' not in rest
                    assert b"result" not in rest
                    assert b"error" not in rest
            assert await outcomes(found, 4) == ["cancelled"] * 4

    asyncio.run(story())


async def told_by(found: World, has_it: int, note: Any, where: str) -> int:
    """Send the notification by a connection that the wanted worker has accepted; the status of the answer."""
    for _ in range(64):
        async with connected(found.gateway.url) as connection:
            same = await accepted_by(found.gateway, connection.port) == has_it
            if same is (where == "the same worker"):
                return (await connection.ask(note)).status
    raise AssertionError("64 connections went to one worker")


def test_a_cancel_of_anothers_session_cancels_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with holding(tmp_path) as (found, held):
            pair = Pair("legacy", "legacy")
            async with connected(found.gateway.url) as connection:
                call = await begin(found, held, connection, pair, "unary", id=1)
                other = await found.open()
                for ident in (1, "1", call.id):
                    note = legacy("notifications/cancelled", {"requestId": ident}, key=KEY, id=None, session=other)
                    for _ in range(4):
                        assert (await exchange(found.gateway.url, note)).status == 202
                held.release.set()
                assert b'"done"' in (await (await connection.answer()).rest()).body
            assert found.servers["legacy"].cancelled == []

    asyncio.run(story())
