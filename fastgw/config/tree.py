"""What a configuration file says, value by value with the place of each, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True, order=True)
class ConfigProblem:
    """One thing to change; `nearest` is the most similar valid name."""

    position: Position
    message: str
    nearest: str | None = field(default=None, compare=False)

    def __str__(self) -> str:
        question = f' (did you mean "{self.nearest}"?)' if self.nearest else ""
        return f"{self.position}: {self.message}{question}"


class ConfigError(Exception):
    """A configuration that cannot be used; `complaints` has at least one, in the order of their places."""

    def __init__(self, *complaints: ConfigProblem) -> None:
        self.complaints = tuple(sorted(set(complaints)))
        super().__init__(self.complaints)

    def __str__(self) -> str:
        return "\n".join(map(str, self.complaints))


class Number(float):
    """A number that knows how it was written, `1.10`: claims compare as text, arguments go out digit for digit."""

    __slots__ = ("written",)
    written: str

    def __new__(cls, written: str) -> Number:
        number = super().__new__(cls, written)
        number.written = written
        return number

    def __str__(self) -> str:
        return self.written


Scalar = str | int | Number | bool | None


@dataclass(slots=True, eq=False)
class YamlEntry:
    """One value.

    Args:
        position: where it begins.
        content: a map of entries, a list of entries, or a scalar.
        key: where its key stands, if it has one.
        written: of a scalar: its text before references were filled in.
    """

    position: Position
    content: dict[str, YamlEntry] | list[YamlEntry] | Scalar
    key: Position | None = None
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
        return [entry.plain() for entry in self.content] if isinstance(self.content, list) else self.content

    def walk(self, path: Path = ()) -> Iterator[tuple[Path, YamlEntry]]:
        """Every value with its path, parents first."""
        yield path, self
        below = self.content.items() if isinstance(self.content, dict) else ()
        for step, entry in enumerate(self.content) if isinstance(self.content, list) else below:
            yield from entry.walk((*path, step))


def fits(keys: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether keys (positions in lists left out) fit a pattern in which `*` is any one key."""
    return len(keys) == len(pattern) and all(want in ("*", key) for key, want in zip(keys, pattern, strict=True))


def entry_at(root: YamlEntry, path: Path) -> YamlEntry:
    """The entry at `path`; steps that the file leaves out (a list of one value, a short form) are passed over."""
    for step in path:
        root = root.child(step) or root
    return root


def locate(root: YamlEntry, path: Path) -> Position:
    """Where the value at `path` stands: a scalar itself, a map or list by its key where it has one."""
    entry = entry_at(root, path)
    return entry.key if entry.key and isinstance(entry.content, dict | list) else entry.position


def locate_key(root: YamlEntry, path: Path) -> Position:
    """Where the last key of `path` stands."""
    parent = entry_at(root, path[:-1])
    entry = parent.child(path[-1])
    return entry.key if entry and entry.key else parent.position
