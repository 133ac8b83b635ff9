"""`/stats` and `/stats.hlog` on the admin port: percentiles, and the histograms they are taken from.

Both are made in a thread: with tens of thousands of tools they take seconds, in which the controller goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from fastgw.admin.limits import answer
from fastgw.telemetry.latencies import WINDOWS, Latencies

HLOG = "fastgw.telemetry.hlog"
"""Imported when it is asked for: nobody else needs the package `hdrhistogram`, which not every machine has."""

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def made_of(latencies: Latencies, make: Callable[..., T], *args: Any) -> T:
    """`make(latencies, *args)`, in a thread, of all that workers have told so far."""
    latencies.settle()
    return await asyncio.to_thread(make, latencies, *args)


def as_json(latencies: Latencies, window: str | None) -> bytes:
    """Percentiles of one window or of all."""
    windows = WINDOWS if window is None else (window,)
    return msgspec.json.encode({"windows": {name: latencies.percentiles(name) for name in windows}}) + b"\n"


def as_hlog(latencies: Latencies, window: str | None) -> bytes:
    """HdrHistogram's log of one window, or since the start. Raises ImportError."""
    return "".join(import_module(HLOG).lines(latencies, window or "start")).encode()


def windowed(latencies: Latencies, make: Callable[[Latencies, str | None], bytes], content_type: str) -> Handler:
    """The handler that answers with what `make` makes of the window in `?window=`."""

    async def handler(request: web.Request) -> web.StreamResponse:
        window = request.query.get("window")
        if window is not None and window not in WINDOWS:
            return answer({"error": f"there is no window {window!r}; there are {', '.join(WINDOWS)}"}, 400)
        try:
            body = await made_of(latencies, make, window)
        except ImportError:
            return answer({"error": "the Python package hdrhistogram is not installed beside the gateway"}, 501)
        return web.Response(body=body, headers={"content-type": content_type, "cache-control": "no-store"})

    return handler
