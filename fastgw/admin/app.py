"""The admin port: another port and another process than agents use, so that overload there never hides it.

Loopback without a token checks `Host`: a web page whose name points at 127.0.0.1 (DNS rebinding) is refused.
"""

from __future__ import annotations

import hmac
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiohttp import web

from fastgw.admin.config import OperatorConfig, ReloadOrder
from fastgw.admin.instances import OperatorInstances
from fastgw.admin.limits import OperatorLimits, ResetOrder
from fastgw.admin.metrics import OperatorMetrics
from fastgw.admin.orders import MOST, AuditLog, Handler, answer, ordering
from fastgw.admin.quotas import OperatorQuotas, RaiseOrder
from fastgw.admin.stats import as_hlog, as_json, as_rows, windowed
from fastgw.admin.usage import OperatorUsage
from fastgw.config.schema.settings import is_loopback
from fastgw.telemetry.latencies import Latencies

__all__ = [
    "AdminData",
    "AuditLog",
    "OperatorConfig",
    "OperatorInstances",
    "OperatorLimits",
    "OperatorMetrics",
    "OperatorQuotas",
    "OperatorUsage",
    "serve_admin",
]
"""What the controller takes, which imports this module late."""

STRANGE = "This Host is not served here: ask by localhost or 127.0.0.1, or give `admin` a token.\n"


@dataclass(frozen=True, slots=True)
class AdminData:
    """What the admin port shows, asked for each time."""

    readiness: Callable[[], Awaitable[dict[str, Any]]]
    metrics: Handler
    instances: OperatorInstances
    catalogue: Callable[[], dict[str, Any]]
    limits: OperatorLimits
    latencies: Latencies
    config: OperatorConfig
    quotas: OperatorQuotas
    usage: OperatorUsage
    anomalies: Callable[[], dict[str, Any]] = lambda: {"anomalies": []}


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
        ("GET", "/limits", limits, "the fullest buckets, what was refused, and how quotas stand"),
        ("GET", "/stats", windowed(data.latencies, as_json), "percentiles by tool, server and outcome"),
        ("GET", "/stats/tools", windowed(data.latencies, partial(as_rows, subject="tool")), "the last minute by tool"),
        ("GET", "/stats/servers", windowed(data.latencies, partial(as_rows, subject="server")), "the same by server"),
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


async def serve_admin(listener: socket.socket, data: AdminData, token: str | None) -> web.AppRunner:
    """Serve on a listening socket until the runner's `cleanup`; without a token to loopback, which may not order."""
    guard = _token_guard(token) if token is not None else _host_guard
    app = web.Application(middlewares=[guard], client_max_size=MOST)
    routes = _routes(data, token)
    lines = "".join(f"{verb:4} {path:17} {words}\n" for verb, path, _, words in routes)

    async def index(_: web.Request) -> web.StreamResponse:
        return web.Response(text=f"fastgw\n\n{lines}")

    app.router.add_get("/", index)
    for verb, path, handler, _ in routes:
        # HEAD goes with GET, as everywhere.
        app.router.add_get(path, handler) if verb == "GET" else app.router.add_route(verb, path, handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    return runner


@web.middleware
async def _host_guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    hosts = request.headers.getall("Host", [])
    if len(hosts) != 1 or not is_loopback(re.sub(r"(:\d*)?$", ":0", hosts[0], count=1)):
        return web.Response(status=421, text=STRANGE)
    return await handler(request)


def _token_guard(token: str) -> Any:
    wanted = f"Bearer {token}".encode()

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        shown = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        # Balancers ask these two without a credential, and learn nothing by them.
        if request.path in ("/livez", "/readyz") or hmac.compare_digest(shown, wanted):
            return await handler(request)
        return web.Response(status=401, text="A token is needed.\n", headers={"www-authenticate": "Bearer"})

    return guard
