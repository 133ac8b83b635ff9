"""Relay: the server's messages about one call become the agent's, one at a time, until the response."""

from __future__ import annotations

import os
import time
from functools import partial
from math import inf

from fastgw.catalog import validation
from fastgw.catalog.metering import Member
from fastgw.errors import Fault, Kind
from fastgw.gateway import offers
from fastgw.gateway.connection import ResponseWriter
from fastgw.gateway.context import RequestContext
from fastgw.gateway.result_cache import KeptResult
from fastgw.protocol import envelope, links, names, results, rounds
from fastgw.protocol.call import Call
from fastgw.protocol.envelope import Message, NotAMessage, NotJson
from fastgw.protocol.quick import QuickResult
from fastgw.protocol.results import Result
from fastgw.protocol.sealing import NONCE, Sealer
from fastgw.upstream.attempts import Reply, StreamedReply
from fastgw.upstream.classify import agent_lacks, not_offered
from fastgw.upstream.reply import FinalReply, UpstreamReply
from fastgw.upstream.rpc import without_credential
from fastgw.upstream.transports import lost

_PROGRESS = frozenset(("progressToken", "progress", "total", "message"))
_LOG = frozenset(("level", "logger", "data"))
_ERROR = frozenset(("code", "message", "data"))
_ASKING = {names.TOOLS_CALL: "tool", names.PROMPTS_GET: "prompt", names.RESOURCES_READ: "resource"}
_LARGEST_CODE = 2**53 - 1
"""Beyond it most readers of JSON see another number, and a usage event cannot hold it (RFC 8259, section 6)."""


async def relay(context: RequestContext, upstream: Reply, response: ResponseWriter, states: Sealer) -> None:
    """Hand on every message of the server, the final one as the response.

    Args:
        states: seals the `requestState` of results that ask for input.

    Raises:
        Fault: whatever `UpstreamReply.next` raises; LOST for a result that breaks the protocol; INTERNAL for one that
            asks for input where that cannot be handed on; UNKNOWN_RESOURCE where a server does not know what was to be
            read.
    """
    if context.steps is not None:
        context.steps.begin("relay")
    call = context.call
    assert call is not None
    if type(upstream) is QuickResult:
        context.status = 200
        if context.arm is not None and context.arm.meters:
            count_tokens(context, upstream.member)
        answer = _answered(context, call, upstream)
        if context.flight is not None:
            _complete_flight(context, upstream)
        await response.answer(200, [], answer)
        return
    try:
        await _relay_messages(context, call, upstream, response, states)
    finally:
        upstream.close()


def _answered(context: RequestContext, call: Call, found: QuickResult) -> bytes:
    """The whole answer around a result in the usual shape: with most of them all that is left is to name ourselves."""
    endpoint, server = context.endpoint, context.attempts[-1].target.server
    checks = context.arm.checks if context.arm is not None else None
    try:
        is_plain = call.method == names.TOOLS_CALL and checks is None
        if is_plain and not (server in endpoint.readers and endpoint.uris.rewrites(server)):
            answer = context.dialect.quick_reply(call.id, found, context.snapshot.server_info)
            if answer is not None:
                context.outcome = "tool_error" if found.is_error else "ok"
                return answer
        result = results.read(found.text)
        _complete(context, call, result)
    except results.UnusableResult as wrong:
        raise lost(f"unusable result: {wrong}") from None
    return context.dialect.reply(call.id, _adapted(context, result, server))


def count_tokens(context: RequestContext, member: Member) -> None:
    """What the result whose members these are says of tokens."""
    attempt = context.attempts[-1]
    assert context.arm is not None
    meter = context.meter = context.arm.meter(attempt.address.server, attempt.target.tool)
    if meter is not None:
        context.tokens_in, context.tokens_out = meter.tokens(member)


def answer_again(context: RequestContext, kept: KeptResult) -> bytes:
    """The whole answer around the result of an equal call, made for this agent."""
    call, endpoint, found = context.call, context.endpoint, kept.result
    assert call is not None
    context.outcome, context.status, context.cached = "ok", 200, True
    if isinstance(found, QuickResult):
        if not (kept.server in endpoint.readers and endpoint.uris.rewrites(kept.server)):
            answer = context.dialect.quick_reply(call.id, found, context.snapshot.server_info)
            if answer is not None:
                return answer
        found = found.text
    result = results.read(found)
    if "ttlMs" in result.members:  # what is left of it, or less
        result.members["ttlMs"] = b"%d" % max(0, (kept.expires - time.monotonic()) * 1000)
    return context.dialect.reply(call.id, _adapted(context, result, kept.server))


def _complete_flight(context: RequestContext, result: QuickResult | bytes, fresh: float = inf) -> None:
    """Let equal calls have the result before this call's agent has read its answer: it may read slowly."""
    assert context.flight is not None
    if context.outcome == "ok":
        context.flight.complete(result, _server(context), fresh)
    else:
        context.flight.fail()


async def _relay_messages(
    context: RequestContext,
    call: Call,
    upstream: UpstreamReply | StreamedReply | FinalReply,
    response: ResponseWriter,
    states: Sealer,
) -> None:
    if upstream.streams:
        response.keep_alive()
    message = await _next(context, upstream)
    while message.method is not None:
        event = _notification(call, message)
        if event is not None:
            if message.method == names.PROGRESS:
                upstream.renew()
            await response.event(event)
        # The next one is asked for only now: a slow agent slows the server, not our memory.
        message = await _next(context, upstream)
    if message.error is not None:
        await _server_error(context, call, message.error, response)
        return
    try:
        result = results.read(message.result or b"")
        if context.arm is not None and context.arm.meters:
            count_tokens(context, lambda name: result.members.get(name, b""))
        if result.kind == results.COMPLETE:
            _complete(context, call, result)
        else:
            _input_required(context, call, result, states if upstream.may_ask else None)
        if context.flight is not None:
            _complete_flight(context, message.result or b"", result.fresh)
    except results.UnusableResult as wrong:
        raise lost(f"unusable result: {wrong}") from None
    context.status = 200
    await response.answer(200, [], context.dialect.reply(call.id, _adapted(context, result, _server(context))))


async def _next(context: RequestContext, upstream: UpstreamReply | StreamedReply | FinalReply) -> Message:
    attempt, began = context.attempts[-1], time.monotonic()
    try:
        return await upstream.next()
    finally:
        ended = context.attempts[-1].ended = time.monotonic()  # another one may have answered instead
        attempt.waited += ended - began


def _complete(context: RequestContext, call: Call, result: Result) -> None:
    """Raises a Fault, LOST, for a result that is not what its tool promises, where the operator wants that checked."""
    checks = context.arm.checks if context.arm is not None else None
    if checks is not None and checks.results is not None and not result.is_error:
        wrong = validation.check_result(checks.results, result.members.get("structuredContent"))
        if wrong is not None:
            raise Fault(Kind.LOST, "The tool's result is not what its schema promises", detail=wrong, sent=True)
    if call.method == names.RESOURCES_READ:
        results.keep_private(result)
    context.outcome = "tool_error" if result.is_error else "ok"


def _adapted(context: RequestContext, result: Result, server: str) -> bytes:
    """This server's result as the agent gets it: in its revision, under the URIs it knows, as JSON text."""
    uris = context.endpoint.uris
    if uris.rewrites(server):
        exposed = partial(uris.exposed, server)
        result.members = links.rewritten(result.members, exposed)
        result.meta = links.meta(result.meta, exposed)
    return context.dialect.result(result, context.snapshot.server_info)


def _server(context: RequestContext) -> str:
    """The server that answers."""
    return context.attempts[-1].target.server


def _input_required(context: RequestContext, call: Call, result: Result, states: Sealer | None) -> None:
    """Make a result that asks for input the agent's: it may be asked this, and carries the state sealed.

    Raises:
        Fault: INTERNAL where agent, server or method know no such results, or the agent has not declared what it asks.
        UnusableResult: it breaks the protocol.
    """
    kind = result.kind
    if states is None or not context.dialect.rounds or kind != rounds.KIND or call.method not in rounds.METHODS:
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
        state = rounds.RoundState(_server(context), context.attempts[-1].address.key, expires, inner)
        bound = rounds.bond(context.endpoint.path, context.principal.agent, call.method, call.name or "")
        found[rounds.STATE] = rounds.seal_state(state, states, bound, os.urandom(NONCE))
    context.outcome = rounds.KIND


def _not_offered(call: Call, detail: str) -> Fault:
    asks = f"The {_ASKING.get(call.method, 'server')} needs input from the user in the middle of a call"
    return Fault(Kind.INTERNAL, f"{asks}, which cannot be asked for here.", detail=detail, sent=True)


async def _server_error(context: RequestContext, call: Call, error: bytes, response: ResponseWriter) -> None:
    """Hand on a server's error, if it is the agent's to hear.

    Raises:
        Fault: LOST for what is no error object; INTERNAL for what concerns the gateway and the server alone;
            UNKNOWN_RESOURCE.
    """
    attempt = context.attempts[-1]
    error = without_credential(error, attempt.backend, attempt.token)
    found, code = _opened_error(error)
    # There is no such resource: -32002, from 2026-07-28 on -32602 with the URI.
    says_not_found = code == names.RESOURCE_NOT_FOUND or (code == names.INVALID_PARAMS and _names_uri(found))
    if call.method == names.RESOURCES_READ and says_not_found:
        raise offers.unknown_resource(call.name or "")
    detail = f"the server answered {code}: {error[:200]!r}"
    if code in (names.HEADER_MISMATCH, names.UNSUPPORTED_VERSION) or code in context.dialect.abolished_codes:
        raise Fault(Kind.INTERNAL, detail=detail, sent=True)
    if code == names.MISSING_CAPABILITY and not agent_lacks(error, call.capabilities):
        raise not_offered(detail)
    # What an agent's arguments are to blame for is no failure of the server's.
    context.outcome = "invalid" if code == names.INVALID_PARAMS else "server_error"
    context.status, context.error_code = 502, code
    uris, server = context.endpoint.uris, _server(context)
    if "data" in found and uris.rewrites(server):
        data = links.error_data(found["data"], partial(uris.exposed, server))
        if data is not found["data"]:
            error = envelope.emit({**found, "data": data})
    body = context.dialect.server_error(call.id, error, context.request_id)
    await response.answer(context.dialect.error_status(code), [], body)


def _opened_error(error: bytes) -> tuple[dict[str, bytes], int]:
    """Members and code of an error object."""
    try:
        found = envelope.members(error, _ERROR)
        envelope.string(found.get("message", b"null"), "message")
        code = int(found.get("code", b""))
        if abs(code) <= _LARGEST_CODE:
            return found, code
    except (NotAMessage, NotJson, ValueError):
        pass
    raise lost("an error without code and message")


def _names_uri(found: dict[str, bytes]) -> bool:
    try:
        envelope.string(envelope.members(found["data"])["uri"], "uri")
    except (NotAMessage, NotJson, KeyError):
        return False
    return True


def _notification(call: Call, message: Message) -> bytes | None:
    """The notification as the agent gets it; None where it is not the agent's."""
    try:
        if message.method == names.PROGRESS and call.token is not None:
            found = envelope.members(message.params or b"{}", _PROGRESS)
            found["progressToken"] = call.token
        elif message.method == names.LOG_MESSAGE:
            found = envelope.members(message.params or b"{}", _LOG)
            if not _reaches(envelope.string(found.get("level", b"null"), "level"), call.log_level):
                return None
        else:
            return None
    except (NotAMessage, NotJson):
        return None  # a broken notification is dropped; the answer may still be good
    return b'{"jsonrpc":"2.0","method":"%s","params":%s}' % (message.method.encode(), envelope.emit(found))


def _reaches(level: str, wanted: str | None) -> bool:
    """Whether a log message of `level` is at or above the level `wanted`; None wants none."""
    levels = names.LOG_LEVELS
    return wanted is not None and level in levels and levels.index(level) >= levels.index(wanted)
