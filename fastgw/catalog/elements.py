"""The elements of a server's lists: read with suspicion, kept word for word, one bad one left out with a notice."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from fastgw.protocol.envelope import NotAMessage, NotJson, check_utf8, emit, members

MODERN: Final = "modern"
DIALECTS: Final = (MODERN, "2025-11-25", "2025-06-18", "2025-03-26")
"""What lists are encoded for: modern agents, and each legacy revision."""

LARGEST: Final = 1024 * 1024
"""Bytes of one element."""
MOST: Final = 10_000
"""Elements of one array that are read: each costs the controller some ten microseconds."""
_SHOWN: Final = 128
"""Characters of a key in a notice."""
_NAMED: Final = 20
"""Members that a notice names."""
_OBJECTS, _LISTS = ("annotations", "execution"), ("icons", "arguments")
"""Members whose own members, and those of whose items, are the protocol's."""

_ARRAY = msgspec.json.Decoder(list[msgspec.Raw]).decode
_ESCAPE = re.compile(rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F]..)|.)", re.DOTALL)
"""One escape of a JSON text, a surrogate pair at once; the group is half a pair alone."""
_MOVED = re.compile(r"is called .* here|hidden: its (name|URI) is taken.*", re.DOTALL)
"""The words of `naming` and `uris` for a name or URI that several servers want, or that is too long."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Notice:
    """One remark.

    Args:
        subject: what it is about: `server/tool`, a name, an endpoint.
        endpoint: path of the endpoint where it happened; empty where it holds everywhere.
    """

    subject: str
    text: str
    endpoint: str = ""

    @property
    def moves(self) -> bool:
        """Whether it is about a name or URI that is another one here, or hidden, because it is taken or too long."""
        return _MOVED.fullmatch(self.text) is not None

    def __str__(self) -> str:
        where = f"{self.endpoint}: " if self.endpoint else ""
        return f"{where}{self.subject}: {self.text}"


class UnfitElement(ValueError):
    """An element that cannot stand in a list: its key (empty where it has none) and why."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason


def parse_each(
    server: str, array: bytes, what: str, parse: Callable[[str, bytes], T]
) -> tuple[tuple[T, ...], tuple[Notice, ...]]:
    """The elements of one page, and what was left out.

    Raises:
        ValueError: not a JSON array.
    """
    try:
        texts = _ARRAY(array)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as wrong:
        raise ValueError(f"{what} is no JSON array: {wrong}") from None
    found: list[T] = []
    notices: list[Notice] = []
    nulls: set[str] = set()
    for text in texts[:MOST]:
        try:
            found.append(parse(server, _without_nulls(bytes(text), nulls)))
        except UnfitElement as wrong:
            notices.append(Notice(f"{server}/{wrong.key[:_SHOWN]}", f"left out: {wrong.reason}"))
    if nulls:
        notices.append(Notice(server, f"{what}: null counts as left out: {', '.join(sorted(nulls)[:_NAMED])}"))
    if len(texts) > MOST:
        notices.append(Notice(server, f"{what}: only the first {MOST} of {len(texts)} on one page are read"))
    return tuple(found), tuple(notices)


def read(text: bytes, known: frozenset[str]) -> dict[str, bytes]:
    """The members of one element.

    Raises:
        NotJson, NotAMessage: as `envelope.members`; also text that is no UTF-8, or half a surrogate pair anywhere in
            it: strict clients would refuse the whole list.
    """
    if not text.isascii():
        check_utf8(text)
    if b"\\u" in text and any(found[1] for found in _ESCAPE.finditer(text)):
        raise NotJson("half a surrogate pair")
    return members(text, known)


def misfit(found: dict[str, bytes], opens: dict[str, bytes]) -> str:
    """The first member whose JSON text does not open with the byte it must (`opens`); empty where all do."""
    return next((member for member, first in opens.items() if found.get(member, first)[:1] != first), "")


def tail(found: dict[str, bytes]) -> bytes:
    """What follows the key of an element in a list: the other members, and the closing brace."""
    return b"," + emit(found)[1:] if found else b"}"


def _without_nulls(text: bytes, nulls: set[str]) -> bytes:
    """The element without members that are null, which many servers write for what they leave out. Schemas and `_meta`
    are not looked into.
    """
    if b"null" not in text:
        return text
    try:
        found = members(_present(text, "", nulls))
        for name in _OBJECTS:
            if found.get(name, b"").startswith(b"{"):
                found[name] = _present(found[name], f"{name}.", nulls)
        for name in _LISTS:
            if b"null" in found.get(name, b""):
                items = [_present(bytes(item), f"{name}.", nulls) for item in _ARRAY(found[name])]
                found[name] = b"[" + b",".join(items) + b"]"
    except (NotJson, NotAMessage, msgspec.MsgspecError):
        return text  # whoever reads it says what is wrong
    return emit(found)


def _present(text: bytes, where: str, nulls: set[str]) -> bytes:
    found = members(text)
    absent = [name for name, value in found.items() if value == b"null"]
    nulls.update(where + name[:_SHOWN] for name in absent)
    return emit({name: value for name, value in found.items() if value != b"null"}) if absent else text
