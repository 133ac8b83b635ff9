"""`/stats`, `/stats/tools`, `/stats/servers` and `/stats.hlog` on the admin port: percentiles, and histograms.

All are made in a thread: with tens of thousands of tools they take seconds, in which the controller goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from fastgw.admin.call_rows import Subject, call_rows
from fastgw.admin.orders import Handler, answer
from fastgw.telemetry import hlog
from fastgw.telemetry.busiest import RecentAgents, Window
from fastgw.telemetry.latencies import WINDOWS, Latencies

T = TypeVar("T")

MOST_AGENTS = 200
WINDOWS_OF_AGENTS: Final[tuple[Window, ...]] = ("1m", "1h")


async def made_of(latencies: Latencies, make: Callable[..., T], *args: Any) -> T:
    """`make(latencies, *args)`, in a thread, of all that workers have told so far."""
    latencies.settle()
    return await asyncio.to_thread(make, latencies, *args)


def as_json(latencies: Latencies, window: str | None) -> web.Response:
    """Percentiles of one window or of all."""
    windows = {name: latencies.percentiles(name) for name in ((window,) if window else WINDOWS)}
    return web.Response(body=msgspec.json.encode({"windows": windows}) + b"\n", content_type="application/json")


def as_rows(latencies: Latencies, window: str | None, subject: Subject) -> web.Response:
    """What was called in one window, or in the last minute, by tool or by server."""
    body = msgspec.json.encode(call_rows(latencies, window or "1m", subject))
    return web.Response(body=body + b"\n", content_type="application/json")


def agents_report(agents: RecentAgents) -> dict[str, Any]:
    """The agents that called most in the last minute and hour."""
    return {"windows": {name: msgspec.to_builtins(agents.top(name, MOST_AGENTS)) for name in WINDOWS_OF_AGENTS}}


def as_hlog(latencies: Latencies, window: str | None) -> web.Response:
    """HdrHistogram's log of one window, or since the start. Raises ImportError."""
    return web.Response(body="".join(hlog.lines(latencies, window or "start")).encode(), content_type="text/plain")


def windowed(latencies: Latencies, make: Callable[[Latencies, str | None], web.Response]) -> Handler:
    """The handler that answers with what `make` makes of the window in `?window=`."""

    async def handler(request: web.Request) -> web.StreamResponse:
        window = request.query.get("window")
        if window is not None and window not in WINDOWS:
            return answer({"error": f"there is no window {window!r}; there are {', '.join(WINDOWS)}"}, 400)
        try:
            found = await made_of(latencies, make, window)
        except ImportError:
            return answer({"error": "the Python package hdrhistogram is not installed beside the gateway"}, 501)
        found.headers["cache-control"] = "no-store"
        return found

    return handler
