"""The status page on the admin port: its files, and what it asks for beside `/live` when somebody wants to see more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from fastgw.admin.live import LiveFeed, Spawn
from fastgw.admin.orders import Handler, answer
from fastgw.admin.paces import last_hour
from fastgw.admin.tiles import TileData, Tiles, tool_rows
from fastgw.snapshot.trace import NoSuch, TracedCall

FOLDER = Path(__file__).with_name("static")
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
MOST_FOUND = 50
"""Rows of the catalogue that are shown at a time."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'; require-trusted-types-for 'script'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
"""Of every answer. Whatever a server or an agent calls itself, no script of theirs runs here, and no other site's page
shows what is here, not even where browsers do not say who asks (`Sec-Fetch-Site`: over plain HTTP from elsewhere).
"""
CHECKED = {"cache-control": "no-cache"}
"""Of the page and its files: browsers keep them, and ask whether they are still so."""


@dataclass(frozen=True, slots=True)
class PageData:
    """What the page shows.

    Args:
        settings: the configuration in force, fit for operators.
        who_sees: as `snapshot.access.who_sees`, of the endpoints now: what to find, and how many rows.
        explain: as `snapshot.trace.Trace`, which raises the same.
        spawn: runs a task beside.
    """

    tiles: TileData
    settings: Callable[[], dict[str, Any]]
    who_sees: Callable[[str, int], Awaitable[dict[str, Any]]]
    explain: Callable[[TracedCall], Awaitable[dict[str, Any]]]
    spawn: Spawn


async def protect(_: web.Request, response: web.StreamResponse) -> None:
    """Give an answer that is about to leave `HEADERS`, and have nobody keep it if it does not say otherwise."""
    for name, value in (*HEADERS.items(), ("cache-control", "no-store")):
        response.headers.setdefault(name, value)


class StatusPage:
    """The page and what it asks."""

    def __init__(self, data: PageData) -> None:
        self._data = data
        self._tiles = Tiles(data.tiles)
        self._feed = LiveFeed(self._tiles.sources(), data.spawn)
        self._files = {file.name: file.read_bytes() for file in sorted(FOLDER.iterdir()) if file.suffix in TYPES}

    def routes(self) -> list[tuple[str, str, Handler, str]]:
        """Verb, path, handler, and what the index says of it."""
        return [
            ("GET", "/live", self._feed.handle, "what the status page shows, as server-sent events"),
            ("GET", "/explain", self._explain, "what would become of a call: ?agent=...&tool=...&endpoint=/mcp"),
            ("GET", "/config/effective", self._settings, "every setting in force as YAML, secrets hidden"),
            ("GET", "/catalogue/access", self._access, "who may see what: ?find=..."),
            ("GET", "/page/tools", self._tools, "calls and times of tools in the last minute: ?find=..."),
            ("GET", "/page/history", self._history, "the last hour of a tool or server: ?tool=...&server=..."),
        ]

    def index(self) -> web.Response:
        """The page itself."""
        return web.Response(body=self._files["index.html"], content_type="text/html", charset="utf-8", headers=CHECKED)

    async def file(self, request: web.Request) -> web.StreamResponse:
        """One of its files; 404 for another name."""
        name = request.match_info["name"]
        if name not in self._files:
            raise web.HTTPNotFound
        kind = TYPES[Path(name).suffix]
        return web.Response(body=self._files[name], content_type=kind, charset="utf-8", headers=CHECKED)

    async def _settings(self, _: web.Request) -> web.StreamResponse:
        text = yaml.safe_dump(self._data.settings(), sort_keys=False, allow_unicode=True)
        return web.Response(text=text, content_type="text/plain")

    async def _access(self, request: web.Request) -> web.StreamResponse:
        return answer(await self._data.who_sees(request.query.get("find", ""), MOST_FOUND))

    async def _explain(self, request: web.Request) -> web.StreamResponse:
        asked = request.query
        kind = next((one for one in ("tool", "prompt", "resource") if one in asked), None)
        if kind is None or "agent" not in asked:
            return answer({"error": "say which agent, and which tool, prompt or resource"}, 400)
        call = TracedCall(kind, asked[kind], asked["agent"], endpoint=asked.get("endpoint", "/mcp"))
        try:
            return answer(await self._data.explain(call))
        except NoSuch as wrong:
            return answer({"error": str(wrong)}, 404)

    async def _tools(self, request: web.Request) -> web.StreamResponse:
        """The busiest that have `find` in the name; of the percentiles that `/live` made last."""
        find, tools = request.query.get("find", "").lower(), self._tiles.paces.tools
        found = [one for one in tools.items() if find in f"{one[0][1]}/{one[0][0]}".lower()]
        return answer({"found": len(found), "tools": dict(tool_rows(found))})

    async def _history(self, request: web.Request) -> web.StreamResponse:
        """Rows as `paces.last_hour` has them, under `rows`."""
        tool, server = (request.query.get(name) or None for name in ("tool", "server"))
        if tool is None and server is None:
            return answer({"error": "say which tool or server"}, 400)
        latencies = self._data.tiles.latencies
        latencies.settle()
        rows = await asyncio.to_thread(last_hour, latencies, tool, server)
        return answer({"rows": rows})
