"""Sealed tokens: only ours, only whole, only for whom they were sealed."""

from __future__ import annotations

import pytest

from fastgw.protocol import sessions
from fastgw.protocol.sealing import NONCE, Sealer
from fastgw.protocol.sessions import LIFETIME, Session

SESSION = Session("ab12", "2025-11-25", 1_000_000, "{}", '{"name":"x","version":"1"}')
BOUND = sessions.bond("agent-a", "/mcp")


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


def test_a_session_opens_for_its_agent_at_its_endpoint_until_it_expires() -> None:
    token = sessions.sealed(SESSION, sealer(), BOUND, bytes(NONCE))
    now = float(SESSION.opened)
    assert sessions.opened(token, sealer(), BOUND, now) == SESSION
    assert sessions.opened(token, sealer(), sessions.bond("agent-b", "/mcp"), now) is None
    assert sessions.opened(token, sealer(), sessions.bond("agent-a", "/mcp/ops"), now) is None
    assert sessions.opened(token, sealer(), BOUND, now + LIFETIME - 1) == SESSION
    assert sessions.opened(token, sealer(), BOUND, now + LIFETIME) is None


def test_an_id_stays_short_however_much_the_agent_says_of_itself() -> None:
    large = sessions.trimmed(b'{"x":"' + b"y" * 5_000 + b'"}')
    token = sessions.sealed(Session("a", "2025-11-25", 0, large, large), sealer(), BOUND, bytes(NONCE))
    assert len(token) < 4096
