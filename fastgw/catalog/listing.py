"""`tools/list` encoded ahead: pages of at most 1,000 tools, one text for each dialect of agents.

Knows: how tools become pages, and how a position finds its page again. Refuses to know: who may see what, and cursors
on the wire.

The order is the configuration's: first the entries of `tools:` that have a `to` or `route`, as they are written, then
the servers, as they are written, each with its tools in its own order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar
from zlib import crc32

from fastgw.catalog.tools import DIALECTS

PAGE = 1000
"""Tools on one page."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One tool as it stands in lists: its JSON text for each of `DIALECTS`."""

    texts: tuple[bytes, ...]


def entry(name_json: bytes, tails: Sequence[bytes]) -> Entry:
    """A tool under its exposed name.

    Args:
        name_json: the name as JSON text.
        tails: `ToolDefinition.tails`.
    """
    head = b'{"name":' + name_json
    texts: list[bytes] = []
    for at, tail in enumerate(tails):
        earlier = next((text for text, other in zip(texts, tails[:at], strict=False) if other is tail), None)
        texts.append(head + tail if earlier is None else earlier)
    return Entry(tuple(texts))


def encoded(part: Sequence[Entry]) -> dict[str, bytes]:
    """The JSON array of one page for each of `DIALECTS`. Equal texts are one object."""
    found: dict[str, bytes] = {}
    for at, dialect in enumerate(DIALECTS):
        like = next((i for i in range(at) if all(one.texts[i] is one.texts[at] for one in part)), None)
        if like is not None:
            found[dialect] = found[DIALECTS[like]]
        else:
            found[dialect] = b"[" + b",".join([one.texts[at] for one in part]) + b"]"
    return found


def fingerprint(names: Iterable[str]) -> int:
    """Of the names of a list, in their order: which list a cursor continues."""
    return crc32("\n".join(names).encode())


P_co = TypeVar("P_co", covariant=True)


class Paged(Protocol[P_co]):
    """Whatever has pages (`Listing` of the snapshot)."""

    @property
    def pages(self) -> Sequence[P_co]: ...


def page_at(listing: Paged[P_co], start: int) -> P_co | None:
    """The page that begins at this position; None where none does (a cursor of a longer list, or a made-up one)."""
    at, rest = divmod(start, PAGE)
    return listing.pages[at] if rest == 0 and 0 <= at < len(listing.pages) else None
