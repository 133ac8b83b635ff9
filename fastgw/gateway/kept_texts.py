"""Texts that are made of lists when somebody first asks for them, and kept while there is room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from fastgw.snapshot.model import Listing

MOST_KEPT = 32 * 2**20
"""Bytes that are kept of one kind; beyond them what was not asked for longest goes."""


class KeptTexts:
    """Of one worker, of one kind; `size` is how many bytes they have."""

    def __init__(self) -> None:
        # The list is kept beside what is made of it, so that no other can get its identity.
        self._kept: OrderedDict[Hashable, tuple[Listing, bytes]] = OrderedDict()
        self.size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, listing: Listing, place: Hashable) -> bytes | None:
        """The text that was made of this list for `place`."""
        key = id(listing), place
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[1]

    def keep(self, listing: Listing, place: Hashable, text: bytes) -> bytes:
        """The text, which whoever asks next is given, too."""
        self._kept[id(listing), place] = listing, text
        self.size += len(text)
        while self.size > MOST_KEPT:
            _, (_, oldest) = self._kept.popitem(last=False)
            self.size -= len(oldest)
        return text

    def forget(self) -> None:
        """Other lists are in force: nobody asks for these again, and each text holds on to its whole list."""
        self._kept.clear()
        self.size = 0


class ListPages(KeptTexts):
    """Pages of lists, encoded."""

    def of(self, listing: Listing, start: int, dialect: str) -> bytes:
        """See `Listing.page`."""
        place = start, dialect
        return self.get(listing, place) or self.keep(listing, place, listing.page(start, dialect))
