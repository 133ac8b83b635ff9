"""Ids of our requests to servers: integers, because some servers take nothing else.

An id is unique in a session whichever of our processes asks in it: 21 random bits of the process, then a count,
together below 2**53, where every reader of JSON still sees the same number (RFC 8259, section 6).
"""

from __future__ import annotations

import os
from functools import cache
from itertools import count

import orjson

_COUNTED = 32
"""Bits that count."""
_LONGEST = 64
"""Bytes of an id that is looked at."""


def new_id() -> bytes:
    """An id no other request of ours has, as JSON text."""
    return b"%d" % next(_numbers())


@cache
def _numbers() -> count[int]:
    """Made by the first request, so after the fork: each process has its own."""
    return count((int.from_bytes(os.urandom(3), "big") >> 3 << _COUNTED) + 1)


def same_id(found: bytes | None, ours: bytes) -> bool:
    """Whether this JSON text is our id. As the SDK clients do, `"12"` and `12.0` are taken for `12`."""
    return found == ours or (found is not None and _number(found) == int(ours))


def is_out_of_step(status: int, found: bytes | None, ours: bytes) -> bool:
    """Whether a response with the id `found`, which is not `ours`, was meant for another request on its connection.

    Servers refuse requests they have not read under `null` or an id of their own making. Anything else that is not
    ours is an answer that came late or twice, most surely one that is made as all our ids are.
    """
    if found is None or found == b"null":
        return False
    number = _number(found)
    return status == 200 or (number is not None and number >> _COUNTED == int(ours) >> _COUNTED)


def _number(text: bytes) -> int | None:
    """The whole number that this JSON text is, or has in quotes; None for anything else."""
    if len(text) > _LONGEST:
        return None
    try:
        value = orjson.loads(text)
        number = float(value) if isinstance(value, str) else value
        return int(value) if isinstance(number, int | float) and int(number) == number else None
    except (ValueError, OverflowError):
        return None
