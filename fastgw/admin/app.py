"""The admin port: another port and another process than agents use, so that overload there never hides it. Who may ask
is in `access.py`.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from fastgw.admin.access import AdminAccess, wants_page
from fastgw.admin.config import OperatorConfig, ReloadOrder
from fastgw.admin.failed_logins import QUIET, FailedLogins
from fastgw.admin.history import CallHistory
from fastgw.admin.instances import OperatorInstances
from fastgw.admin.limits import OperatorLimits, ResetOrder
from fastgw.admin.metrics import OperatorMetrics
from fastgw.admin.orders import MOST, AuditLog, Handler, answer, ordering
from fastgw.admin.page import PageData, StatusPage, protect
from fastgw.admin.quotas import OperatorQuotas, RaiseOrder
from fastgw.admin.stats import agents_report, as_hlog, as_json, as_rows, windowed
from fastgw.admin.tiles import TileData
from fastgw.admin.usage import OperatorUsage
from fastgw.telemetry.busiest import RecentAgents
from fastgw.telemetry.latencies import Latencies

__all__ = [
    "AdminData",
    "AuditLog",
    "CallHistory",
    "OperatorConfig",
    "OperatorInstances",
    "OperatorLimits",
    "OperatorMetrics",
    "OperatorQuotas",
    "OperatorUsage",
    "PageData",
    "TileData",
    "serve_admin",
]
"""What the controller takes, which imports this module late."""


@dataclass(frozen=True, slots=True)
class AdminData:
    """What the admin port shows, asked for each time. Without `page` there is no status page.

    `count` counts a metric of the port's own; `clock` gives seconds that never go back.
    """

    readiness: Callable[[], Awaitable[dict[str, Any]]]
    metrics: Handler
    instances: OperatorInstances
    catalogue: Callable[[], dict[str, Any]]
    limits: OperatorLimits
    latencies: Latencies
    config: OperatorConfig
    quotas: OperatorQuotas
    usage: OperatorUsage
    definitions: Callable[[], dict[str, Any]] = dict
    anomalies: Callable[[], dict[str, Any]] = lambda: {"anomalies": []}
    agents: RecentAgents = field(default_factory=RecentAgents)
    page: PageData | None = None
    count: Callable[..., object] = lambda *_: None
    clock: Callable[[], float] = time.monotonic


def _routes(data: AdminData, token: str | None) -> list[tuple[str, str, Handler, str]]:
    """All there is: verb, path, handler, and what the index says of it."""

    def page(make: Callable[[], web.Response]) -> Handler:
        async def handler(_: web.Request) -> web.StreamResponse:
            return make()

        return handler

    async def ready(_: web.Request) -> web.StreamResponse:
        report = await data.readiness()
        return answer(report, 200 if report["ready"] else 503)

    async def metrics(request: web.Request) -> web.StreamResponse:
        return await data.metrics(request)

    async def backends(_: web.Request) -> web.StreamResponse:
        return answer(await data.instances.report())

    async def diff(_: web.Request) -> web.StreamResponse:
        try:
            return answer(await data.config.differences())
        except web.HTTPException as wrong:
            return answer({"error": wrong.text}, wrong.status)

    async def limits(_: web.Request) -> web.StreamResponse:
        return answer({**await data.limits.report(), "quotas": await data.quotas.report()})

    return [
        ("GET", "/livez", page(lambda: web.Response(text="ok\n")), "200 while the controller runs"),
        ("GET", "/readyz", ready, "200 while agents are served, 503 with the reason otherwise"),
        ("GET", "/metrics", metrics, "for Prometheus, all workers summed"),
        ("GET", "/backends", backends, "what is known of each server and its instances"),
        ("GET", "/catalogue", page(lambda: answer(data.catalogue())), "exposed names, and what was noticed about them"),
        (
            "GET",
            "/catalogue/tools",
            page(lambda: answer(data.definitions())),
            "tools, word for word as servers list them",
        ),
        ("GET", "/limits", limits, "the fullest buckets, what was refused, and how quotas stand"),
        ("GET", "/stats", windowed(data.latencies, as_json), "percentiles by tool, server and outcome"),
        ("GET", "/stats/tools", windowed(data.latencies, partial(as_rows, subject="tool")), "the last minute by tool"),
        ("GET", "/stats/servers", windowed(data.latencies, partial(as_rows, subject="server")), "the same by server"),
        ("GET", "/agents", page(lambda: answer(agents_report(data.agents))), "agents that call most"),
        ("GET", "/stats.hlog", windowed(data.latencies, as_hlog), "the same as HdrHistogram's log"),
        ("GET", "/usage", data.usage.handle, "what was called and what it cost: ?by=team&month=2026-10&metric=cost"),
        ("GET", "/anomalies", page(lambda: answer(data.anomalies())), "what is unusual: errors, paces, times"),
        ("GET", "/config", page(lambda: answer(data.config.report())), "which configuration is in force, since when"),
        ("GET", "/config/diff", diff, "what a reload would change"),
        ("POST", "/reload", ordering(token, ReloadOrder, data.config.order), "read the configuration again"),
        ("POST", "/limits/reset", ordering(token, ResetOrder, data.limits.reset), "make buckets full"),
        (
            "POST",
            "/quotas/raise",
            ordering(token, RaiseOrder, data.quotas.raise_account),
            "add to an account of a quota",
        ),
        *(("POST", *order) for order in data.instances.orders(token)),
    ]


class BadHttpCounter(logging.LoggerAdapter[logging.Logger]):
    """aiohttp's log, in which what is no HTTP is a number, and a line now and then, in place of a traceback each."""

    def __init__(self, data: AdminData) -> None:
        super().__init__(logging.getLogger("aiohttp.server"))
        self._data, self._logged = data, -QUIET

    def log(self, level: int, msg: object, *args: object, **more: Any) -> None:
        """All of its methods end here."""
        wrong = more.get("exc_info")
        if not isinstance(wrong, HttpProcessingError):
            super().log(level, msg, *args, **more)
            return
        self._data.count("fastgw_admin_refused_total", "bad_http")
        if (now := self._data.clock()) - self._logged >= QUIET:
            self._logged = now
            self.logger.warning("the admin port was sent what is no HTTP: %s", type(wrong).__name__)


async def serve_admin(listener: socket.socket, data: AdminData, token: str | None) -> web.AppRunner:
    """Serve on a listening socket until the runner's `cleanup`; without a token to loopback, which may not order."""
    access = AdminAccess(token, listener.getsockname()[1], FailedLogins(data.count, data.clock))
    app = web.Application(middlewares=[access.guard], client_max_size=MOST)
    app.on_response_prepare.append(protect)
    page = StatusPage(data.page) if data.page is not None else None
    routes = _routes(data, token) + (page.routes() if page is not None else [])
    lines = "".join(f"{verb:4} {path:17} {words}\n" for verb, path, _, words in routes)

    async def index(request: web.Request) -> web.StreamResponse:
        if page is not None and wants_page(request):
            return page.index()
        return web.Response(text=f"fastgw\n\n{lines}")

    app.router.add_get("/", index)
    if page is not None:
        app.router.add_get("/page/files/{name}", page.file)
        app.router.add_get("/session", access.session)
        app.router.add_post("/login", access.login)
        app.router.add_post("/logout", access.logout)
    for verb, path, handler, _ in routes:
        # HEAD goes with GET, as everywhere.
        app.router.add_get(path, handler) if verb == "GET" else app.router.add_route(verb, path, handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, logger=BadHttpCounter(data))
    await runner.setup()
    await web.SockSite(runner, listener).start()
    return runner
