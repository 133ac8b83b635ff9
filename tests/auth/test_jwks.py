"""Which keys of a set can verify what."""

from __future__ import annotations

from typing import Any

import pytest
from jwt.algorithms import RSAAlgorithm

from fastgw.auth.jwks import MOST_KEYS, MOST_TRIED, KeySet
from tests.auth.signing import document, jwk, key


@pytest.mark.parametrize(
    ("kind", "fits", "fits_not"),
    [
        ("RSA", ["RS256", "RS512", "PS384"], ["ES256", "EdDSA", "HS256", "none", ""]),
        ("P-256", ["ES256"], ["ES384", "ES512", "RS256", "HS256"]),
        ("P-384", ["ES384"], ["ES256"]),
        ("P-521", ["ES512"], ["ES256"]),
        ("Ed25519", ["EdDSA"], ["ES256", "HS256"]),
    ],
)
def test_a_key_is_for_what_it_can_sign(kind: str, fits: list[str], fits_not: list[str]) -> None:
    keys = KeySet(document(jwk(kind)))
    assert all(len(keys.fitting(name, "a")) == 1 for name in fits)
    assert not any(keys.fitting(name, "a") for name in fits_not)
    one = KeySet(document(jwk(kind, alg=fits[0])))
    assert [name for name in [*fits, *fits_not] if one.fitting(name, "a")] == fits[:1]


@pytest.mark.parametrize(
    "left_out",
    [
        jwk(use="enc"),
        jwk(key_ops=["encrypt"]),
        jwk(key_ops="verify"),
        jwk(alg="RSA-OAEP"),
        jwk("small"),
        {"kty": "oct", "k": "AAAA", "kid": "a"},
        {"kty": "RSA", "kid": "a"},
        {"kty": "RSA", "n": 7, "e": [], "kid": "a"},
        {"kty": "RSA", "n": "%%", "e": "AQAB", "kid": "a"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "a"},
        {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA", "kid": "a"},
        {"kty": "OKP", "crv": "X25519", "x": "A" * 43, "kid": "a"},
        {"kty": ["RSA"], "kid": "a"},
        {"kty": None},
        {},
    ],
)
def test_what_verifies_nothing_is_left_out(left_out: Any) -> None:
    keys = KeySet(document(left_out, "text", 7, None, jwk(name="b")))  # type: ignore[arg-type]
    assert (len(keys), keys.kids) == (1, {"b"})


def test_a_published_private_key_is_read_as_its_public_half() -> None:
    private = RSAAlgorithm.to_jwk(key(), as_dict=True)
    [found] = KeySet(document({**private, "kid": "a", "key_ops": ["verify"]})).fitting("RS256", "a")
    assert not hasattr(found.key, "private_numbers")


def test_a_token_without_the_name_of_its_key_costs_a_few_tries() -> None:
    keys = KeySet(document(*[jwk(name="a", kid=f"k{at}") for at in range(MOST_KEYS + 5)]))
    assert len(keys) == MOST_KEYS
    assert len(keys.fitting("RS256", None)) == MOST_TRIED
    assert keys.fitting("RS256", "k9")[0].kid == "k9"


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":7}', b"<html>", b"\xff", b"null"])
def test_what_is_no_key_set(text: bytes) -> None:
    with pytest.raises(ValueError):
        KeySet(text)
