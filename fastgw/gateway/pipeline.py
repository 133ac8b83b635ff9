"""The path of a request: ten steps, from top to bottom.

accept      path, Host, Origin
identify    credential -> Principal, before a stranger's method is looked at and its body read
read        the body, up to its limit and deadline
recognise   era, version, envelope -> Call; headers must agree with the body
resolve     name -> Grant, one dictionary look-up; or an answer made here
authorise   what policies say about these very arguments
admit       the gates: whether the gateway takes the call now
forward     one instance of one server, with that server's own credential
relay       one JSON reply, or events until done
settle      always runs: the gates again, then the observers
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from hashlib import sha256
from math import inf
from typing import Any

from fastgw.auth.keys import shown_token
from fastgw.catalog.route import Arm, arm_for
from fastgw.catalog.validation import prepare_arguments
from fastgw.errors import Fault, Kind
from fastgw.gateway import cors, entry_points, offers, personal, protected_resource
from fastgw.gateway.access import Key, access_of
from fastgw.gateway.admission import MOST_IN_FLIGHT
from fastgw.gateway.connection import (
    AgentConnection,
    BatchResponse,
    Budget,
    Draining,
    Receive,
    ResponseWriter,
    Send,
    tightest,
)
from fastgw.gateway.context import RequestContext, StepTimes
from fastgw.gateway.dialects.dialect import ParsedRequest, RequestKind, refusal_headers
from fastgw.gateway.entry_points import MESSAGES, METADATA, EntryPoint
from fastgw.gateway.gateway import Gateway
from fastgw.gateway.header_agents import named
from fastgw.gateway.relay import answer_again, relay
from fastgw.gateway.result_cache import Flight, KeptResult, key_of
from fastgw.policy import authorise as policies
from fastgw.policy.match import Principal
from fastgw.protocol import headers, names, trace_context
from fastgw.snapshot.issuers import HeaderIdentity
from fastgw.upstream.attempts import Reply

log = logging.getLogger("fastgw")

_PARENT = trace_context.PARENT_HEADER
UNANSWERED = (RequestKind.NOTHING, RequestKind.CANCEL)
Scope = Mapping[str, Any]


async def serve(gateway: Gateway, life: Draining, scope: Scope, receive: Receive, send: Send) -> None:
    """One HTTP request, from its head to the last byte of its answer; `life` is that of the server it came by."""
    context = gateway.begin(scope)
    agent = AgentConnection(context, receive, send, life, gateway.tasks)
    try:
        entry_point, verb = accept(context, scope), scope["method"]
        if (verb == "OPTIONS" or entry_point is METADATA) and (
            open_to_all := answer_anybody(context, entry_point, verb)
        ):
            await agent.answer(*open_to_all)
            return
        unknown = identify(gateway, context)
        if unknown is not None:
            await unknown
        if verb != entry_point.verb and ends_session(context, entry_point, verb):
            await gateway.end_session(context)
            await agent.answer(200, [], b"")
            return
        body = await read(gateway, context, agent) if entry_point.brings_body(context) else b""
        found = entry_point.recognise(context, body, gateway.agent_sessions)
        del body  # what its call needs of it was copied: megabytes must not stay while that waits
        if isinstance(found, list) or found.kind in UNANSWERED:
            await answer_batch(gateway, context, found if isinstance(found, list) else [found], agent)
        else:
            if found.kind is RequestKind.CALL and found.dialect.leaving_cancels:
                context.watched = agent
            await handle_request(gateway, context, found, agent)
    except Fault as fault:
        await refuse(gateway, context, await gateway.limiter.throttle_failed_login(context, fault), agent)
    except asyncio.CancelledError:
        if not context.agent_gone:
            raise
    except Exception as wrong:
        log.exception("%s failed: %s", context.request_id, type(wrong).__name__)
        await refuse(gateway, context, Fault(Kind.INTERNAL), agent)
    finally:
        gateway.end(context)


def accept(context: RequestContext, scope: Scope) -> EntryPoint:
    """Find the endpoint and its entry point, and check what the head of the request says before all else.

    Raises:
        Fault: BAD_HOST, BAD_ORIGIN, NO_ENDPOINT.
    """
    snapshot, found, path = context.snapshot, context.headers, scope["path"]
    entry_point: EntryPoint = MESSAGES
    endpoint = snapshot.endpoints.get(path)
    if endpoint is None or b"%" in (scope.get("raw_path") or b""):
        endpoint, entry_point = entry_points.find(snapshot.endpoints, scope)
        context.dialect = entry_point.dialect
        if endpoint is None and (endpoint := protected_resource.described(snapshot.endpoints, path)) is not None:
            entry_point, context.cors = METADATA, protected_resource.ANY_PAGE
    host, hosts = found.get(b"host", b""), snapshot.hosts
    if b"host" in context.twice or not host or (hosts and host not in hosts and host.lower() not in hosts):
        raise Fault(Kind.BAD_HOST)
    if b"origin" in found and entry_point is not METADATA:
        context.cors = cors.check_origin(context, endpoint)
    if endpoint is None:
        raise entry_points.no_endpoint(path, snapshot.endpoints)
    context.endpoint = endpoint
    if endpoint.server_timing:
        context.steps = StepTimes(context.started)
        context.steps.begin("identify")
    return entry_point


def answer_anybody(context: RequestContext, entry_point: EntryPoint, verb: str) -> protected_resource.Answer | None:
    """What is answered whoever asks: metadata of OAuth, and browsers' preflights."""
    if entry_point is METADATA:
        return protected_resource.answer(context, verb)
    if cors.is_preflight(context):
        return 204, cors.preflight_headers(context, entry_point.verbs(context)), b""
    return None


def identify(gateway: Gateway, context: RequestContext) -> Awaitable[None] | None:
    """Find out who calls; of an access token that is seen for the first time it may take a while.

    Raises:
        Fault: UNAUTHENTICATED, WRONG_CREDENTIAL.
    """
    endpoint, fields = context.endpoint, context.headers
    key = endpoint.path, b"" if endpoint.anonymous else sha256(fields.get(b"authorization", b"")).digest()
    access = gateway.known_agents.get(key)
    if access is None or access.expires <= context.timestamp or context.twice or b"x-api-key" in fields:
        if endpoint.proxies and (identity := gateway.header_agents.identity(context)) is not None:
            return identify_by_header(gateway, context, identity)
        access = gateway.known_agents.find(context.snapshot, endpoint, key, (fields, context.twice), context.timestamp)
        if access is None:
            return identify_by_token(gateway, context, key)
    context.access = access
    context.principal, context.view = access.principal, access.view
    return None


def identify_by_header(gateway: Gateway, context: RequestContext, identity: HeaderIdentity) -> Awaitable[None] | None:
    """Find out whom a proxy names. Raises a Fault: WRONG_CREDENTIAL."""
    key = context.endpoint.path, identity.name.encode(), context.headers[identity.header]
    access = gateway.known_agents.get(key)
    if access is None or context.twice:
        return let_in(gateway, context, key, (named(context, identity), inf, ""))
    context.access, context.principal, context.view = access, access.principal, access.view
    return None


async def identify_by_token(gateway: Gateway, context: RequestContext, key: Key) -> None:
    """Find out who shows an access token, and remember it.

    Raises:
        Fault: UNAUTHENTICATED, WRONG_CREDENTIAL; FULL where that cannot be found out now; NO_ENDPOINT where the
            endpoint is gone meanwhile.
    """
    snapshot, now = context.snapshot, context.timestamp
    token = shown_token(context.headers, context.twice, snapshot.keys)
    assert token is not None
    known = await gateway.token_agents.identify(token, snapshot, context.endpoint, now)
    await let_in(gateway, context, key, (known.principal, known.until, known.subject))


async def let_in(gateway: Gateway, context: RequestContext, key: Key, who: tuple[Principal, float, str]) -> None:
    """Let in one who is known by claims alone, until when and with which subject (`Access`), and remember it.

    Raises:
        Fault: FULL where its class cannot be made now; NO_ENDPOINT where the endpoint is gone meanwhile.
    """
    principal, expires, subject = who
    found_by = _found_by(gateway, context)
    view = context.endpoint.view_for(principal)
    if view is None:
        # Nothing but the endpoint and who it is has been taken from the snapshot yet: the next one has its class.
        await gateway.token_agents.meet(context.endpoint.path, principal)
        gateway.renew(context)
        view = context.endpoint.view_for(principal)
        if view is None:
            raise Fault(Kind.FULL, "The configuration is changing", retry_after=1)
    access = access_of(context.snapshot, context.endpoint, (principal, view), expires, subject)
    # What has changed meanwhile must not be remembered as it was.
    if gateway.is_newest(context.snapshot) and _found_by(gateway, context) == found_by:
        gateway.known_agents.remember(key, access)
    context.access, context.principal, context.view = access, principal, view


def _found_by(gateway: Gateway, context: RequestContext) -> tuple[object, ...]:
    """What says who shows a token, or is named by a proxy."""
    snapshot = context.snapshot
    return gateway.token_agents.keys, snapshot.issuers, snapshot.header_identities, context.endpoint.resources


def ends_session(context: RequestContext, entry_point: EntryPoint, verb: str) -> bool:
    """Whether a method other than the usual one ends a session, or stands for that one (HEAD).

    Raises a Fault, BAD_VERB, for all others. Only now, because clients show 405 where the key is what is wrong.
    """
    verbs = entry_point.verbs(context)
    if verb not in verbs:
        raise Fault(Kind.BAD_VERB, headers=((b"allow", ", ".join(verbs).encode()),))
    return verb == "DELETE"


async def read(gateway: Gateway, context: RequestContext, agent: AgentConnection) -> bytes:
    """The body, whole.

    Raises:
        Fault: BODY_TOO_LARGE, BODY_TOO_SLOW, ABANDONED; FULL where the bodies of other requests leave no room for
            this one.
    """
    if context.steps is not None:
        context.steps.begin("read")
    limit = context.snapshot.max_body
    declared = context.headers.get(b"content-length")
    length = int(declared) if declared is not None and declared.isdigit() else None
    if length is not None and length > limit:
        raise Fault(Kind.BODY_TOO_LARGE, data={"limitBytes": limit})
    context.body_due = context.started + context.snapshot.body_deadline
    try:
        body = await agent.read(limit, length, gateway.hold)
    except asyncio.CancelledError:
        if context.too_slow:
            raise Fault(Kind.BODY_TOO_SLOW) from None
        raise
    finally:
        context.body_due = 0.0
    context.timestamp = time.time()
    if context.steps is not None:
        context.steps.begin("recognise")
    return body


async def answer_batch(
    gateway: Gateway, context: RequestContext, found: list[ParsedRequest], agent: AgentConnection
) -> None:
    """Every message of a batch goes the whole path by itself; the answers leave as one array. One notification is
    acknowledged as a batch of nothing else.
    """
    context.steps = None  # each message takes its own
    replies: list[BatchResponse] = []
    work = []
    room = Budget(context.snapshot.max_reply)
    for item in found:
        if item.kind in UNANSWERED:
            gateway.handle_notification(item)
            continue
        own = gateway.batch_context(context, item)
        response = BatchResponse(own, room)
        replies.append(response)
        if item.fault is not None:
            await _answer_fault(gateway, own, item.fault, response)
            gateway.record(own)
        else:
            work.append(gateway.tasks.spawn(handle_request(gateway, own, item, response), "message of a batch"))
    await asyncio.gather(*work)
    answers = [response.reply for response in replies if response.reply is not None]
    if answers:
        context.verdict = tightest(response.context.verdict for response in replies)
        await agent.answer(200, [], b"[%s]" % b",".join(answers))
    else:
        await agent.answer(202, [], b"")


async def handle_request(
    gateway: Gateway, context: RequestContext, found: ParsedRequest, response: ResponseWriter
) -> None:
    """Resolve to settle, for one message; a fault becomes its answer."""
    context.call, context.dialect, context.reply_to = found.call, found.dialect, found.call.id
    if context.task is None:
        context.task = asyncio.current_task()
    gateway.track(context)
    try:
        answer = resolve(gateway, context, found)
        if answer is not None:
            if not isinstance(answer, (bytes, tuple)):
                answer = await answer
            context.outcome, context.status = "ok", 200
            await response.answer(200, found.headers, found.dialect.reply(found.call.id, answer))
            return
        arm = authorise(gateway, context)
        going = await answer_by_cache(gateway, context, arm, response) if arm.cache else arm
        if going is not None:
            await admit(gateway, context)
            upstream = await forward(gateway, context, going)
            await relay(context, upstream, response, gateway.states)
    except Fault as fault:
        await _answer_fault(gateway, context, fault, response)
    except asyncio.CancelledError:
        if context.expired:
            kind = Kind.LOST if context.times_sent else Kind.FULL
            await _answer_fault(
                gateway, context, Fault(kind, "The gateway is stopping", sent=kind is Kind.LOST), response
            )
        elif context.withdrawn:
            await response.close_unanswered()
        elif not context.agent_gone:
            raise
    except Exception as wrong:  # whatever it is, the agent gets an id that stands in the log
        log.exception("%s failed: %s", context.request_id, type(wrong).__name__)
        await _answer_fault(gateway, context, Fault(Kind.INTERNAL, sent=context.times_sent > 0), response)
    finally:
        settle(gateway, context)


async def _answer_fault(gateway: Gateway, context: RequestContext, fault: Fault, response: ResponseWriter) -> None:
    if context.attempts:
        gateway.caller.verdicts.blame(context.attempts[-1], fault)
    if context.view is not None and context.view.shadow is not None:
        gateway.shadow_policies.note_refused(context, context.view.shadow, fault)
    context.refuse(fault)
    status = context.dialect.status(fault)
    body = context.dialect.refusal(fault, context.reply_to, context.request_id)
    await response.answer(status, refusal_headers(fault, status), body)


def resolve(gateway: Gateway, context: RequestContext, found: ParsedRequest) -> offers.Answer | None:
    """An answer made here, or None, and the call's grant stands in `context.grant`.

    A tool that is not this agent's is as unknown as one that is nobody's: its view does not hold it.

    Raises:
        Fault: UNKNOWN_NAME, UNKNOWN_RESOURCE, UNKNOWN_METHOD, BAD_PARAMS.
    """
    if context.steps is not None:
        context.steps.begin("resolve")
    call = found.call
    if found.kind is not RequestKind.CALL:
        return offers.ANSWERS[found.kind](gateway, context, found)
    if call.method != names.TOOLS_CALL:
        return offers.resolve(context, call)
    view = context.view
    assert view is not None
    context.grant = view.grants.get(call.name or "")
    if context.grant is None:
        raise offers.unknown(call.method, call.name or "")
    context.tool = call.name
    return None


def authorise(gateway: Gateway, context: RequestContext) -> Arm:
    """What is left to decide when the arguments are known: their headers, the policies and the arm of the route.

    Raises:
        Fault: HEADER_MISMATCH, ARGUMENTS_DENIED, UNKNOWN_NAME where no arm fits these arguments; BAD_PARAMS where
            they, or a `requestState`, are not what they must be; INSUFFICIENT_SCOPE where all that is missing is a
            scope; INVALID_REQUEST where a header that its server is to get cannot be handed on.
    """
    if context.steps is not None:
        context.steps.begin("authorise")
    grant, call = context.grant, context.call
    assert grant is not None and call is not None
    arguments = call.params.get("arguments", b"{}")
    if grant.route.param_headers and context.dialect.mirrors:
        wrong = headers.check(grant.route.param_headers, arguments, context.headers, context.twice)
        if wrong is not None:
            raise Fault(Kind.HEADER_MISMATCH, wrong)
    first = grant.arms[0]
    arm = context.arm = first if first.match is None else arm_for(grant.arms, arguments)
    if arm is not None and (arm.fixed or arm.defaults or arm.checks):
        arguments = prepare_arguments(arm, arguments)
        if arm.fixed or arm.defaults:
            call.params["arguments"] = arguments
    if grant.conditions and (policy := policies.refused_by(grant, arguments)) is not None:
        context.refused_by = policy
        raise Fault(Kind.ARGUMENTS_DENIED)
    if arm is None:
        raise offers.unknown(call.method, call.name or "")
    if arm.scopes and not (context.principal.scopes is None or context.principal.scopes.issuperset(arm.scopes)):
        raise protected_resource.insufficient_scope(context, arm.scopes)
    if call.request_state is not None:
        gateway.resume(context, [target.server for target in arm.targets])
    if context.snapshot.personal:
        call.sent_as = personal.sent_as(context, arm)
    if context.view is not None and context.view.shadow is not None:
        gateway.shadow_policies.note_allowed(context, context.view.shadow)
    return arm


async def answer_by_cache(gateway: Gateway, context: RequestContext, arm: Arm, response: ResponseWriter) -> Arm | None:
    """Answer the call by the result of an equal one, kept or under way; where there is none, the arm to go by, with the
    time that is left. What is answered so takes nothing of what gates give, so it passes none.

    Raises:
        Fault: TIMEOUT where an equal call takes too long.
    """
    if context.steps is not None:
        context.steps.begin("cache")
    assert context.call is not None
    key = key_of(context.endpoint.path, context.principal, context.call, arm)
    if key is None:
        return arm
    found: KeptResult | Flight | None = gateway.results.get(key)
    if found is None:
        if gateway.in_flight > MOST_IN_FLIGHT:  # refused by the first gate: who waits is carried as well
            return arm
        began = time.monotonic()
        try:
            found = await gateway.results.share(key, arm.deadlines)
        finally:
            context.waited = time.monotonic() - began
    if isinstance(found, KeptResult):
        await response.answer(200, [], answer_again(context, found))
        return None
    context.flight = found
    return replace(arm, deadlines=arm.deadlines.left(context.waited))


async def admit(gateway: Gateway, context: RequestContext) -> None:
    """Whether the call may go to its server now. The limits come last: what is refused otherwise counts in none.

    Raises:
        Fault: FULL where this worker carries all it can, or cannot check a limit that must hold; NO_SERVER while the
            server is under maintenance; RATE_LIMITED.
    """
    if context.steps is not None:
        context.steps.begin("admit")
    for gate in gateway.gates:
        waiting = gate.admit(context)
        if waiting is not None:
            await waiting


def forward(gateway: Gateway, context: RequestContext, arm: Arm) -> Awaitable[Reply]:
    """Send the call to one instance of a server; to the next one where that fails and it may be repeated.

    Raises:
        Fault: NO_SERVER, TIMEOUT, LOST, INTERNAL, and what the server's refusals are mapped to.
    """
    if context.steps is not None:
        context.steps.begin("forward")
    assert context.call is not None
    backends = context.snapshot.backends
    return gateway.caller.forward(context.call, context.principal, arm, backends, context.attempts)


def settle(gateway: Gateway, context: RequestContext) -> None:
    """Give back what was taken and write down what happened. Without a better word it was *cancelled*."""
    gateway.settle(context)


async def refuse(gateway: Gateway, context: RequestContext, fault: Fault, agent: AgentConnection) -> None:
    """Answer a request that was refused before it became a call."""
    if _PARENT in context.headers:
        context.trace = trace_context.read({}, context.headers, context.twice)
    context.refuse(protected_resource.with_challenge(context, fault))
    gateway.refusal_log.note(fault.kind, context)
    try:
        if agent.started:
            return
        status = context.dialect.status(fault)
        fields = refusal_headers(fault, status)
        if fault.kind in (Kind.BODY_TOO_LARGE, Kind.BODY_TOO_SLOW):
            fields.append((b"connection", b"close"))
        await agent.answer(status, fields, context.dialect.refusal(fault, context.reply_to, context.request_id))
    finally:
        gateway.record(context)
    if fault.kind is Kind.BODY_TOO_LARGE:
        await agent.discard_body(context.snapshot.body_deadline)
