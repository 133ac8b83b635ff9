"""Patterns over names: `*` is any characters, `?` is one; the whole name, case counts. `deploy-*` speaks of
a name agents see, `github/*` of a server's own tool, `prompt:...` and `resource:...` of the rest.

A pattern becomes a regular expression whose groups give nothing back (`(?>...)`), so a fit costs at most length times
pattern, never more: arguments of agents are tried too, and `*a*b*c*` must not cost them minutes of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import reduce
from operator import or_

WILD = frozenset("*?")
PROMPT = "prompt:"
RESOURCE = "resource:"


def is_wild(pattern: str) -> bool:
    """Whether the pattern can fit more than one name."""
    return not WILD.isdisjoint(pattern)


def of_kind(kind: str, patterns: Iterable[str]) -> list[str]:
    """The patterns of one kind, without what they begin with: `prompt:`, `resource:`, or nothing for tools."""
    if kind:
        return [text.removeprefix(kind) for text in patterns if text.startswith(kind)]
    return [text for text in patterns if not text.startswith((PROMPT, RESOURCE))]


def by_slash(texts: Iterable[str]) -> tuple[Patterns, Patterns]:
    """Patterns over names, and those with a slash, over `server/name`."""
    every = tuple(texts)
    return Patterns(text for text in every if "/" not in text), Patterns(text for text in every if "/" in text)


def expression(pattern: str) -> str:
    """The pattern as a regular expression for `fullmatch` with DOTALL."""
    parts = [re.escape(part).replace(r"\?", ".") for part in pattern.split("*")]
    if len(parts) == 1:
        return parts[0]
    middle = "".join(f"(?>.*?{part})" for part in parts[1:-1] if part)
    return f"{parts[0]}{middle}.*{parts[-1]}"


class Patterns:
    """Several patterns joined by or, compiled once. Immutable, compared and pickled by their texts."""

    __slots__ = ("texts", "_exact", "_wild")

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(texts)
        wild = [expression(text) for text in self.texts if is_wild(text)]
        self._exact = frozenset(text for text in self.texts if not is_wild(text))
        self._wild = re.compile("|".join(wild), re.DOTALL) if wild else None

    def fits(self, name: str) -> bool:
        """Whether any of them fits the whole of `name`."""
        return name in self._exact or (self._wild is not None and self._wild.fullmatch(name) is not None)

    def fit_any(self, names: Iterable[str]) -> bool:
        """Whether any of them fits any of `names`."""
        return any(map(self.fits, names))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Patterns) and other.texts == self.texts

    def __hash__(self) -> int:
        return hash(self.texts)

    def __reduce__(self) -> tuple[type[Patterns], tuple[tuple[str, ...]]]:
        return Patterns, (self.texts,)

    def __repr__(self) -> str:
        return f"Patterns({list(self.texts)!r})"


NO_PATTERNS = Patterns(())


class Masks:
    """Many patterns at once, each with its bits: which bits fit a name is one look-up or one expression.

    Ten thousand names against the patterns of every policy are tried at each compile. Most patterns are a beginning and
    one `*`: those cost one look-up for each length there is, and only the rest is tried one by one.
    """

    def __init__(self, rows: Iterable[tuple[str, int]]) -> None:
        self._exact: dict[str, int] = {}
        begin: dict[int, dict[str, int]] = {}
        wild: dict[str, int] = {}
        for pattern, bits in rows:
            stem = pattern.rstrip("*")
            if not is_wild(pattern):
                table = self._exact
            elif is_wild(stem):
                table, stem = wild, pattern
            else:
                table = begin.setdefault(len(stem), {})
            table[stem] = table.get(stem, 0) | bits
        self._begin = tuple(begin.items())
        self._wild = [(re.compile(expression(text), re.DOTALL).fullmatch, bits) for text, bits in wild.items()]
        self._any = re.compile("|".join(map(expression, wild)), re.DOTALL).fullmatch if wild else None

    def of(self, name: str) -> int:
        """The bits of every pattern that fits the whole of `name`."""
        found = self._exact.get(name, 0)
        for length, stems in self._begin:
            found |= stems.get(name[:length], 0)
        if self._any is not None and self._any(name):
            for fits, bits in self._wild:
                if fits(name):
                    found |= bits
        return found

    def of_any(self, names: Iterable[str]) -> int:
        """The bits of every pattern that fits any of `names`."""
        return reduce(or_, map(self.of, names), 0)
