"""Operators' orders on the admin port: who may give one, in what form, and where it is written down.

A browser sends a form anywhere, with whatever credential it has; `Origin` and the content type keep such forms out.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from aiohttp import web

log = logging.getLogger("fastgw")

T = TypeVar("T", bound=msgspec.Struct)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
STILL_ALLOWED = web.RequestKey("still_allowed", Callable[[], bool])  # type: ignore[arg-type, var-annotated]
"""Of a request that a browser's session lets in: whether the session is there still."""
MOST = 65_536
"""Bytes of an order."""


def shown_time(seconds: float) -> str:
    """Unix seconds in RFC 3339, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


@dataclass(frozen=True, slots=True)
class AuditLog:
    """Every order, one JSON object a line of `file`."""

    file: Path

    def write(self, who: str, do: str, **what: Any) -> dict[str, Any]:
        """Write an order down before it is carried out; what was written. Raises OSError."""
        entry = {"time": shown_time(time.time()), "who": who, "do": do, **what}
        line = json.dumps(entry)
        self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        log.warning("an operator's order: %s", line)
        return entry


def ordering(token: str | None, form: type[T], carry_out: Callable[[T, str], Awaitable[dict[str, Any]]]) -> Handler:
    """The handler of an order whose body is a `form` as JSON.

    `carry_out` gets it and who gave it; it raises web.HTTPException for an order that is no good, OSError for one that
    could not be written down and so was not done.
    """

    async def handler(request: web.Request) -> web.StreamResponse:
        try:
            if token is None:
                raise web.HTTPForbidden(text="Orders need an admin token: admin: {listen: ..., token: ...}")
            # Whom the audit names: the address, which token it showed, and whether by the page.
            page = " page" if STILL_ALLOWED in request else ""
            who = f"{request.remote} token:{hashlib.sha256(token.encode()).hexdigest()[:8]}{page}"
            return answer(await carry_out(await order_of(request, form), who))
        except web.HTTPException as wrong:
            return answer({"error": wrong.text}, wrong.status)
        except OSError as wrong:
            return answer({"error": f"It cannot be written down, so it was not done: {wrong.strerror}"}, 500)

    return handler


def answer(body: Any, status: int = 200) -> web.Response:
    """JSON that nobody keeps."""
    headers = {"content-type": "application/json", "cache-control": "no-store"}
    return web.Response(body=json.dumps(body, indent=1).encode() + b"\n", status=status, headers=headers)


async def order_of(request: web.Request, form: type[T]) -> T:
    """What is ordered; web.HTTPException where it comes from a page of elsewhere, or is no order."""
    own = [f"{scheme}://{request.headers.get('Host', '').lower()}" for scheme in ("http", "https")]
    if any(origin.lower() not in own for origin in request.headers.getall("Origin", [])):
        raise web.HTTPForbidden(text="Orders from a page of another origin are refused")
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="Content-Type must be application/json")
    try:
        return msgspec.json.decode(await request.read(), type=form)
    except ValueError as wrong:
        members = " and ".join(field.name for field in msgspec.structs.fields(form)) or "nothing in it"
        raise web.HTTPBadRequest(text=f"An order is a JSON object with {members}: {wrong}") from None
