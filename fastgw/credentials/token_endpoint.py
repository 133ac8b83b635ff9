"""Tokens of a token endpoint: by client credentials (RFC 6749, section 4.4), or in exchange for an agent's (RFC 8693).

Where it is the configuration says, so it may be anywhere; it is not followed anywhere else. What goes wrong is told
without a word that could be a secret.
"""

from __future__ import annotations

import re
import time
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote_plus
from uuid import uuid4

import jwt
import orjson
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout

from fastgw.config.instance_urls import origin
from fastgw.config.schema.servers import OAuthSettings, signing_key
from fastgw.protocol.call import SubjectToken

WITHIN: Final = ClientTimeout(total=10.0, sock_connect=5.0)
LARGEST: Final = 64 * 1024
"""Bytes of an answer."""
LIFETIME: Final = 300.0
"""Seconds that a token counts as good for whose endpoint does not say."""
ASSERTED_FOR: Final = 60
"""Seconds that a signed assertion is good for."""
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750, section 2.1."""
_ERRORS: Final = frozenset((
    "invalid_request", "invalid_client", "invalid_grant", "invalid_scope", "invalid_target", "unauthorized_client",
    "unsupported_grant_type", "unsupported_token_type", "access_denied", "server_error", "temporarily_unavailable",
    "interaction_required", "consent_required", "login_required",
))  # fmt: skip
"""Values of `error` that are told on: others could be anything, what the endpoint was sent too."""
_LONGEST = 32 * 1024


class TokenUnavailable(Exception):
    """No token; its text says why, and is fit for the log."""


@dataclass(frozen=True, slots=True)
class ServerToken:
    """A token for a server, as the header line that shows it.

    Args:
        line: ended by CRLF; a secret.
        refresh_at: Unix seconds from which on another one is to be had; `expires`: from which on this one is not shown.
    """

    line: bytes = field(repr=False)
    refresh_at: float
    expires: float


async def fetch_token(oauth: OAuthSettings, subject: SubjectToken | None) -> ServerToken:
    """A new token; without a `subject` the gateway's own.

    Raises:
        TokenUnavailable
    """
    url, form = oauth.token_url or "", _form(oauth, subject)
    headers = {"accept": "application/json", "user-agent": "fastgw", **_shown_client(oauth, form)}
    asked = time.time()
    try:
        async with (
            ClientSession(timeout=WITHIN, trust_env=False) as session,
            session.post(url, data=form, headers=headers, allow_redirects=False) as answer,
        ):
            found = await _read(answer)
    except (ClientError, OSError, ValueError) as wrong:  # TimeoutError is an OSError
        raise TokenUnavailable(f"{origin(url)}: {type(wrong).__name__}") from None
    except TokenUnavailable as wrong:
        raise TokenUnavailable(f"{origin(url)}: {wrong}") from None
    return _token(found, asked)


def _form(oauth: OAuthSettings, subject: SubjectToken | None) -> list[tuple[str, str]]:
    if subject is None:
        form = [("grant_type", "client_credentials")]
    else:
        form = [
            ("grant_type", _EXCHANGE),
            ("subject_token", subject.token),
            ("subject_token_type", _ACCESS_TOKEN),
            ("requested_token_type", _ACCESS_TOKEN),
        ]
    form += [("resource", one) for one in oauth.resource] + [("audience", one) for one in oauth.audience]
    return [*form, ("scope", " ".join(oauth.scopes))] if oauth.scopes else form


def _shown_client(oauth: OAuthSettings, form: list[tuple[str, str]]) -> dict[str, str]:
    """Headers that say who asks; or the form gets it."""
    if oauth.client_secret is None:
        form += [("client_id", oauth.client_id), ("client_assertion_type", _ASSERTION)]
        form.append(("client_assertion", _assertion(oauth)))
    elif oauth.client_auth == "post":
        form += [("client_id", oauth.client_id), ("client_secret", oauth.client_secret)]
    else:  # the parts of the pair are form-encoded first (RFC 6749, section 2.3.1)
        pair = f"{quote_plus(oauth.client_id)}:{quote_plus(oauth.client_secret)}"
        return {"authorization": f"Basic {b64encode(pair.encode()).decode()}"}
    return {}


def _assertion(oauth: OAuthSettings) -> str:
    """A signed word for who asks (RFC 7523, section 3)."""
    key, algorithm = signing_key(oauth.private_key or "")
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": oauth.client_id,
        "sub": oauth.client_id,
        "aud": oauth.assertion_audience or oauth.token_url,
    }
    claims |= {"jti": uuid4().hex, "iat": now, "exp": now + ASSERTED_FOR}
    return jwt.encode(claims, key, algorithm, {"kid": oauth.key_id} if oauth.key_id is not None else None)


async def _read(answer: ClientResponse) -> dict[str, Any]:
    """Raises TokenUnavailable for an answer that brings no token; ValueError where it is no JSON."""
    text = bytearray()
    async for piece in answer.content.iter_any():
        text += piece
        if len(text) > LARGEST:
            raise TokenUnavailable(f"status {answer.status}, and more than {LARGEST} bytes")
    if 300 <= answer.status < 400:
        raise TokenUnavailable(f"status {answer.status}: it redirects, which is not followed")
    try:
        found = orjson.loads(text)
    except ValueError:
        found = None
    if answer.status != 200 or not isinstance(found, dict):
        error = found.get("error", "") if isinstance(found, dict) else ""
        known = f", {error}" if isinstance(error, str) and error in _ERRORS else ", with no error of a known name"
        raise TokenUnavailable(f"status {answer.status}{known if error else ' without a JSON object'}")
    return found


def _token(found: dict[str, Any], asked: float) -> ServerToken:
    """The token in an answer to what was asked at `asked`, in Unix seconds."""
    token, kind, seconds = found.get("access_token"), found.get("token_type", "bearer"), found.get("expires_in")
    if not isinstance(token, str) or len(token) > _LONGEST or _TOKEN.fullmatch(token) is None:
        raise TokenUnavailable("the answer has no access_token that a header can carry")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise TokenUnavailable("the token is not one of the type Bearer")
    try:
        lifetime = LIFETIME if seconds is None else float(seconds)  # some write it as text
    except (TypeError, ValueError):
        lifetime = LIFETIME
    if not 0.0 < lifetime < 1e9:
        raise TokenUnavailable("the token has expired already, by its expires_in")
    line = b"Authorization: Bearer %b\r\n" % token.encode()
    # A JWT ends at a whole second (RFC 7519, section 2), so perhaps one before the endpoint has said.
    lifetime -= min(1.0, lifetime * 0.2)
    # What is on its way to the server when it expires would be refused.
    return ServerToken(line, asked + lifetime * 0.8, asked + lifetime - min(10.0, lifetime * 0.1))
