"""The status page of a real gateway: what it says is what the test has counted, and what its buttons do happens."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastgw.usage.anomalies import Anomaly, Findings, findings_file
from tests.browser import Browser, needs_chromium, one_browser, seen
from tests.e2e.gateway import KEY, LOOK_EVERY, running_beside, until
from tests.e2e.http import exchange, modern
from tests.e2e.operated import TOKEN, Operated, served
from tests.e2e.ports import free_port
from tests.e2e.servers import Call, Server, Toolbox, serving

pytestmark = needs_chromium

SEEN_WITHIN = 3.0
"""Seconds in which a server that has gone is shown as down."""
HEALTH = {"interval": "300ms", "timeout": "300ms", "unhealthy_after": 2, "healthy_after": 1}
ROWS = "rows => rows.map(row => [...row.cells].map(cell => cell.innerText.replaceAll('\\n', ' | ').trim()))"
UNUSUAL = "agent agent-0: 5,210 calls in this hour, usually 310"

Stage = tuple[Callable[[Coroutine[Any, Any, None]], None], Browser]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with one_browser() as made:
        yield made


class Pair:
    """A server of two instances, each of which can be killed and started again."""

    def __init__(self) -> None:
        self.ports = [free_port(), free_port()]
        self.asked: Counter[int] = Counter()
        self._running: dict[int, AsyncExitStack] = {}

    async def start(self, number: int) -> None:
        async def echo(call: Call) -> None:
            self.asked[number] += 1
            await call.text("ok")

        async def fail(call: Call) -> None:
            await call.result(b'{"content":[{"type":"text","text":"no"}],"isError":true}')

        stack = self._running[number] = AsyncExitStack()
        await stack.enter_async_context(serving(Toolbox("modern", {"echo": echo, "fail": fail}), self.ports[number]))

    async def kill(self, number: int) -> None:
        await self._running.pop(number).aclose()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Pair]:
        await self.start(0)
        await self.start(1)
        try:
            yield self
        finally:
            for number in list(self._running):
                await self.kill(number)


async def call(url: str, tool: str, times: int) -> None:
    for _ in range(times):
        await exchange(url, modern("tools/call", {"name": tool, "arguments": {}}, key=KEY))


async def cells(page: Any, table: str) -> list[list[str]]:
    found: list[list[str]] = await page.eval_on_selector_all(f"#{table} tbody tr", ROWS)
    return found


async def says(page: Any, table: str, *wanted: str, within: float = 10.0) -> list[str]:
    """The row of a table that says all this, as soon as there is one."""
    end = time.monotonic() + within
    while True:
        rows = await cells(page, table)
        for row in rows:
            if all(any(word in cell for cell in row) for word in wanted):
                return row
        assert time.monotonic() < end, rows
        await asyncio.sleep(LOOK_EVERY)


async def tile(page: Any, name: str) -> str:
    found: str = await page.locator(f"#tiles > div:has(dt:text-is('{name}')) dd span").inner_text()
    return found


def test_it_says_what_was_counted_and_its_buttons_work(stage: Stage, tmp_path: Path) -> None:
    run, browser = stage

    async def steps() -> None:
        async with Pair().running() as pair:
            urls = [f"http://127.0.0.1:{port}/mcp" for port in pair.ports]
            operated = Operated(tmp_path, {"pair": Server(pair.ports[0])})
            text = operated.text(
                servers={"pair": {"url": urls}},
                health=HEALTH,
                tools={"echo": {"price": {"per_call": 0.25}}},
                limits=[{"name": "few", "by": ["agent"], "tools": ["fail"], "rate": "4/day", "burst": 4}],
                quotas=[{"name": "spend", "by": ["agent"], "per": "month", "cost": 10}],
            )
            was_unusual(operated.folder)
            async with served(operated, text):
                await until(lambda: operated.lets_in(KEY))
                await call(operated.url, "echo", 30)
                await call(operated.url, "fail", 7)
                await call(operated.url, "no-such-tool", 1)
                await exchange(operated.url, modern("tools/list", key="fgw_of_a_stranger"))
                await until(lambda: written(operated, 38))
                async with browser.page(operated.admin) as page:
                    await page.fill("#token", TOKEN)
                    await page.click("#login button")
                    await agrees(page, operated)
                    await says_why(page)
                    await dies_and_comes_back(page, pair)
                    await drains(page, pair, operated)
                    await tells_more(page)

    run(steps())


def was_unusual(folder: Path) -> None:
    """A finding of an earlier run: to find one takes days."""
    at, subject = "2026-11-02T03:00:00Z", {"agent": "agent-0"}
    found = Anomaly("pace", subject, at, 5210.0, 310.0, 87.4, UNUSUAL, time.time())
    file = findings_file(folder / "data" / "usage")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.encode(Findings([found])))


async def written(stage: Operated, calls: int) -> bool:
    """Whether so many usage events can be asked about."""
    return bool((await stage.order("GET", "/usage?metric=calls")).json() == [{"calls": calls}])


async def agrees(page: Any, stage: Operated) -> None:
    """Tiles and tables with the test's own counts, `/stats` and `/limits`."""
    await says(page, "tools", "echo", "30")
    await says(page, "tools", "fail", "4 (57 %)", "3")
    await seen(page, "document.querySelector('#tiles dd').innerText.startsWith('38')")
    assert [await tile(page, name) for name in ("Calls", "Errors", "Refused")] == ["38", "4", "3"]
    rows = (await stage.order("GET", "/stats?window=1m")).json()["windows"]["1m"]
    (echo,) = [row for row in rows if (row["tool"], row["stage"]) == ("echo", "total")]
    shown = await says(page, "tools", "echo")
    assert abs(float(shown[5]) - echo["p50"]) <= 0.05 + echo["p50"] / 100
    await says(page, "full", "limit few", "of agent-0", "0 of 4 calls are left")
    assert await says(page, "agents", "agent-0") == ["agent-0", "38", "4 (11 %)", "3 (8 %)"]
    ((agent, *counted),) = [list(one.values()) for one in (await stage.order("GET", "/agents")).json()["windows"]["1m"]]
    assert (agent, counted) == ("agent-0", [38, 4, 3])
    quota = await says(page, "full", "quota spend", "of agent-0", "75 %")
    assert quota[2].startswith("7.50 of 10.00 of cost used")
    await says(page, "cost", "no team", "38", "7.50", within=30)


async def dies_and_comes_back(page: Any, pair: Pair) -> None:
    """The quickest of a few times counts: a machine that is busy has nothing to do with it."""
    place, took = f"127.0.0.1:{pair.ports[1]}", []
    while min(took, default=60.0) >= SEEN_WITHIN and len(took) < 3:
        await says(page, "servers", place, "In order")
        begun = time.monotonic()
        await pair.kill(1)
        await says(page, "servers", place, "Down", "connect")
        took.append(time.monotonic() - begun)
        await seen(page, "document.getElementById('tiles').innerText.includes('1 of 2')")
        await pair.start(1)
    assert min(took) < SEEN_WITHIN
    await says(page, "servers", place, "In order")
    await seen(page, "document.title.startsWith('fastgw')")


async def drains(page: Any, pair: Pair, stage: Operated) -> None:
    place = f"127.0.0.1:{pair.ports[0]}"
    page.once("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
    await page.click(f"button[aria-label='Drain pair at {place}']")
    await says(page, "servers", place, "Drained", "page")
    before = pair.asked.copy()
    await call(stage.url, "echo", 6)
    assert pair.asked - before == {1: 6}
    page.once("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
    await page.click(f"button[aria-label='Undrain pair at {place}']")
    await says(page, "servers", place, "In order")
    orders = [json.loads(line) for line in (stage.folder / "data" / "audit.jsonl").read_text().splitlines()]
    assert [one["do"] for one in orders] == ["drain", "close"]


async def tells_more(page: Any) -> None:
    await page.click("#effective summary")
    await seen(page, "document.getElementById('settings').innerText.includes('interval: 0.3')")
    settings = await page.inner_text("#settings")
    assert TOKEN not in settings
    assert "a secret for tests" not in settings
    await page.click("#access summary")
    assert await says(page, "catalogue", "echo") == ["echo | tool", "/mcp", "pair/echo", "agent-0"]
    told = await page.evaluate("fetch('explain?agent=agent-0&tool=echo').then(one => one.json())")
    assert told["verdict"] == "sent to pair as echo"
    assert [one["name"] for one in told["limits"]] == []


async def says_why(page: Any) -> None:
    """Refusals with their reasons; of a call that exists, what would become of it now."""
    await says(page, "refusals", "unknown", "A valid credential is needed")
    assert (await says(page, "refusals", "tools/call", "Unknown tool"))[1:3] == ["agent-0", "tools/call"]
    shown = await cells(page, "refusals")
    limited = [row[1:] for row in shown if row[2] == "fail"]
    assert limited == [["agent-0", "fail", "limit few is used up", "Explain"]] * 3
    await page.click("#refusals tr:has-text('limit few') button")
    await seen(page, "document.getElementById('explain-verdict').innerText.includes('sent to pair as fail')")
    assert "limit few counts it: 4/day" in await page.inner_text("#explain-lines")
    wanted = "fastgw explain --agent agent-0 --tool fail --endpoint /mcp"
    assert await page.inner_text("#explain-command") == wanted
    await page.keyboard.press("Escape")
    assert [row[1:] for row in await cells(page, "anomalies")] == [[UNUSUAL]]


def test_a_restart_is_said_and_survived(stage: Stage, tmp_path: Path) -> None:
    run, browser = stage

    async def steps() -> None:
        async with Pair().running() as pair:
            servers = {"pair": {"url": f"http://127.0.0.1:{pair.ports[0]}/mcp"}}
            # That the connection was refused is what a browser says of its own accord.
            running = running_beside({"servers": servers}, tmp_path)
            async with running as gateway, browser.page(gateway.admin, "ERR_") as page:
                await seen(page, "document.getElementById('ready').innerText.includes('Serving')")
                assert not await page.is_visible("#banner")
                assert await asyncio.to_thread(gateway.stop) == 0
                await seen(page, "document.getElementById('banner').innerText.startsWith('Stale')")
                gateway.start_again()
                await asyncio.to_thread(gateway.wait_until_ready)
                await seen(page, "document.getElementById('banner').hidden")
                await call(gateway.url, "echo", 3)
                await says(page, "tools", "echo", "3")

    run(steps())
