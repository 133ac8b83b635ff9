"""URIs inside results on their way to an agent: found where the protocol puts them, written anew, nothing else touched.

The JSON text is cut at the value and put together again, so all else keeps every byte. An item that is not as the
protocol has it (a member twice, a URI that is no string) is left as it is: its reader makes of it what it can.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

from fastgw.protocol.envelope import MOST_MEMBERS, quote

Expose = Callable[[str], str]
"""The server's URI to the one agents know."""
_Edit = Callable[[bytes, Expose, int], bytes]
"""Rewrites one JSON text, or gives it back; the number says how many tools' results it may still look into."""

DEEPEST = 3
"""Tools' results within tools' results (sampling messages hold them; they hold content again)."""
MOST_ITEMS = MOST_MEMBERS
"""Of one array: longer ones stay as they are, for a reply of 64 MB would hold up a worker for seconds."""

MOST_QUOTES = 400_000
"""Of one member of a result, two for each name and each text: 60 MB of short names held up a worker for 17 seconds."""

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw]).decode
_STRING = msgspec.json.Decoder(str).decode
# Possessive: a name of 4 MB would cost 600 MB of ways back.
_KEY = re.compile(rb'[ \t\n\r]*+("(?:[^"\\]++|\\.)*+")[ \t\n\r]*+:[ \t\n\r]*+', re.DOTALL)
_ESCAPED = re.compile(rb"\\u00(?:7[52]|69)")
_GAP = re.compile(rb"[ \t\n\r]*+[\[,]?[ \t\n\r]*+")


class _Crooked(ValueError):
    """A member stands twice, or there are too many."""


_WRONG = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, _Crooked)


def rewritten(members: dict[str, bytes], expose: Expose) -> dict[str, bytes]:
    """A result with its URIs as agents know them.

    Args:
        members: member name to JSON text, as of `results.Result`; given back itself where nothing changes. Where its
            `_meta` was read apart, that is for `meta`.
    """
    found = members
    for name, edit in _RESULT.items():
        text = members.get(name)
        if text is not None and _may_link(text) and is_handy(text):
            found = _changed(found, expose, {name: edit})
    return definition(found, expose) if "_meta" in members else found


def definition(members: dict[str, bytes], expose: Expose) -> dict[str, bytes]:
    """The members of a tool's definition (or of what else has a `_meta`), the URI of its page as agents know it."""
    return _changed(members, expose, _DEFINITION)


def meta(members: dict[str, bytes], expose: Expose) -> dict[str, bytes]:
    """The members of a `_meta` likewise."""
    return _changed(members, expose, _META) if members else members


def error_data(data: bytes, expose: Expose) -> bytes:
    """`data` of an error (JSON text), its `uri` as agents know it."""
    return _guarded(_ERROR, data, expose, DEEPEST)


def _may_link(text: bytes) -> bool:
    """Whether any member may be called `uri`: written so, or with one of its letters as an escape.

    Most results have none, and this one pass is all they pay.
    """
    return b'"uri"' in text or (b"\\" in text and _ESCAPED.search(text) is not None)


def is_handy(text: bytes) -> bool:
    """Whether a member of a result can be taken apart in no time, whatever is in it.

    Quotes after a backslash do not count: no string begins with one, and texts are full of them.
    """
    return text.count(b'"') - text.count(b'\\"') <= MOST_QUOTES


def _changed(members: dict[str, bytes], expose: Expose, edits: Mapping[str, _Edit]) -> dict[str, bytes]:
    found = members
    for name, edit in edits.items():
        text = members.get(name)
        if text is not None and (new := _guarded(edit, text, expose, DEEPEST)) is not text:
            found = {**found, name: new}
    return found


def _guarded(edit: _Edit, text: bytes, expose: Expose, depth: int) -> bytes:
    """The text edited; as it is where it is not as the protocol has it."""
    try:
        return edit(text, expose, depth)
    except _WRONG:
        return text


def _uri(text: bytes, expose: Expose, depth: int) -> bytes:
    uri = _STRING(text)
    shown = expose(uri)
    return text if shown == uri else quote(shown)


def _within(edits: Mapping[str, _Edit]) -> _Edit:
    """Edits members of an object."""

    def edit(text: bytes, expose: Expose, depth: int) -> bytes:
        return _put_back(text, _OBJECT(text), _edited(text, edits, expose, depth))

    return edit


def _edited(text: bytes, edits: Mapping[str, _Edit], expose: Expose, depth: int) -> dict[str, bytes]:
    """The members of an object that change: name to new JSON text."""
    changes: dict[str, bytes] = {}
    for name, value in _OBJECT(text).items():
        edit = edits.get(name)
        if edit is not None:
            old = bytes(value)
            new = edit(old, expose, depth)
            if new is not old:
                changes[name] = new
    return changes


def _each(edit: _Edit) -> _Edit:
    """Edits the items of an array, or the members of an object, whatever they are called."""

    def edit_all(text: bytes, expose: Expose, depth: int) -> bytes:
        if text[:1] != b"[":
            names = _OBJECT(text)
            return _put_back(text, names, _edited(text, dict.fromkeys(names, guarded), expose, depth))
        items = _ARRAY(text)
        if len(items) > MOST_ITEMS:
            return text
        parts: list[bytes] = []
        at = kept = 0
        for item in items:
            old = bytes(item)
            at = _end(_GAP, text, at)
            new = guarded(old, expose, depth)
            if new is not old:
                parts += (text[kept:at], new)
                kept = at + len(old)
            at += len(old)
        return b"".join((*parts, text[kept:])) if parts else text

    def guarded(text: bytes, expose: Expose, depth: int) -> bytes:
        return _guarded(edit, text, expose, depth) if _may_link(text) else text

    return edit_all


def _put_back(text: bytes, members: Mapping[str, msgspec.Raw], changes: Mapping[str, bytes]) -> bytes:
    """The object with some values changed: each is cut out where it stands."""
    if not changes:
        return text
    parts: list[bytes] = []
    kept = 0
    at = text.index(b"{") + 1
    seen: set[str] = set()
    if len(members) > MOST_MEMBERS:
        raise _Crooked
    while len(seen) < len(members):
        key = _KEY.match(text, at)
        name = _STRING(key[1]) if key else ""
        if key is None or name in seen or name not in members:
            raise _Crooked
        seen.add(name)
        start = key.end()
        value = bytes(members[name])
        if not text.startswith(value, start):
            raise _Crooked
        if name in changes:
            parts += (text[kept:start], changes[name])
            kept = start + len(value)
        at = _end(_GAP, text, start + len(value))
    if text[at : at + 1] != b"}":
        raise _Crooked
    return b"".join((*parts, text[kept:]))


def _end(pattern: re.Pattern[bytes], text: bytes, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at


def _item(text: bytes, expose: Expose, depth: int) -> bytes:
    """One item of content: a link, an embedded resource, or (in sampling) a tool's result with content of its own."""
    kind = _OBJECT(text).get("type")
    edit = _ITEMS.get(bytes(kind)) if kind is not None else None
    if edit is None and kind is not None:
        edit = _ITEMS.get(quote(_STRING(bytes(kind))))  # written with escapes
    return edit(text, expose, depth) if edit is not None else text


def _nested(text: bytes, expose: Expose, depth: int) -> bytes:
    return _content(text, expose, depth - 1) if depth else text


def _content(text: bytes, expose: Expose, depth: int) -> bytes:
    """An array of items, or one item alone, as prompts and sampling have it."""
    return _every_item(text, expose, depth) if text[:1] == b"[" else _item(text, expose, depth)


_every_item = _each(_item)
_ERROR = _within({"uri": _uri})
_ITEMS: dict[bytes, _Edit] = {
    b'"resource_link"': _within({"uri": _uri}),
    b'"resource"': _within({"resource": _within({"uri": _uri})}),
    b'"tool_result"': _within({"content": _nested}),
}
_MESSAGES = _each(_within({"content": _content}))
_META: dict[str, _Edit] = {"ui": _within({"resourceUri": _uri}), "ui/resourceUri": _uri}
_DEFINITION: dict[str, _Edit] = {"_meta": _within(_META)}
_RESULT: dict[str, _Edit] = {
    "content": _content,
    "messages": _MESSAGES,
    "contents": _each(_within({"uri": _uri})),
    "inputRequests": _each(_within({"params": _within({"messages": _MESSAGES})})),
}
