"""The admin face: another port and another process than agents use, so that overload there never hides it.

Loopback without a token checks `Host`: a web page whose name points at 127.0.0.1 (DNS rebinding) is refused.
"""

from __future__ import annotations

import hmac
import socket
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any

from aiohttp import web

from fastgw.admin.status import Status
from fastgw.processes.limits import OperatorLimits, add_limits, answer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
STRANGE = "This Host is not served here: ask by localhost or 127.0.0.1, or give `admin` a token.\n"
INDEX = "fastgw: /livez /readyz /metrics /backends /catalogue /limits\n"


async def serve_admin(
    listener: socket.socket, status: Status, token: str | None, limits: OperatorLimits
) -> web.AppRunner:
    """Serve on a listening socket until the runner's `cleanup`.

    Args:
        token: what `Authorization: Bearer` must say; None where only loopback can ask, and nobody order.
        limits: what operators see and do of limits.
    """
    guard = _token_guard(token) if token is not None else _host_guard
    app = _application(status, guard)
    add_limits(app, limits, token)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    return runner


def _application(status: Status, guard: Any) -> web.Application:
    async def live(_: web.Request) -> web.StreamResponse:
        return web.Response(text="ok\n")

    async def ready(_: web.Request) -> web.StreamResponse:
        said = status.readiness()
        return answer(said, 200 if said["ready"] else 503)

    async def metrics(_: web.Request) -> web.StreamResponse:
        return web.Response(body=status.metrics().encode(), headers={"content-type": "text/plain; version=0.0.4"})

    async def backends(_: web.Request) -> web.StreamResponse:
        return answer(status.backends())

    async def catalogue(_: web.Request) -> web.StreamResponse:
        return answer(status.catalogue())

    async def index(_: web.Request) -> web.StreamResponse:
        return web.Response(text=INDEX)

    app = web.Application(middlewares=[guard])
    routes = {"/": index, "/livez": live, "/readyz": ready, "/metrics": metrics}
    routes |= {"/backends": backends, "/catalogue": catalogue}
    for path, handler in routes.items():
        app.router.add_get(path, handler)
    return app


@web.middleware
async def _host_guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    if len(request.headers.getall("Host", [])) != 1 or not _is_loopback(request.headers["Host"]):
        return web.Response(status=421, text=STRANGE)
    return await handler(request)


def _is_loopback(host: str) -> bool:
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name.lower() == "localhost"


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
