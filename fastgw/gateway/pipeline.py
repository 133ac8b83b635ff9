"""The path of a request: ten verbs, from top to bottom.

accept      path, Host, Origin; the snapshot is taken once
identify    credential -> Principal, before a stranger's method is looked at and its body read
read        the body, up to its limit and deadline
recognise   era, version, envelope -> Call; headers must mirror the body
resolve     name -> Grant, one dictionary look-up; or an answer made here
authorise   what policies say about these very arguments
admit       whether the gateway takes the call now
forward     one instance of one server, with that server's own credential
relay       one JSON reply, or events until done
settle      always runs: count, record, forget
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from fastgw.auth.keys import authenticate
from fastgw.catalog.arms import arm_for
from fastgw.catalog.route import Arm
from fastgw.errors import Fault, Kind
from fastgw.gateway import (
    arguments as curation,
)
from fastgw.gateway import (
    cors as origins,
)
from fastgw.gateway import (
    grants,
    paths,
    prepared,
    rate_headers,
    refusals,
)
from fastgw.gateway.connection import (
    JSON,
    AgentConnection,
    BatchResponse,
    Budget,
    HttpResponse,
    Receive,
    ResponseWriter,
    Send,
)
from fastgw.gateway.context import RequestContext
from fastgw.gateway.dialects.dialect import ParsedRequest, RefusedMessage, RequestKind
from fastgw.gateway.dialects.era import MESSAGES
from fastgw.gateway.gateway import Gateway
from fastgw.gateway.paths import EntryPoint
from fastgw.gateway.relay import relay
from fastgw.policy import authorise as policies
from fastgw.policy.match import ANONYMOUS
from fastgw.protocol import names, params
from fastgw.snapshot.model import Backend
from fastgw.upstream.call_context import remaining
from fastgw.upstream.reply import UpstreamReply

log = logging.getLogger("fastgw")

Scope = Mapping[str, Any]


async def serve(gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    """One HTTP request, from its head to the last byte of its answer."""
    agent = AgentConnection(receive, send)
    context = gateway.begin(scope)
    try:
        entry_point, verb = accept(context, scope), scope["method"]
        if origins.asks_first(context, verb):
            fields = [*gateway.common(context), *origins.permission(context, entry_point.verbs(context))]
            await agent.answer(204, fields, b"")
            return
        identify(context)
        if verb != entry_point.verb:
            check_verb(context, entry_point, verb)
        if verb == "DELETE":
            await gateway.end_session(context)
            await agent.answer(200, gateway.common(context), b"")
            return
        body = await read(gateway, context, agent) if entry_point.brings_body(context) else b""
        found = recognise(gateway, context, entry_point, body)
        if isinstance(found, list):
            await batch(gateway, context, found, agent)
        else:
            await one(gateway, context, found, agent)
    except Fault as fault:
        await refuse(gateway, context, await gateway.limiter.throttle_failed_login(context, fault), agent)
    except asyncio.CancelledError:
        if not context.left:
            raise
    except Exception as wrong:
        log.exception("%s failed: %r", context.request_id, wrong)
        await refuse(gateway, context, Fault(Kind.INTERNAL), agent)
    finally:
        context.close()
        gateway.release(context)


def accept(context: RequestContext, scope: Scope) -> EntryPoint:
    """Find the endpoint and the way in, and check what the head of the request says before all else.

    Raises:
        Fault: BAD_HOST, BAD_ORIGIN, NO_ENDPOINT.
    """
    snapshot, found, path = context.snapshot, context.headers, scope["path"]
    entry_point: EntryPoint = MESSAGES
    endpoint = snapshot.endpoints.get(path)
    # Of another length than what it stands for: part of it was percent-encoded.
    if endpoint is None or len(scope.get("raw_path") or path) != len(path):
        endpoint, entry_point = paths.find(snapshot.endpoints, scope)
        context.dialect = entry_point.dialect
    host = found.get(b"host", b"").decode("latin-1").lower()
    if b"host" in context.twice or not host or (snapshot.hosts and host not in snapshot.hosts):
        raise Fault(Kind.BAD_HOST)
    if b"origin" in found:
        context.cors = origins.admitted(context, endpoint)
    if endpoint is None:
        raise Fault(Kind.NO_ENDPOINT, paths.meant(path))
    context.endpoint = endpoint
    return entry_point


def identify(context: RequestContext) -> None:
    """Find out who calls.

    Raises:
        Fault: UNAUTHENTICATED, WRONG_CREDENTIAL.
    """
    endpoint = context.endpoint
    if endpoint.anonymous:
        context.principal = ANONYMOUS
    else:
        context.principal = authenticate(context.headers, context.twice, context.snapshot.keys, time.time())
    view = endpoint.view_for(context.principal)
    if view is None:  # a credential of ours, but of a kind that this endpoint does not take
        raise Fault(Kind.UNAUTHENTICATED, headers=((b"www-authenticate", b"Bearer"),))
    context.identified = True
    context.view = view


def check_verb(context: RequestContext, entry_point: EntryPoint, verb: str) -> None:
    """Refuse a method that is not taken here; only now, because clients show 405 where the key is what is wrong.

    Raises:
        Fault: BAD_VERB.
    """
    verbs = entry_point.verbs(context)
    if verb not in verbs:
        raise Fault(Kind.BAD_VERB, headers=((b"allow", ", ".join(verbs).encode()),))


async def read(gateway: Gateway, context: RequestContext, agent: AgentConnection) -> bytes:
    """The body, whole.

    Raises:
        Fault: BODY_TOO_LARGE, BODY_TOO_SLOW, ABANDONED; FULL where the bodies of other requests leave no room for
            this one.
    """
    limit = context.snapshot.max_body
    declared = context.headers.get(b"content-length")
    length = int(declared) if declared is not None and declared.isdigit() else None
    if length is not None and length > limit:
        raise Fault(Kind.BODY_TOO_LARGE, data={"limitBytes": limit})
    context.body_due = context.started + context.snapshot.body_deadline
    try:
        body = await agent.read(limit, length, partial(gateway.hold, context))
    except asyncio.CancelledError:
        if context.too_slow:
            raise Fault(Kind.BODY_TOO_SLOW) from None
        raise
    finally:
        context.body_due = 0.0
    context.timestamp = time.time()
    context.bytes_in = len(body)
    return body


def recognise(
    gateway: Gateway, context: RequestContext, entry_point: EntryPoint, body: bytes
) -> ParsedRequest | list[ParsedRequest | RefusedMessage]:
    """Whatever the agent speaks, from here on there are only calls: one, or a batch of them.

    Raises:
        Fault: the body as a whole is refused.
    """
    return entry_point.parse(context, body, gateway.agent_sessions)


async def one(gateway: Gateway, context: RequestContext, found: ParsedRequest, agent: AgentConnection) -> None:
    """The usual case: one message, answered over HTTP by itself."""
    if found.kind in (RequestKind.NOTHING, RequestKind.CANCEL):
        gateway.heed(context, found)
        await agent.answer(202, gateway.common(context), b"")
        return
    context.dialect = found.dialect
    if found.kind is RequestKind.CALL and found.dialect.leaving_cancels:
        context.when_old = partial(agent.watch, context.leave, gateway.tasks)
    response = HttpResponse(agent, context, gateway.common(context), gateway.tasks)
    await carry_out(gateway, context, found, response)


async def batch(
    gateway: Gateway, context: RequestContext, found: list[ParsedRequest | RefusedMessage], agent: AgentConnection
) -> None:
    """Every message of a batch goes the whole path by itself; the answers leave as one array."""
    replies: list[BatchResponse] = []
    work = []
    room = Budget(context.snapshot.max_reply)
    for item in found:
        if isinstance(item, ParsedRequest) and item.kind in (RequestKind.NOTHING, RequestKind.CANCEL):
            gateway.heed(context, item)
            continue
        element = gateway.element(context, item)
        response = BatchResponse(element, room)
        replies.append(response)
        if isinstance(item, RefusedMessage):
            await _answer_fault(element, item.fault, response)
            gateway.record(element)
        else:
            work.append(gateway.tasks.spawn(carry_out(gateway, element, item, response), "batch element"))
    await asyncio.gather(*work)
    answers = [response.reply for response in replies if response.reply is not None]
    if answers:
        told = rate_headers.fields(rate_headers.tightest(response.context.verdict for response in replies))
        await agent.answer(200, [*gateway.common(context), *told, JSON], b"[%s]" % b",".join(answers))
    else:
        await agent.answer(202, gateway.common(context), b"")


async def carry_out(gateway: Gateway, context: RequestContext, found: ParsedRequest, response: ResponseWriter) -> None:
    """Resolve to settle, for one message; a fault becomes its answer."""
    context.call, context.dialect, context.reply_to = found.call, found.dialect, found.call.id
    if context.task is None:
        context.task = asyncio.current_task()
    gateway.track(context)
    try:
        await _carry_out(gateway, context, found, response)
    except Fault as fault:
        await _answer_fault(context, fault, response)
    except asyncio.CancelledError:
        if context.expired:
            kind = Kind.LOST if context.attempts else Kind.FULL
            await _answer_fault(context, Fault(kind, "The gateway is stopping", sent=kind is Kind.LOST), response)
        elif context.withdrawn:
            await response.silence()
        elif not context.left:
            raise
    except Exception as wrong:  # the last line: whatever it is, the agent hears an id that stands in the log
        log.exception("%s failed: %r", context.request_id, wrong)
        await _answer_fault(context, Fault(Kind.INTERNAL, sent=context.attempts > 0), response)
    finally:
        settle(gateway, context)


async def _answer_fault(context: RequestContext, fault: Fault, response: ResponseWriter) -> None:
    refusals.note(context, fault)
    status = context.dialect.status(fault)
    body = context.dialect.refusal(fault, context.reply_to, context.request_id)
    await response.answer(status, refusals.headers(fault, status), body)


async def _carry_out(gateway: Gateway, context: RequestContext, found: ParsedRequest, response: ResponseWriter) -> None:
    if found.kind is RequestKind.LEVEL:
        await gateway.set_level(found.call.session or "", found.call.log_level or "")
    if found.kind is RequestKind.DESCRIBE:
        prepared_answer: bytes | tuple[bytes, ...] | None = await gateway.descriptions.of(
            context, gateway.listed(context)
        )
    else:
        prepared_answer = resolve(gateway, context, found)
    if prepared_answer is not None:
        context.outcome, context.status = "ok", 200
        await response.answer(200, found.headers, found.dialect.reply(found.call.id, prepared_answer))
        return
    arm = authorise(gateway, context)
    backend = await admit(gateway, context, arm)
    upstream = await forward(gateway, context, arm, backend)
    try:
        await relay(context, upstream, response, gateway.states)
    finally:
        upstream.close()


def resolve(gateway: Gateway, context: RequestContext, found: ParsedRequest) -> bytes | tuple[bytes, ...] | None:
    """An answer made here, as JSON text or the pieces of it; or None, and the call's grant stands in `context.grant`.

    A tool that is not this agent's is as unknown as one that is nobody's: its view does not hold it.

    Raises:
        Fault: UNKNOWN_NAME, UNKNOWN_RESOURCE, UNKNOWN_METHOD, BAD_PARAMS.
    """
    view = context.view
    assert view is not None
    if found.kind is RequestKind.CALL:
        name = found.call.name or ""
        if found.call.method != names.TOOLS_CALL:
            return grants.resolve(context, found.call)
        grant = view.grants.get(name)
        if grant is None:
            raise grants.unknown(found.call.method, name)
        context.grant, context.tool = grant, name
        return None
    if found.kind is RequestKind.LIST:
        return prepared.listed(context, found, gateway.listed(context), gateway.cursors)
    if found.kind is RequestKind.DISCOVER:
        return prepared.discover(context, gateway.listed(context))
    if found.kind is RequestKind.INITIALIZE:
        return prepared.initialize(context, gateway.listed(context), found.call.version)
    return b"{}"


def authorise(gateway: Gateway, context: RequestContext) -> Arm:
    """What is left to decide when the arguments are known: their headers, the policies and the arm of the route.

    Raises:
        Fault: HEADER_MISMATCH, ARGUMENTS_DENIED, UNKNOWN_NAME where no arm fits these arguments; BAD_PARAMS where
            they, or a `requestState`, are not what they must be.
    """
    grant, call = context.grant, context.call
    assert grant is not None and call is not None
    arguments = call.params.get("arguments", b"{}")
    if grant.route.param_headers and context.dialect.mirrors:
        _compare(context, grant.route.param_headers, arguments)
    arm = context.arm = arm_for(grant.arms, arguments)
    if arm is not None and (arm.fixed or arm.defaults or arm.checks):
        arguments = curation.settled(arm, arguments)
        if arm.fixed or arm.defaults:
            call.params["arguments"] = arguments
    if grant.conditions:
        context.refused_by = policies.refused_by(grant, arguments)
        if context.refused_by is not None:
            raise Fault(Kind.ARGUMENTS_DENIED)
    if arm is None:
        raise grants.unknown(call.method, call.name or "")
    if call.request_state is not None:
        gateway.resume(context, arm.targets[0].server)
    return arm


def _compare(context: RequestContext, wanted: tuple[params.ParamHeader, ...], arguments: bytes) -> None:
    """The `Mcp-Param-*` headers must repeat the arguments (2026-07-28, Custom Headers from Tool Parameters)."""
    wrong = params.check(wanted, arguments, context.headers)
    if wrong is None and any(item.header.encode() in context.twice for item in wanted):
        wrong = "An Mcp-Param header came twice."
    if wrong is not None:
        raise Fault(Kind.HEADER_MISMATCH, wrong)


async def admit(gateway: Gateway, context: RequestContext, arm: Arm) -> Backend:
    """Whether the call may go to its server now. The limits come last: what is refused otherwise counts in none.

    Raises:
        Fault: FULL where this worker carries all it can, or cannot check a limit that must hold; NO_SERVER while the
            server is under maintenance; RATE_LIMITED.
    """
    if gateway.in_flight > gateway.most_in_flight:
        raise Fault(Kind.FULL, retry_after=1)
    backend = context.snapshot.backends[arm.targets[0].server]
    if backend.maintenance is not None:
        raise Fault(Kind.NO_SERVER, backend.maintenance, data={"reason": "maintenance"}, retry_after=60)
    await gateway.limiter.admit(context)
    return backend


async def forward(gateway: Gateway, context: RequestContext, arm: Arm, backend: Backend) -> UpstreamReply:
    """Send the call to one instance; to the next one where nothing was sent to the first.

    Raises:
        Fault: NO_SERVER, TIMEOUT, LOST, INTERNAL, and what the server's refusals are mapped to.
    """
    call, target = context.call, arm.targets[0]
    assert call is not None
    identity = gateway.identity(context, backend)
    deadlines, first = arm.deadlines, asyncio.get_running_loop().time()
    failed = Fault(Kind.NO_SERVER, data={"reason": "down"}, retry_after=1)
    for instance in gateway.choose(backend, identity, call.instance):
        context.instance = instance
        context.attempts += 1
        began = time.monotonic()
        try:
            return await gateway.caller.call(call, target, backend, instance, identity, deadlines)
        except Fault as fault:
            if fault.sent:
                raise
            context.attempts -= 1
            if fault.kind is not Kind.NO_SERVER:
                raise
            failed, deadlines = fault, remaining(arm.deadlines, first)
        finally:
            context.waited += time.monotonic() - began
    raise failed


def settle(gateway: Gateway, context: RequestContext) -> None:
    """Give back what was taken and write down what happened. Without a better word it was *cancelled*."""
    gateway.limiter.settle(context)
    gateway.untrack(context)
    gateway.record(context)


async def refuse(gateway: Gateway, context: RequestContext, fault: Fault, agent: AgentConnection) -> None:
    """Answer a request that was refused before it became a call."""
    refusals.note(context, fault)
    gateway.refusal_log.note(fault.kind, context)
    gateway.record(context)
    if agent.started:
        return
    status = context.dialect.status(fault)
    fields = [*gateway.common(context), *refusals.headers(fault, status), JSON]
    if fault.kind in (Kind.BODY_TOO_LARGE, Kind.BODY_TOO_SLOW):
        fields.append((b"connection", b"close"))
    await agent.answer(status, fields, context.dialect.refusal(fault, context.reply_to, context.request_id))
    if fault.kind is Kind.BODY_TOO_LARGE:
        await agent.throw_away(context.snapshot.body_deadline)
