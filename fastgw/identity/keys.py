"""API keys: `Authorization: Bearer fgw_...`.

Knows: how a key is shown, hashed and found. Refuses to know: what its agent may do, and the time (`now` is given).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from fastgw.config.snapshot import KeyEntry
from fastgw.faults import Fault, Kind
from fastgw.policy.principal import Principal

PREFIX = "fgw_"
"""So that scanners for leaked secrets know one."""


def digest(key: str) -> str:
    """The SHA-256 of a key as 64 hex digits. No salt or stretching: a key has 256 random bits."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def authenticate(authorization: bytes | None, keys: Mapping[str, KeyEntry], now: float) -> Principal:
    """Who shows this credential.

    Args:
        authorization: value of the header; None where there is none or more than one.
        keys: by `digest`.
        now: Unix seconds.

    Raises:
        Fault: UNAUTHENTICATED where no token was sent, else WRONG_CREDENTIAL; each with the `WWW-Authenticate` of
            RFC 6750, section 3: `invalid_token` only if a token was sent.
    """
    words = (authorization or b"").split()
    if len(words) < 2 or words[0].lower() != b"bearer":
        raise Fault(Kind.UNAUTHENTICATED, detail="no token", headers=((b"www-authenticate", b"Bearer"),))
    entry = keys.get(hashlib.sha256(words[1]).hexdigest()) if len(words) == 2 else None
    if entry is None:
        raise _wrong("unknown key")
    if entry.expires is not None and now >= entry.expires:
        raise _wrong(f"{entry.principal.credential} has expired")
    return entry.principal


def _wrong(detail: str) -> Fault:
    challenge = b'Bearer error="invalid_token"'
    return Fault(Kind.WRONG_CREDENTIAL, detail=detail, headers=((b"www-authenticate", challenge),))
