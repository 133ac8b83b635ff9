"""Who shows which key, and what a stranger hears."""

from __future__ import annotations

import pytest

from fastgw.config.snapshot import KeyEntry
from fastgw.faults import Fault, Kind
from fastgw.identity.keys import authenticate, digest
from fastgw.policy.principal import Principal

BOT, OLD = Principal("bot", {}, "key:00000000"), Principal("old", {}, "key:11111111")
KEYS = {digest("fgw_bot"): KeyEntry(BOT, None), digest("fgw_old"): KeyEntry(OLD, 100.0)}


def test_digest_is_sha_256() -> None:
    # The key and the hash in the example of the configuration.
    assert digest("fgw_contract_engineering") == "f784e848445d5ffd302633e9ae952fae8b287401dbc163ff89c7270c8749efa8"


@pytest.mark.parametrize("header", [b"Bearer fgw_bot", b"bearer fgw_bot", b"BEARER  fgw_bot", b" Bearer fgw_bot "])
def test_a_known_key(header: bytes) -> None:
    assert authenticate(header, KEYS, 0.0) is BOT


def test_a_key_ends_at_its_moment() -> None:
    assert authenticate(b"Bearer fgw_old", KEYS, 99.9) is OLD
    with pytest.raises(Fault) as refused:
        authenticate(b"Bearer fgw_old", KEYS, 100.0)
    assert refused.value.headers == ((b"www-authenticate", b'Bearer error="invalid_token"'),)


@pytest.mark.parametrize("header", [None, b"", b"Bearer", b"Bearer ", b"fgw_bot", b"Basic Zmd3X2JvdA=="])
def test_no_token_was_sent(header: bytes | None) -> None:
    with pytest.raises(Fault) as refused:
        authenticate(header, KEYS, 0.0)
    assert refused.value.kind is Kind.UNAUTHENTICATED
    assert refused.value.headers == ((b"www-authenticate", b"Bearer"),)


@pytest.mark.parametrize(
    "header",
    [b"Bearer fgw_other", b"Bearer FGW_BOT", b"Bearer fgw_bot fgw_bot", b"Bearer fgw_bot,", b"Bearer \xff\xfe"],
)
def test_a_token_that_opens_nothing(header: bytes) -> None:
    with pytest.raises(Fault) as refused:
        authenticate(header, KEYS, 0.0)
    assert refused.value.kind is Kind.WRONG_CREDENTIAL
    assert refused.value.headers == ((b"www-authenticate", b'Bearer error="invalid_token"'),)
    assert "fgw_" not in str(refused.value)
