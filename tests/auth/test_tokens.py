"""Which access tokens are taken, as whom, and until when; what is done about ten thousand bad ones is in
`tests/gateway/test_token_agents.py`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest

from fastgw.auth.jwks import KeySet
from fastgw.auth.tokens import (
    SKEW,
    KeyMissing,
    TokenRefused,
    check_form,
    judge,
    principal_of,
    read_jwt,
    verified_claims,
)
from fastgw.config.schema.agents import Algorithm, IssuerSettings
from fastgw.snapshot.issuers import Issuer, canonical, issuer_of
from tests.auth.signing import AUDIENCE, CLAIMS, GOOD, ISSUER, NOW, document, jwk, token

KINDS = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519"}
KEYS = KeySet(document(jwk()))


def issuer(**more: Any) -> Issuer:
    found = issuer_of("login", IssuerSettings.model_validate({"issuer": ISSUER, "claims": {"team": "team"}, **more}))
    assert found is not None
    return found


def claims(shown: bytes, keys: KeySet = KEYS, of: Issuer | None = None) -> dict[str, Any]:
    check_form(shown)
    read = read_jwt(shown)
    assert read is not None
    return verified_claims(read, of or issuer(), keys)


def until(said: dict[str, Any], of: Issuer | None = None, audiences: tuple[str, ...] = (AUDIENCE,)) -> float:
    return judge(said, of or issuer(), [canonical(one) for one in audiences], NOW)


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
def test_each_algorithm(algorithm: str) -> None:
    kind = KINDS.get(algorithm, "RSA")
    keys = KeySet(document(jwk(kind)))
    assert claims(token(None, algorithm, kind), keys) == GOOD
    others = frozenset(get_args(Algorithm)) - {algorithm}
    with pytest.raises(TokenRefused, match="algorithm"):
        claims(token(None, algorithm, kind), keys, replace(issuer(), algorithms=others))


@pytest.mark.parametrize("kind", ["at+jwt", "JWT", "jwt", "application/at+jwt", "AT+JWT"])
def test_each_type(kind: str) -> None:
    assert claims(token(header={"typ": kind})) == GOOD


def test_the_key_is_found_by_its_name_or_tried() -> None:
    two = KeySet(document(jwk(name="b"), jwk(name="a")))
    assert claims(token(), two) == GOOD
    assert claims(token(header={"kid": None}), two) == GOOD
    assert claims(token(), KeySet(document({**jwk(), "kid": None}))) == GOOD  # keys without a name are for all
    for missing in (KeySet(document()), KeySet(document(jwk(name="b"))), KeySet(document(jwk(name="b", kid=None)))):
        with pytest.raises(KeyMissing):
            claims(token(), missing)
    with pytest.raises(TokenRefused, match="signature") as refused:
        claims(token(), KeySet(document(jwk(name="b", kid="a"))))
    assert not isinstance(refused.value, KeyMissing)


@pytest.mark.parametrize(
    ("meant", "endpoint"),
    [
        (AUDIENCE, AUDIENCE),
        ("http://LOCALHOST:8080/mcp", AUDIENCE),
        ("HTTP://localhost:8080/mcp/", AUDIENCE),
        (["https://elsewhere.example", AUDIENCE], AUDIENCE),
        (AUDIENCE, "http://LocalHost:8080/mcp"),
    ],
)
def test_audiences_are_compared_as_resources(meant: Any, endpoint: str) -> None:
    assert until({**GOOD, "aud": meant}, audiences=("https://other.example/mcp", endpoint)) == NOW + 300 + SKEW


def test_a_configured_audience_counts_instead_of_the_endpoint() -> None:
    of = issuer(audience=["fastgw", "https://API.example.com/"])
    for meant in ("fastgw", "https://api.example.com"):
        assert until({**GOOD, "aud": meant}, of) > NOW
    for meant in (AUDIENCE, "FASTGW", "fastgw/"):
        with pytest.raises(TokenRefused, match="audience"):
            until({**GOOD, "aud": meant}, of)


@pytest.mark.parametrize("change", CLAIMS)
def test_claims_that_refuse_a_token(change: dict[str, Any]) -> None:
    said = {**GOOD, **change}
    with pytest.raises(TokenRefused):
        until({name: value for name, value in said.items() if value is not None})
        principal_of(issuer(), said)


@pytest.mark.parametrize("said", [{"typ": "Bearer"}, {"token_use": "access"}, {"typ": ["ID"]}, {"nonce": "x"}])
def test_what_access_tokens_may_say_of_themselves(said: dict[str, Any]) -> None:
    assert until({**GOOD, **said}) > NOW


def test_clocks_may_differ_a_little() -> None:
    assert until({**GOOD, "exp": NOW - SKEW + 1}) == NOW + 1
    assert until({**GOOD, "nbf": NOW + SKEW}) > NOW
    for change, words in (({"exp": NOW - SKEW}, "expired"), ({"nbf": NOW + SKEW + 1}, "not good yet")):
        with pytest.raises(TokenRefused, match=words) as refused:
            until({**GOOD, **change})
        assert refused.value.stale


def test_who_it_is() -> None:
    of = issuer(
        agent_id=["act", "x.y"], user_id="email", set={"tier": "internal"},
        claims={"team": "team", "roles": "access.roles", "level": "n", "trial": "t", "gone": "no.such", "tier": "tier"},
    )  # fmt: skip
    said = {
        **GOOD, "act": {"x.y": "bot 7"}, "email": "a@b.example",
        "access": {"roles": ["dev", 7, True, {"no": 1}, ["no"]]},
        "n": 3, "t": False, "no": 7, "tier": "external", "scope": "a b", "scp": ["c"],
    }  # fmt: skip
    found = principal_of(of, said)
    assert (found.agent, found.user, found.credential) == ("login:bot 7", "a@b.example", "login")
    assert found.claims == {
        "team": "test", "roles": ("dev", "7", "true"), "level": "3", "trial": "false", "tier": "internal",
    }  # fmt: skip
    assert found.scopes == {"a", "b", "c"}
    assert principal_of(issuer(), {**GOOD, "sub": 7}).agent == "login:7"
    assert principal_of(issuer(), GOOD).scopes == frozenset()


@pytest.mark.parametrize(
    "opaque", [b"abc", b"a.b", b"a.b.c", b"a.b.c.d.e", b"....", b"e30.W10.x", b"~+/=", b"W10.e30."]
)
def test_what_is_no_jwt_is_opaque(opaque: bytes) -> None:
    assert read_jwt(opaque) is None


@pytest.mark.parametrize("text", [b"", b"a b", b"a\tb", b"a,b", b"\xff", b"a\x00", b'"a"', b"=a", b"x" * 16_385])
def test_what_is_no_token_at_all(text: bytes) -> None:
    with pytest.raises(TokenRefused):
        check_form(text)
