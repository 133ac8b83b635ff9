"""Definitions of tools that somebody has approved (*pinned*), against what their server lists now; and the lock file.

    on_change    listed as pinned    listed, another    listed, not pinned    pinned, not listed
    accept       used                used               used                  -
    warn         used                used, told         used, told            told
    hold         used                the pinned, told   left out, told        told

All that a server says of a tool is compared, in a form that the order of members, spaces and escapes do not change;
numbers count as they are written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from operator import itemgetter
from typing import Any, Final

import msgspec

from fastgw.catalog.definitions import Definition, DefinitionKind, parse_definitions
from fastgw.catalog.spoofing import visible
from fastgw.protocol.envelope import NotAMessage, NotJson, emit, members, quote

LOCK_FORMAT: Final = b"1"
MOST_TOLD, LONGEST_TOLD = 20, 64
"""Members of a changed tool that are named, and characters of each name."""
_BY_NAME = itemgetter(0)
_QUOTED = json.encoder.encode_basestring

Lock = Mapping[str, tuple[Definition, ...]]
"""The pinned tools of each server that has any."""


CHANGE_KINDS: Final = ("changed", "new", "removed")


class _Text(str):
    """JSON text, which is no string to be quoted."""

    __slots__ = ()


class BadLock(ValueError):
    """A lock file that cannot be used: why, and in which line."""

    def __init__(self, why: str, line: int = 1) -> None:
        super().__init__(why)
        self.line = line


@dataclass(frozen=True, slots=True)
class ToolChange:
    """One tool that is not as it is pinned.

    Args:
        kind: of `CHANGE_KINDS`.
        members: those of the definition that are others.
        digest: of what its server lists now, short; empty of one that it does not list.
        held: agents see what is pinned.
    """

    tool: str
    kind: str
    members: tuple[str, ...] = ()
    digest: str = ""
    held: bool = False

    def __str__(self) -> str:
        now = f", now {self.digest}" if self.digest else ""
        if self.kind == "changed":
            held = "held as pinned" if self.held else "not as pinned"
            return f"{held}: {', '.join(self.members)} changed at its server{now}"
        if self.kind == "new":
            return f"{'held back' if self.held else 'not pinned'}: new at its server{now}"
        return "is pinned, and its server no longer lists it"


def compared(
    listed: Mapping[str, Definition], pinned: Iterable[Definition], on_change: str
) -> tuple[Iterable[Definition], tuple[ToolChange, ...]]:
    """The tools to go by, and what is not as it is pinned; `on_change` is `warn` or `hold`."""
    hold, pins, shown, changes = on_change == "hold", {one.key: one for one in pinned}, [], []
    for name, now in listed.items():
        pin = pins.pop(name, None)
        if pin is not None and (pin == now or digest(pin) == digest(now)):
            shown.append(now)
            continue
        if pin is None:
            changes.append(ToolChange(name, "new", (), digest(now).hex()[:12], hold))
        else:
            changes.append(ToolChange(name, "changed", _told(differing(pin, now)), digest(now).hex()[:12], hold))
        if not hold:
            shown.append(now)
        elif pin is not None:
            shown.append(replace(pin, present=now))
    return shown, (*changes, *(ToolChange(name, "removed") for name in pins))


def differing(one: Definition, other: Definition) -> tuple[str, ...]:
    """The members in which two definitions differ."""
    every = dict.fromkeys((*one.members, *other.members))
    return tuple(name for name in every if _member(one, name) != _member(other, name))


def digest(definition: Definition) -> bytes:
    """SHA-256 of the canonical text; remembered, for ten thousand take half a second."""
    if not definition.digest:
        object.__setattr__(definition, "digest", sha256(definition_text(definition)).digest())
    return definition.digest


def digest_all(definitions: Iterable[Definition]) -> None:
    """Have them all remembered, in a thread."""
    for one in definitions:
        digest(one)


def canonical(text: bytes) -> bytes:
    """JSON text as all equal values are written: members by name, no spaces, escapes only where they must be and for
    what is invisible. A member that stands twice stays twice. What is nested too deep stays as it is.
    """
    try:
        return _written(_DECODE(text.decode())).encode()
    except RecursionError:
        return text


def dump_lock(lock: Lock) -> bytes:
    """The lock file: the same text for the same definitions, whatever their order."""
    servers = {name: b"[%b]" % b",".join(sorted(definition_text(one) for one in lock[name])) for name in sorted(lock)}
    return msgspec.json.format(emit({"format": LOCK_FORMAT, "servers": emit(servers)}), indent=1) + b"\n"


@lru_cache(maxsize=1)  # a reload reads the same again
def load_lock(text: bytes) -> dict[str, tuple[Definition, ...]]:
    """The lock of a file. Raises BadLock."""
    try:
        found = members(msgspec.json.format(text, indent=-1))
        if found.get("format") != LOCK_FORMAT:
            raise BadLock("was written by another version: remove it, then `fastgw catalogue lock` writes it anew")
        lists = members(found["servers"])
    except msgspec.DecodeError as wrong:
        at = str(wrong).rpartition(" ")[2].rstrip(")")
        raise BadLock(f"is no JSON: {wrong}", text.count(b"\n", 0, int(at)) + 1 if at.isdigit() else 1) from None
    except (NotJson, NotAMessage, KeyError, UnicodeDecodeError, RecursionError) as wrong:
        raise BadLock(f"is no lock of tools: {wrong}") from None
    lock = {}
    for server, array in lists.items():
        try:
            tools, notices = parse_definitions(DefinitionKind.TOOL, server, array)
        except ValueError as wrong:
            raise BadLock(f"is no lock of tools: {wrong}", line_of(text, server)) from None
        bad = next((notice for notice in notices if notice.text.startswith("left out")), None)
        if bad is not None or len({one.key for one in tools}) < len(tools):
            why = f"{bad.subject}: {bad.text}" if bad else f"{server}: a tool stands twice"
            raise BadLock(why, line_of(text, server))
        digest_all(tools)  # here, for a lock is read in a thread, and compared on the controller's loop
        lock[server] = tools
    return lock


def line_of(text: bytes, server: str) -> int:
    """The line of a lock file in which a server begins."""
    return text.count(b"\n", 0, max(0, text.find(quote(server) + b": ["))) + 1


def definition_text(definition: Definition) -> bytes:
    """The canonical text of a definition, its name first."""
    rest = canonical(emit(definition.members))[1:]
    return b'{"name":' + canonical(quote(definition.key)) + (b"," if definition.members else b"") + rest


def _told(names: tuple[str, ...]) -> tuple[str, ...]:
    """As many as a reader takes in: a server may have a hundred thousand members, with names of any length."""
    more = (f"{len(names) - MOST_TOLD} more",) if len(names) > MOST_TOLD else ()
    return (*[name[:LONGEST_TOLD] for name in names[:MOST_TOLD]], *more)


def _member(definition: Definition, name: str) -> bytes | None:
    return canonical(definition.members[name]) if name in definition.members else None


def _object(pairs: list[tuple[str, Any]]) -> _Text:
    pairs.sort(key=_BY_NAME)  # stable: of two equal names the first stays first
    return _Text("{" + ",".join([f"{_string(name)}:{_written(value)}" for name, value in pairs]) + "}")


def _written(value: Any) -> str:
    if type(value) is _Text:
        return value
    if type(value) is str:
        return _string(value)
    if type(value) is list:
        return "[" + ",".join(map(_written, value)) + "]"
    return "null" if value is None else "true" if value else "false"


def _string(text: str) -> str:
    written = _QUOTED(text)
    return written if written.isascii() and "\x7f" not in written else visible(written)


_DECODE = json.JSONDecoder(object_pairs_hook=_object, parse_int=_Text, parse_float=_Text, parse_constant=_Text).decode
