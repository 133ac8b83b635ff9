"""Wrong admin tokens of many addresses: what holds up whom, for how long, and in how much memory."""

from __future__ import annotations

import pytest

from fastgw.admin.failed_logins import (
    ALL_AT_ONCE,
    ALL_PAUSE,
    AT_ONCE,
    MOST_HELD,
    MOST_KNOWN,
    PAUSE,
    FailedLogins,
    TooManyWrongTokens,
)

TOKEN = b"the operators' token"


class Port:
    """An admin port at a time of the test's choosing."""

    def __init__(self) -> None:
        self.now = 0.0
        self.failed = FailedLogins(lambda *_: None, lambda: self.now)

    def admits(self, source: str, shown: bytes = b"wrong") -> bool | int:
        """Whether it does; or for how long it does not listen."""
        try:
            return self.failed.admit(source, shown, TOKEN)
        except TooManyWrongTokens as wrong:
            return wrong.seconds


def test_one_address_holds_up_no_other() -> None:
    port = Port()
    assert [port.admits("192.0.2.1") for _ in range(AT_ONCE)] == [False] * AT_ONCE
    assert port.admits("192.0.2.1") == port.admits("192.0.2.1", TOKEN) == PAUSE
    assert port.admits("192.0.2.2", TOKEN) is True
    # Of IPv6 whoever has one address has the network.
    assert [port.admits(f"2001:db8::{n}") for n in range(1, AT_ONCE + 1)] == [False] * AT_ONCE
    assert port.admits("2001:db8::ffff", TOKEN) == PAUSE
    assert port.admits("2001:db8:0:1::1", TOKEN) is True


def test_who_waits_is_heard_however_often_it_was_refused_meanwhile() -> None:
    port = Port()
    for at in range(100 * AT_ONCE):
        port.now = at * PAUSE / (10 * AT_ONCE)
        port.admits("192.0.2.1")
    heard = sum(port.admits("192.0.2.1") is False for _ in range(9))
    assert heard <= 1, "not more than one each pause"
    port.now += PAUSE
    assert port.admits("192.0.2.1", TOKEN) is True


def test_many_addresses_guess_no_faster_and_hold_up_nobody_who_was_right() -> None:
    port = Port()
    assert port.admits("198.51.100.7", TOKEN) is True
    tried = [port.admits(f"203.0.{n // 250}.{n % 250}") for n in range(20 * ALL_AT_ONCE)]
    assert tried == [False] * ALL_AT_ONCE + [int(ALL_PAUSE)] * 19 * ALL_AT_ONCE
    assert port.admits("192.0.2.9", TOKEN) == ALL_PAUSE
    for familiar in ("198.51.100.7", "127.0.0.1", "::1"):
        assert port.admits(familiar) is False
        assert port.admits(familiar, TOKEN) is True
    port.now += ALL_PAUSE
    assert port.admits("192.0.2.9", TOKEN) is True


def test_memory_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    port = Port()
    for at in range(3 * MOST_HELD):
        port.now = at * ALL_PAUSE
        assert port.admits(f"10.{at >> 16}.{at >> 8 & 255}.{at & 255}") is False
        assert port.admits(f"11.{at >> 16}.{at >> 8 & 255}.{at & 255}", TOKEN) is True
    held, known = port.failed._due, port.failed._known
    assert (len(held) <= MOST_HELD, len(known)) == (True, MOST_KNOWN)
