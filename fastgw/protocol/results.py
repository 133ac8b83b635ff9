"""A server's final answer on its way to an agent: what each era must and must not see.

`content`, `structuredContent` and all other members stay JSON text, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import inf

import msgspec

from fastgw.protocol import names
from fastgw.protocol.envelope import NotAMessage, NotJson, emit, members, string
from fastgw.protocol.links import is_handy

COMPLETE = "complete"
"""The `resultType` of a result that asks for nothing more."""
_RESULT = frozenset(("resultType", "_meta", "isError", "content", "structuredContent", "ttlMs", "cacheScope"))
_OPTIONAL = ("_meta", "isError", "resultType")
"""Null in place of these counts as left out, as with every client."""
_META = frozenset((names.META_SERVER,))
_MOST_DIGITS = 12
"""Of a `ttlMs`: some thirty years."""
_NO_LINKS = "2025-03-26"
"""The revision before structured content and resource links."""


class UnusableResult(ValueError):
    """The result breaks the protocol: it cannot be handed on."""


@dataclass(slots=True)
class Result:
    """A result taken apart: member to JSON text, `_meta` likewise."""

    members: dict[str, bytes]
    meta: dict[str, bytes]

    @property
    def is_error(self) -> bool:
        """Whether the tool itself says that it failed."""
        return self.members.get("isError") == b"true"

    @property
    def fresh(self) -> float:
        """Seconds for which its server lets it be kept for whom it was given to (2026-07-28, Base Protocol, Caching):
        infinite where it does not say, 0.0 where what it says cannot be understood.
        """
        ttl, scope = self.members.get("ttlMs", b"null"), self.members.get("cacheScope", b"null")
        if scope not in (b"null", b'"public"', b'"private"'):
            return 0.0
        if ttl == b"null":
            return inf
        return int(ttl) / 1000 if ttl.isdigit() and len(ttl) <= _MOST_DIGITS else 0.0

    @property
    def kind(self) -> str:
        """`resultType`; older revisions have only complete results. Raises UnusableResult: it is no string."""
        found = self.members.get("resultType")
        if found is None or found == b'"complete"':
            return COMPLETE
        try:
            return string(found, "resultType")
        except NotAMessage as wrong:
            raise UnusableResult(str(wrong)) from None


def read(text: bytes) -> Result:
    """Take a `result` apart. Raises UnusableResult: not an object, or a protocol member stands twice."""
    try:
        found = members(text, _RESULT)
        for name in _OPTIONAL:
            if found.get(name) == b"null":
                del found[name]
        meta = found.get("_meta")
        return Result(found, members(meta, _META) if meta is not None else {})
    except (NotJson, NotAMessage) as wrong:
        raise UnusableResult(str(wrong)) from None


def modern(result: Result, server_info: bytes) -> bytes:
    """The result for an agent of 2026-07-28: `resultType` always there, `serverInfo` ours."""
    found = result.members
    found.setdefault("resultType", b'"complete"')
    result.meta[names.META_SERVER] = server_info
    found["_meta"] = emit(result.meta)
    return emit(found)


def legacy(result: Result, version: str) -> bytes:
    """The result for an agent of an older revision: what its revision does not know is taken out.

    Structured content that is no object came with 2026-07-28; structured content itself and resource links came with
    2025-06-18. Servers repeat structured content as text, so nothing is lost to the model.
    """
    found = _stripped(result)
    structured = found.get("structuredContent")
    if structured is not None and (version <= _NO_LINKS or not structured.startswith(b"{")):
        del found["structuredContent"]
    if version <= _NO_LINKS:
        for name, change in (("content", _link_as_text), ("messages", _message_without_link)):
            if b"resource_link" in found.get(name, b""):
                found[name] = _each(found[name], change)
    return emit(found)


@lru_cache(maxsize=512)
def quick_metas(text: bytes, server_info: bytes) -> tuple[bytes, bytes]:
    """A result's `_meta` as agents of 2026-07-28 and as older ones get it: the latter empty where nothing is left. A
    server writes the same on every call.
    """
    try:
        meta = members(text, _META) if text not in (b"", b"null") else {}
    except (NotJson, NotAMessage) as wrong:
        raise UnusableResult(str(wrong)) from None
    ours = {name: value for name, value in meta.items() if not name.startswith(names.RESERVED)}
    return emit({**meta, names.META_SERVER: server_info}), emit(ours) if ours else b""


def bare(result: Result) -> bytes:
    """The result for who speaks no revision: nothing of the protocol in it."""
    return emit(_stripped(result))


def _stripped(result: Result) -> dict[str, bytes]:
    """The members of the result less those that belong to the protocol of 2026-07-28."""
    found = result.members
    for name in ("resultType", "ttlMs", "cacheScope"):
        found.pop(name, None)
    meta = {name: value for name, value in result.meta.items() if not name.startswith(names.RESERVED)}
    if meta:
        found["_meta"] = emit(meta)
    else:
        found.pop("_meta", None)
    return found


def keep_private(result: Result) -> None:
    """Say of a resource that was read how long it stays fresh, and that it is for this agent alone.

    Both are required of it (2026-07-28, Base Protocol, Caching); what one agent may read, another may not.
    """
    result.members.setdefault("ttlMs", b"0")
    result.members["cacheScope"] = b'"private"'


def _each(array: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The array with every item changed; what is no array byte for byte."""
    if not is_handy(array):
        return array
    try:
        items = msgspec.json.decode(array, type=list[msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return array
    return b"[" + b",".join(change(bytes(item)) for item in items) + b"]"


def _message_without_link(message: bytes) -> bytes:
    """A prompt's message, with its content as text where it is a `resource_link`."""
    found = _opened(message)
    if b"resource_link" not in found.get("content", b""):
        return message
    return emit({**found, "content": _link_as_text(found["content"])})


def _link_as_text(item: bytes) -> bytes:
    """A `resource_link` as text holding its URI; other content byte for byte."""
    found = _opened(item)
    if found.get("type") != b'"resource_link"' or "uri" not in found:
        return item
    return b'{"type":"text","text":' + found["uri"] + b"}"


def _opened(item: bytes) -> dict[str, bytes]:
    """The members of an item; none of what is no object."""
    try:
        return members(item)
    except (NotJson, NotAMessage):
        return {}
