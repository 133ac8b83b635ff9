"""What a configuration file says, value by value, with the place of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]
"""Keys and positions in lists from the top of the file: `("servers", "data", "url", 0)`."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a file; lines and columns count from 1, columns in characters."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Number(float):
    """A number that is no integer and still knows how it was written, `1.10`: claims compare as text."""

    __slots__ = ("written",)

    def __new__(cls, written: str) -> Number:
        number = super().__new__(cls, written)
        number.written = written
        return number

    written: str

    def __str__(self) -> str:
        return self.written


class Digits(str):
    """A plain number that no machine number holds: text everywhere, but known to have been written as a number."""

    __slots__ = ()


Scalar = str | int | Number | bool | None


@dataclass(slots=True, eq=False)
class YamlEntry:
    """One value.

    Args:
        position: where it begins.
        content: a map of entries, a list of entries, or a scalar.
        keys: of a map: where each key stands.
        weight: how many values it holds, itself included, aliases written out.
        written: of a scalar: its text before references were filled in.
    """

    position: Position
    content: dict[str, YamlEntry] | list[YamlEntry] | Scalar
    keys: dict[str, Position]
    weight: int = 1
    written: str = ""

    def child(self, step: str | int) -> YamlEntry | None:
        """The entry under a key or at a place of a list; None if there is none."""
        if isinstance(self.content, dict) and isinstance(step, str):
            return self.content.get(step)
        if isinstance(self.content, list) and isinstance(step, int) and step < len(self.content):
            return self.content[step]
        return None

    def plain(self) -> Any:
        """The value without its places."""
        if isinstance(self.content, dict):
            return {key: entry.plain() for key, entry in self.content.items()}
        if isinstance(self.content, list):
            return [entry.plain() for entry in self.content]
        return self.content

    def walk(self, path: Path = ()) -> Iterator[tuple[Path, YamlEntry]]:
        """Every value with its path, parents first."""
        yield path, self
        if isinstance(self.content, dict):
            for key, entry in self.content.items():
                yield from entry.walk((*path, key))
        elif isinstance(self.content, list):
            for place, entry in enumerate(self.content):
                yield from entry.walk((*path, place))


def fits(keys: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether keys (positions in lists left out) fit a pattern in which `*` is any one key."""
    return len(keys) == len(pattern) and all(want in ("*", key) for key, want in zip(keys, pattern, strict=True))


def locate(root: YamlEntry, path: Path) -> Position:
    """Where the value at `path` stands: a scalar itself, a map or list by its key where it has one.

    Steps that the file leaves out (a list written as one value, a short form) are passed over.
    """
    entry, place = root, root.position
    for step in path:
        if (below := entry.child(step)) is None:
            continue
        simple = not isinstance(below.content, dict | list)
        place = below.position if simple else entry.keys.get(str(step), below.position)
        entry = below
    return place


def locate_key(root: YamlEntry, path: Path) -> Position:
    """Where the last key of `path` stands."""
    entry = root
    for step in path[:-1]:
        entry = entry.child(step) or entry
    return entry.keys.get(str(path[-1]), entry.position)


def value_at(root: YamlEntry, path: Path) -> YamlEntry | None:
    """The entry that `locate` gives the place of, None where a key is not written."""
    entry = root
    for step in path:
        if (below := entry.child(step)) is not None:
            entry = below
        elif isinstance(entry.content, dict) and isinstance(step, str):
            return None
    return entry
