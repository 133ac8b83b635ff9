"""Relay: the server's messages about one call become the agent's, one at a time, until the last word.

Knows: which messages an agent may get, and that its progress token is its own.
Refuses to know: how the messages came, and whether they leave as JSON or as events.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from fastgw.backends.upstream import Upstream
from fastgw.backends.verdict import agent_lacks, not_offered
from fastgw.faults import Fault, Kind
from fastgw.gateway import curation, grants
from fastgw.gateway.exchange import Exchange
from fastgw.gateway.lift.face import Face, reaches
from fastgw.gateway.outlet import Outlet
from fastgw.mcp import envelope, links, names, results, rounds
from fastgw.mcp.call import Call
from fastgw.mcp.envelope import Message, NotAMessage, NotJson
from fastgw.mcp.results import Result
from fastgw.mcp.sealing import NONCE, Sealer

_PROGRESS = frozenset(("progressToken", "progress", "total", "message"))
_LOG = frozenset(("level", "logger", "data"))
_ERROR = frozenset(("code", "message", "data"))
_ASKING = {names.TOOLS_CALL: "tool", names.PROMPTS_GET: "prompt", names.RESOURCES_READ: "resource"}
_LARGEST_CODE = 2**53 - 1
"""Beyond it most readers of JSON see another number, and a usage event cannot hold it (RFC 8259, section 6)."""
_NOT_HERE = "which cannot be asked for here."


async def relay(exchange: Exchange, upstream: Upstream, outlet: Outlet, states: Sealer) -> None:
    """Hand on every message of the server, the final one as the answer.

    Args:
        states: seals the `requestState` of results that ask for input.

    Raises:
        Fault: whatever `Upstream.next` raises; LOST for a result that breaks the protocol; INTERNAL for one that is
            not the last word, where that cannot be handed on; UNKNOWN_RESOURCE where a server does not know what was
            to be read.
    """
    assert exchange.call is not None and exchange.face is not None
    if upstream.streams:
        outlet.expect_events()
    message = await _next(exchange, upstream)
    while message.method is not None:
        event = _notification(exchange, exchange.call, message)
        if event is not None:
            if message.method == names.PROGRESS:
                upstream.renew()
            await outlet.event(event)
        # The next one is asked for only now: a slow agent slows the server, not our memory.
        message = await _next(exchange, upstream)
    if message.error is not None:
        await _failure(exchange, exchange.call, message.error, outlet)
        return
    try:
        result = results.read(message.result or b"")
        if result.kind == results.COMPLETE:
            _complete(exchange, exchange.call, result)
        else:
            _ask(exchange, exchange.call, result, states if upstream.may_ask else None)
    except results.Unusable as wrong:
        raise Fault(Kind.LOST, detail=f"unusable result: {wrong}", sent=True) from None
    exchange.status = 200
    await outlet.answer(200, [], exchange.face.reply(exchange.call.id, _told(exchange, exchange.face, result)))


async def _next(exchange: Exchange, upstream: Upstream) -> Message:
    began = time.monotonic()
    try:
        return await upstream.next()
    finally:
        exchange.waited += time.monotonic() - began


def _complete(exchange: Exchange, call: Call, result: Result) -> None:
    """Look at a server's last word.

    Raises:
        Fault: LOST for a result that is not what its tool promises, where the operator wants that checked.
    """
    if exchange.arm is not None and exchange.arm.checks is not None:
        curation.checked(exchange.arm, result)
    if call.method == names.RESOURCES_READ:
        results.keep_private(result)
    exchange.outcome = "tool_error" if result.is_error else "ok"


def _told(exchange: Exchange, face: Face, result: Result) -> bytes:
    """The result as the agent gets it: in its revision, under the URIs it knows, as JSON text."""
    uris, server = exchange.endpoint.uris, _server(exchange)
    if uris.rewrites(server):
        exposed = uris.exposing(server)
        result.members = links.rewritten(result.members, exposed)
        result.meta = links.meta(result.meta, exposed)
    return face.result(result, exchange.snapshot.server_info)


def _server(exchange: Exchange) -> str:
    """The server that answers."""
    assert exchange.instance is not None
    return exchange.instance.server


# -- a result that asks for input -----------------------------------------------------------------------------------


def _ask(exchange: Exchange, call: Call, result: Result, states: Sealer | None) -> None:
    """Make a result that is not the last word the agent's: it may be asked this, and carries the state sealed.

    Raises:
        Fault: INTERNAL where agent, server or method know no such results, or the agent has not declared what it asks.
        Unusable: it breaks the protocol.
    """
    assert exchange.face is not None and exchange.instance is not None
    kind = result.kind
    if states is None or not exchange.face.rounds or kind != rounds.KIND or call.method not in rounds.METHODS:
        raise _not_offered(call, f"resultType {kind[:64]!r} was not offered")
    found = result.members
    try:
        rounds.check(found, call.offered)
    except rounds.NotOffered as wrong:
        raise _not_offered(call, str(wrong)) from None
    for name in ("ttlMs", "cacheScope"):
        found.pop(name, None)  # nobody but this agent may have it, and nobody may keep it
    inner = found.get(rounds.STATE)
    if inner is not None:
        expires = int(time.time()) + rounds.LIFETIME
        state = rounds.State(exchange.instance.server, exchange.instance.key, expires, inner)
        bound = rounds.bond(exchange.endpoint.path, exchange.principal.agent, call.method, call.name or "")
        found[rounds.STATE] = rounds.seal_state(state, states, bound, os.urandom(NONCE))
    exchange.outcome = rounds.KIND


def _not_offered(call: Call, detail: str) -> Fault:
    words = f"The {_ASKING.get(call.method, 'server')} needs input from the user in the middle of a call, {_NOT_HERE}"
    return Fault(Kind.INTERNAL, words, detail=detail, sent=True)


# -- errors ---------------------------------------------------------------------------------------------------------


async def _failure(exchange: Exchange, call: Call, error: bytes, outlet: Outlet) -> None:
    assert exchange.face is not None
    if call.method == names.RESOURCES_READ and _not_found(error):
        raise grants.unknown_resource(call.name or "")
    code = _relayable(error, call, exchange.face)
    # What an agent's arguments are to blame for is no failure of the server's.
    outcome = "invalid" if code == names.INVALID_PARAMS else "server_error"
    exchange.outcome, exchange.status, exchange.error_code = outcome, 502, code
    uris, server = exchange.endpoint.uris, _server(exchange)
    if uris.rewrites(server):
        error = _with_our_uri(error, uris.exposing(server))
    failure = exchange.face.failure(call.id, error, exchange.request_id)
    await outlet.answer(exchange.face.failed(code), [], failure)


def _not_found(error: bytes) -> bool:
    """Whether a server says that it has no such resource: -32002, from 2026-07-28 on -32602 with the URI."""
    code = _error_code(error)
    return code == names.RESOURCE_NOT_FOUND or (code == names.INVALID_PARAMS and _uri_in(error) is not None)


def _uri_in(error: bytes) -> str | None:
    """`data.uri` of an error object."""
    try:
        data = envelope.members(envelope.members(error).get("data", b"{}"))
        return envelope.string(data["uri"], "uri")
    except (NotAMessage, NotJson, KeyError):
        return None


def _with_our_uri(error: bytes, exposed: Callable[[str], str]) -> bytes:
    """The error object with `data.uri` as agents know it; everything else byte for byte."""
    found = envelope.members(error)
    data = found.get("data", b"")
    found["data"] = links.error_data(data, exposed)
    return error if found["data"] is data else envelope.emit(found)


def _relayable(error: bytes, call: Call, face: Face) -> int:
    """The code of a server's error, if it is the agent's to hear.

    Raises:
        Fault: LOST for what is no error object; INTERNAL for what concerns the gateway and the server alone.
    """
    code = _error_code(error)
    detail = f"the server answered {code}: {error[:200]!r}"
    if code in (names.HEADER_MISMATCH, names.UNSUPPORTED_VERSION) or code in face.unheard:
        raise Fault(Kind.INTERNAL, detail=detail, sent=True)
    if code == names.MISSING_CAPABILITY and not agent_lacks(error, call.capabilities):
        raise not_offered(detail)
    return code


def _error_code(error: bytes) -> int:
    try:
        found = envelope.members(error, _ERROR)
        envelope.string(found.get("message", b"null"), "message")
        code = int(found.get("code", b""))
        if abs(code) > _LARGEST_CODE:
            raise ValueError
        return code
    except (NotAMessage, NotJson, ValueError):
        raise Fault(Kind.LOST, detail="an error without code and message", sent=True) from None


def _notification(exchange: Exchange, call: Call, message: Message) -> bytes | None:
    """The notification as the agent gets it; None where it is not the agent's."""
    try:
        if message.method == names.PROGRESS and call.token is not None:
            found = envelope.members(message.params or b"{}", _PROGRESS)
            found["progressToken"] = call.token
            return _notice(names.PROGRESS, envelope.emit(found))
        if message.method == names.LOG_MESSAGE:
            found = envelope.members(message.params or b"{}", _LOG)
            level = envelope.string(found.get("level", b"null"), "level")
            return _notice(names.LOG_MESSAGE, envelope.emit(found)) if reaches(level, call.log_level) else None
    except (NotAMessage, NotJson):
        return None  # a broken notification is dropped; the answer may still be good
    return None


def _notice(method: str, params: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","method":"%s","params":%s}' % (method.encode(), params)
