"""The request headers the protocol gives a meaning to, and what a repeated one means."""

from __future__ import annotations

from functools import lru_cache

VERSION = b"mcp-protocol-version"
METHOD = b"mcp-method"
NAME = b"mcp-name"
SESSION = b"mcp-session-id"


def index(fields: list[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], frozenset[bytes]]:
    """Headers by lower-case name, and the names that came more than once (the dictionary keeps the last of these).

    `accept` given twice is one list (RFC 9110, section 5.3), so its values are joined.
    """
    found = dict(fields)
    if len(found) == len(fields):
        return found, _NONE
    seen: set[bytes] = set()
    twice: set[bytes] = set()
    for name, _ in fields:
        (twice if name in seen else seen).add(name)
    if b"accept" in twice:
        found[b"accept"] = b",".join(value for name, value in fields if name == b"accept")
    return found, frozenset(twice)


_NONE: frozenset[bytes] = frozenset()


def media_type(value: bytes) -> bytes:
    """`type/subtype` of a Content-Type in lower case, parameters dropped."""
    return value.partition(b";")[0].strip().lower()


@lru_cache(maxsize=256)
def accepts(accept: bytes | None, wanted: bytes) -> bool:
    """Whether an Accept header admits a media type; no header admits everything (RFC 9110, section 12.5.1).

    A weight of zero refuses; other weights do not matter, since one form is all there is of each answer.
    """
    if accept is None:
        return True
    family = wanted.partition(b"/")[0] + b"/*"
    best, verdict = -1, False
    for part in accept.lower().split(b","):
        name, _, rest = part.partition(b";")
        name = name.strip()
        rank = 2 if name == wanted else 1 if name == family else 0 if name == b"*/*" else -1
        if rank > best:
            weight = rest.replace(b" ", b"").partition(b"q=")[2].partition(b";")[0]
            best, verdict = rank, weight not in (b"0", b"0.0", b"0.00", b"0.000")
    return verdict
