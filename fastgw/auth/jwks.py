"""Key sets of issuers (RFC 7517): which key a token's signature is tried with."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWTError
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

MOST_KEYS = 100
"""Of one set."""
MOST_TRIED = 4
"""Keys that the signature of a token without `kid` is tried with: each costs what a good token costs."""
SHORTEST_RSA = 2048
"""Bits (RFC 7518, section 3.3)."""

_RSA = frozenset(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"))
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_READERS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "RSA": (RSAAlgorithm.from_jwk, ("kty", "n", "e")),
    "EC": (ECAlgorithm.from_jwk, ("kty", "crv", "x", "y")),
    "OKP": (OKPAlgorithm.from_jwk, ("kty", "crv", "x")),
}
"""By `kty`, with the members of a public key: a private one that somebody publishes is read as its public half."""

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey


class VerificationKey(NamedTuple):
    """One key, and the algorithms of signatures that are tried with it; `numbers` are its members as published."""

    kid: str | None
    algorithms: frozenset[str]
    key: PublicKey
    numbers: tuple[str, ...]


class KeySet:
    """The keys of one issuer that can verify signatures; what is of another kind, or cannot be read, is left out.

    Raises:
        ValueError: the document is no JSON object with a list `keys`.
    """

    def __init__(self, document: bytes) -> None:
        found = orjson.loads(document)
        listed = found.get("keys") if isinstance(found, dict) else None
        if not isinstance(listed, list):
            raise ValueError("is no key set: it has no list `keys`")
        self._keys = [key for one in listed[:MOST_KEYS] if (key := _key(one)) is not None]

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def kids(self) -> frozenset[str]:
        """Names of the keys that have one."""
        return frozenset(key.kid for key in self._keys if key.kid is not None)

    @property
    def numbers(self) -> frozenset[tuple[str, ...]]:
        """What tells each key from others, whatever its name: one of the same name may be another."""
        return frozenset(key.numbers for key in self._keys)

    def fitting(self, algorithm: str, kid: str | None) -> list[VerificationKey]:
        """The keys that a signature is tried with: those of this name; without one, all that could have made it."""
        named = [key for key in self._keys if algorithm in key.algorithms and (kid is None or key.kid in (kid, None))]
        return named[:MOST_TRIED]


def _key(jwk: object) -> VerificationKey | None:
    if not isinstance(jwk, dict) or str(jwk.get("kty")) not in _READERS or jwk.get("use", "sig") != "sig":
        return None
    uses = jwk.get("key_ops")
    if uses is not None and not (isinstance(uses, list) and "verify" in uses):
        return None
    read, members = _READERS[jwk["kty"]]
    try:
        key = read({name: jwk[name] for name in members})
    except (PyJWTError, ValueError, TypeError, KeyError, OverflowError):
        return None
    algorithms = _algorithms(key)
    if isinstance(own := jwk.get("alg"), str):
        algorithms &= {own}
    kid = jwk.get("kid")
    numbers = tuple([str(jwk[name]) for name in members])
    return VerificationKey(kid if isinstance(kid, str) else None, algorithms, key, numbers) if algorithms else None


def _algorithms(key: object) -> frozenset[str]:
    if isinstance(key, RSAPublicKey):
        return _RSA if key.key_size >= SHORTEST_RSA else frozenset()
    if isinstance(key, EllipticCurvePublicKey):
        return frozenset(name for curve, name in _CURVES.items() if curve == key.curve.name)
    return frozenset(("EdDSA",)) if isinstance(key, Ed25519PublicKey) else frozenset()
