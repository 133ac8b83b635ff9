"""Lists encoded ahead: pages of at most 1,000 items, one text for each dialect of agents.

The order is the configuration's: first the entries of `tools:` that have a `to` or `route`, as they are written, then
the servers, as they are written, each with what it lists in its own order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from zlib import crc32

from fastgw.catalog.elements import DIALECTS

PAGE = 1000
"""Items on one page."""


@dataclass(frozen=True, slots=True, eq=False)
class ListEntry:
    """One item as it stands in lists: its JSON text for each of `DIALECTS`. Equal only to itself: pages look it up.

    `checksum` is of the first text, worked out once: where lists are cut for their way to the workers goes by it.
    """

    texts: tuple[bytes, ...]
    checksum: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "checksum", crc32(self.texts[0]))


def entry(key_json: bytes, tails: Sequence[bytes], member: str = "name") -> ListEntry:
    """An item under its exposed key (JSON text); `member` is what the key is called: `name`, `uri` or `uriTemplate`."""
    head = b'{"%b":%b' % (member.encode(), key_json)
    made: dict[int, bytes] = {}
    # Equal tails are one object, and so are the texts made of them.
    return ListEntry(tuple([made.get(id(tail)) or made.setdefault(id(tail), head + tail) for tail in tails]))


def encoded(part: Sequence[ListEntry]) -> dict[str, bytes]:
    """The JSON array of one page for each of `DIALECTS`. Equal texts are one object."""
    columns = list(zip(*[one.texts for one in part], strict=True)) or [()] * len(DIALECTS)
    found: dict[str, bytes] = {}
    for at, dialect in enumerate(DIALECTS):
        like = next((i for i in range(at) if columns[i] == columns[at]), None)
        found[dialect] = b"[" + b",".join(columns[at]) + b"]" if like is None else found[DIALECTS[like]]
    return found


def fingerprint(names: Iterable[str]) -> int:
    """Of the names of a list, in their order: which list a cursor continues."""
    return crc32("\n".join(names).encode())
