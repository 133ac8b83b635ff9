"""A token endpoint on aiohttp, which proves its clients (secrets, PyJWT for signed assertions), and servers that take
nothing but its tokens.

    async with issuing() as endpoint:                      # endpoint.url, endpoint.given: every token in order
        async with serving(Guarded("modern", tools, endpoint=endpoint)) as server: ...
"""

from __future__ import annotations

import asyncio
import secrets
import time
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.e2e.servers import Got, Toolbox, answer

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
CLIENT = "fastgw & friends"


@dataclass(frozen=True)
class Issued:
    """A token as it was given: for whom, and by which form."""

    token: str
    subject: str
    form: dict[str, str]
    expires: float


@dataclass
class TokenEndpoint:
    """`away` answers 503, `held` does not answer until it is set, `status` stands in for any other trouble."""

    secret: str = field(default_factory=lambda: f"client-{secrets.token_hex(8)}")
    client: str = CLIENT
    lifetime: float | None = 300
    padding: str = ""
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    users: dict[str, str] = field(default_factory=dict)
    away: bool = False
    held: asyncio.Event | None = None
    instead: web.Response | None = None
    url: str = ""
    asked: int = 0
    refused: int = 0
    given: list[Issued] = field(default_factory=list)
    revoked: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)

    @property
    def pem(self) -> str:
        """The private key of the client."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    def good(self, token: str) -> Issued | None:
        """What a token stands for; None for one that is none, or not any more."""
        found = next((one for one in self.given if one.token == token), None)
        return None if found is None or token in self.revoked or time.time() >= found.expires else found

    def revoke_all(self) -> None:
        self.revoked |= {one.token for one in self.given}

    async def handle(self, request: web.Request) -> web.Response:
        self.asked += 1
        form = {name: str(value) for name, value in (await request.post()).items()}
        if self.held is not None:
            await self.held.wait()
        if self.away:
            return web.Response(status=503, text="try later")
        if self.instead is not None:
            return web.Response(status=self.instead.status, body=self.instead.body, headers=self.instead.headers)
        if not self._proves(request, form):
            self.refused += 1
            return web.json_response({"error": "invalid_client", "error_description": str(form)}, status=401)
        subject = ""
        if form["grant_type"] == EXCHANGE:
            subject = self.users.get(form["subject_token"], "")
            if not subject:
                return web.json_response({"error": "invalid_request"}, status=400)
        elif form["grant_type"] != "client_credentials":
            return web.json_response({"error": "unsupported_grant_type"}, status=400)
        seconds = 3600 if self.lifetime is None else self.lifetime
        issued = Issued(f"at-{secrets.token_hex(16)}{self.padding}", subject, form, time.time() + seconds)
        self.given.append(issued)
        told: dict[str, Any] = {} if self.lifetime is None else {"expires_in": self.lifetime}
        return web.json_response({"access_token": issued.token, "token_type": "bearer", **told})

    def _proves(self, request: web.Request, form: dict[str, str]) -> bool:
        if form.get("client_assertion_type") == ASSERTION:
            try:
                claims = jwt.decode(
                    form["client_assertion"], self.key.public_key(), ["ES256"], audience=self.url,
                    options={"require": ["exp", "iat", "jti", "iss", "sub"]},
                )  # fmt: skip
            except jwt.PyJWTError:
                return False
            is_new, _ = claims["jti"] not in self.used, self.used.add(claims["jti"])
            return is_new and claims["iss"] == claims["sub"] == form["client_id"] == self.client
        if "client_secret" in form:
            return (form["client_id"], form["client_secret"]) == (self.client, self.secret)
        kind, _, pair = request.headers.get("authorization", "").partition(" ")
        if kind != "Basic":
            return False
        name, _, secret = b64decode(pair).decode().partition(":")
        return (unquote_plus(name), unquote_plus(secret)) == (self.client, self.secret)


@asynccontextmanager
async def issuing(endpoint: TokenEndpoint | None = None) -> AsyncIterator[TokenEndpoint]:
    """A token endpoint on a port of this machine."""
    endpoint = endpoint or TokenEndpoint()
    application = web.Application()
    application.router.add_post("/token", endpoint.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    endpoint.url = f"http://127.0.0.1:{port}/token"
    try:
        yield endpoint
    finally:
        await runner.cleanup()


@dataclass
class Guarded(Toolbox):
    """A toolbox that takes the tokens of an endpoint and no others; `turned_away` counts its 401."""

    endpoint: TokenEndpoint = field(default_factory=TokenEndpoint)
    turned_away: int = 0

    def whose(self, got: Got) -> Issued | None:
        """What the token of a request stands for."""
        kind, _, token = (got.header("authorization") or "").partition(" ")
        return self.endpoint.good(token) if kind == "Bearer" else None

    async def handle(self, got: Got, writer: asyncio.StreamWriter) -> None:
        if self.whose(got) is not None:
            await super().handle(got, writer)
            return
        self.turned_away += 1
        challenge = {"WWW-Authenticate": 'Bearer error="invalid_token", resource_metadata="http://inside.example/"'}
        writer.write(answer(b'{"error":"invalid_token"}', status="401 Unauthorized", headers=challenge))
