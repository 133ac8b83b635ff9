"""Sealed tokens: only ours, only whole, only for whom they were sealed."""

from __future__ import annotations

import pytest

from fastgw.protocol.sealing import NONCE, Sealer


def sealer(*secrets: bytes, purpose: str = "session") -> Sealer:
    return Sealer(secrets or (b"first",), purpose)


def test_what_is_sealed_opens() -> None:
    token = sealer().seal(b"plain", b"bound", bytes(NONCE))
    assert token.isascii() and " " not in token
    assert sealer().open(token, b"bound") == b"plain"


def test_a_new_first_secret_still_opens_the_old_ones() -> None:
    token = sealer(b"old").seal(b"plain", b"", bytes(NONCE))
    assert sealer(b"new", b"old").open(token, b"") == b"plain"
    assert sealer(b"new").open(token, b"") is None


def test_every_altered_token_stays_closed() -> None:
    token = sealer().seal(b"plain", b"bound", bytes(range(NONCE)))
    assert sealer().open(token, b"other") is None
    assert sealer(purpose="cursor").open(token, b"bound") is None
    for at in range(len(token)):
        for letter in "A_-9":
            altered = token[:at] + letter + token[at + 1 :]
            opened = sealer().open(altered, b"bound")
            assert (opened is None) == (altered != token)
    for strange in ("", "A", "\u00e4" * 20, "!" * 40, token + "=", " " + token):
        assert sealer().open(strange, b"bound") is None


@pytest.mark.parametrize("size", range(6))
def test_a_token_has_one_spelling(size: int) -> None:
    """Base64 has several for the same bytes: with padding or without, and bits in the last letter that nobody reads."""
    token = sealer().seal(bytes(size), b"", bytes(NONCE))
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spellings = [token[:-1] + letter for letter in letters] + [token + "=", token + "=="]
    assert [one for one in spellings if sealer().open(one, b"") is not None] == [token]
