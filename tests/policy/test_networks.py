"""Where requests come from: behind trusted proxies, and behind whoever says that it is one."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from fastgw.policy.networks import MOST_HOPS, Networks, address_of, origin_of

TRUSTED = Networks.of(("10.0.0.0/8", "192.0.2.7", "fd00::/8"))
STRANGER = "203.0.113.9"


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "origin"),
    [
        (STRANGER, "198.51.100.1", STRANGER),  # its word does not count
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("192.0.2.7", "198.51.100.1", "198.51.100.1"),
        ("192.0.2.8", "198.51.100.1", "192.0.2.8"),
        # What stands left of the first stranger, that stranger has written.
        ("10.0.0.1", f"1.1.1.1, 10.9.9.9, {STRANGER}", STRANGER),
        ("10.0.0.1", f"1.1.1.1, {STRANGER}, 10.0.0.2,10.0.0.3", STRANGER),
        ("10.0.0.1", "10.0.0.2, 10.0.0.3", "10.0.0.2"),  # nobody but proxies
        ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("fd00::1", "[2001:db8::1]", "2001:db8::1"),
        ("fd00::1%eth0", "[2001:db8::1]:4711", "2001:db8::1"),
        ("10.0.0.1", f"{STRANGER}:4711", STRANGER),
        ("10.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "[::ffff:10.0.0.9]:1, 10.0.0.2", "10.0.0.9"),
        # Garbage: the proxy before it is as far as can be told.
        ("10.0.0.1", f"{STRANGER}, unknown", "10.0.0.1"),
        ("10.0.0.1", f"{STRANGER}, nonsense, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", f"{STRANGER},", "10.0.0.1"),
        ("10.0.0.1", "1.2.3.4:99999999, 010.0.0.1", "10.0.0.1"),
        ("10.0.0.1", "\xff\x00, 1.2.3", "10.0.0.1"),
        ("10.0.0.1", "[::1", "10.0.0.1"),
        # However many, those from the right alone are looked at.
        ("10.0.0.1", f"{STRANGER}, " * 5000 + "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", f"{STRANGER}, " + ", ".join(["10.0.0.2"] * (MOST_HOPS - 1)), STRANGER),
        ("10.0.0.1", f"{STRANGER}, " + ", ".join(["10.0.0.2"] * MOST_HOPS), "10.0.0.2"),
    ],
)
def test_where_a_request_comes_from(peer: str, forwarded_for: str, origin: str) -> None:
    assert origin_of(peer, forwarded_for.encode("latin-1"), TRUSTED) == ip_address(origin)


def test_of_what_strangers_write_nothing_long_is_kept() -> None:
    before = address_of.cache_info().currsize
    for number in range(50):
        assert origin_of(STRANGER, b"198.51.100.1, %d" % number + b"x" * 1000, TRUSTED) == ip_address(STRANGER)
    assert address_of.cache_info().currsize <= before + 2  # the stranger, and an entry that is none


def test_nobody_is_trusted_unless_said() -> None:
    assert origin_of("127.0.0.1", b"198.51.100.1", Networks()) == ip_address("127.0.0.1")


def test_a_connection_without_an_address() -> None:
    assert origin_of("", b"198.51.100.1", Networks.of(("0.0.0.0/0", "::/0"))) is None
    assert address_of("localhost") is None
    assert not TRUSTED.hold(None)
