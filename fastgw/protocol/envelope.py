"""JSON-RPC's outer fields: read with suspicion, written anew.

Payloads stay JSON text, byte for byte.

Why not decode everything: every JSON parser keeps one of two equal members, and not all the same one, so a decoded and
re-encoded copy hides a second `name` that a server may obey. Here a member that stands twice, or differs from a known
one only in case (Go's decoder folds case), refuses the message.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

_DECODE = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_STRING = msgspec.json.Decoder(str).decode
# Possessive: a name of 4 MB would cost 600 MB of ways back.
_KEY = re.compile(rb'[ \t\n\r]*+("(?:[^"\\]++|\\.)*+")[ \t\n\r]*+:[ \t\n\r]*+', re.DOTALL)
_NEXT = re.compile(rb"[ \t\n\r]*([,}])")

MOST_MEMBERS = 10_000
"""Of one object that is read: beyond it a body of 4 MB would cost a worker most of a second."""

MAX_ID = 256
"""Bytes of a request's id, as JSON text: ids are kept for as long as calls run, and travel between processes."""

ENVELOPE = frozenset(("jsonrpc", "id", "method", "params", "result", "error"))


class NotJson(ValueError):
    """The text is no JSON, not UTF-8, nested too deep, or holds half a surrogate pair."""


class NotAMessage(ValueError):
    """The text is JSON, but not what it has to be: wrong type, a member twice or in another case."""


class Message(msgspec.Struct):
    """One JSON-RPC message; absent members are None. All but `method` are JSON text."""

    id: bytes | None
    method: str | None
    params: bytes | None
    result: bytes | None
    error: bytes | None
    nulls: bool = False
    """Whether outer fields that are null had to be passed over."""


def members(text: bytes, known: frozenset[str] = frozenset()) -> dict[str, bytes]:
    """The members of one JSON object: name to the JSON text of its value.

    Args:
        text: UTF-8 JSON text.
        known: the member names the caller gives a meaning; none may be imitated in another case.

    Raises:
        NotJson: not JSON.
        NotAMessage: not an object, or a member stands twice or imitates a known one.
    """
    try:
        raw = _DECODE(text)
    except msgspec.ValidationError as wrong:
        raise NotAMessage(str(wrong)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise NotJson(_why(wrong)) from None
    if len(raw) > MOST_MEMBERS:
        raise NotAMessage(f"more than {MOST_MEMBERS} members")
    found = {}
    size = 1
    for name, value in raw.items():
        found[name] = kept = bytes(value)
        size += len(name) + len(kept) + 4
    # Written without spaces, as most clients do, the parts add up to the whole exactly when nothing was left out.
    if size != len(text) and found:
        _refuse_twins(text, found)
    if not known.issuperset(found):
        _refuse_imitations(found, known)
    return found


def read(body: bytes) -> Message:
    """The message that is the whole body.

    Raises:
        NotJson: not JSON, or not UTF-8.
        NotAMessage: JSON, but not one JSON-RPC 2.0 message (JSON-RPC 2.0, sections 4 and 5).
    """
    if not body.isascii():
        check_utf8(body)
    found = members(body, ENVELOPE)
    if found.get("jsonrpc") != b'"2.0"':
        raise NotAMessage('jsonrpc must be "2.0"')
    method = found.get("method")
    message = Message(
        found.get("id"),
        string(method, "method") if method is not None else None,
        found.get("params"),
        found.get("result"),
        found.get("error"),
    )
    if (message.method is not None) + (message.result is not None) + (message.error is not None) != 1:
        raise NotAMessage("must have exactly one of method, result and error")
    return message


def read_reply(body: bytes) -> Message:
    """A server's message: as `read`, but outer fields that are null count as absent, as the SDK clients have it.

    Raises:
        NotJson, NotAMessage: as `read`.
    """
    try:
        return read(body)
    except NotAMessage:
        found = members(body, ENVELOPE)
        kept = {name: value for name, value in found.items() if value != b"null" or name == "id"}
        if len(kept) == len(found):
            raise
    message = read(emit(kept))
    message.nulls = True
    return message


def check_utf8(body: bytes) -> None:
    """Raises NotJson unless `body` is UTF-8 (RFC 8259, section 8.1); the decoder skips texts it does not read."""
    try:
        body.decode()
    except UnicodeDecodeError as wrong:
        raise NotJson(f"not UTF-8 at byte {wrong.start}") from None


def string(text: bytes, what: str) -> str:
    """The JSON string `text`; raises NotAMessage naming `what` where it is something else."""
    try:
        return _STRING(text)
    except msgspec.DecodeError:
        raise NotAMessage(f"{what} must be a string") from None


def is_id(text: bytes) -> bool:
    """Whether this JSON text may be a request's id: a string or an integer, never null (MCP, Base Protocol)."""
    if len(text) > MAX_ID:
        return False
    return text[:1] == b'"' or text.lstrip(b"-").isdigit()


def emit(parts: dict[str, bytes]) -> bytes:
    """The JSON object of these members, written without spaces."""
    return b"{" + b",".join([quote(name) + b":" + value for name, value in parts.items()]) + b"}"


quote = msgspec.json.Encoder().encode
"""JSON text of a string."""


def _refuse_twins(text: bytes, found: dict[str, bytes]) -> None:
    """Walk over the object's members as they stand, skipping each value by what the decoder kept of it."""
    seen: set[str] = set()
    at = text.index(b"{") + 1
    while True:
        key = _KEY.match(text, at)
        name = _STRING(key[1]) if key else None
        if key is None or name is None or name in seen or not text.startswith(found[name], key.end()):
            raise NotAMessage("a member stands twice")
        seen.add(name)
        end = _NEXT.match(text, key.end() + len(found[name]))
        if end is None:
            raise NotAMessage("a member stands twice")
        if end[1] == b"}":
            return
        at = end.end()


def _refuse_imitations(found: dict[str, bytes], known: frozenset[str]) -> None:
    folded = _folded(known)
    for name in found:
        if name not in known and name.casefold() in folded:
            raise NotAMessage(f"a member differs from {name.casefold()!r} only in case")


@lru_cache(maxsize=1024)
def _folded(known: frozenset[str]) -> frozenset[str]:
    return frozenset(name.casefold() for name in known)


def _why(wrong: BaseException) -> str:
    if isinstance(wrong, RecursionError):
        return "nested too deep"
    if isinstance(wrong, UnicodeDecodeError):
        return "not UTF-8"
    # The decoder calls half a surrogate pair at the end of a string truncated.
    text = str(wrong)
    return "truncated, or half a surrogate pair" if "truncated" in text else text
