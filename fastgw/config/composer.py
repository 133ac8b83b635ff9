"""YAML text as a tree of entries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isinf

import yaml

from fastgw.config.complaint import ConfigError, complaint_at
from fastgw.config.tree import Digits, Number, Position, Scalar, YamlEntry

DEEPEST = 64
"""Levels of nesting; our own form needs 8."""
LONGEST = 400
"""Characters of a number; anything longer is text."""
HEAVIEST = 100_000
"""Values in one file with aliases written out: what an alias bomb runs into."""

UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufeff\uff00-\ufffd\U00010000-\U0010ffff]")
"""What YAML 1.2, section 5.1 does not allow; a byte order mark inside the text is let through."""
INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
NUMBER = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
TEXT_TAG = "tag:yaml.org,2002:str"
LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def compose(text: str, file: str) -> YamlEntry:
    """The one document of `text`.

    Args:
        text: the whole file, without a byte order mark.
        file: its name as complaints show it.

    Raises:
        ConfigError: no YAML, no or more than one document, a duplicate key, nesting or aliases beyond the bounds.
    """
    if found := UNPRINTABLE.search(text):
        raise _refused(_offset(text, found.start(), file), f"character U+{ord(found[0]):04X} is not allowed")
    try:
        events = yaml.parse(text, Loader=LOADER)
        return _document(_Composer(file, events))
    except yaml.MarkedYAMLError as error:
        mark = _mark(error, text)
        place = Position(file, mark.line + 1, mark.column + 1) if mark else Position(file, 1, 1)
        raise _refused(place, _syntax(error, text, place)) from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise _refused(Position(file, 1, 1), "is not YAML") from None


def _mark(error: yaml.MarkedYAMLError, text: str) -> yaml.Mark | None:
    """Where the error is; what the end of the file finds open is told where it was opened."""
    if error.problem_mark and error.context_mark and error.problem_mark.index >= len(text.rstrip()):
        return error.context_mark
    return error.problem_mark or error.context_mark


def _syntax(error: yaml.MarkedYAMLError, text: str, place: Position) -> str:
    lines = text.split("\n")
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())] or line[place.column - 1 : place.column] == "\t":
        return "a tab cannot indent: use spaces"
    where = f" {error.context}" if error.context else ""
    return f"not YAML: {error.problem or 'cannot be read'}{where}"


def _offset(text: str, offset: int, file: str) -> Position:
    before = text[:offset]
    return Position(file, before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1)


def _refused(place: Position, message: str) -> ConfigError:
    return ConfigError([complaint_at(place, message)])


def _document(composer: _Composer) -> YamlEntry:
    top: YamlEntry | None = None
    for event in composer.events:
        if isinstance(event, yaml.DocumentStartEvent):
            if top is not None:
                raise _refused(composer.place(event), "only one document may stand in the file")
            top = composer.value(next(composer.events), 0)
    if top is None or top.content is None:
        raise _refused(Position(composer.file, 1, 1), "the file is empty")
    return top


@dataclass(slots=True)
class _Composer:
    file: str
    events: Iterator[yaml.Event]
    anchors: dict[str, YamlEntry] = field(default_factory=dict)
    spent: int = 0

    def place(self, event: yaml.Event) -> Position:
        mark = event.start_mark
        return Position(self.file, mark.line + 1, mark.column + 1) if mark else Position(self.file, 1, 1)

    def value(self, event: yaml.Event, depth: int) -> YamlEntry:
        place = self.place(event)
        if depth > DEEPEST:
            raise _refused(place, f"nested more than {DEEPEST} levels deep")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, place)
        if not isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            raise _refused(place, "a value is missing")
        if event.tag not in (None, "!", TEXT_TAG):
            raise _refused(place, f"the tag {event.tag} is not supported")
        if isinstance(event, yaml.ScalarEvent):
            entry = YamlEntry(place, _scalar(event), {}, 1, event.value)
        elif isinstance(event, yaml.SequenceStartEvent):
            entry = self._list(place, depth)
        else:
            entry = self._map(place, depth)
        self._spend(1, place)
        if event.anchor:
            self.anchors[event.anchor] = entry
        return entry

    def _spend(self, weight: int, place: Position) -> None:
        self.spent += weight
        if self.spent > HEAVIEST:
            raise _refused(place, f"more than {HEAVIEST} values, aliases written out")

    def _alias(self, event: yaml.AliasEvent, place: Position) -> YamlEntry:
        entry = self.anchors.get(event.anchor or "")
        if entry is None:
            raise _refused(place, f"there is no finished anchor &{event.anchor} above")
        self._spend(entry.weight, place)
        return entry

    def _list(self, place: Position, depth: int) -> YamlEntry:
        entries: list[YamlEntry] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            entries.append(self.value(event, depth + 1))
        return YamlEntry(place, entries, {}, 1 + sum(entry.weight for entry in entries))

    def _map(self, place: Position, depth: int) -> YamlEntry:
        content: dict[str, YamlEntry] = {}
        keys: dict[str, Position] = {}
        merged: YamlEntry | None = None
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key, where, merges = self._key(event)
            if key in keys:
                raise _refused(where, f'"{key}" stands twice; first at {keys[key]}')
            keys[key] = where
            entry = self.value(next(self.events), depth + 1)
            if merges:
                merged = entry
            else:
                content[key] = entry
        if merged is not None:
            _merge(merged, content, keys)
        return YamlEntry(place, content, keys, 1 + sum(entry.weight for entry in content.values()))

    def _key(self, event: yaml.Event) -> tuple[str, Position, bool]:
        place = self.place(event)
        if isinstance(event, yaml.AliasEvent):
            entry = self._alias(event, place)
            if not isinstance(entry.content, dict | list):
                return entry.written, place, False
        elif isinstance(event, yaml.ScalarEvent):
            if event.anchor:
                self.anchors[event.anchor] = YamlEntry(place, event.value, {}, 1, event.value)
            return event.value, place, not event.style and event.value == "<<"
        raise _refused(place, "a key must be text")


def _merge(source: YamlEntry, content: dict[str, YamlEntry], keys: dict[str, Position]) -> None:
    """Put what `<<` names behind what stands in the map itself; of several maps the first wins."""
    for one in source.content if isinstance(source.content, list) else [source]:
        if not isinstance(one.content, dict):
            raise _refused(keys["<<"], "<< takes a map or a list of maps")
        for key, entry in one.content.items():
            if key not in content:
                content[key] = entry
                keys[key] = one.keys[key]
    del keys["<<"]


def _scalar(event: yaml.ScalarEvent) -> Scalar:
    text: str = event.value
    if event.style or event.tag is not None:  # a plain scalar: None of one parser, "" of the other
        return text
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text.lower() == "true"
    if INTEGER.fullmatch(text):
        return int(text)
    if len(text) <= LONGEST and NUMBER.fullmatch(text):
        number = Number(text)
        digits = len(text) >= 40 or isinf(number) or re.fullmatch(r"[-+]?\d+", text)
        return Digits(text) if digits else number
    return text
