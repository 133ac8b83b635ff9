"""What is wrong with a configuration file, told to the person who wrote it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from fastgw.config.tree import Path, Position, YamlEntry, locate, locate_key

Finding = tuple[Path, str, str | None]
"""Where in the settings, what, and the name that was probably meant. A path that ends in `KEY` is of the key itself."""
KEY = "[key]"


@dataclass(frozen=True, slots=True, order=True)
class ConfigProblem:
    """One thing to change. Line and column count from 1; `nearest` is the valid name that was probably meant."""

    file: str
    line: int
    column: int
    message: str
    nearest: str | None = None

    def __str__(self) -> str:
        meant = f' (did you mean "{self.nearest}"?)' if self.nearest else ""
        return f"{self.file}:{self.line}:{self.column}: {self.message}{meant}"


class ConfigError(Exception):
    """A configuration that cannot be used.

    Args:
        complaints: at least one, in the order of their places.
    """

    def __init__(self, complaints: Iterable[ConfigProblem]) -> None:
        self.complaints = tuple(sorted(set(complaints), key=lambda one: (one.file, one.line, one.column, one.message)))
        super().__init__(self.complaints)

    def __str__(self) -> str:
        return "\n".join(map(str, self.complaints))


def complaint_at(position: Position, message: str, nearest: str | None = None) -> ConfigProblem:
    """A complaint about a place."""
    return ConfigProblem(position.file, position.line, position.column, message, nearest)


def placed(findings: Iterable[Finding], root: YamlEntry) -> Iterator[ConfigProblem]:
    """Findings with their places in the file."""
    for path, message, meant in findings:
        place = locate_key(root, path[:-1]) if path[-1] == KEY else locate(root, path)
        yield complaint_at(place, message, meant)


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name most like `name`, None where none is much like it."""
    names = sorted(valid)
    folded = name.casefold().replace("-", "_")
    for one in names:
        if one.casefold().replace("-", "_") == folded and one != name:
            return one
    return next(iter(get_close_matches(name, names, n=1, cutoff=0.6)), None)
