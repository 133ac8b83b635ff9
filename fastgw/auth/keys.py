"""API keys: `Authorization: Bearer fgw_...`, and the other forms in which clients send one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Set

from fastgw.errors import CREDENTIAL_WANTED, Fault, Kind
from fastgw.snapshot.model import KeyEntry

PREFIX = "fgw_"
"""So that scanners for leaked secrets know one."""

_PREFIX = PREFIX.encode()
_AUTHORIZATION, _API_KEY = b"authorization", b"x-api-key"
_BOTH = frozenset((_AUTHORIZATION, _API_KEY))
_BEARER_ALONE = f"DPoP is not taken here. {CREDENTIAL_WANTED}"


def digest(key: str) -> str:
    """The SHA-256 of a key as 64 hex digits. No salt or stretching: a key has 256 random bits."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def authenticate(
    headers: Mapping[bytes, bytes], twice: Set[bytes], keys: Mapping[str, KeyEntry], now: float
) -> KeyEntry:
    """Who shows the key in these headers: `Authorization`, with or without the word Bearer, or `X-API-Key`.

    Args:
        twice: names of those that came more than once.
        now: Unix seconds.

    Raises:
        Fault: UNAUTHENTICATED where no key was sent, or a header for it twice; else WRONG_CREDENTIAL, also for two
            different keys. Each with the `WWW-Authenticate` of RFC 6750, section 3: `invalid_token` only if a key was
            sent.
    """
    key = _authorized(headers.get(_AUTHORIZATION, b""))
    if _API_KEY in headers:
        other = headers[_API_KEY].strip()
        if key and other and key != other:
            raise _wrong("two keys", "Authorization and X-API-Key show different keys; one is enough.")
        key = key or other
    if not key or not _BOTH.isdisjoint(twice):
        words = _BEARER_ALONE if headers.get(_AUTHORIZATION, b"")[:5].lower() == b"dpop " else ""
        raise Fault(Kind.UNAUTHENTICATED, words, detail="no token", headers=((b"www-authenticate", b"Bearer"),))
    entry = keys.get(hashlib.sha256(key).hexdigest())
    if entry is None:
        raise _wrong("unknown key")
    if entry.expires is not None and now >= entry.expires:
        raise _wrong(f"{entry.principal.credential} has expired")
    return entry


def shown_token(headers: Mapping[bytes, bytes], twice: Set[bytes], keys: Mapping[str, KeyEntry]) -> bytes | None:
    """What may be an access token: the only credential, a Bearer one (RFC 6750, section 2.1), none of these keys."""
    scheme, _, token = headers.get(_AUTHORIZATION, b"").strip().partition(b" ")
    token = token.strip()
    if scheme.lower() != b"bearer" or not token or _API_KEY in headers or not _BOTH.isdisjoint(twice):
        return None
    return None if token.startswith(_PREFIX) or hashlib.sha256(token).hexdigest() in keys else token


def _authorized(value: bytes) -> bytes:
    """The key in an `Authorization`; empty where there is none, or the credential of another scheme."""
    words = value.split(None, 1)
    if words and words[0].lower() == b"bearer":
        return words[1].rstrip() if len(words) > 1 else b""
    return words[0] if len(words) == 1 else b""


def _wrong(detail: str, message: str = "") -> Fault:
    challenge = b'Bearer error="invalid_token"'
    return Fault(Kind.WRONG_CREDENTIAL, message, detail=detail, headers=((b"www-authenticate", challenge),))
