"""A real authorization server in a thread: the MCP SDK's routes (metadata, registration, PKCE, tokens), PyJWT's tokens.

    with authorizing() as server:
        server.url                        # the issuer
        server.token("alice", audience)   # an access token as it would give one; `server.rotate()` signs by another key

Whoever asks is let in as `server.subject`, with the scopes it asks for. `server.away` answers 503 to everybody.
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote_plus

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import rsa
from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    OAuthAuthorizationServerProvider,
    RefreshToken,
    construct_redirect_uri,
)
from mcp.server.auth.routes import create_auth_routes
from mcp.server.auth.settings import ClientRegistrationOptions
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tests.auth import signing

INTROSPECTING: tuple[str, str] = ("fastgw", "introspection secret of a test")
"""Who may ask about opaque tokens: client id and secret."""


class AuthorizationServer(OAuthAuthorizationServerProvider[AuthorizationCode, RefreshToken, AccessToken]):
    """`asked` counts requests by path; `claims` go into every token."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self.subject = "alice"
        self.claims: dict[str, Any] = {}
        self.lifetime = 300
        self.away = False
        self.asked: dict[str, int] = {}
        self.opaque: dict[str, dict[str, Any]] = {}
        self.max_age: int | None = None
        self._keys: list[tuple[str, rsa.RSAPrivateKey]] = []
        self._clients: dict[str, OAuthClientInformationFull] = {}
        self._codes: dict[str, AuthorizationCode] = {}
        self._refresh: dict[str, RefreshToken] = {}
        self.rotate()

    # -- keys and tokens ---------------------------------------------------------------------------------------------

    def rotate(self, *, forget: bool = False) -> None:
        """Sign by a new key from now on; `forget`: the ones before are published no more."""
        kept = [] if forget else self._keys
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._keys = [*kept, (secrets.token_hex(4), key)]

    def jwks(self) -> dict[str, Any]:
        found = []
        for kid, key in self._keys:
            jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
            found.append({**jwk, "kid": kid, "use": "sig", "alg": "RS256"})
        return {"keys": found}

    def token(self, subject: str, audience: str | list[str], scope: str = "", **more: Any) -> str:
        """A JWT for this audience; `more` are further claims, or others in place of the usual."""
        now, (kid, key) = int(time.time()), self._keys[-1]
        claims = {"iss": self.url, "sub": subject, "aud": audience, "iat": now, "exp": now + self.lifetime}
        claims |= {**({"scope": scope} if scope else {}), **self.claims, **more}
        return jwt.encode(claims, key, algorithm="RS256", headers={"kid": kid, "typ": "at+jwt"})

    def opaque_token(self, subject: str, audience: str, **more: Any) -> str:
        """One that says nothing by itself."""
        token = secrets.token_urlsafe(24)
        claims = {"sub": subject, "aud": audience, "exp": int(time.time()) + self.lifetime}
        self.opaque[token] = {"active": True, **claims, **self.claims, **more}
        return token

    # -- what the SDK's routes ask -----------------------------------------------------------------------------------

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        return self._clients.get(client_id)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        client_info.scope = "deploy"  # what it may ask for later, though it did not say so now
        self._clients[str(client_info.client_id)] = client_info

    async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
        code = AuthorizationCode(
            code=secrets.token_urlsafe(32), scopes=params.scopes or [], expires_at=time.time() + 60,
            client_id=str(client.client_id), code_challenge=params.code_challenge, redirect_uri=params.redirect_uri,
            redirect_uri_provided_explicitly=params.redirect_uri_provided_explicitly, resource=params.resource,
        )  # fmt: skip
        self._codes[code.code] = code
        return construct_redirect_uri(str(params.redirect_uri), code=code.code, state=params.state)

    async def load_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: str
    ) -> AuthorizationCode | None:
        return self._codes.get(authorization_code)

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        del self._codes[authorization_code.code]
        audience = authorization_code.resource or ""
        token = self.token(self.subject, audience, " ".join(authorization_code.scopes))
        scope = " ".join(authorization_code.scopes) or None
        return OAuthToken(access_token=token, expires_in=self.lifetime, scope=scope)

    async def load_refresh_token(self, client: OAuthClientInformationFull, refresh_token: str) -> RefreshToken | None:
        return self._refresh.get(refresh_token)

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        raise NotImplementedError

    async def load_access_token(self, token: str) -> AccessToken | None:
        return None

    async def revoke_token(self, token: AccessToken | RefreshToken) -> None:
        raise NotImplementedError

    # -- further routes ----------------------------------------------------------------------------------------------

    async def _answer_jwks(self, _: Request) -> Response:
        headers = {} if self.max_age is None else {"cache-control": f"max-age={self.max_age}"}
        return JSONResponse(self.jwks(), headers=headers)

    async def _answer_signing(self, _: Request) -> Response:
        return Response(signing.document(signing.jwk()))

    async def _answer_metadata(self, _: Request) -> Response:
        return JSONResponse({"issuer": self.url, "jwks_uri": f"{self.url}jwks"})

    async def _introspect(self, request: Request) -> Response:
        kind, _, pair = request.headers.get("authorization", "").partition(" ")
        shown = tuple(map(unquote_plus, b64decode(pair).decode().split(":")))
        if (kind, shown) != ("Basic", INTROSPECTING):
            return JSONResponse({"error": "invalid_client"}, 401)
        form = await request.form()
        return JSONResponse(self.opaque.get(str(form["token"]), {"active": False}))

    def app(self) -> Any:
        scopes = ClientRegistrationOptions(enabled=True)
        routes = create_auth_routes(self, AnyHttpUrl(self.url), client_registration_options=scopes)
        routes.append(Route("/jwks", self._answer_jwks))
        routes.append(Route("/signing", self._answer_signing))
        routes.append(Route("/.well-known/openid-configuration", self._answer_metadata))
        routes.append(Route("/introspect", self._introspect, methods=["POST"]))
        inner = Starlette(routes=routes)

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                self.asked[scope["path"]] = self.asked.get(scope["path"], 0) + 1
                if self.away:
                    await Response(status_code=503)(scope, receive, send)
                    return
            await inner(scope, receive, send)

        return counted


@contextmanager
def authorizing() -> Iterator[AuthorizationServer]:
    """One on any free port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = AuthorizationServer(listening.getsockname()[1])
        config = uvicorn.Config(server.app(), log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            running.should_exit = True
            thread.join(10)
