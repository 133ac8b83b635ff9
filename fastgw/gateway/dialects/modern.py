"""The dialect of agents of 2026-07-28: every request says all about itself, and headers must agree with it."""

from __future__ import annotations

from functools import lru_cache

from fastgw.errors import Fault, Kind
from fastgw.gateway.context import RequestContext
from fastgw.gateway.dialects import dialect as reading
from fastgw.gateway.dialects.dialect import Dialect, OpenedMessage, ParsedRequest, RequestKind
from fastgw.protocol import headers, names, results, rounds
from fastgw.protocol.call import Call
from fastgw.protocol.envelope import NotAMessage, NotJson, members
from fastgw.protocol.quick import IS_ERROR, QuickRequest, QuickResult
from fastgw.protocol.results import Result

SUPPORTED = (names.MODERN_VERSION, *names.LEGACY_VERSIONS)
"""What `server/discover` names: the older revisions are served on the same endpoint by `initialize`."""

_KINDS = {**reading.KINDS, names.DISCOVER: RequestKind.DISCOVER}
_NAMED = {names.TOOLS_CALL: "name", names.PROMPTS_GET: "name", names.RESOURCES_READ: "uri"}
"""Which member `Mcp-Name` repeats, per method (2026-07-28, Standard Request Headers)."""

_VERSION = b'"%s"' % names.MODERN_VERSION.encode()
_ROUND = frozenset((rounds.RESPONSES, rounds.STATE))
_ROUTING = frozenset((headers.VERSION, headers.METHOD, headers.NAME))


class ModernDialect(Dialect):
    """How an agent of 2026-07-28 is spoken to."""

    leaving_cancels = True
    mirrors = True
    rounds = True
    list_form = "modern"
    version = names.MODERN_VERSION
    abolished_codes = frozenset((names.URL_ELICITATION, names.RESOURCE_NOT_FOUND))

    def result(self, result: Result, server_info: bytes) -> bytes:
        return results.modern(result, server_info)

    def quick_reply(self, reply_to: bytes, result: QuickResult, server_info: bytes) -> bytes | None:
        meta, _ = results.quick_metas(bytes(result.meta), server_info)
        structured = (b',"structuredContent":', result.structured) if len(result.structured) else ()
        start = b',"result":{"resultType":"complete","content":'
        is_error = IS_ERROR[result.is_error]
        parts = (b'{"jsonrpc":"2.0","id":', reply_to, start, result.content, *structured, is_error, b',"_meta":', meta)
        return b"".join((*parts, b"}}"))

    def list_tail(self, ttl_ms: int, server_info: bytes) -> bytes:
        """Lists depend on who asks, so no cache may share them (`cacheScope`)."""
        meta = b'{"%s":%s}' % (names.META_SERVER.encode(), server_info)
        return b',"resultType":"complete","ttlMs":%d,"cacheScope":"private","_meta":%s' % (ttl_ms, meta)

    def status(self, fault: Fault) -> int:
        return fault.kind.modern

    def error_status(self, code: int) -> int:
        """A missing capability is the agent's to declare, so the status says so, too (2026-07-28, Capabilities)."""
        return self.status(Fault(Kind.MISSING_CAPABILITY)) if code == names.MISSING_CAPABILITY else 200


DIALECT = ModernDialect()


def parse(context: RequestContext, opened: OpenedMessage) -> ParsedRequest:
    """The message as a `Call`. Raises a Fault: each check has its kind."""
    if opened.method is None:
        raise Fault(Kind.NOT_ONE_MESSAGE, "An agent sends requests and notifications only.")
    call = Call(opened.id, opened.method, names.MODERN_VERSION)
    if not call.id:
        return ParsedRequest(RequestKind.NOTHING, call, DIALECT)
    if context.twice & _ROUTING:
        raise Fault(Kind.HEADER_MISMATCH, "A routing header came twice.")
    if names.META_VERSION not in opened.meta:
        refuse_unknown(context)
    version = reading.require_string(opened.meta.get(names.META_VERSION), names.META_VERSION)
    call.capabilities = reading.require_object(opened.meta.get(names.META_CAPABILITIES), names.META_CAPABILITIES)
    _compare_headers(context, opened, version)
    if version != names.MODERN_VERSION:
        raise unsupported(version)
    kind = _KINDS.get(call.method)
    if kind is None:
        raise Fault(Kind.UNKNOWN_METHOD)
    call.passed = headers.passable(context.headers)
    return ParsedRequest(kind, _fill(call, opened), DIALECT)


def quick(context: RequestContext, found: QuickRequest) -> ParsedRequest | None:
    """As `parse`, for what the quick reader took; None where anything is to be looked at with care.

    An agent's `_meta` is the same bytes in every call, so what it says is remembered.
    """
    id, method, name, arguments, meta = found
    like, fields = _call_template(meta), context.headers
    if (
        like is None
        or fields.get(headers.METHOD) != (b"tools/call" if name else method.encode())
        or b"mcp-param-" in b"\n".join(fields)
    ):
        return None
    if name and fields.get(headers.NAME) != _name_header(name):
        return None
    context.reply_to, context.method = id, method
    params = {"arguments": arguments} if arguments else {}
    call = Call(
        id, method, names.MODERN_VERSION, name or None, params, like.meta, None, like.log_level, like.capabilities,
        like.client, None, (), like.log_level_set, like.offered if name else b"{}",
    )  # fmt: skip
    return ParsedRequest(RequestKind.CALL if name else RequestKind.LIST, call, DIALECT)


_name_header = lru_cache(maxsize=4096)(headers.encode_name)


@lru_cache(maxsize=1024)
def _call_template(meta: bytes) -> Call | None:
    """A call with this `_meta`; None where it is not of this revision, is refused, or differs from call to call."""
    try:
        opened = OpenedMessage(names.TOOLS_CALL, b"0", {"name": b'""'}, members(meta, reading.META))
        if opened.meta.get(names.META_VERSION) != _VERSION or "progressToken" in opened.meta:
            return None
        call = Call(b"0", names.TOOLS_CALL, names.MODERN_VERSION)
        call.capabilities = reading.require_object(opened.meta.get(names.META_CAPABILITIES), names.META_CAPABILITIES)
        return _fill(call, opened)
    except (Fault, NotAMessage, NotJson):
        return None


def _fill(call: Call, opened: OpenedMessage) -> Call:
    call.client = opened.meta.get(names.META_CLIENT)
    level = opened.meta.get(names.META_LOG_LEVEL)
    if level is not None:
        call.log_level, call.log_level_set = reading.require_log_level(level, names.META_LOG_LEVEL), 1
    reading.fill_call(call, opened)
    if call.method in rounds.METHODS:
        if call.capabilities != b"{}":
            _read_offered(call)
        if not _ROUND.isdisjoint(opened.params):
            _read_round(call, opened.params)
    return call


def unsupported(version: str) -> Fault:
    """The refusal of a revision, naming those that are served."""
    asked = version[:64]
    words = f"Unsupported protocol version: {asked}. Served here: {', '.join(SUPPORTED)}."
    return Fault(Kind.UNSUPPORTED_VERSION, words, data={"supported": list(SUPPORTED), "requested": asked})


def refuse_unknown(context: RequestContext) -> None:
    """Refuse a request whose header names a revision that is not served. Raises a Fault: UNSUPPORTED_VERSION."""
    named = _plain(context.headers.get(headers.VERSION))
    if named is not None and named not in SUPPORTED:
        raise unsupported(named)


def _compare_headers(context: RequestContext, opened: OpenedMessage, version: str) -> None:
    """Headers repeat the body for those who route without reading it; a lie would route past our checks."""
    method, found = opened.method or "", context.headers
    _must_equal(_plain(found.get(headers.VERSION)), version, "MCP-Protocol-Version")
    _must_equal(_plain(found.get(headers.METHOD)), method, "Mcp-Method")
    if method in _NAMED:
        named, source = found.get(headers.NAME), _NAMED[method]
        try:
            name = None if named is None else headers.decode_name(named)
        except ValueError:
            raise Fault(Kind.HEADER_MISMATCH, "The header Mcp-Name cannot be decoded.") from None
        _must_equal(name, reading.require_string(opened.params.get(source), source), "Mcp-Name")


def _plain(header: bytes | None) -> str | None:
    return None if header is None else header.strip(b" \t").decode("latin-1")


def _must_equal(header: str | None, value: str, name: str) -> None:
    if header is None:
        raise Fault(Kind.HEADER_MISMATCH, f"The header {name} is missing.")
    if header != value:
        raise Fault(Kind.HEADER_MISMATCH, f"The header {name} does not match the body.")


def _read_offered(call: Call) -> None:
    """What a server may ask this agent in the middle of the call."""
    try:
        call.offered = rounds.offered(call.capabilities)
    except (NotAMessage, NotJson) as wrong:
        raise Fault(Kind.BAD_PARAMS, f"Invalid params: {names.META_CAPABILITIES}: {wrong}") from None


def _read_round(call: Call, params: dict[str, bytes]) -> None:
    """What the agent brings of an earlier round."""
    responses, state = params.get(rounds.RESPONSES), params.get(rounds.STATE)
    if responses is not None:
        call.params[rounds.RESPONSES] = reading.require_object(responses, rounds.RESPONSES)
    if state is not None:
        reading.require_string(state, rounds.STATE)
        call.request_state = state
