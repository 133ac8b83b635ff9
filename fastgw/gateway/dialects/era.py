"""Which era a request speaks, settled once, here."""

from __future__ import annotations

from fastgw.errors import Fault, Kind
from fastgw.gateway.context import RequestContext
from fastgw.gateway.dialects import legacy, modern, reading
from fastgw.gateway.dialects.agent_sessions import AgentSessions
from fastgw.gateway.dialects.dialect import Dialect, ParsedRequest, RefusedMessage
from fastgw.gateway.dialects.reading import OpenedParams
from fastgw.protocol import headers, names

_LEGACY = frozenset(version.encode() for version in names.LEGACY_VERSIONS)


class MessageEntryPoint:
    """The endpoint's own path: JSON-RPC messages of every revision."""

    verb = "POST"
    dialect: Dialect = modern.DIALECT

    def verbs(self, context: RequestContext) -> tuple[str, ...]:
        """Sessions are ended by DELETE."""
        return ("POST", "DELETE") if speaks_sessions(context) else ("POST",)

    def brings_body(self, context: RequestContext) -> bool:
        found = context.headers
        kind = headers.media_type(found.get(b"content-type", b""))
        if b"content-type" in context.twice or kind != b"application/json":
            raise Fault(Kind.BAD_MEDIA_TYPE)
        if not headers.accepts(found.get(b"accept"), b"application/json"):
            raise Fault(Kind.NOT_ACCEPTABLE)
        return True

    def parse(
        self, context: RequestContext, body: bytes, agent_sessions: AgentSessions
    ) -> ParsedRequest | list[ParsedRequest | RefusedMessage]:
        return parse(context, body, agent_sessions)


MESSAGES = MessageEntryPoint()


def parse(
    context: RequestContext, body: bytes, agent_sessions: AgentSessions
) -> ParsedRequest | list[ParsedRequest | RefusedMessage]:
    """What the body asks for: one message, or a batch as a list, each of its messages understood or refused by itself.

    Raises:
        Fault: the body as a whole is refused; `context.reply_to` is the id to answer.
    """
    if reading.is_batch(body):
        return _batch(context, body, agent_sessions)
    context.dialect = legacy.dialect_of(context) if speaks_sessions(context) else modern.DIALECT
    opened = _opened(context, body)
    if names.META_VERSION in opened.meta:
        wants_session = speaks_sessions(context) and not context.bare
    else:
        # What is asked for in `initialize` counts, not what header goes along with it.
        wants_session = opened.message.method == names.INITIALIZE or speaks_sessions(context)
    if wants_session:
        return legacy.parse(context, opened, agent_sessions)
    context.dialect = modern.DIALECT
    return modern.parse(context, opened)


def speaks_sessions(context: RequestContext) -> bool:
    """Whether the headers are those of a revision that has sessions: it is named, or none is (before 2025-06-18).

    Two that are named are none of them: the ladder of 2026-07-28 refuses a routing header that came twice.
    """
    return context.bare or (headers.VERSION not in context.twice and context.headers[headers.VERSION] in _LEGACY)


def _opened(context: RequestContext, body: bytes) -> OpenedParams:
    message = reading.message(body)
    context.reply_to = reading.request_id(message) or b"null"
    context.method = message.method or ""
    return reading.opened(message)


def _batch(context: RequestContext, body: bytes, agent_sessions: AgentSessions) -> list[ParsedRequest | RefusedMessage]:
    items = reading.elements(body)
    if not legacy.takes_batches(context, agent_sessions):
        modern.refuse_unknown(context)
        raise Fault(Kind.NOT_ONE_MESSAGE, "Batches are not part of this protocol revision.")
    return [_element(context, item, agent_sessions) for item in items]


def _element(context: RequestContext, item: bytes, agent_sessions: AgentSessions) -> ParsedRequest | RefusedMessage:
    context.reply_to, context.method = b"null", ""
    try:
        opened = _opened(context, item)
        if opened.message.method == names.INITIALIZE:
            raise Fault(Kind.INVALID_REQUEST, "initialize must not be part of a batch.")
        found = legacy.parse(context, opened, agent_sessions)
    except Fault as fault:
        return RefusedMessage(context.reply_to, fault, context.method, len(item))
    found.size = len(item)
    return found
