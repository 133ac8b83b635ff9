"""Where a setting of a tool comes from: each is looked for by itself, from the nearest place to the farthest.

The places: `server/tool`, else the name, else the last pattern that fits, else the server, else the endpoint, else the
top level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastgw.policy.patterns import Masks, is_wild

Given = Mapping[str, Any]
"""The settings that are written in one place: key to value. A key that is not there is not set."""


class Precedence:
    """The entries of `tools:`, by key (`server/tool`, a name, or a pattern), in the order of the file."""

    def __init__(self, entries: Mapping[str, Given]) -> None:
        self._exact = {key: given for key, given in entries.items() if given and not is_wild(key)}
        wild = [(key, given) for key, given in entries.items() if given and is_wild(key)]
        self._rows = [given for _, given in wild]
        bits = [(key, 1 << at) for at, (key, _) in enumerate(wild)]
        self._names = Masks(row for row in bits if "/" not in row[0])
        self._sources = Masks(row for row in bits if "/" in row[0])
        hiding = [(key, 1 << at) for at, (key, given) in enumerate(wild) if given.get("hidden") is True]
        self._hiding = Masks(hiding)
        self._hides = bool(hiding) or any(given.get("hidden") for given in self._exact.values())

    def chain(self, name: str, source: str) -> list[Given]:
        """The entries that speak of a tool, nearest first."""
        return self.exact(name, source) + self._fitting(self._names.of(name) | self._sources.of(source))

    def exact(self, name: str, source: str) -> list[Given]:
        """Of these, those that name it in full."""
        return [self._exact[key] for key in (source, name) if key in self._exact]

    def hidden(self, name: str, sources: Sequence[str], known_as: Sequence[str]) -> bool:
        """Whether a tool is hidden. `hidden: true` is tried on every name it has, `false` where agents see it.

        Args:
            name: as agents see it; empty while it has no name yet.
            known_as: every name a deny is tried on.
        """
        if not self._hides:
            return False
        own = [self._exact[source]["hidden"] for source in sources if self._says(source)]
        if own:
            return any(own)
        near = any(self._exact[key]["hidden"] for key in known_as if self._says(key))
        if near or self._says(name):
            return near
        hiding = self._hiding.of_any(known_as)
        if not hiding:
            return False
        shown = self._names.of(name) | self._sources.of_any(sources)
        return bool(first(self._fitting(shown | hiding), "hidden", False))

    def _says(self, key: str) -> bool:
        return key in self._exact and self._exact[key].get("hidden") is not None

    def _fitting(self, bits: int) -> list[Given]:
        """The patterns' entries of these bits, the last written first."""
        found: list[Given] = []
        while bits:
            at = bits.bit_length() - 1
            found.append(self._rows[at])
            bits ^= 1 << at
        return found


def first(chain: Sequence[Given], key: str, default: Any) -> Any:
    """The nearest value of a setting that is written at all and not null."""
    for given in chain:
        value = given.get(key)
        if value is not None:
            return value
    return default
