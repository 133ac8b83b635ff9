"""Access tokens: which issuer's one is, whether it is good here and now, and who shows it.

Signatures are verified by PyJWT: it does what is left after RFC 8725 (no more than the one algorithm it is told), takes
keys that were read once, needs `cryptography` and nothing else, and the MCP SDK has it too. What a token says is judged
here, because audiences are compared as resources (RFC 8707) and time is an argument.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Collection, Mapping
from math import inf
from typing import Any, NamedTuple

import orjson
from jwt import PyJWS, PyJWTError

from fastgw.auth.jwks import KeySet
from fastgw.policy.match import Claim, Principal
from fastgw.snapshot.issuers import ClaimPath, Issuer, canonical

LONGEST = 16 * 1024
"""Bytes of a token; longer ones are not looked at."""
SKEW = 30.0
"""Seconds by which clocks may differ."""
LONGEST_NAME = 256
"""Letters of the claim that names an agent or a person."""

_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750, section 2.1."""
_JWT = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]*")
_TYPES = ("jwt", "at+jwt", "application/at+jwt")
_OTHERS = {"typ": ("ID", "Refresh", "Offline", "Logout"), "token_use": ("id",)}
"""Claims by which issuers (Keycloak, Cognito) tell other tokens of theirs apart, whose `typ` in the header is the same.
`at_hash` is of ID tokens alone (OpenID Connect Core, section 2). Where `audience` is a client's id they would fit.
"""
_JWS = PyJWS()
_UNFIT = re.compile(r"[\x00-\x1f\x7f]")


class TokenRefused(Exception):
    """A token is not taken; its text says why and holds nothing of the token. `stale`: it was good once."""

    def __init__(self, why: str, *, stale: bool = False) -> None:
        super().__init__(why)
        self.stale = stale


class KeyMissing(TokenRefused):
    """The issuer's keys that are known here cannot verify it."""


class ReadToken(NamedTuple):
    """A JWT, taken apart. Nothing that it says has been verified."""

    text: bytes
    algorithm: str
    kid: str | None
    issuer: str


def check_form(token: bytes) -> None:
    """Raises TokenRefused where it is none of RFC 6750, section 2.1, or too long."""
    if len(token) > LONGEST:
        raise TokenRefused("too long")
    if not _TOKEN.fullmatch(token):
        raise TokenRefused("not a token")


def read_jwt(token: bytes) -> ReadToken | None:
    """A signed JWT in compact form (RFC 7515, section 7.1); None for what has another form: it is opaque.

    Of its header only `alg`, `kid`, `typ` and `crit` are looked at. Keys that a token brings along or points to (`jwk`,
    `jku`, `x5c`, `x5u`) are never used.

    Raises:
        TokenRefused: it has the form and cannot be one.
    """
    parts = _JWT.fullmatch(token)
    if parts is None:
        return None
    header, claims = _object(parts[1]), _object(parts[2])
    if header is None or claims is None:
        return None
    algorithm, kid, kind, issuer = header.get("alg"), header.get("kid"), header.get("typ", "JWT"), claims.get("iss")
    if "crit" in header:
        raise TokenRefused("it wants an extension understood (crit)")
    if not isinstance(algorithm, str) or not (kid is None or isinstance(kid, str)):
        raise TokenRefused("its header cannot be read")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise TokenRefused("it is of another type than access tokens")
    if not isinstance(issuer, str):
        raise TokenRefused("it names no issuer")
    return ReadToken(token, algorithm, kid, issuer)


def said_by(token: bytes) -> dict[str, Any] | None:
    """What a JWT says, whoever has made it: for an operator to look at. None for what is none."""
    parts = _JWT.fullmatch(token)
    return None if parts is None else _object(parts[2])


def verified_claims(token: ReadToken, issuer: Issuer, keys: KeySet) -> dict[str, Any]:
    """What the token says, once its signature has been found to be the issuer's.

    Raises:
        KeyMissing: none of the keys fits it.
        TokenRefused: its algorithm is not allowed, or the signature is wrong.
    """
    if token.algorithm not in issuer.algorithms:
        raise TokenRefused("its algorithm is not allowed")
    fitting = keys.fitting(token.algorithm, token.kid)
    if not fitting:
        raise KeyMissing("its key is not known")
    for one in fitting:
        try:
            found = _JWS.decode_complete(token.text, one.key, algorithms=[token.algorithm])
        except (PyJWTError, ValueError, TypeError):
            continue
        claims = orjson.loads(found["payload"])
        if isinstance(claims, dict):
            return claims
    if token.kid not in keys.kids:  # tried with keys that have no name: the issuer may have others by now
        raise KeyMissing("its key is not known")
    raise TokenRefused("its signature is wrong")


def judge(claims: Mapping[str, Any], issuer: Issuer, audiences: Collection[str], now: float) -> float:
    """Whether these claims make a token that is good here and now: the Unix seconds until which it is.

    Args:
        claims: verified, or as introspection gave them.
        audiences: what it may be for, each as `canonical` has it, where the issuer's configuration does not say.
        now: Unix seconds.

    Raises:
        TokenRefused
    """
    if claims.get("iss") != issuer.url:
        raise TokenRefused("it is another issuer's")
    meant = claims.get("aud")
    said = meant if isinstance(meant, list) else [meant]
    if (issuer.audience or frozenset(audiences)).isdisjoint(canonical(one) for one in said if isinstance(one, str)):
        raise TokenRefused("it is for another audience")
    begins, ends = _moment(claims, "nbf") or -inf, _moment(claims, "exp")
    if ends is None:
        raise TokenRefused("it never ends (no exp)")
    if now >= ends + SKEW:
        raise TokenRefused("it has expired", stale=True)
    if now < begins - SKEW:
        raise TokenRefused("it is not good yet (nbf)", stale=True)
    if "at_hash" in claims or any(claims.get(name) in said for name, said in _OTHERS.items()):
        raise TokenRefused("it is an ID token or a refresh token, and no access token")
    if claims.get("cnf") is not None:  # whoever has stolen it could show it as a bearer's (RFC 9449, 7.2; RFC 8705, 3)
        raise TokenRefused("it is bound to a key (cnf), whose proof is not checked here; ask for a Bearer token")
    return ends + SKEW


def principal_of(issuer: Issuer, claims: Mapping[str, Any]) -> Principal:
    """Who shows a token that says this. Raises TokenRefused where it names nobody."""
    name = _text(_at(claims, issuer.agent_id))
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or _UNFIT.search(name):
        raise TokenRefused("it names no agent")
    user = None if issuer.user_id is None else _text(_at(claims, issuer.user_id))
    own = dict(issuer.fixed)
    for ours, path in issuer.claims:
        value = _text(_at(claims, path))
        if value is not None and ours not in own:
            own[ours] = value
    user = user[:LONGEST_NAME] if isinstance(user, str) else None
    return Principal(f"{issuer.name}:{name}", own, issuer.name, user, _scopes(claims))


def _object(part: bytes) -> dict[str, Any] | None:
    try:
        found = orjson.loads(binascii.a2b_base64(part.translate(_URL_SAFE) + b"=="))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenRefused(f"its {name} is no time")
    return float(value)


def _at(claims: Mapping[str, Any], path: ClaimPath) -> Any:
    found: Any = claims
    for step in path:
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _text(value: Any) -> Claim | None:
    """A claim's value as policies compare it; None for what is no text and no list of texts."""
    if isinstance(value, list):
        texts = [text for one in value if isinstance(text := _text(one), str) and not isinstance(one, list)]
        return texts[0] if len(texts) == 1 else tuple(texts) or None
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int | float) else None


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """Of `scope` (RFC 9068, section 2.2.3), and of `scp`, as some issuers call it; text, or a list of texts."""
    found: list[str] = []
    for name in ("scope", "scp"):
        value = claims.get(name)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                found.extend(text.split())
    return frozenset(found)
