"""Which endpoint and entry point a path leads to, and which era a message speaks: settled once, here.

A path is taken apart as it was sent and decoded once, each part by itself: an encoded slash belongs to a name and
parts nothing. An endpoint's own path wins over what another one has below its own; of two that fit, the longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from fastgw.errors import Fault, Kind
from fastgw.gateway.context import RequestContext
from fastgw.gateway.dialects import dialect as reading
from fastgw.gateway.dialects import legacy, modern, rest
from fastgw.gateway.dialects.agent_sessions import AgentSessions
from fastgw.gateway.dialects.dialect import Dialect, OpenedMessage, ParsedRequest, RequestKind
from fastgw.protocol import headers, names
from fastgw.protocol.call import Call
from fastgw.protocol.quick import read_request
from fastgw.snapshot.model import Endpoint

_LEGACY = frozenset(version.encode() for version in names.LEGACY_VERSIONS)
_MODERN = names.MODERN_VERSION.encode()
_TOOLS, _INVOKE = "tools/", "/invoke"
_LOGIN = ("/.well-known/oauth-", "/.well-known/openid-configuration", "/register", "/authorize", "/token")
"""Where clients whose key was refused go next: they show their user the answer."""
_LOGIN_ELSEWHERE = "There is no login here: /.well-known/oauth-protected-resource/<endpoint> says where it is."
_NO_LOGIN = "There is no login here: fastgw takes a key, Authorization: Bearer <key>. If one was sent, it is wrong."


class MessageEntryPoint:
    """The endpoint's own path: JSON-RPC messages of every revision."""

    verb = "POST"
    dialect: Dialect = modern.DIALECT

    def verbs(self, context: RequestContext) -> tuple[str, ...]:
        """Sessions are ended by DELETE."""
        return ("POST", "DELETE") if _speaks_sessions(context) else ("POST",)

    def brings_body(self, context: RequestContext) -> bool:
        found = context.headers
        kind = found.get(b"content-type", b"")
        is_json = kind == b"application/json" or headers.media_type(kind) == b"application/json"
        if not is_json or b"content-type" in context.twice:
            raise Fault(Kind.BAD_MEDIA_TYPE)
        if not headers.accepts(found.get(b"accept"), b"application/json"):
            raise Fault(Kind.NOT_ACCEPTABLE)
        return True

    def recognise(
        self, context: RequestContext, body: bytes, agent_sessions: AgentSessions
    ) -> ParsedRequest | list[ParsedRequest]:
        """What the body asks for: one message, or a batch, each of its messages understood or refused by itself.

        Raises:
            Fault: the body as a whole is refused; `context.reply_to` is the id to answer.
        """
        found = quick(context, body, agent_sessions)
        if found is not None:
            return found
        if body.lstrip(b" \t\r\n")[:1] == b"[":
            return _batch(context, body, agent_sessions)
        wants_session = _speaks_sessions(context)
        context.dialect = legacy.dialect_of(context) if wants_session else modern.DIALECT
        opened = _opened(context, body)
        if names.META_VERSION in opened.meta:
            wants_session = wants_session and headers.VERSION in context.headers
        elif opened.method == names.INITIALIZE:  # what is asked for in it counts, not what header goes along with it
            wants_session = True
        if wants_session:
            return legacy.parse(context, opened, agent_sessions)
        context.dialect = modern.DIALECT
        return modern.parse(context, opened)


MESSAGES = MessageEntryPoint()
METADATA = MessageEntryPoint()
"""Where clients of OAuth read about an endpoint; `protected_resource` answers, whoever asks."""
EntryPoint = MessageEntryPoint | rest.InvokeEntryPoint | rest.ToolsEntryPoint
"""One way into an endpoint: which HTTP methods it takes, whether it brings a body, what that becomes."""


def find(endpoints: Mapping[str, Endpoint], scope: Mapping[str, Any]) -> tuple[Endpoint | None, EntryPoint]:
    """For a path that is not plainly an endpoint's own: look there first, it costs nothing.

    Args:
        endpoints: by path.
        scope: ASGI's, with `path`, `raw_path` and `query_string`.
    """
    sent = scope.get("raw_path")
    path = sent.decode("latin-1") if sent is not None else quote(scope["path"])
    best: tuple[Endpoint | None, EntryPoint] = None, MESSAGES
    longest = 0
    for endpoint in endpoints.values():
        if len(endpoint.path) > longest:
            entry_point = _entry_point(path, endpoint.path, scope)
            if entry_point is not None:
                best, longest = (endpoint, entry_point), len(endpoint.path)
    return best


def _entry_point(path: str, own: str, scope: Mapping[str, Any]) -> EntryPoint | None:
    """The one that a path means at the endpoint whose own path is `own`; None for none."""
    count = own.count("/") + 1
    parts = path.split("/", count)
    if [unquote(part) for part in parts[:count]] != own.split("/"):
        return None
    below = parts[count] if len(parts) > count else ""
    if not below:  # or one slash at the end: many clients write it
        return MESSAGES
    if below == "tools":
        return rest.ToolsEntryPoint(scope.get("query_string", b""))
    if below == "openapi.json":
        return rest.OpenApiEntryPoint(b"")
    if below.startswith(_TOOLS) and below.endswith(_INVOKE) and len(below) >= len(_TOOLS) + len(_INVOKE):
        return rest.InvokeEntryPoint(below[len(_TOOLS) : -len(_INVOKE)].encode("latin-1"))
    return None


def no_endpoint(path: str, endpoints: Mapping[str, Endpoint]) -> Fault:
    """The refusal of a path that leads nowhere."""
    login = path.startswith(_LOGIN) or path.endswith("/.well-known/openid-configuration")
    elsewhere = any(endpoint.issuers for endpoint in endpoints.values())
    return Fault(Kind.NO_ENDPOINT, (_LOGIN_ELSEWHERE if elsewhere else _NO_LOGIN) if login else "")


def _speaks_sessions(context: RequestContext) -> bool:
    """Whether the headers are those of a revision that has sessions: it is named, or none is (before 2025-06-18).

    Two that are named are none of them: the checks of 2026-07-28 refuse a routing header that came twice.
    """
    named = context.headers.get(headers.VERSION)
    return named is None or (named in _LEGACY and headers.VERSION not in context.twice)


def quick(context: RequestContext, body: bytes, agent_sessions: AgentSessions) -> ParsedRequest | None:
    """A call of a tool, or a request for a list, in the usual shape; None for whatever is to be read with care."""
    found = read_request(body) if not context.twice else None
    if found is None:
        return None
    version = context.headers.get(headers.VERSION)
    if version == _MODERN:
        return modern.quick(context, found)
    return legacy.quick(context, found, agent_sessions) if version in _LEGACY else None


def _opened(context: RequestContext, body: bytes) -> OpenedMessage:
    message = reading.read_message(body)
    identity = reading.request_id(message)
    context.reply_to, context.method = identity or b"null", message.method or ""
    return reading.open_message(message, identity)


def _batch(context: RequestContext, body: bytes, agent_sessions: AgentSessions) -> list[ParsedRequest]:
    items = reading.batch_messages(body)
    if not legacy.takes_batches(context, agent_sessions):
        modern.refuse_unknown(context)
        raise Fault(Kind.NOT_ONE_MESSAGE, "Batches are not part of this protocol revision.")
    return [_of_batch(context, item, agent_sessions) for item in items]


def _of_batch(context: RequestContext, item: bytes, agent_sessions: AgentSessions) -> ParsedRequest:
    context.reply_to, context.method = b"null", ""
    try:
        opened = _opened(context, item)
        if opened.method == names.INITIALIZE:
            raise Fault(Kind.INVALID_REQUEST, "initialize must not be part of a batch.")
        found = legacy.parse(context, opened, agent_sessions)
    except Fault as fault:
        call = Call(context.reply_to, context.method, names.ASSUMED_VERSION)
        found = ParsedRequest(RequestKind.REFUSED, call, context.dialect, fault=fault)
    found.size = len(item)
    return found
