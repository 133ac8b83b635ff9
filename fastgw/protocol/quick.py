"""The quick readers: a call of a tool or a request for a list as clients write it, and a tool's result as servers write
it, in one typed decode each.

A message is taken only where its length proves that it holds each of the members below at most once, nothing else and
no spaces: whatever decodes to these values is at least as long as its parts and the frame around them, so one that is
not longer has nothing more in it, no member twice, in another case or written with escapes. Everything else goes to the
careful readers (`envelope`, `results`), which agree with these: one set of vectors drives both.

The careful readers take about four times as long (`python -m bench micro`).
"""

from __future__ import annotations

from typing import Literal, final

import msgspec
from msgspec import Raw, Struct

from fastgw.protocol.envelope import check_utf8
from fastgw.protocol.names import TOOLS_CALL

MOST_OUTER = 256
"""Bytes of id and name together: no name that agents are shown is longer than 64, no id of clients half as long."""
LARGEST_META = 4096
"""Bytes of a `_meta` that is taken: what was read of it is remembered by these bytes."""
_NONE = Raw(b"")


class _Params(Struct, rename={"meta": "_meta"}):
    name: str = ""
    arguments: Raw = _NONE
    meta: Raw = _NONE


class _Request(Struct):
    jsonrpc: Literal["2.0"]
    id: Raw
    method: Literal["tools/call", "tools/list", "prompts/list", "resources/list", "resources/templates/list"]
    params: _Params | None = None


@final
class QuickResult(Struct, rename={"result_type": "resultType", "structured": "structuredContent", "meta": "_meta",
                                  "is_error": "isError"}):  # fmt: skip
    """A result of `tools/call`, all of it: members that are absent are None, empty or, `result_type`, "".

    `content`, `structured` and `meta` are JSON text.
    """

    content: Raw
    result_type: Literal["complete", ""] = ""
    structured: Raw = _NONE
    is_error: bool | None = None
    meta: Raw = _NONE

    def member(self, name: str) -> Raw:
        """The JSON text of one of those members in which a server says what a call used; empty where there is none."""
        return self.meta if name == "_meta" else self.structured if name == "structuredContent" else _NONE

    @property
    def text(self) -> bytes:
        """The result as JSON text, for the careful reader."""
        kind = b'{"resultType":"complete","content":' if self.result_type else b'{"content":'
        structured = (b',"structuredContent":', self.structured) if len(self.structured) else ()
        meta = (b',"_meta":', self.meta) if len(self.meta) else ()
        return b"".join((kind, self.content, *structured, IS_ERROR[self.is_error], *meta, b"}"))


class _Response(Struct):
    jsonrpc: Literal["2.0"]
    id: Raw
    result: QuickResult


QuickRequest = tuple[bytes, str, str, bytes, bytes]
"""A request, all of it: id (JSON text), method, name (lists have none), and as JSON text `arguments` and `_meta`, empty
where there is none.
"""

_read_request = msgspec.json.Decoder(_Request).decode
_read_response = msgspec.json.Decoder(_Response).decode
_OUTER, _PARAMS = len(b'{"jsonrpc":"2.0","id":,"method":""}'), len(b',"params":{}')
_NAME, _ARGUMENTS, _META = len(b'"name":""'), len(b',"arguments":'), len(b',"_meta":')
_REPLY = len(b'{"jsonrpc":"2.0","id":,"result":{"content":}}')
_TYPE, _STRUCTURED = len(b',"resultType":"complete"'), len(b',"structuredContent":')
IS_ERROR = {None: b"", True: b',"isError":true', False: b',"isError":false'}


def read_request(body: bytes) -> QuickRequest | None:
    """The request that is the whole body; None where this reader does not prove it."""
    try:
        found = _read_request(body)
        if not body.isascii():
            check_utf8(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    id, method, params = bytes(found.id), found.method, found.params
    name, arguments, meta, meta_size = "", b"", b"", 0
    outer = len(id)
    size = _OUTER + outer + len(method)
    if params is not None:
        name, arguments, meta = params.name, bytes(params.arguments), bytes(params.meta)
        size += _PARAMS
        if name:
            letters = len(name)
            outer += letters
            size += _NAME + letters
            if arguments:
                size += _ARGUMENTS + len(arguments)
        if meta:
            meta_size = len(meta)
            size += _META + meta_size - (not name)  # without a name before it, no comma
    if len(body) != size or not (id.isdigit() or id[:1] == b'"') or (arguments and arguments[:1] != b"{"):
        return None
    if outer > MOST_OUTER or meta_size > LARGEST_META or (method == TOOLS_CALL) is not (name != ""):
        return None
    return id, method, name, arguments, meta


def read_result(body: bytes, id: bytes) -> QuickResult | None:
    """The result in the response to our request `id`; None where this reader does not prove that it is one."""
    try:
        found = _read_response(body)
        if not body.isascii():
            check_utf8(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    result = found.result
    size = _REPLY + len(id) + len(result.content) + len(IS_ERROR[result.is_error])
    if result.result_type:
        size += _TYPE
    if structured := len(result.structured):
        size += _STRUCTURED + structured
    if meta := len(result.meta):
        size += _META + meta
        if meta > LARGEST_META:
            return None
    return result if len(body) == size and bytes(found.id) == id else None
