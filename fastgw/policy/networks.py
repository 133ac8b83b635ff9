"""Whose word counts about agents behind it: addresses of proxies, and where a request came from before them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

MOST_HOPS = 32
"""Entries of `X-Forwarded-For` that are looked at, from the right: what is further left, strangers may have written."""

LONGEST_ENTRY = 64
"""Letters of such an entry, with room for a zone and a port. What is longer is no address, and `address_of` must not
remember it: strangers may write 300 kB.
"""

NETWORK = 64
"""Bits of an IPv6 address that tell one client from another (RFC 6177)."""

_WITH_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}|\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Networks:
    """Networks of trusted addresses; of none unless said."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def of(cls, texts: Sequence[str]) -> Networks:
        """Of texts such as `10.0.0.0/8`. Raises ValueError."""
        return cls(tuple(map(ip_network, texts)))

    def hold(self, address: IPv4Address | IPv6Address | None) -> bool:
        """Whether it is in one of them."""
        return address is not None and any(address in network for network in self.networks)


NO_NETWORKS = Networks()


@lru_cache(maxsize=4096)
def address_of(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a text is, less its zone; of one of IPv4 that is written in IPv6 (`::ffff:10.0.0.1`) that one.
    None where it is none.
    """
    try:
        found = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found


def origin_of(peer: str, forwarded_for: bytes, trusted: Networks) -> IPv4Address | IPv6Address | None:
    """Where a request came from: the address that its connection has, and where that is trusted, the right-most of
    `X-Forwarded-For` that is not. None where the connection has none.

    Each proxy adds the address that it was reached from at the right, so what stands left of the first stranger, that
    stranger has written. At an entry that is no address the proxy before it is as far as can be told.
    """
    found = address_of(peer)
    for address in _from_the_right(forwarded_for):
        if address is None or not trusted.hold(found):
            break
        found = address
    return found


def guesser(address: IPv4Address | IPv6Address | None) -> str | None:
    """Whom a wrong credential is counted against: an address; of IPv6 the network, since whoever has one has it all."""
    if address is None:
        return None
    return str(address if address.version == 4 else ip_network((int(address), NETWORK), strict=False))


def _from_the_right(forwarded_for: bytes) -> Iterator[IPv4Address | IPv6Address | None]:
    for entry in reversed(forwarded_for.decode("latin-1").rsplit(",", MOST_HOPS)[-MOST_HOPS:]):
        text = entry.strip()
        if len(text) > LONGEST_ENTRY:
            text = ""
        with_port = _WITH_PORT.fullmatch(text)
        yield address_of(with_port[1] or with_port[2] if with_port else text)
