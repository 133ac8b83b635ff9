"""A server's final answer on its way to an agent: what each era must and must not see.

Knows: which members of a result belong to the protocol (2026-07-28, Base Protocol, Results).
Refuses to know: the payload. `content`, `structuredContent` and all other members stay JSON text, byte for byte.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from fastgw.mcp import names
from fastgw.mcp.envelope import NotAMessage, NotJson, emit, members

_RESULT = frozenset(("resultType", "_meta", "isError", "content", "structuredContent", "ttlMs", "cacheScope"))
_META = frozenset((names.META_SERVER,))
_NO_LINKS = "2025-03-26"
"""The revision before structured content and resource links."""


class Unusable(ValueError):
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
    def kind(self) -> bytes:
        """`resultType` as JSON text; a server of an older revision has only complete results."""
        return self.members.get("resultType", b'"complete"')


def read(text: bytes) -> Result:
    """Take a `result` apart.

    Raises:
        Unusable: not an object, or a protocol member stands twice.
    """
    try:
        found = members(text, _RESULT)
        meta = found.get("_meta")
        return Result(found, members(meta, _META) if meta is not None else {})
    except (NotJson, NotAMessage) as wrong:
        raise Unusable(str(wrong)) from None


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
    found = result.members
    for name in ("resultType", "ttlMs", "cacheScope"):
        found.pop(name, None)
    meta = {name: value for name, value in result.meta.items() if not name.startswith(names.RESERVED)}
    if meta:
        found["_meta"] = emit(meta)
    else:
        found.pop("_meta", None)
    structured = found.get("structuredContent")
    if structured is not None and (version <= _NO_LINKS or not structured.startswith(b"{")):
        del found["structuredContent"]
    if version <= _NO_LINKS and b"resource_link" in found.get("content", b""):
        found["content"] = _links_as_text(found["content"])
    return emit(found)


def _links_as_text(content: bytes) -> bytes:
    """The content array with every `resource_link` as text holding its URI; other items byte for byte."""
    try:
        items = msgspec.json.decode(content, type=list[msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return content
    return b"[" + b",".join(_link_as_text(bytes(item)) for item in items) + b"]"


def _link_as_text(item: bytes) -> bytes:
    try:
        found = members(item)
    except (NotJson, NotAMessage):
        return item
    if found.get("type") != b'"resource_link"' or "uri" not in found:
        return item
    return b'{"type":"text","text":' + found["uri"] + b"}"
