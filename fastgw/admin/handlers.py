"""The part of the admin face where operators change something: `/limits`.

A browser sends a form anywhere, with whatever credential it has; `Origin` and the content type keep such forms out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from fastgw.admin.limits import BadOrder, LimitHandlers

MOST = 65_536
"""Bytes of an order."""

Do = Callable[[dict[str, Any], str], Awaitable[dict[str, Any]]]


def add_limits(app: web.Application, desk: LimitHandlers, token: str | None) -> None:
    """Serve `/limits`, `/limits/reset` and `/limits/raise`."""

    async def report(_: web.Request) -> web.StreamResponse:
        return answer(await desk.report())

    app.router.add_get("/limits", report)
    app.router.add_post("/limits/reset", _ordering(desk.reset, token))
    app.router.add_post("/limits/raise", _ordering(desk.raise_, token))


def answer(said: Any, status: int = 200) -> web.Response:
    """JSON that nobody keeps."""
    headers = {"content-type": "application/json", "cache-control": "no-store"}
    return web.Response(body=json.dumps(said, indent=1).encode() + b"\n", status=status, headers=headers)


class _Refusal(Exception):
    """The order is not even looked at: status and words."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(status, words)
        self.status = status
        self.words = words


def _ordering(do: Do, token: str | None) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def order(request: web.Request) -> web.StreamResponse:
        if token is None:
            return _refused(403, "Orders need an admin token: admin: {listen: ..., token: ...}")
        try:
            return answer(await do(await _asked(request), _who(request, token)))
        except _Refusal as no:
            return _refused(no.status, no.words)
        except BadOrder as wrong:
            return _refused(400, str(wrong))
        except OSError as wrong:
            return _refused(500, f"It cannot be written down, so it was not done: {wrong.strerror}")

    return order


def _refused(status: int, words: str) -> web.Response:
    return answer({"error": words}, status)


async def _asked(request: web.Request) -> dict[str, Any]:
    """What is ordered.

    Raises:
        _Refusal: it comes from a page of elsewhere, or is no JSON object.
    """
    if _foreign(request):
        raise _Refusal(403, "Orders from a page of another origin are refused")
    if request.content_type != "application/json":
        raise _Refusal(415, "Content-Type must be application/json")
    body = b""
    async for piece in request.content.iter_any():
        body += piece
        if len(body) > MOST:
            raise _Refusal(413, f"An order has at most {MOST} bytes")
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise _Refusal(400, "The body must be a JSON object")
    return asked


def _foreign(request: web.Request) -> bool:
    """Whether a page asks that was not served here (`Origin` has scheme, host and port; RFC 6454)."""
    host = request.headers.get("Host", "").lower()
    return any(_host(origin) != host for origin in request.headers.getall("Origin", []))


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _who(request: web.Request, token: str) -> str:
    """Whom the audit names: the address, and which token it showed."""
    return f"{request.remote} token:{hashlib.sha256(token.encode()).hexdigest()[:8]}"
