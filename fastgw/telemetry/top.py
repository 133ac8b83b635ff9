"""Who does something most often, of more than could be remembered.

Rule: Space-Saving (Metwally, Agrawal and El Abbadi, 2005): a newcomer takes the place and the count of the rarest, so
that whoever is truly frequent stands in the table, with a count that may be too high but never too low.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

ROOM = 256
"""Keys that are remembered."""


class Top(Generic[K]):
    """Counts of the most frequent keys."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._counts: dict[K, int] = {}

    def add(self, key: K) -> None:
        """Count one."""
        counts = self._counts
        found = counts.get(key)
        if found is None and len(counts) >= self._room:
            rarest = min(counts, key=counts.__getitem__)
            found = counts.pop(rarest)
        counts[key] = (found or 0) + 1

    def __iter__(self) -> Iterator[tuple[K, int]]:
        """Key and count, the most frequent first."""
        return iter(sorted(self._counts.items(), key=lambda row: -row[1]))
