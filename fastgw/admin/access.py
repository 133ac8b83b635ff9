"""Who may use the admin port.

Loopback without a token checks `Host`: a web page whose name points at 127.0.0.1 (DNS rebinding) is refused. With a
token, programs show it as a bearer; a browser exchanges it for a session, a random id in a cookie that no script reads
and no other site sends. Requests that scripts of other pages make are refused by what browsers say of them
(`Sec-Fetch-Site`), orders by `Origin` and content type, too (`orders.py`).
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from fastgw.admin.failed_logins import FailedLogins, TooManyWrongTokens
from fastgw.admin.orders import STILL_ALLOWED, Handler, answer, order_of
from fastgw.config.schema.settings import is_loopback

STRANGE = "This Host is not served here: ask by localhost or 127.0.0.1, or give `admin` a token.\n"
TOO_MANY = "Too many wrong tokens came from there: no token is looked at until some time has passed"
OPEN = ("/livez", "/readyz", "/session", "/login", "/logout")
"""Balancers ask the first two without a credential, and learn nothing by them; the others are about credentials."""
OPEN_FILES = "/page/files/"
"""Files of the page are the same for everybody."""
SESSION_FOR = 12 * 3600
"""Seconds after which a browser has to show the token again."""
MOST_SESSIONS = 100


class LoginOrder(msgspec.Struct, forbid_unknown_fields=True):
    """The admin token, for a session."""

    token: str


class PageSessions:
    """Sessions of browsers, by the hash of their ids; `clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    def begin(self) -> str:
        """A new session's id. Beyond `MOST_SESSIONS` the oldest ends."""
        session = secrets.token_urlsafe(32)
        while len(self._until) >= MOST_SESSIONS:
            del self._until[next(iter(self._until))]
        self._until[_hashed(session)] = self._clock() + SESSION_FOR
        return session

    def has(self, session: str) -> bool:
        """Whether that session is there still."""
        return self._clock() < self._until.get(_hashed(session), 0.0)

    def end(self, session: str) -> None:
        """It is over, if there was one."""
        self._until.pop(_hashed(session), None)


class AdminAccess:
    """The door of one admin port.

    Args:
        token: of operators; None: loopback alone, which may look and not order.
        port: tells the cookies of several gateways on one machine apart.
    """

    def __init__(self, token: str | None, port: int, failed: FailedLogins) -> None:
        self._token, self._failed = token, failed
        self._cookie = f"fastgw_session_{port}"
        self._sessions = PageSessions()
        self.guard: Any = web.middleware(partial(self._admit))  # aiohttp marks it, which a method does not bear

    async def _admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if _is_of_another_page(request):
            return web.Response(status=403, text="Pages of other sites may not ask here.\n")
        if self._token is None:
            hosts = request.headers.getall("Host", [])
            if len(hosts) != 1 or not is_loopback(re.sub(r"(:\d*)?$", ":0", hosts[0], count=1)):
                return web.Response(status=421, text=STRANGE)
            return await handler(request)
        if request.path in OPEN or request.path.startswith(OPEN_FILES) or self._shows_token(request):
            return await handler(request)
        session = request.cookies.get(self._cookie, "")
        if not self._sessions.has(session):
            if request.path == "/" and wants_page(request):
                return await handler(request)  # it asks for the token
            return web.Response(status=401, text="A token is needed.\n", headers={"www-authenticate": "Bearer"})
        if request.method not in ("GET", "HEAD") and "Origin" not in request.headers:
            return answer({"error": "A browser's order says which page it comes from, in Origin"}, 403)
        request[STILL_ALLOWED] = partial(self._sessions.has, session)
        return await handler(request)

    def _shows_token(self, request: web.Request) -> bool:
        """Raises web.HTTPTooManyRequests."""
        shown = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        scheme, _, token = shown.partition(b" ")
        # A scraper whose variable is empty guesses nothing.
        return scheme == b"Bearer" and bool(token) and self._is_right(request, shown, f"Bearer {self._token}".encode())

    def _is_right(self, request: web.Request, shown: bytes, token: bytes) -> bool:
        try:
            return self._failed.admit(request.remote, shown, token)
        except TooManyWrongTokens as wrong:
            headers = {"retry-after": str(wrong.seconds)}
            text = json.dumps({"error": TOO_MANY})
            raise web.HTTPTooManyRequests(text=text, content_type="application/json", headers=headers) from None

    async def session(self, request: web.Request) -> web.StreamResponse:
        """Whether the page must ask for the token first, and whether orders can be given at all."""
        inside = self._token is None or self._sessions.has(request.cookies.get(self._cookie, ""))
        return answer({"login": not inside, "orders": self._token is not None})

    async def login(self, request: web.Request) -> web.StreamResponse:
        """A session for the token; 401 for another one, 429 where there were too many."""
        try:
            order = await order_of(request, LoginOrder)
        except web.HTTPException as wrong:
            return answer({"error": wrong.text}, wrong.status)
        if self._token is None:
            return answer({"error": "There is no admin token to log in with"}, 409)
        if not self._is_right(request, order.token.encode("utf-8", "replace"), self._token.encode()):
            return answer({"error": "That is not the admin token"}, 401)
        made = answer({})
        self._set_cookie(request, made, self._sessions.begin(), SESSION_FOR)
        return made

    async def logout(self, request: web.Request) -> web.StreamResponse:
        """The browser's session is over."""
        try:
            await order_of(request, LogoutOrder)
        except web.HTTPException as wrong:
            return answer({"error": wrong.text}, wrong.status)
        self._sessions.end(request.cookies.get(self._cookie, ""))
        made = answer({})
        self._set_cookie(request, made, "", 0)
        return made

    def _set_cookie(self, request: web.Request, made: web.Response, value: str, seconds: int) -> None:
        # We speak plain HTTP: that the browser speaks HTTPS to a proxy before us is told by its Origin, or the proxy.
        came_by = request.headers.get("Origin", "").partition(":")[0].lower()
        is_secure = "https" in (came_by, request.headers.get("X-Forwarded-Proto", "").lower())
        made.set_cookie(
            self._cookie, value, max_age=seconds, path="/", httponly=True, samesite="Strict", secure=is_secure
        )


class LogoutOrder(msgspec.Struct, forbid_unknown_fields=True):
    """End the session: there is nothing to choose."""


def wants_page(request: web.Request) -> bool:
    """Whether a browser asks for something to show."""
    return "text/html" in request.headers.get("Accept", "")


def _is_of_another_page(request: web.Request) -> bool:
    """Whether a script or an image of another site asks, or of another port of this machine; links may lead here."""
    site, mode = (request.headers.get(f"Sec-Fetch-{name}", "") for name in ("Site", "Mode"))
    return site in ("cross-site", "same-site") and mode != "navigate"


def _hashed(session: str) -> str:
    return hashlib.sha256(session.encode("utf-8", "replace")).hexdigest()
