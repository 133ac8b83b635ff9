"""Relay: the server's messages about one call become the agent's, one at a time, until the last word.

Knows: which messages an agent may get, and that its progress token is its own.
Refuses to know: how the messages came, and whether they leave as JSON or as events.
"""

from __future__ import annotations

import time

from fastgw.backends.upstream import Upstream
from fastgw.backends.verdict import agent_lacks
from fastgw.faults import Fault, Kind
from fastgw.gateway import refusals
from fastgw.gateway.exchange import Exchange
from fastgw.gateway.lift.face import Face, reaches
from fastgw.gateway.outlet import Outlet
from fastgw.mcp import envelope, names, results
from fastgw.mcp.call import Call
from fastgw.mcp.envelope import Message, NotAMessage, NotJson

_PROGRESS = frozenset(("progressToken", "progress", "total", "message"))
_LOG = frozenset(("level", "logger", "data"))
_ERROR = frozenset(("code", "message", "data"))


async def relay(exchange: Exchange, upstream: Upstream, outlet: Outlet) -> None:
    """Hand on every message of the server, the final one as the answer.

    Raises:
        Fault: whatever `Upstream.next` raises; LOST for a result that breaks the protocol; INTERNAL for one that is
            not the last word, whatever the server's era.
    """
    assert exchange.call is not None
    if upstream.streams:
        outlet.expect_events()
    message = await _next(exchange, upstream)
    while message.method is not None:
        event = _notification(exchange, exchange.call, message)
        if event is not None:
            await outlet.event(event)
        # The next one is asked for only now: a slow agent slows the server, not our memory.
        message = await _next(exchange, upstream)
    await _last(exchange, exchange.call, message, outlet)


async def _next(exchange: Exchange, upstream: Upstream) -> Message:
    began = time.monotonic()
    try:
        return await upstream.next()
    finally:
        exchange.waited += time.monotonic() - began


async def _last(exchange: Exchange, call: Call, message: Message, outlet: Outlet) -> None:
    assert exchange.face is not None
    if message.error is not None:
        code = _relayable(message.error, call, exchange.face)
        exchange.outcome, exchange.status, exchange.error_code = "server_error", 502, code
        # A missing capability is the agent's to declare, so it is told by status too (2026-07-28, Capabilities).
        told = exchange.face.status(Fault(Kind.MISSING_CAPABILITY)) if code == names.MISSING_CAPABILITY else 200
        await outlet.answer(told, [], refusals.reply(call.id, message.error, b"error"))
        return
    try:
        result = results.read(message.result or b"")
    except results.Unusable as wrong:
        raise Fault(Kind.LOST, detail=f"unusable result: {wrong}", sent=True) from None
    if result.kind != b'"complete"':
        raise Fault(Kind.INTERNAL, detail=f"resultType {result.kind[:64]!r} was not offered", sent=True)
    exchange.outcome, exchange.status = ("tool_error" if result.is_error else "ok"), 200
    payload = exchange.face.result(result, exchange.snapshot.server_info)
    await outlet.answer(200, [], refusals.reply(call.id, payload))


def _relayable(error: bytes, call: Call, face: Face) -> int:
    """The code of a server's error, if it is the agent's to hear.

    Raises:
        Fault: LOST for what is no error object; INTERNAL for what concerns the gateway and the server alone.
    """
    code = _error_code(error)
    ours = code in (names.HEADER_MISMATCH, names.UNSUPPORTED_VERSION) or code in face.unheard
    if ours or (code == names.MISSING_CAPABILITY and not agent_lacks(error, call.capabilities)):
        raise Fault(Kind.INTERNAL, detail=f"the server answered {code}: {error[:200]!r}", sent=True)
    return code


def _error_code(error: bytes) -> int:
    try:
        found = envelope.members(error, _ERROR)
        envelope.string(found.get("message", b"null"), "message")
        return int(found.get("code", b""))
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
