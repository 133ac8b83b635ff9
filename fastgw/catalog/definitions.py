"""A server's prompts, resources and resource templates as it listed them: kept word for word.

Checked is what would make a client refuse the whole list (2026-07-28, Schema: Prompt, Resource, ResourceTemplate), and
that a URI is one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Final

import msgspec

from fastgw.catalog.elements import Notice, UnfitElement, misfit, parse_each, read, tail
from fastgw.protocol import names
from fastgw.protocol.envelope import NotAMessage, NotJson, members, string

LONGEST_URI: Final = 8 * 1024
"""Bytes of a URI or of a template's text: it travels in a header, too."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
_TEXTS: Final = {"title": b'"', "description": b'"', "icons": b"[", "_meta": b"{"}
_ARGUMENT: Final = {"title": b'"', "description": b'"'}
_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw]).decode
_NUMBER = msgspec.json.Decoder(float).decode


class DefinitionKind(Enum):
    """What a definition defines: the method that lists it, and the member that names it."""

    PROMPT = (names.PROMPTS_LIST, "name")
    RESOURCE = (names.RESOURCES_LIST, "uri")
    TEMPLATE = (names.TEMPLATES_LIST, "uriTemplate")

    @property
    def method(self) -> str:
        """The method that lists it."""
        return self.value[0]

    @property
    def key(self) -> str:
        """The member that names it."""
        return self.value[1]


_OPENS: Final = {
    DefinitionKind.PROMPT: {**_TEXTS, "arguments": b"["},
    DefinitionKind.RESOURCE: {"name": b'"', **_TEXTS, "mimeType": b'"', "annotations": b"{"},
    DefinitionKind.TEMPLATE: {"name": b'"', **_TEXTS, "mimeType": b'"', "annotations": b"{"},
}
"""How the values of members open."""
_KNOWN: Final = {sort: frozenset((sort.key, "size", *opens)) for sort, opens in _OPENS.items()}
_AUDIENCES: Final = frozenset((b'"user"', b'"assistant"'))


@dataclass(frozen=True, slots=True)
class Definition:
    """A prompt, a resource or a template as its server describes it.

    Args:
        server: the server's name in the configuration.
        key: the prompt's own name, the resource's URI, the template's text.
        members: every member but that one: member name to JSON text, in the server's order.
        size: bytes of the definition.
        tails: all that follows the key in a list, for each of `elements.DIALECTS`.
    """

    server: str
    key: str
    members: dict[str, bytes]
    size: int
    tails: tuple[bytes, ...]


def parse_definitions(
    sort: DefinitionKind, server: str, array: bytes
) -> tuple[tuple[Definition, ...], tuple[Notice, ...]]:
    """The definitions of one page.

    Args:
        sort: what they define.
        server: the server's name.
        array: JSON text of the member of the result that holds them.

    Raises:
        ValueError: not a JSON array.
    """
    return parse_each(server, array, names.LISTS[sort.method], partial(parse_definition, sort))


def parse_definition(sort: DefinitionKind, server: str, text: bytes) -> Definition:
    """One element of such a list.

    Raises:
        Unfit: it has no key, or one that is no URI; no `name`; a member of a wrong type or twice; text that is no
            UTF-8.
    """
    key = ""
    try:
        found = read(text, _KNOWN[sort])
        key = string(found.pop(sort.key, b""), sort.key)
        reason = _key_trouble(sort, key) or _trouble(sort, found)
    except (NotJson, NotAMessage) as wrong:
        reason = str(wrong)
    if reason:
        raise UnfitElement(key, reason)
    return Definition(server, key, found, len(text), tails(found))


def tails(found: dict[str, bytes]) -> tuple[bytes, ...]:
    """The members other than the key as they follow it in a list, for each of `elements.DIALECTS`.

    As with tools, 2025-03-26 gets no titles; what else it does not know its clients pass over. Equal texts are one
    object.
    """
    whole = oldest = tail(found)
    if "title" in found:
        oldest = tail({name: value for name, value in found.items() if name != "title"})
    return whole, whole, whole, oldest


def _key_trouble(sort: DefinitionKind, key: str) -> str:
    """Why this cannot be a key; empty where it can."""
    if sort is DefinitionKind.PROMPT:
        return "" if key else "it has no name"
    if not key or not key.isprintable() or " " in key:
        return f"{sort.key} is empty or holds spaces or control characters"
    if len(key) > LONGEST_URI or len(key.encode()) > LONGEST_URI:
        return f"{sort.key} is longer than {LONGEST_URI} bytes"
    if sort is DefinitionKind.RESOURCE and _SCHEME.match(key) is None:
        return "uri is not absolute"
    return ""


def _trouble(sort: DefinitionKind, found: dict[str, bytes]) -> str:
    """What a client could not take in the members other than the key; empty for nothing."""
    member = misfit(found, _OPENS[sort])
    if member:
        return f"{member} has a wrong type"
    if sort is DefinitionKind.PROMPT:
        return _arguments_trouble(found["arguments"]) if "arguments" in found else ""
    if "name" not in found:
        return "it has no name"
    if sort is DefinitionKind.RESOURCE and not found.get("size", b"0").lstrip(b"-").isdigit():
        return "size has a wrong type"
    return _annotations_trouble(found["annotations"]) if "annotations" in found else ""


def _arguments_trouble(array: bytes) -> str:
    for text in _elements(array):
        one = members(text, frozenset(("name", "required", *_ARGUMENT)))
        string(one.get("name", b""), "the name of an argument")
        member = misfit(one, _ARGUMENT)
        if member or one.get("required", b"true") not in (b"true", b"false"):
            return f"{member or 'required'} of an argument has a wrong type"
    return ""


def _annotations_trouble(text: bytes) -> str:
    """2026-07-28, Schema, Annotations: clients refuse what is out of range."""
    found = members(text, frozenset(("audience", "priority", "lastModified")))
    if not _AUDIENCES.issuperset(_elements(found.get("audience", b"[]"))):
        return "audience in annotations is not known"
    if not 0 <= _number(found.get("priority", b"0")) <= 1:
        return "priority in annotations is not from 0 to 1"
    return "" if found.get("lastModified", b'"')[:1] == b'"' else "lastModified in annotations has a wrong type"


def _elements(array: bytes) -> list[bytes]:
    try:
        return [bytes(text) for text in _ELEMENTS(array)]
    except msgspec.MsgspecError as wrong:
        raise NotAMessage(str(wrong)) from None


def _number(text: bytes) -> float:
    try:
        return _NUMBER(text)
    except msgspec.MsgspecError:
        return -1.0
