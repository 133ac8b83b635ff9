"""The dialect of agents of 2025-03-26 to 2025-11-25: what a message lacks, its session supplies."""

from __future__ import annotations

from fastgw.errors import Fault, Kind
from fastgw.gateway.context import RequestContext
from fastgw.gateway.dialects import dialect as reading
from fastgw.gateway.dialects.agent_sessions import AgentSessions, Session
from fastgw.gateway.dialects.dialect import Dialect, OpenedMessage, ParsedRequest, RequestKind
from fastgw.protocol import envelope, headers, names, results
from fastgw.protocol.call import Call
from fastgw.protocol.quick import IS_ERROR, QuickRequest, QuickResult
from fastgw.protocol.results import Result

_KINDS = {**reading.KINDS, names.PING: RequestKind.PING, names.SET_LEVEL: RequestKind.LEVEL}
_ASSUMED = names.ASSUMED_VERSION.encode()


class LegacyDialect(Dialect):
    """How an agent of one of the older revisions is spoken to."""

    def __init__(self, version: str) -> None:
        self.list_form = self.version = version

    def result(self, result: Result, server_info: bytes) -> bytes:
        return results.legacy(result, self.list_form)

    def quick_reply(self, reply_to: bytes, result: QuickResult, server_info: bytes) -> bytes | None:
        structured = (b',"structuredContent":', result.structured) if len(result.structured) else ()
        if self.version == names.ASSUMED_VERSION or (structured and bytes(result.structured)[:1] != b"{"):
            return None
        meta = results.quick_metas(bytes(result.meta), server_info)[1] if len(result.meta) else b""
        ours = (b',"_meta":', meta) if meta else ()
        start = (b'{"jsonrpc":"2.0","id":', reply_to, b',"result":{"content":', result.content)
        return b"".join((*start, *structured, IS_ERROR[result.is_error], *ours, b"}}"))

    def status(self, fault: Fault) -> int:
        """200 for whatever answers a request, since these SDKs end a session on 4xx and 5xx."""
        return fault.kind.legacy

    def code(self, fault: Fault) -> int:
        """Resources had a code of their own (2025-11-25, Resources, Error Handling)."""
        return names.RESOURCE_NOT_FOUND if fault.kind is Kind.UNKNOWN_RESOURCE else fault.kind.code


DIALECTS = {version: LegacyDialect(version) for version in names.LEGACY_VERSIONS}


def dialect_of(context: RequestContext) -> LegacyDialect:
    """The dialect by the headers alone, for what is refused before its session is known."""
    return DIALECTS[context.headers.get(headers.VERSION, _ASSUMED).decode("latin-1")]


def parse(context: RequestContext, opened: OpenedMessage, agent_sessions: AgentSessions) -> ParsedRequest:
    """The message as a `Call`.

    Raises:
        Fault: SESSION_UNKNOWN, NOT_ONE_MESSAGE (no session named), UNKNOWN_METHOD, BAD_PARAMS.
    """
    if opened.method == names.INITIALIZE:
        return _initialize(context, opened, agent_sessions)
    session = session_of(context, agent_sessions)
    context.dialect = dialect = DIALECTS[session.version]
    call = Call(opened.id, opened.method or "", session.version, session=session.id)
    if not call.id:
        return _notification(call, opened, dialect)
    kind = _KINDS.get(call.method)
    if kind is None:
        raise Fault(Kind.UNKNOWN_METHOD)
    call.capabilities = session.capabilities.encode()
    call.client = session.client.encode()
    if kind is RequestKind.LEVEL:
        call.log_level = reading.require_log_level(opened.params.get("level"), "level")
    else:
        call.log_level, call.log_level_set = agent_sessions.level(session.id)
    return ParsedRequest(kind, reading.fill_call(call, opened), dialect)


def quick(context: RequestContext, found: QuickRequest, agent_sessions: AgentSessions) -> ParsedRequest | None:
    """As `parse`, for what the quick reader took; None where anything is to be looked at with care."""
    id, method, name, arguments, meta = found
    token = context.headers.get(headers.SESSION)
    if meta or token is None:
        return None
    session = agent_sessions.session(token.decode("latin-1"), context.principal.agent, context.endpoint.path)
    if session is None:
        return None
    context.reply_to, context.method = id, method
    level, times = agent_sessions.level(session.id)
    params = {"arguments": arguments} if arguments else {}
    call = Call(
        id, method, session.version, name or None, params, {}, None, level, session.capabilities.encode(),
        session.client.encode(), session.id, (), times,
    )  # fmt: skip
    return ParsedRequest(RequestKind.CALL if name else RequestKind.LIST, call, DIALECTS[session.version])


def session_of(context: RequestContext, agent_sessions: AgentSessions) -> Session:
    """The session that a request names.

    Raises:
        Fault: NOT_ONE_MESSAGE without an id; SESSION_UNKNOWN where it is foreign, altered, expired or ended.
    """
    token = context.headers.get(headers.SESSION)
    if token is None or headers.SESSION in context.twice:
        raise Fault(Kind.NOT_ONE_MESSAGE, "Exactly one Mcp-Session-Id header is needed; initialize first.")
    session = agent_sessions.session(token.decode("latin-1"), context.principal.agent, context.endpoint.path)
    if session is None:
        raise Fault(Kind.SESSION_UNKNOWN)
    return session


def takes_batches(context: RequestContext, agent_sessions: AgentSessions) -> bool:
    """Batches exist in 2025-03-26 alone."""
    return (
        context.headers.get(headers.VERSION, _ASSUMED) == _ASSUMED
        and headers.SESSION in context.headers
        and session_of(context, agent_sessions).version == names.ASSUMED_VERSION
    )


def _initialize(context: RequestContext, opened: OpenedMessage, agent_sessions: AgentSessions) -> ParsedRequest:
    """Open a session. A second `initialize` opens a second session; the first stays what it is.

    Its revision is the newest that is not newer than the one asked for, so that an agent may know it.
    """
    call = Call(opened.id, names.INITIALIZE, names.NEWEST_LEGACY)
    context.dialect = DIALECTS[names.NEWEST_LEGACY]
    if not call.id:
        raise Fault(Kind.NOT_ONE_MESSAGE, "initialize must be a request.")
    asked = reading.require_string(opened.params.get("protocolVersion"), "protocolVersion")
    call.capabilities = reading.require_object(opened.params.get("capabilities"), "capabilities")
    call.client = reading.require_object(opened.params.get("clientInfo"), "clientInfo")
    call.version = next((one for one in names.LEGACY_VERSIONS if one <= asked), names.LEGACY_VERSIONS[-1])
    token = agent_sessions.begin(call, context.principal.agent, context.endpoint.path)
    return ParsedRequest(RequestKind.INITIALIZE, call, DIALECTS[call.version], [(headers.SESSION, token.encode())])


def _notification(call: Call, opened: OpenedMessage, dialect: LegacyDialect) -> ParsedRequest:
    """Or the answer to a request of a server; none is outstanding, so there is nobody to give it to."""
    request = opened.params.get("requestId")
    if call.method == names.CANCELLED and request is not None and envelope.is_id(request):
        call.id = request
        return ParsedRequest(RequestKind.CANCEL, call, dialect)
    return ParsedRequest(RequestKind.NOTHING, call, dialect)
