"""A call on its way to a server of an older revision: inside a session that was opened for it."""

from __future__ import annotations

from functools import lru_cache

from fastgw.catalog.route import Target
from fastgw.errors import Fault, Kind
from fastgw.protocol import names, rounds
from fastgw.protocol.call import Call
from fastgw.protocol.envelope import NotAMessage, NotJson, emit, quote
from fastgw.upstream.controller import UpstreamSession
from fastgw.upstream.modern import ARGUMENTS, message, renamed, tool_call

_FIXED = (
    b"content-type: application/json\r\naccept: application/json, text/event-stream\r\naccept-encoding: identity\r\n"
)
_STREAM = b"accept: text/event-stream\r\naccept-encoding: identity\r\n"
_NO_VERSION_HEADER = "2025-03-26"  # up to this revision no header names the version (2025-06-18 brought it)
_UNKNOWN = frozenset((rounds.RESPONSES, rounds.STATE))
"""Members of `params` that came with 2026-07-28: a server that has never asked has no use for an answer."""
SPOKEN = (*names.LEGACY_VERSIONS, "2024-11-05")
"""Revisions we accept in an answer to `initialize`. Servers that settle on 2024-11-05 over one endpoint speak, as far
as tools go, what 2025-03-26 says."""


def request(
    call: Call, target: Target, upstream_id: bytes, credential: bytes, session: UpstreamSession
) -> tuple[bytes, bytes]:
    """Header lines and body of a call in a session; otherwise as `modern.request`."""
    meta = call.meta if call.token is None else {**call.meta, "progressToken": upstream_id}
    is_plain = not (meta or target.renamed)
    if is_plain and call.method == names.TOOLS_CALL and call.params.keys() <= ARGUMENTS:
        return headers(credential, session), tool_call(call, target, upstream_id, b"")
    params = {target.member: target.name_json, **call.params} if target.member else dict(call.params)
    if not _UNKNOWN.isdisjoint(params):
        params = {name: value for name, value in params.items() if name not in _UNKNOWN}
    if target.renamed and "arguments" in params:
        try:
            params["arguments"] = renamed(params["arguments"], target.renamed)
        except (NotAMessage, NotJson) as wrong:
            raise Fault(Kind.BAD_PARAMS, f"Invalid arguments: {wrong}") from None
    if meta:
        params["_meta"] = emit(meta)
    return headers(credential, session), message(call.method, params, upstream_id)


def headers(credential: bytes, session: UpstreamSession) -> bytes:
    """Header lines of every POST inside a session; `NO_SESSION` for `initialize`, which belongs to none yet."""
    return credential + _post_headers(session.id, session.version)


def stream_headers(credential: bytes, session: UpstreamSession, last_event: str | None) -> bytes:
    """Header lines of the GET that opens, or with the id of the last event resumes, a stream of events."""
    resumed = b"" if last_event is None else b"last-event-id: %s\r\n" % last_event.encode("latin-1")
    return credential + _STREAM + _belonging(session.id, session.version) + resumed


def initialize(upstream_id: bytes, ours: bytes, capabilities: bytes) -> bytes:
    """The body that asks for a session. The version is our newest; `capabilities` is what is offered, as JSON text."""
    params = {"protocolVersion": quote(names.NEWEST_LEGACY), "capabilities": capabilities, "clientInfo": ours}
    return message(names.INITIALIZE, params, upstream_id)


INITIALIZED = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'


def set_level(level: str, upstream_id: bytes) -> bytes:
    """The request that tells a session from which level on it wants log messages (2025-11-25, Logging)."""
    return message(names.SET_LEVEL, {"level": quote(level)}, upstream_id)


def cancelled(upstream_id: bytes, reason: str) -> bytes:
    """The notification that withdraws a request of ours."""
    params = emit({"requestId": upstream_id, "reason": quote(reason)})
    return b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":%s}' % params


def response(method: str, their_id: bytes) -> bytes:
    """What a server that asks something gets: `ping` is answered, anything interactive is refused."""
    if method == names.PING:
        return b'{"jsonrpc":"2.0","id":%s,"result":{}}' % their_id
    error = b'{"code":%d,"message":"not supported through the gateway"}' % names.METHOD_NOT_FOUND
    return b'{"jsonrpc":"2.0","id":%s,"error":%s}' % (their_id, error)


@lru_cache(maxsize=4096)
def _post_headers(session: str, version: str) -> bytes:
    return _FIXED + _belonging(session, version)


def _belonging(session: str, version: str) -> bytes:
    named = b"mcp-session-id: %s\r\n" % session.encode("ascii") if session else b""
    return named if version <= _NO_VERSION_HEADER else named + b"mcp-protocol-version: %s\r\n" % version.encode()
