"""Which instance of a server gets a call."""

from __future__ import annotations

from collections.abc import Collection
from zlib import crc32

from fastgw.snapshot.model import Address, Backend


def pick(backend: Backend, identity: str, tried: Collection[str] = (), first: str | None = None) -> Address | None:
    """The instance to try next: the same first one for the same identity on every worker; None when all were tried.

    Rendezvous hashing (Thaler and Ravishankar, 1998): when an instance goes, only its identities move.

    Args:
        backend: the server.
        identity: whose session it would use.
        tried: keys of instances that were tried for this call.
        first: key of the instance to begin with, where there is still such a one.
    """
    left = [one for one in backend.instances if one.key not in tried] if tried else backend.instances
    if len(left) < 2:
        return left[0] if left else None
    return min(left, key=lambda one: (one.key != first, _rank(one.key, identity)))


def _rank(instance: str, identity: str) -> int:
    """A number of 32 bits. A CRC alone will not do: two of them differ by the same bits for every identity of a
    length, so that of three instances one would get half of all; to multiply (a step of lowbias32) ends that.
    """
    mixed = crc32(f"{instance}\n{identity}".encode())
    return (mixed ^ mixed >> 16) * 0x21F0AAAD & 0xFFFFFFFF
