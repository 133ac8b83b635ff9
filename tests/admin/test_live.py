"""What a page is sent: everything once, then what changes; by one producer, while somebody looks, and no faster than
each reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import selectors
import socket
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from aiohttp import ClientSession, web

from fastgw.admin.live import MOST_UNSENT, MOST_VIEWERS, LiveFeed, LiveSource, changes_of
from fastgw.telemetry.busiest import AgentPace
from fastgw.telemetry.counters import Counters
from fastgw.telemetry.latencies import Latencies
from fastgw.upstream.call_context import BackgroundTasks
from tests.admin.page_world import World, refusal, took
from tests.e2e import http
from tests.e2e.http import Stream, streaming

FASTER = 20
"""How many of the loop's seconds pass in one of the machine's."""


class HastySelector(selectors.DefaultSelector):
    """Waits as long as the hasty loop's seconds are."""

    def select(self, timeout: float | None = None) -> Any:
        return super().select(timeout / FASTER if timeout else timeout)


class HastyLoop(asyncio.SelectorEventLoop):
    """A loop whose clock runs ahead, so that a minute of waiting takes seconds; what is really done takes as long."""

    def __init__(self) -> None:
        super().__init__(HastySelector())

    def time(self) -> float:
        return time.monotonic() * FASTER


def hasty(main: Coroutine[Any, Any, None]) -> None:
    patience = patch("tests.e2e.http.PATIENCE", http.PATIENCE * FASTER)  # in the loop's seconds
    with patience, asyncio.Runner(loop_factory=HastyLoop) as runner:
        runner.run(main)


@asynccontextmanager
async def served(*sources: LiveSource) -> AsyncIterator[str]:
    """The address of a feed of these."""
    tasks = BackgroundTasks()
    app = web.Application()
    app.router.add_get("/live", LiveFeed(sources, tasks.spawn).handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/live"
    finally:
        await runner.cleanup()
        await tasks.close()


class Counting:
    """A part that counts how often it is made: `{"n": {"times": 1}}`."""

    def __init__(self, every: float) -> None:
        self.times = 0
        self.source = LiveSource("counting", every, self.make)

    async def make(self) -> Mapping[str, Any]:
        self.times += 1
        return {"n": {"times": self.times, "same": "x"}}


@asynccontextmanager
async def watching(url: str) -> AsyncIterator[Stream]:
    from tests.e2e.http import Asked

    async with streaming(url, Asked(verb="GET")) as stream:
        assert stream.status == 200
        assert stream.header("content-type") == "text/event-stream"
        yield stream


async def heard(stream: Stream) -> tuple[str | None, Any]:
    event = await stream.event()
    assert event is not None
    return event.name, event.json()


def test_everything_once_and_then_what_changes() -> None:
    async def main() -> None:
        counting = Counting(0.01)
        async with served(counting.source) as url, watching(url) as one:
            assert await heard(one) == ("state", {})
            assert await heard(one) == ("change", {"n": {"times": 1, "same": "x"}})
            assert await heard(one) == ("change", {"n": {"times": 2}})
            async with watching(url) as two:
                name, told = await heard(two)
                assert name == "state"
                assert told["n"]["same"] == "x"
                before = told["n"]["times"]
                assert await heard(two) == ("change", {"n": {"times": before + 1}}), "one producer for both"

    asyncio.run(main())


def test_nothing_is_made_while_nobody_looks_and_nothing_earlier_because_somebody_comes_again() -> None:
    async def main() -> None:
        often, seldom = Counting(0.01), Counting(3600)
        async with served(often.source, LiveSource("seldom", 3600, seldom.make)) as url:
            assert often.times == seldom.times == 0
            for _ in range(3):
                async with watching(url) as stream:
                    await heard(stream)
                    name, _ = await heard(stream)
                    assert name == "change"
                made = often.times
                while True:  # that it has left is noticed when something is written to it
                    await asyncio.sleep(0.05)
                    if made == (made := often.times):
                        break
            assert seldom.times == 1

    asyncio.run(main())


def test_a_viewer_that_does_not_read_is_let_go_and_holds_nobody_up() -> None:
    text = "x" * 40_000

    async def main() -> None:
        times = 0

        async def make() -> Mapping[str, Any]:
            nonlocal times
            times += 1
            return {"big": {"text": f"{text}{times}"}}

        async with served(LiveSource("big", 0.001, make)) as url:
            deaf = socket.socket()
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", int(url.rpartition(":")[2].partition("/")[0])))
            deaf.sendall(b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            async with watching(url) as stream:
                await heard(stream)
                longest = 0.0
                for _ in range(4 * MOST_UNSENT):
                    begun = time.monotonic()
                    assert (await heard(stream))[0] == "change"
                    longest = max(longest, time.monotonic() - begun)
            assert longest < 1
            deaf.settimeout(5)
            with contextlib.suppress(ConnectionResetError):  # what it was sent before may still be there
                while deaf.recv(1 << 20):
                    pass
            deaf.close()

    asyncio.run(main())


def test_a_part_that_cannot_be_made_takes_no_other_with_it(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> Mapping[str, Any]:
        raise ValueError("no")

    async def main() -> None:
        counting = Counting(0.01)
        async with served(LiveSource("failing", 0.01, fail), counting.source) as url, watching(url) as stream:
            assert (await heard(stream))[0] == "state"
            for _ in range(5):
                assert set((await heard(stream))[1]) == {"n"}

    asyncio.run(main())
    assert [one.message for one in caplog.records] == ["the status page's failing cannot be made"], "once"


def test_a_name_that_is_no_unicode_takes_no_other_with_it() -> None:
    async def main() -> None:
        names = ["a\ud800"]

        async def make() -> dict[str, Any]:
            return {"agents": dict.fromkeys(names, 1)}

        async with served(LiveSource("agents", 0.01, make)) as url, watching(url) as stream:
            assert await heard(stream) == ("state", {})
            assert await heard(stream) == ("change", {"agents": {"a\ud800": 1}})
            names.append("honest")
            assert await heard(stream) == ("change", {"agents": {"honest": 1}})

    hasty(main())


def test_too_many_viewers_are_refused() -> None:
    async def main() -> None:
        async with served(Counting(60).source) as url, contextlib.AsyncExitStack() as stack:
            for _ in range(MOST_VIEWERS):
                await stack.enter_async_context(watching(url))
            async with ClientSession() as session, session.get(url) as answer:
                assert answer.status == 503

    asyncio.run(main())


def test_changes() -> None:
    assert changes_of({}, {"a": 1}) == {"a": 1}
    assert changes_of({"a": [1], "b": 2}, {"a": [1], "c": 3}) == {"c": 3, "b": None}
    assert changes_of({"a": 1}, {"a": 1}) == {}


# -- a minute of a large gateway ---------------------------------------------------------------------------------------


def large_world(folder: Path) -> World:
    """500 tools at 25 servers of two instances each, and everything else at its longest."""
    world = World(folder)
    world.servers = {f"server-{n}": [f"http://10.0.{n}.{i}:9000/mcp" for i in (1, 2)] for n in range(25)}
    bucket = {"limit": "per-agent-limit", "used": 0.9, "left": 10, "burst": 100, "at_once": False}
    world.buckets = [{**bucket, "subject": f"some-agent-{n}"} for n in range(20)]
    world.refused = [{"limit": "per-agent-limit", "subject": f"some-agent-{n}", "calls": 9} for n in range(20)]
    cost = {"amount": "500", "raised": "0", "used": "431.20", "held": "0", "reserved": "0"}
    account = {"quota": "monthly-spend", "by": ["team"], "start": "2026-11-01T00:00:00Z", "end": "2026-12-01T00:00:00Z"}
    account |= {"amounts": {"cost": cost}, "inFlight": 1, "share": 0.86, "usedUp": "2026-11-30T16:20:00Z"}
    world.accounts = [{**account, "subject": f"team-{n}"} for n in range(20)]
    world.cost = [{"team": f"team-{n}", "currency": "USD", "cost": "12.5", "calls": 100} for n in range(10)]
    return world


def disturb(world: World, dice: random.Random) -> None:
    """A second in which everything changes."""
    told = Counters()
    for n in range(500):
        for _ in range(dice.randrange(1, 4)):
            took(told, (f"a-tool-with-a-name-{n}", f"server-{n % 25}", "ok"), dice.lognormvariate(-4, 1))
    world.sums.merge(1, told)
    world.agents = [AgentPace(f"some-agent-{n}", dice.randrange(9999), 5, dice.randrange(99)) for n in range(10)]
    at = f"2026-11-29T10:00:{dice.random()}Z"
    words = "policy staff does not allow these arguments"
    world.refusals = [refusal(f"{at}{n}", "some-agent", "a-tool-with-a-name", "denied", words) for n in range(10)]
    world.buckets = [{**one, "left": dice.randrange(100), "used": 0.5 + dice.random() / 2} for one in world.buckets]
    for servers in world.servers.items():
        world.told |= {f"{servers[0]}|{url}": {"in_flight": dice.randrange(50)} for url in servers[1]}


def test_a_page_of_500_tools_takes_less_than_150_kilobytes_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastgw.admin.live.SHARE", 0)  # here all takes longer, by the loop's clock, than it does

    async def main() -> None:
        loop = asyncio.get_running_loop()
        world, dice = large_world(tmp_path), random.Random(1)
        world.sums.latencies = Latencies(loop.time)
        world.live_through_an_hour(time.time())
        tasks = BackgroundTasks()

        async def busy() -> None:
            while True:
                disturb(world, dice)
                await asyncio.sleep(1)

        async with world.served() as url, watching(f"{url}/live") as stream:
            tasks.spawn(busy(), "busy")
            until, total, times = loop.time() + 60, 0, 0
            sections: dict[str, int] = {}
            while loop.time() < until:
                event = await stream.event()
                assert event is not None
                total, times = total + len(event.data) + 25, times + ("tools" in event.json())
                for name, section in event.json().items():
                    sections[name] = sections.get(name, 0) + len(json.dumps(section, separators=(",", ":")))
            await tasks.close()
            assert times > 10
            assert 30_000 < total < 150_000, sections
            assert {"tools", "pace", "servers", "history", "agents", "refusals", "limits", "quotas"} <= set(sections)

    hasty(main())
