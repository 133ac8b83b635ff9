"""The dialect of agents of 2026-07-28: every request says all about itself, and headers must agree with it."""

from __future__ import annotations

from fastgw.errors import Fault, Kind
from fastgw.gateway.context import RequestContext
from fastgw.gateway.dialects import reading
from fastgw.gateway.dialects.dialect import JsonRpc, ParsedRequest, RequestKind, ShownPage, page_json
from fastgw.gateway.dialects.reading import OpenedParams
from fastgw.protocol import headers, names, params, results, rounds
from fastgw.protocol.call import Call
from fastgw.protocol.envelope import NotAMessage, NotJson
from fastgw.protocol.results import Result

SUPPORTED = (names.MODERN_VERSION, *names.LEGACY_VERSIONS)
"""What `server/discover` names: the older revisions are served on the same endpoint by `initialize`."""

_KINDS = {**reading.KINDS, names.DISCOVER: RequestKind.DISCOVER}
_NAMED = {names.TOOLS_CALL: "name", names.PROMPTS_GET: "name", names.RESOURCES_READ: "uri"}
"""Which member `Mcp-Name` repeats, per method (2026-07-28, Standard Request Headers)."""

_BROUGHT = frozenset((rounds.RESPONSES, rounds.STATE))
_ROUTING = frozenset((headers.VERSION, headers.METHOD, headers.NAME))


class ModernDialect(JsonRpc):
    """How an agent of 2026-07-28 is spoken to."""

    leaving_cancels = True
    mirrors = True
    rounds = True
    list_form = "modern"
    version = names.MODERN_VERSION
    unheard = frozenset((names.URL_ELICITATION, names.RESOURCE_NOT_FOUND))

    def result(self, result: Result, server_info: bytes) -> bytes:
        return results.modern(result, server_info)

    def page(self, shown: ShownPage, server_info: bytes) -> tuple[bytes, ...]:
        """Lists depend on who asks, so no cache may share them (`cacheScope`)."""
        rest = b',"resultType":"complete","ttlMs":%d,"cacheScope":"private","_meta":{"%s":%s}' % (
            shown.ttl_ms,
            names.META_SERVER.encode(),
            server_info,
        )
        return page_json(shown, rest)

    def status(self, fault: Fault) -> int:
        return fault.kind.modern

    def failed(self, code: int) -> int:
        """A missing capability is the agent's to declare, so it is told by status too
        (2026-07-28, Capabilities).
        """
        return self.status(Fault(Kind.MISSING_CAPABILITY)) if code == names.MISSING_CAPABILITY else 200


DIALECT = ModernDialect()


def parse(context: RequestContext, opened: OpenedParams) -> ParsedRequest:
    """The message as a `Call`.

    Raises:
        Fault: each rung of the ladder has its kind.
    """
    message = opened.message
    if message.method is None:
        raise Fault(Kind.NOT_ONE_MESSAGE, "An agent sends requests and notifications only.")
    call = Call(reading.request_id(message), message.method, names.MODERN_VERSION)
    if not call.id:
        return ParsedRequest(RequestKind.NOTHING, call, DIALECT)
    if context.twice & _ROUTING:
        raise Fault(Kind.HEADER_MISMATCH, "A routing header came twice.")
    if names.META_VERSION not in opened.meta:
        refuse_unknown(context)
    version = reading.text(opened.meta.get(names.META_VERSION), names.META_VERSION)
    call.capabilities = reading.an_object(opened.meta.get(names.META_CAPABILITIES), names.META_CAPABILITIES)
    _mirror(context, opened, version)
    if version != names.MODERN_VERSION:
        raise unsupported(version)
    kind = _KINDS.get(call.method)
    if kind is None:
        raise Fault(Kind.UNKNOWN_METHOD)
    call.passed = params.passable(context.headers)
    call.client = opened.meta.get(names.META_CLIENT)
    level = opened.meta.get(names.META_LOG_LEVEL)
    if level is not None:
        call.log_level, call.log_level_set = reading.log_level(level, names.META_LOG_LEVEL), 1
    reading.fill(call, opened)
    if call.method in rounds.METHODS:
        if call.capabilities != b"{}":
            _offer(call)
        if not _BROUGHT.isdisjoint(opened.params):
            _bring(call, opened.params)
    return ParsedRequest(kind, call, DIALECT)


def unsupported(version: str) -> Fault:
    """The refusal of a revision, naming those that are served."""
    asked = version[:64]
    words = f"Unsupported protocol version: {asked}. Served here: {', '.join(SUPPORTED)}."
    return Fault(Kind.UNSUPPORTED_VERSION, words, data={"supported": list(SUPPORTED), "requested": asked})


def refuse_unknown(context: RequestContext) -> None:
    """Refuse a request whose header names a revision that is not served.

    Raises:
        Fault: UNSUPPORTED_VERSION.
    """
    named = _plain(context.headers.get(headers.VERSION))
    if named is not None and named not in SUPPORTED:
        raise unsupported(named)


def _mirror(context: RequestContext, opened: OpenedParams, version: str) -> None:
    """Headers repeat the body for those who route without reading it; a lie would route past our checks."""
    method = opened.message.method or ""
    found = context.headers
    _same(_plain(found.get(headers.VERSION)), version, "MCP-Protocol-Version")
    _same(_plain(found.get(headers.METHOD)), method, "Mcp-Method")
    if method in _NAMED:
        source = _NAMED[method]
        _same(_name(found.get(headers.NAME)), reading.text(opened.params.get(source), source), "Mcp-Name")


def _plain(header: bytes | None) -> str | None:
    return None if header is None else header.strip(b" \t").decode("latin-1")


def _name(header: bytes | None) -> str | None:
    try:
        return None if header is None else params.decode_name(header.strip(b" \t"))
    except ValueError:
        raise Fault(Kind.HEADER_MISMATCH, "The header Mcp-Name cannot be decoded.") from None


def _same(said: str | None, value: str, name: str) -> None:
    if said is None:
        raise Fault(Kind.HEADER_MISMATCH, f"The header {name} is missing.")
    if said != value:
        raise Fault(Kind.HEADER_MISMATCH, f"The header {name} does not match the body.")


def _offer(call: Call) -> None:
    """What a server may ask this agent in the middle of the call."""
    try:
        call.offered = rounds.offered(call.capabilities)
    except (NotAMessage, NotJson) as wrong:
        raise Fault(Kind.BAD_PARAMS, f"Invalid params: {names.META_CAPABILITIES}: {wrong}") from None


def _bring(call: Call, params: dict[str, bytes]) -> None:
    """What the agent brings of an earlier round."""
    responses, state = params.get(rounds.RESPONSES), params.get(rounds.STATE)
    if responses is not None:
        call.params[rounds.RESPONSES] = reading.an_object(responses, rounds.RESPONSES)
    if state is not None:
        reading.text(state, rounds.STATE)
        call.request_state = state
