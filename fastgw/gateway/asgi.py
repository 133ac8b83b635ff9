"""The ASGI face (ASGI 3.0, HTTP): plain, so that the whole path can be driven without a server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastgw.gateway.connection import Receive, Send
from fastgw.gateway.gateway import Gateway
from fastgw.gateway.pipeline import serve

Application = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]


def application(gateway: Gateway) -> Application:
    """The ASGI application that serves `gateway`."""

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await serve(gateway, scope, receive, send)

    return app
