"""URIs inside results on their way to an agent: found where the protocol puts them, written anew, nothing else touched.

The JSON text is cut at the value and put together again, so all else keeps every byte. An item that is not as the
protocol has it (a member twice, a URI that is no string) is left as it is: its reader makes of it what it can.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

import msgspec

from fastgw.protocol.envelope import MOST_MEMBERS, quote

Expose = Callable[[str], str]
"""The server's URI to the one agents know."""
_Edit = Callable[[bytes, Expose], bytes]
"""Rewrites one JSON text, or gives it back."""

MOST_QUOTES = 400_000
"""Of one member of a result, two for each name and each text: 60 MB of short names held up a worker for 17 seconds."""

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw]).decode
_STRING = msgspec.json.Decoder(str).decode
# Possessive: a name of 4 MB would cost 600 MB of ways back.
_KEY = re.compile(rb'[ \t\n\r,]*+("(?:[^"\\]++|\\.)*+")[ \t\n\r]*+:[ \t\n\r]*+', re.DOTALL)
_ESCAPED = re.compile(rb"\\u00(?:7[52]|69)")


def rewritten(members: dict[str, bytes], expose: Expose) -> dict[str, bytes]:
    """A result with its URIs as agents know them."""
    linking = {
        name: edit for name, edit in _RESULT.items() if _may_link(text := members.get(name, b"")) and is_handy(text)
    }
    return definition(_changed(members, expose, linking), expose)


def definition(members: dict[str, bytes], expose: Expose) -> dict[str, bytes]:
    """The members of a tool's definition (or of what else has a `_meta`), the URI of its page as agents know it."""
    return _changed(members, expose, {"_meta": _within(_META)})


def meta(members: dict[str, bytes], expose: Expose) -> dict[str, bytes]:
    """The members of a `_meta` likewise."""
    return _changed(members, expose, _META)


def error_data(data: bytes, expose: Expose) -> bytes:
    """`data` of an error (JSON text), its `uri` as agents know it."""
    return _changed({"data": data}, expose, {"data": _LINK})["data"]


def _may_link(text: bytes) -> bool:
    """Whether any member may be called `uri`, with escapes or without: most results pay for this one pass alone."""
    return b'"uri"' in text or (b"\\" in text and _ESCAPED.search(text) is not None)


def is_handy(text: bytes) -> bool:
    """Whether a member of a result can be taken apart in no time, whatever is in it.

    Quotes after a backslash do not count: no string begins with one, and texts are full of them.
    """
    return text.count(b'"') - text.count(b'\\"') <= MOST_QUOTES


def _changed(members: dict[str, bytes], expose: Expose, edits: Mapping[str, _Edit]) -> dict[str, bytes]:
    """The members edited; each as it is where it is not as the protocol has it, all of them where nothing changes."""
    found = members
    for name, edit in edits.items():
        if name in members and (new := _guarded(edit, members[name], expose)) is not members[name]:
            found = {**found, name: new}
    return found


def _guarded(edit: _Edit, text: bytes, expose: Expose) -> bytes:
    try:
        return edit(text, expose)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return text


def _uri(text: bytes, expose: Expose) -> bytes:
    uri = _STRING(text)
    shown = expose(uri)
    return text if shown == uri else quote(shown)


def _within(edits: Mapping[str, _Edit]) -> _Edit:
    """Edits members of an object."""
    return lambda text, expose: _edited(text, expose, edits.get)


def _each(edit: _Edit) -> _Edit:
    """Edits the items of an array, or the members of an object, whatever they are called."""

    def edit_one(text: bytes, expose: Expose) -> bytes:
        return _guarded(edit, text, expose) if _may_link(text) else text

    return lambda text, expose: _edited(text, expose, lambda _: edit_one)


def _edited(text: bytes, expose: Expose, edit_of: Callable[[str], _Edit | None]) -> bytes:
    """An object or array with some values changed: each is cut out where it stands."""
    parts: list[bytes] = []
    kept = 0
    for name, at, old in _values(text):
        if (edit := edit_of(name)) is not None and (new := edit(old, expose)) is not old:
            parts += (text[kept:at], new)
            kept = at + len(old)
    return b"".join((*parts, text[kept:])) if parts else text


def _values(text: bytes) -> Iterator[tuple[str, int, bytes]]:
    """The members of an object, or the items of an array (without a name): name, place, JSON text.

    Raises:
        ValueError: there are too many, or a member stands twice.
    """
    found = [("", raw) for raw in _ARRAY(text)] if text[:1] == b"[" else [*_OBJECT(text).items()]
    if len(found) > MOST_MEMBERS:
        raise ValueError("too many: a reply of 64 MB would hold up a worker for seconds")
    at = 1
    for name, raw in found:
        old = bytes(raw)
        if text[:1] == b"[":
            at = text.index(old, at)  # nothing but gaps stands between
        else:
            key = _KEY.match(text, at)
            if key is None or _STRING(key[1]) != name or not text.startswith(old, key.end()):
                raise ValueError("a member stands twice")
            at = key.end()
        yield name, at, old
        at += len(old)
    if text[at:].lstrip(b" \t\n\r") not in (b"}", b"]"):
        raise ValueError("a member stands twice")


def _content(items: Mapping[str, _Edit]) -> _Edit:
    """An array of items, or one alone as prompts and sampling have it, by their `type`."""

    def edit_item(text: bytes, expose: Expose) -> bytes:
        kind = _OBJECT(text).get("type")
        edit = items.get(_STRING(bytes(kind))) if kind is not None else None
        return text if edit is None else edit(text, expose)

    every = _each(edit_item)
    return lambda text, expose: (every if text[:1] == b"[" else edit_item)(text, expose)


_LINK = _within({"uri": _uri})
_BLOCKS = {"resource_link": _LINK, "resource": _within({"resource": _LINK})}
_CONTENT = _content({**_BLOCKS, "tool_result": _within({"content": _content(_BLOCKS)})})
"""Results of tools stand in sampling messages."""
_META: dict[str, _Edit] = {"ui": _within({"resourceUri": _uri}), "ui/resourceUri": _uri}
_MESSAGES = _each(_within({"content": _CONTENT}))
_RESULT: dict[str, _Edit] = {
    "content": _CONTENT,
    "messages": _MESSAGES,
    "contents": _each(_LINK),
    "inputRequests": _each(_within({"params": _within({"messages": _MESSAGES})})),
}
