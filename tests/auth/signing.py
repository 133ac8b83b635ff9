"""Keys and tokens of an issuer in tests, good ones and every kind of bad one."""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ISSUER = "https://login.example.com/"
AUDIENCE = "http://localhost:8080/mcp"
NOW = int(time.time())
GOOD: dict[str, Any] = {"iss": ISSUER, "sub": "alice", "aud": AUDIENCE, "exp": NOW + 300, "iat": NOW, "team": "test"}


@cache
def key(kind: str = "RSA", name: str = "a") -> Any:
    """A private key: the same for the same kind and name."""
    if kind == "RSA":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if kind == "small":
        return rsa.generate_private_key(public_exponent=65537, key_size=1024)
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key({"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}[kind]())


def jwk(kind: str = "RSA", name: str = "a", **more: Any) -> dict[str, Any]:
    """The public half, as issuers publish it."""
    kinds = {"RSA": jwt.algorithms.RSAAlgorithm, "small": jwt.algorithms.RSAAlgorithm}
    kinds["Ed25519"] = jwt.algorithms.OKPAlgorithm  # type: ignore[assignment]
    found = kinds.get(kind, jwt.algorithms.ECAlgorithm).to_jwk(key(kind, name).public_key())  # type: ignore[attr-defined]
    return {**json.loads(found), "kid": name, **more}


def document(*keys: dict[str, Any]) -> bytes:
    """A key set."""
    return json.dumps({"keys": list(keys)}).encode()


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def token(
    claims: Any = None,
    algorithm: str = "RS256",
    kind: str = "RSA",
    name: str = "a",
    header: dict[str, Any] | None = None,
) -> bytes:
    """A signed token; `claims` over the good ones, None takes one out; bytes are the whole payload."""
    if not isinstance(claims, bytes):
        every = {**GOOD, **(claims or {})}
        claims = json.dumps({name: value for name, value in every.items() if value is not None}).encode()
    named = {member: value for member, value in {"kid": name, **(header or {})}.items() if value is not None}
    return _signed(claims, algorithm, kind, name, json.dumps(named))


@cache
def _signed(payload: bytes, algorithm: str, kind: str, name: str, header: str) -> bytes:
    return jwt.PyJWS().encode(payload, key(kind, name), algorithm, json.loads(header)).encode()


def unsigned(header: Any, claims: Any = None, signature: str = "") -> bytes:
    """A token of these parts."""
    return f"{part(header)}.{part({**GOOD, **(claims or {})})}.{signature}".encode()


def by_shared_secret(algorithm: str, secret: bytes, **header: Any) -> bytes:
    """A good one, if one took the public key for a shared secret."""
    hashes = jwt.algorithms.HMACAlgorithm
    hashed = {"HS256": hashes.SHA256, "HS384": hashes.SHA384, "HS512": hashes.SHA512}[algorithm]
    text = f"{part({'alg': algorithm, 'kid': 'a', **header})}.{part(GOOD)}"
    return f"{text}.{part(hashes(hashed).sign(text.encode(), secret))}".encode()


KIDS = [
    "../../../../dev/null", "/etc/passwd", "file:///dev/null", "http://127.0.0.1:6379/", "a' UNION SELECT 'x", "a\x00",
    "a\r\nX-Evil: 1", "${jndi:ldap://x/}", "", " a", "a ", "A", "\uff41", "a" * 5000, "|id",
    "[::1]", "constructor", "__proto__",
]  # fmt: skip
HEADERS: list[dict[str, Any]] = [
    {"crit": ["exp"], "exp": 1}, {"crit": []}, {"crit": ["b64"], "b64": False}, {"b64": False}, {"crit": "b64"},
    {"typ": "logout+jwt"}, {"typ": "dpop+jwt"}, {"typ": "id-jag+jwt"}, {"typ": 1}, {"typ": "at"},
]  # fmt: skip
"""With a good signature, and still not to be taken."""
CLAIMS: list[dict[str, Any]] = [
    {"aud": "http://localhost:8080/mcp/other"}, {"aud": "https://localhost:8080/mcp"}, {"aud": "http://localhost/mcp"},
    {"aud": "http://localhost:8080/"}, {"aud": "http://localhost:8080"}, {"aud": "http://localhost:8080/MCP"},
    {"aud": ""}, {"aud": None}, {"aud": []}, {"aud": {}}, {"aud": {AUDIENCE: 1}}, {"aud": [[AUDIENCE]]},
    {"aud": 7},
    {"aud": True}, {"aud": "*"}, {"aud": f"{AUDIENCE}?x"}, {"aud": f" {AUDIENCE}"}, {"aud": "http://[::1/mcp"},
    {"aud": f"https://evil.example/{AUDIENCE}"}, {"aud": "http://localhost:8080@evil.example/mcp"},
    {"iss": ISSUER.rstrip("/")}, {"iss": ISSUER.upper()}, {"iss": None}, {"iss": [ISSUER]}, {"iss": {"a": 1}},
    {"iss": ""},
    {"iss": f"{ISSUER} "}, {"iss": "https://evil.example/"}, {"iss": 7},
    {"exp": NOW - 31}, {"exp": 0}, {"exp": -1}, {"exp": None}, {"exp": str(NOW + 300)}, {"exp": True}, {"exp": []},
    {"exp": {}}, {"nbf": NOW + 3600}, {"nbf": "soon"}, {"nbf": True}, {"nbf": 10**18}, {"nbf": [NOW]},
    {"sub": None}, {"sub": ""}, {"sub": []}, {"sub": {}}, {"sub": ["a", "b"]}, {"sub": "a\nb"}, {"sub": "a\x00"},
    {"sub": "x" * 257}, {"sub": "\x7f"}, {"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}},
    {"cnf": {"x5t#S256": "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"}}, {"cnf": {}}, {"cnf": "x"}, {"cnf": False},
    {"typ": "ID"}, {"typ": "Refresh"}, {"typ": "Offline"}, {"token_use": "id"}, {"at_hash": "MTIzNDU2Nzg5MDEyMzQ1Ng"},
]  # fmt: skip
PAYLOADS = [
    b"", b"[]", b"null", b"7", b'"text"', b"{", b"\xff", b'{"iss":', b"[" * 5000, b'{"a":' * 2000 + b"1" + b"}" * 2000,
    b'{"iss":"https://login.example.com/","exp":NaN}', b'{"iss":"https://login.example.com/","exp":1e999}',
]  # fmt: skip


def bad_tokens(count: int, seed: int = 7) -> Iterator[bytes]:
    """So many that must not be taken, by a gateway with the key `a` of the issuer."""
    chance = random.Random(seed)
    kinds: list[Callable[[random.Random], bytes]] = [
        _none, _shared, _other_key, _brought_along, _header, _claims, _payload, _kid, _torn, _noise, _nested,
    ]  # fmt: skip
    for at in range(count):
        yield kinds[at % len(kinds)](chance)


def _none(chance: random.Random) -> bytes:
    name = "".join(chance.choice((letter, letter.upper())) for letter in "none")
    header = {"alg": chance.choice((name, "", None, 0, ["RS256"], {"RS256": 1}, "RS256 ", "rs256")), "kid": "a"}
    return unsigned(header, signature=chance.choice(("", "", part(b"x" * 256))))


def _shared(chance: random.Random) -> bytes:
    public, kind = key().public_key(), serialization.PublicFormat.SubjectPublicKeyInfo
    secrets = [
        public.public_bytes(serialization.Encoding.PEM, kind), public.public_bytes(serialization.Encoding.DER, kind),
        jwk()["n"].encode(), json.dumps(jwk()).encode(), b"", b"a",
    ]  # fmt: skip
    return by_shared_secret(chance.choice(("HS256", "HS384", "HS512")), chance.choice(secrets))


def _other_key(chance: random.Random) -> bytes:
    kind, algorithm = chance.choice((("RSA", "RS256"), ("RSA", "PS256"), ("P-256", "ES256"), ("Ed25519", "EdDSA")))
    return token(None, algorithm, kind, "stranger", {"kid": chance.choice(("a", "stranger"))})


def _brought_along(chance: random.Random) -> bytes:
    """Signed by a key that the token itself gives, or points to."""
    own = jwk("RSA", "stranger", kid="a")
    brought: dict[str, Any] = {
        "jwk": own, "jku": "https://evil.example/jwks", "x5u": "https://evil.example/cert", "x5c": ["MIIB"],
        "x5t": "AA",
    }  # fmt: skip
    some = {name: brought[name] for name in chance.sample(sorted(brought), chance.randint(1, 4))}
    return token(None, "RS256", "RSA", "stranger", {"kid": "a", **some})


def _header(chance: random.Random) -> bytes:
    header = chance.choice(HEADERS)
    if header.get("b64") is False:
        return unsigned({"alg": "RS256", "kid": "a", **header}, signature=part(b"x" * 256))
    return token(header=header)


def _claims(chance: random.Random) -> bytes:
    return token(chance.choice(CLAIMS))


def _payload(chance: random.Random) -> bytes:
    return token(chance.choice(PAYLOADS))


def _kid(chance: random.Random) -> bytes:
    header = {"alg": "RS256", "kid": chance.choice([*KIDS, 7, None, [], {}, True])}
    return unsigned(header, signature=part(chance.randbytes(256)))


def _torn(chance: random.Random) -> bytes:
    """A good one with a part cut, doubled, swapped or changed in one place."""
    good = token()
    parts = good.split(b".")
    at = chance.randrange(len(parts))
    way = chance.randrange(6)
    if way == 0:
        return good[: chance.randrange(len(good) - 8)]
    if way == 1:
        return b".".join([*parts, parts[at]])
    if way == 2:
        return b".".join([parts[1], parts[0], parts[2]])
    if way == 3:
        return good + chance.choice((b"=", b"==", b".", b"A" * 8, b"\x00"))
    if way == 4:
        return good.replace(b".", chance.choice((b"..", b":", b"%2E")), 1)
    place = chance.randrange(len(good) - 8)
    other = chance.choice([letter for letter in b"ABCabc019-_" if letter != good[place]])
    return good[:place] + bytes((other,)) + good[place + 1 :]


def _noise(chance: random.Random) -> bytes:
    size = chance.choice((1, 20, 500, 16_000, 16_385, 100_000))
    made = chance.randbytes(size)
    return made if chance.random() < 0.5 else made.translate(_LETTERS)


_LETTERS = bytes(b"aB3._-~+"[at % 8] for at in range(256))


def _nested(chance: random.Random) -> bytes:
    """A good token inside another one, or encrypted as it seems."""
    if chance.random() < 0.5:
        return token(token(), header={"cty": "JWT"})
    return b".".join([part({"alg": "RSA-OAEP", "enc": "A256GCM"}).encode(), *[part(b"x" * 40).encode()] * 4])
