"""A headless Chromium, where the machine has one: Debian's package `chromium`, and Playwright from the dev environment.

    @needs_chromium
    def test_it(): ...
        async with browsing() as browser, browser.page(url) as page: ...

Whatever a page complains of (a script's error, what its Content-Security-Policy forbids) fails the test.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None or find_spec("playwright") is None, reason="needs a browser: apt-get install chromium"
)
DESKTOP, PHONE = (1280, 900), (390, 844)
WATCH = "addEventListener('securitypolicyviolation', (one) => console.error('CSP: ' + one.violatedDirective))"


@dataclass
class Browser:
    """The running browser; what pages complain of is in `problems`."""

    chromium: Any
    problems: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def page(
        self, url: str, *expected: str, size: tuple[int, int] = DESKTOP, scheme: str = "light"
    ) -> AsyncIterator[Any]:
        """A page of its own profile, loaded, which complains of nothing but what has one of `expected` in it."""
        viewport = {"width": size[0], "height": size[1]}
        context = await self.chromium.new_context(viewport=viewport, color_scheme=scheme, timezone_id="UTC")
        context.set_default_timeout(15_000)
        page = await context.new_page()
        await page.add_init_script(WATCH)
        self.problems.clear()
        page.on("console", lambda one: self.problems.append(one.text) if one.type in ("error", "warning") else None)
        page.on("pageerror", lambda one: self.problems.append(str(one)))
        try:
            await page.goto(url)
            yield page
        finally:
            await context.close()
        assert [one for one in self.problems if not any(part in one for part in expected)] == []


@asynccontextmanager
async def browsing() -> AsyncIterator[Browser]:
    """A browser for the block."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        # In a container there is no sandbox for it to be put in; it visits nothing but the page under test.
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield Browser(chromium)
        finally:
            await chromium.close()


@contextmanager
def one_browser() -> Iterator[tuple[Callable[[Coroutine[Any, Any, None]], None], Browser]]:
    """A browser for several tests, and what runs their coroutines, in one loop as it wants."""
    with asyncio.Runner() as runner:
        block = browsing()
        browser = runner.run(block.__aenter__())
        try:
            yield runner.run, browser
        finally:
            runner.run(block.__aexit__(None, None, None))


async def seen(page: Any, condition: str) -> None:
    """Wait until this JavaScript is true of the page; as a function, since its policy forbids to evaluate texts."""
    await page.wait_for_function(f"() => {condition}")


def screenshot_file(folder: Path, name: str) -> Path:
    """Where a picture goes: into the test's folder, or the one that FASTGW_SCREENSHOTS names."""
    wanted = os.environ.get("FASTGW_SCREENSHOTS")
    place = Path(wanted) if wanted else folder
    place.mkdir(parents=True, exist_ok=True)
    return place / f"{name}.png"
