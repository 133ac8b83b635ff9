"""The dialect of callers without an MCP client: a path names the tool, the body is its arguments.

From here on it is a call as any other; its caller has no capabilities, and gets neither progress nor log messages.
"""

from __future__ import annotations

from urllib.parse import parse_qs, unquote_to_bytes

import msgspec
import orjson

from fastgw.catalog.elements import MODERN
from fastgw.errors import Fault, Kind
from fastgw.gateway.context import RequestContext
from fastgw.gateway.dialects.agent_sessions import AgentSessions
from fastgw.gateway.dialects.dialect import Dialect, ParsedRequest, RequestKind, error_data, require_object
from fastgw.protocol import envelope, headers, names, results
from fastgw.protocol.call import Call
from fastgw.protocol.envelope import NotJson
from fastgw.protocol.results import Result

VERSION = "rest"
"""What usage events say in place of a protocol revision: these callers speak none."""

_ID = b"null"
_MOST_FIELDS = 100
"""Of a query: more is nobody's cursor."""
_GONE = 499
"""A status of records, not of answers."""
_PRIVATE = (b"cache-control", b"private, no-cache")
"""Lists depend on who asks."""
_VALUE = msgspec.json.Decoder(msgspec.Raw).decode


class RestDialect(Dialect):
    """How such a caller is spoken to: the bare result, or what went wrong as one flat object."""

    streams = False
    leaving_cancels = True
    list_form = MODERN
    version = VERSION

    def result(self, result: Result, server_info: bytes) -> bytes:
        """Less what belongs to the protocol."""
        return results.bare(result)

    def status(self, fault: Fault) -> int:
        return fault.kind.rest if fault.kind.rest != _GONE else fault.kind.modern

    def refusal(self, fault: Fault, reply_to: bytes, request_id: str) -> bytes:
        return orjson.dumps({"error": fault.message, "code": fault.kind.code, **error_data(fault, request_id)})

    def reply(self, reply_to: bytes, result: bytes | tuple[bytes, ...]) -> bytes:
        return b"".join(result) if isinstance(result, tuple) else result

    def server_error(self, reply_to: bytes, error: bytes, request_id: str) -> bytes:
        """The server's `data` keeps to itself: it could say anything in our name."""
        found = envelope.members(error)
        shown = {"error": found["message"], "code": found["code"], "data": found.get("data", b"")}
        shown |= {"requestId": envelope.quote(request_id), "mayHaveRun": b"true"}
        return envelope.emit({name: value for name, value in shown.items() if value})

    def error_status(self, code: int) -> int:
        return 502


DIALECT = RestDialect()


class InvokeEntryPoint:
    """`POST <endpoint>/tools/<tool>/invoke`.

    Args:
        name: of the tool as it stands in the path, percent-encoded.
    """

    verb = "POST"
    dialect = DIALECT

    def __init__(self, name: bytes) -> None:
        self._name = unquote_to_bytes(name)

    def verbs(self, context: RequestContext) -> tuple[str, ...]:
        return (self.verb,)

    def brings_body(self, context: RequestContext) -> bool:
        """Without one the tool is called without arguments."""
        found = context.headers
        brings = b"transfer-encoding" in found or found.get(b"content-length", b"0") != b"0"
        kind = headers.media_type(found.get(b"content-type", b""))
        if brings and (b"content-type" in context.twice or kind != b"application/json"):
            raise Fault(Kind.BAD_MEDIA_TYPE)
        _accepts_json(context)
        return brings

    def recognise(self, context: RequestContext, body: bytes, agent_sessions: AgentSessions) -> ParsedRequest:
        """Raises a Fault: UNKNOWN_NAME where the name is no UTF-8; NOT_JSON, BAD_PARAMS."""
        context.method = names.TOOLS_CALL
        try:
            name = self._name.decode()
        except UnicodeDecodeError:
            shown = self._name[:128].decode(errors="replace")
            raise Fault(Kind.UNKNOWN_NAME, f"Unknown tool: {shown}", data={"name": shown}) from None
        call = Call(_ID, names.TOOLS_CALL, names.MODERN_VERSION, name)
        call.params = {"arguments": arguments(body)}
        return ParsedRequest(RequestKind.CALL, call, DIALECT)


class ToolsEntryPoint:
    """`GET <endpoint>/tools`, with `?cursor=` for a page after the first."""

    verb = "GET"
    dialect = DIALECT
    kind = RequestKind.LIST
    method = names.TOOLS_LIST

    def __init__(self, query: bytes) -> None:
        self._query = query

    def verbs(self, context: RequestContext) -> tuple[str, ...]:
        return (self.verb, "HEAD")

    def brings_body(self, context: RequestContext) -> bool:
        _accepts_json(context)
        return False

    def recognise(self, context: RequestContext, body: bytes, agent_sessions: AgentSessions) -> ParsedRequest:
        """Raises a Fault, BAD_PARAMS, for a query that is no cursor."""
        context.method = self.method
        call = Call(_ID, self.method, names.MODERN_VERSION, params=_cursor(self._query))
        return ParsedRequest(self.kind, call, DIALECT, [_PRIVATE])


class OpenApiEntryPoint(ToolsEntryPoint):
    """`GET <endpoint>/openapi.json`; the same tools, described for programs. It has no pages."""

    kind = RequestKind.DESCRIBE


def arguments(body: bytes) -> bytes:
    """The arguments of a tool, byte for byte; nothing stands for none.

    Raises:
        Fault: NOT_JSON; BAD_PARAMS for JSON that is no object.
    """
    if not body:
        return b"{}"
    try:
        if not body.isascii():
            envelope.check_utf8(body)
        value = bytes(_VALUE(body))
    except RecursionError:
        raise Fault(Kind.NOT_JSON, "Parse error: nested too deep") from None
    except (NotJson, msgspec.DecodeError) as wrong:
        raise Fault(Kind.NOT_JSON, f"Parse error: {wrong}") from None
    return require_object(value, "the body")


def _accepts_json(context: RequestContext) -> None:
    if not headers.accepts(context.headers.get(b"accept"), b"application/json"):
        raise Fault(Kind.NOT_ACCEPTABLE, "Accept must admit application/json.")


def _cursor(query: bytes) -> dict[str, bytes]:
    try:
        found = parse_qs(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise Fault(Kind.BAD_PARAMS, "Invalid params: the query is too long") from None
    cursors = found.get("cursor", [])
    if len(cursors) > 1:
        raise Fault(Kind.BAD_PARAMS, "Invalid params: more than one cursor")
    return {"cursor": envelope.quote(cursors[0])} if cursors else {}
