"""The status page in a real browser, in front of a world whose figures the test knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fastgw.admin.tiles import Tiles
from fastgw.telemetry.busiest import AgentPace
from tests.admin.page_world import World, busy_world, offered, refusal
from tests.browser import PHONE, Browser, needs_chromium, one_browser, screenshot_file, seen

pytestmark = needs_chromium

TOKEN = "the operators' token"
HOSTILE = "<script>window.hit=1</script><img src=x onerror=window.hit=1>\n\u202egnp.exe"
SAFE = "<script>window.hit=1</script><img src=x onerror=window.hit=1>\\u000a\\u202egnp.exe"
WIDE = (1400, 900)


class Stage(NamedTuple):
    """What runs a test's coroutine, and the browser."""

    run: Callable[[Coroutine[Any, Any, None]], None]
    browser: Browser

    @asynccontextmanager
    async def opened(self, world: World, token: str | None = None, **more: Any) -> AsyncIterator[Any]:
        """The page, logged in where there is a token, once it shows something."""
        async with world.served(token) as url, self.browser.page(url, **more) as page:
            if token is not None:
                await log_in(page, token)
            await page.wait_for_selector("#tiles dd")
            yield page


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with one_browser() as made:
        yield Stage(*made)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made every five seconds is made four times a second."""
    usual = Tiles.sources
    monkeypatch.setattr(Tiles, "sources", lambda tiles: [replace(one, every=one.every / 20) for one in usual(tiles)])


async def log_in(page: Any, token: str) -> None:
    await page.fill("#token", token)
    await page.click("#login button")


async def rows(page: Any, table: str) -> list[list[str]]:
    """What the cells of a table's rows say, each on one line."""
    script = "rows => rows.map(row => [...row.cells].map(cell => cell.innerText.replaceAll('\\n', ' | ').trim()))"
    found: list[list[str]] = await page.eval_on_selector_all(f"#{table} tbody tr", script)
    return found


async def text(page: Any, selector: str) -> str:
    found: str = await page.inner_text(selector)
    return found


def test_every_part_shows_what_was_counted(stage: Stage, tmp_path: Path) -> None:
    async def main() -> None:
        async with stage.opened(busy_world(tmp_path)) as page:
            await page.wait_for_selector("#tools tbody tr")
            tiles = await page.eval_on_selector_all("#tiles > div", "all => all.map(one => one.innerText.split('\\n'))")
            shown = {name: value for name, value, *_ in tiles}
            assert {name: shown[name] for name in ("Calls", "Errors", "Refused")} == {
                "Calls": "1,122", "Errors": "10", "Refused": "12",
            }  # fmt: skip
            assert shown["Instances"] == "5 of 6"
            tools = {row[0]: row[1:] for row in await rows(page, "tools")}
            assert tools["search-docs"][:4] == ["knowledge", "412", "0", "0"]
            assert tools["create-ticket"][:4] == ["knowledge", "76", "0", "12"], "64 that were sent and 12 refused"
            assert tools["query"][2] == "3 (1 %)"
            assert (await rows(page, "agents"))[0] == ["ci-pipeline", "604", "3 (<1 %)", "0"]
            assert (await rows(page, "cost"))[0] == ["payments", "188,204", "431.20 USD"]
            full = await rows(page, "full")
            assert [row[:2] for row in full] == [
                ["limit tickets | of support-desk", "98 %"],
                ["quota monthly-spend | of payments", "86 %"],
                ["limit per-agent | of ci-pipeline", "61 %"],
            ]
            assert "431.20 of 500.00 of cost used; used up on" in full[1][2]
            assert "tickets for support-desk 212" in await text(page, "#refused-note")
            assert (await rows(page, "refusals"))[0][1:] == [
                "support-desk",
                "create-ticket",
                "limit tickets is used up",
                "Explain",
            ]
            assert "server openai: a typical call in this hour took 1,840 ms" in (await rows(page, "anomalies"))[0][1]
            assert await page.locator(".uplot canvas").count() == 2
            assert "Serving agents" in await text(page, "#ready")
            assert (await page.title()).startswith("1 down ")
            assert await page.locator("#servers .order button").count() == 0, "there is no token"
            assert "needs an admin token" in await text(page, "#servers-note")
            assert not await page.is_visible("#logout")

    stage.run(main())


def test_servers_and_the_buttons_that_drain_them(stage: Stage, tmp_path: Path) -> None:
    world = busy_world(tmp_path)
    breaker = {"state": "open", "since": 1.0, "until": 1e12, "why": "five failures in a row", "failures": 5}
    world.told["deployment|http://10.0.4.12:9001/mcp"]["breaker"] = breaker
    world.told["openai|http://10.0.7.40:9101/mcp"] = {"breaker": breaker}

    async def main() -> None:
        async with stage.opened(world, TOKEN) as page:
            await page.wait_for_selector("#servers tbody tr")
            openai = page.locator("#servers tr", has_text="10.0.7.40").locator("td").first
            shown = await openai.inner_text()
            assert "Breaker open" in shown
            assert "five failures in a row" in shown
            deployment, good, bad = (await rows(page, "servers"))[:3]
            assert deployment[:2] == ["deployment", "1 of 2 in order"], "trouble comes first"
            assert good[0] == "10.0.4.11:9001"
            assert good[1].endswith("In order")
            assert bad[1].endswith("Down | cannot connect to 10.0.4.12:9001: connection refused; breaker open")
            page.on("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
            await page.click("button[aria-label='Drain data at 10.0.5.20:9002']")
            await page.wait_for_selector("button[aria-label='Undrain data at 10.0.5.20:9002']")
            cell = page.locator("#servers tr", has_text="10.0.5.20").locator("td").first
            assert "Drained" in await cell.inner_text()
            await page.click("button[aria-label='Undrain data at 10.0.5.20:9002']")
            await page.wait_for_selector("button[aria-label='Drain data at 10.0.5.20:9002']")
        assert [(do, name) for do, name, _ in world.orders] == [("drain", "data"), ("close", "data")]
        audit = (tmp_path / "audit.jsonl").read_text().splitlines()
        assert len(audit) == 2

    stage.run(main())


def test_login_and_logout(stage: Stage, tmp_path: Path) -> None:
    async def main() -> None:
        world = busy_world(tmp_path)
        async with world.served(TOKEN) as url, stage.browser.page(url, "401") as page:
            await log_in(page, "wrong")
            await seen(page, "document.getElementById('login-error').innerText.includes('not the admin token')")
            assert not await page.is_visible("#main")
            await log_in(page, TOKEN)
            await page.wait_for_selector("#tiles dd")
            assert await page.evaluate("document.cookie") == "", "no script reads it"
            await page.reload()
            await page.wait_for_selector("#tiles dd")
            await page.click("#logout")
            await page.wait_for_selector("#token")
            assert not await page.is_visible("#main")
            await page.reload()
            await page.wait_for_selector("#token")

    stage.run(main())


def test_names_that_are_scripts_stay_text(stage: Stage, tmp_path: Path) -> None:
    world = World(tmp_path, {"data": ["http://10.0.0.1:9000/mcp"]})
    world.call(HOSTILE, "data", 0.01, times=3)
    world.agents = [AgentPace(HOSTILE, 3, 0, 0), AgentPace("__proto__", 2, 0, 0)]
    world.refusals = [refusal("2026-11-29T10:00:00Z", HOSTILE, HOSTILE, "denied", HOSTILE, by=HOSTILE)]
    world.anomalies = [{"hour": "2026-11-29T09:00:00Z", "says": HOSTILE}]
    world.cost = [{"team": HOSTILE, "currency": "USD", "cost": "1", "calls": 1}]
    world.buckets = [{"limit": HOSTILE, "subject": HOSTILE, "used": 0.9, "left": 1, "burst": 9, "at_once": False}]
    world.access = [offered(HOSTILE, HOSTILE, HOSTILE)]
    world.settings = {"instructions": HOSTILE}
    world.ready = {**world.ready, "ready": False, "reason": HOSTILE}

    async def main() -> None:
        async with stage.opened(world) as page:
            await page.wait_for_selector("#tools tbody tr")
            assert (await rows(page, "tools"))[0][0] == SAFE
            assert [row[0] for row in await rows(page, "agents")] == [SAFE, "__proto__"]
            assert (await rows(page, "refusals"))[0][1:4] == [SAFE] * 3
            assert (await rows(page, "anomalies"))[0][1] == SAFE
            await page.click("#effective summary")
            await page.click("#access summary")
            await page.wait_for_selector("#catalogue tbody tr")
            await page.click("#tools .name")
            await seen(page, "document.getElementById('charted').innerText.includes('script')")
            await page.click("#refusals button")
            await page.wait_for_selector("#explain-verdict")
            assert SAFE not in await text(page, "#explain-command"), "a shell takes it as it is, in quotes"
            assert await page.evaluate("window.hit") is None
            assert await page.locator("main script, main img, dialog img").count() == 0

    stage.run(main())


def test_light_and_dark_wide_and_narrow(stage: Stage, tmp_path: Path) -> None:
    async def main() -> None:
        async with stage.opened(busy_world(tmp_path), TOKEN) as page:
            await page.wait_for_selector("#tools tbody tr")
            await page.wait_for_selector("#full tbody tr")
            for name, size in (("desktop", WIDE), ("phone", PHONE)):
                await page.set_viewport_size({"width": size[0], "height": size[1]})
                # The charts follow in the next frame.
                await seen(page, "document.documentElement.scrollWidth <= innerWidth")
                for scheme in ("light", "dark"):
                    await page.emulate_media(color_scheme=scheme)
                    assert await page.evaluate(CONTRASTS) == []
                    await page.screenshot(path=screenshot_file(tmp_path, f"{name}-{scheme}"), full_page=True)

    stage.run(main())


def test_the_picture_in_the_readme(stage: Stage, tmp_path: Path) -> None:
    """`make screenshot` puts it into docs/."""

    async def main() -> None:
        async with stage.opened(busy_world(tmp_path), TOKEN, size=(1140, 900)) as page:
            await page.wait_for_selector("#anomalies tbody tr")
            file = screenshot_file(tmp_path, "status-page")
            await page.screenshot(path=file)
            assert file.stat().st_size < 200_000

    stage.run(main())


CONTRASTS = """() => {
  const channels = (color) => color.match(/[0-9.]+/g).map(Number);
  const linear = (value) => value <= 10 ? value / 3294 : ((value / 255 + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const found = channels(getComputedStyle(node).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const wrong = [];
  for (const node of document.body.querySelectorAll("*")) {
    const own = [...node.childNodes].some((one) => one.nodeType === 3 && one.textContent.trim());
    if (!own || !node.checkVisibility()) continue;
    const [a, b] = [light(channels(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) wrong.push(`${node.tagName} ${node.className} ${node.textContent}`);
  }
  return wrong;
}"""
"""Texts whose contrast with their ground is below WCAG 2.2's 4.5 : 1 (AA)."""


def test_a_gateway_that_nobody_calls(stage: Stage, tmp_path: Path) -> None:
    async def main() -> None:
        async with stage.opened(World(tmp_path)) as page:
            await seen(page, "!document.querySelector('#full + .empty').hidden")
            empty = await page.eval_on_selector_all(
                ".empty", "all => all.filter(one => !one.hidden).map(one => one.innerText)"
            )
            assert [one for one in empty if one] == [
                "No calls in the last hour.", "No server is configured.", "No calls in the last minute.",
                "No calls in the last minute.", "None is more than half used.", "No calls this month.",
                "Nothing unusual was found.", "Nothing was refused lately.",
            ]  # fmt: skip
            await page.screenshot(path=screenshot_file(tmp_path, "empty"), full_page=True)

    stage.run(main())


def test_errors_are_red_where_they_are_many(stage: Stage, tmp_path: Path) -> None:
    world = World(tmp_path)
    for tool, errors in (("few", 1), ("many", 2)):
        world.call(tool, "data", 0.01, "tool_error", errors)
        world.call(tool, "data", 0.01, times=20 - errors)

    async def main() -> None:
        async with stage.opened(world) as page:
            await page.wait_for_selector("#tools tbody tr")
            assert await page.locator("#tools .bad").all_inner_texts() == ["2 (10 %)"]

    stage.run(main())


def test_strangers_do_not_hide_other_refusals(stage: Stage, tmp_path: Path) -> None:
    world = World(tmp_path)
    world.refusals = [refusal(f"2026-11-29T10:00:{n}Z", None, None, "denied", "who?") for n in range(59, 30, -1)]
    world.refusals += [refusal(f"2026-11-29T09:00:{n}Z", "bot", "t", "denied", "no") for n in range(29, 10, -1)]

    async def main() -> None:
        async with stage.opened(world) as page:
            await page.wait_for_selector("#refusals tbody tr")
            assert [row[1] for row in await rows(page, "refusals")] == ["unknown"] * 3 + ["bot"] * 7

    stage.run(main())


def test_finding_a_tool_and_its_last_hour(stage: Stage, tmp_path: Path) -> None:
    world = World(tmp_path, {"data": ["http://10.0.0.1:9000/mcp"]})
    for n in range(500):
        world.call(f"tool-{n}", "data", 0.01, times=1 + (n < 20))
    world.call("needle", "data", 0.25)

    async def main() -> None:
        async with stage.opened(world) as page:
            await page.wait_for_selector("#tools tbody tr")
            assert len(await rows(page, "tools")) == 20
            assert await text(page, "#tools-note") == "The 20 busiest of 501; type to find others."
            await page.fill("#find-tools", "NEED")
            await seen(page, "document.querySelectorAll('#tools tbody tr').length === 1")
            assert (await rows(page, "tools"))[0][:6] == ["needle", "data", "1", "0", "0", "250"]
            await page.click("#tools .name")
            await seen(page, "document.getElementById('calls-caption').innerText === 'Calls per minute'")
            assert await text(page, "#charted") == "needle at data"
            await page.click("#all-calls")
            assert await text(page, "#charted") == "all calls"
            await page.fill("#find-tools", "")
            await seen(page, "document.querySelectorAll('#tools tbody tr').length === 20")

    stage.run(main())


def test_explain_the_settings_and_the_catalogue(stage: Stage, tmp_path: Path) -> None:
    async def main() -> None:
        async with stage.opened(busy_world(tmp_path)) as page:
            await page.wait_for_selector("#refusals button")
            await page.click("#refusals button")
            await seen(page, "document.getElementById('explain-verdict').innerText.includes('sent to data')")
            told = (await text(page, "#explain-lines")).split("\n")
            assert told[:3] == [
                "policy staff allows by *", "limit per-agent counts it: 5/hour", "quota monthly-spend counts it",
            ]  # fmt: skip
            assert "have room just now" in told[3], "which is not what the verdict is of"
            wanted = "fastgw explain --agent support-desk --tool create-ticket --endpoint /mcp"
            assert await text(page, "#explain-command") == wanted
            await page.screenshot(path=screenshot_file(tmp_path, "explain"))
            await page.keyboard.press("Escape")
            await page.click("#effective summary")
            await seen(page, "document.getElementById('settings').innerText.includes('token: (hidden)')")
            await page.click("#access summary")
            await page.wait_for_selector("#catalogue tbody tr")
            assert await rows(page, "catalogue") == [
                ["query | tool", "/mcp", "data/db_query", "reports, ci-pipeline"],
                ["deploy-service | tool", "/mcp", "deployment/deploy-service",
                 "deploy-bot | depending on the arguments of each call"],
                ["drop-index | tool", "/mcp", "data/drop_index", "nobody"],
            ]  # fmt: skip
            await page.fill("#find-access", "drop")
            await seen(page, "document.querySelectorAll('#catalogue tbody tr').length === 1")

    stage.run(main())


def test_a_page_left_open_does_not_grow(stage: Stage, tmp_path: Path) -> None:
    """Tools, agents and refusals come and go by the thousand: what has gone is gone from the page, too."""
    world = busy_world(tmp_path)

    async def main() -> None:
        async with stage.opened(world) as page:
            await page.wait_for_selector("#refusals tbody tr")
            sizes = []
            for turn in range(3):
                world.agents = [AgentPace(f"agent-{turn}-{n}", 9, 0, 0) for n in range(10)]
                at = f"2026-11-29T1{turn}:00:0"
                world.refusals = [refusal(f"{at}{n}Z", f"a-{turn}", "t", "denied", "no") for n in range(9)]
                await page.wait_for_selector(f"#agents >> text=agent-{turn}-0")
                await page.wait_for_selector(f"#refusals >> text=a-{turn}")
                sizes.append(await page.evaluate("document.querySelectorAll('*').length"))
            assert len(set(sizes[-2:])) == 1

    stage.run(main())


def test_clocks_that_jump(stage: Stage, tmp_path: Path) -> None:
    """The gateway's clock is set back by a day: the charts go on with what is newest."""
    world = World(tmp_path)
    for at in (*range(1000, 1060, 10), *range(500, 530, 10)):
        world.call("t", "s", 0.01)
        world.history.add(at)

    async def main() -> None:
        async with stage.opened(world) as page:
            await page.wait_for_selector(".uplot canvas")
            points = "import('/page/files/charts.js').then(one => one.rising([[10],[20],[30],[12],[14]]))"
            assert await page.evaluate(points) == [[10], [12], [14]]

    stage.run(main())


def test_keyboard_alone(stage: Stage, tmp_path: Path) -> None:
    world = busy_world(tmp_path)

    async def main() -> None:
        async with stage.opened(world) as page:
            await page.wait_for_selector("#tools tbody tr")
            await page.focus("#servers .name")
            world.call("deploy-service", "deployment", 0.1, times=5)
            await seen(page, "document.querySelector('#servers tbody').innerText.includes('224')")
            assert await page.evaluate("document.activeElement.innerText") == "deployment", "though its row is another"
            await page.keyboard.press("Enter")
            await seen(page, "document.getElementById('charted').innerText === 'server deployment'")
            assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"

    stage.run(main())
