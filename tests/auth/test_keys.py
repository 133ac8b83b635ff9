"""Who shows which key, in which header, and what a stranger hears."""

from __future__ import annotations

import pytest

from fastgw.auth.keys import authenticate, digest
from fastgw.errors import Fault, Kind
from fastgw.policy.match import Principal
from fastgw.snapshot.model import KeyEntry

BOT, OLD = Principal("bot", {}, "key:00000000"), Principal("old", {}, "key:11111111")
KEYS = {digest("fgw_bot"): KeyEntry(BOT, None), digest("fgw_old"): KeyEntry(OLD, 100.0)}
INVALID = ((b"www-authenticate", b'Bearer error="invalid_token"'),)


def shows(authorization: bytes | None, api_key: bytes | None = None, now: float = 0.0, twice: bytes = b"") -> Principal:
    """Who shows these headers."""
    said = {b"authorization": authorization, b"x-api-key": api_key}
    headers = {name: value for name, value in said.items() if value is not None}
    return authenticate(headers, frozenset((twice,)), KEYS, now)


def refused(*shown: bytes | None, now: float = 0.0, twice: bytes = b"") -> Fault:
    """What they are told."""
    with pytest.raises(Fault) as fault:
        shows(*shown, now=now, twice=twice)
    assert "fgw_" not in str(fault.value)
    return fault.value


def test_digest_is_sha_256() -> None:
    # The key and the hash in the example of the configuration.
    assert digest("fgw_contract_engineering") == "f784e848445d5ffd302633e9ae952fae8b287401dbc163ff89c7270c8749efa8"


@pytest.mark.parametrize(
    "shown",
    [
        (b"Bearer fgw_bot",),
        (b"bearer fgw_bot",),
        (b"BEARER  fgw_bot",),
        (b" Bearer fgw_bot ",),
        (b"fgw_bot",),
        (b" fgw_bot ",),
        (None, b"fgw_bot"),
        (None, b" fgw_bot "),
        (b"", b"fgw_bot"),
        (b"Bearer", b"fgw_bot"),
        (b"Bearer fgw_bot", b""),
        (b"Bearer fgw_bot", b"fgw_bot"),
        (b"fgw_bot", b"fgw_bot"),
        # Of somebody before us, and no key of ours.
        (b"Basic Zmd3X2JvdA==", b"fgw_bot"),
    ],
)
def test_a_known_key(shown: tuple[bytes | None, ...]) -> None:
    assert shows(*shown).principal is BOT


def test_a_key_ends_at_its_moment() -> None:
    assert shows(b"Bearer fgw_old", now=99.9).principal is OLD
    assert refused(b"Bearer fgw_old", now=100.0).headers == INVALID


@pytest.mark.parametrize(
    "shown",
    [(None,), (b"",), (b"Bearer",), (b"Bearer ",), (b"Basic Zmd3X2JvdA==",), (None, b""), (b"Bearer", b" ")],
)
def test_no_key_was_sent(shown: tuple[bytes | None, ...]) -> None:
    fault = refused(*shown)
    assert fault.kind is Kind.UNAUTHENTICATED
    assert fault.headers == ((b"www-authenticate", b"Bearer"),)
    assert "Authorization: Bearer <key>" in fault.message


@pytest.mark.parametrize(
    "shown",
    [
        (b"Bearer fgw_other",),
        (b"Bearer FGW_BOT",),
        (b"Bearer fgw_bot fgw_bot",),
        (b"Bearer fgw_bot,",),
        (b"Bearer \xff\xfe",),
        (b"fgw_other",),
        (b"Basic",),
        (None, b"fgw_other"),
        (None, b"fgw_bot fgw_bot"),
        (None, b"Bearer fgw_bot"),
    ],
)
def test_a_key_that_opens_nothing(shown: tuple[bytes | None, ...]) -> None:
    fault = refused(*shown)
    assert fault.kind is Kind.WRONG_CREDENTIAL
    assert fault.headers == INVALID
    assert "Authorization: Bearer <key>" in fault.message


@pytest.mark.parametrize(
    "shown",
    [
        (b"Bearer fgw_bot", b"fgw_old"),
        (b"fgw_bot", b"fgw_other"),
        (b"Bearer fgw_other", b"fgw_bot"),
        (b"Bearer fgw_bot", b"fgw_bot fgw_bot"),
    ],
)
def test_two_different_keys_are_neither(shown: tuple[bytes, bytes]) -> None:
    fault = refused(*shown)
    assert (fault.kind, fault.headers) == (Kind.WRONG_CREDENTIAL, INVALID)
    assert "different keys" in fault.message


@pytest.mark.parametrize("twice", [b"authorization", b"x-api-key"])
def test_a_header_that_came_twice_shows_nothing(twice: bytes) -> None:
    assert refused(b"Bearer fgw_bot", b"fgw_bot", twice=twice).kind is Kind.UNAUTHENTICATED
