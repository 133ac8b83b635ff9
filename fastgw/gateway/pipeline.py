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

Knows: the order. Refuses to know: how each verb does its work.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from fastgw.backends.line import remaining
from fastgw.backends.upstream import Upstream
from fastgw.catalog.arms import arm_for
from fastgw.catalog.route import Arm, ParamHeader
from fastgw.config.snapshot import Backend
from fastgw.faults import Fault, Kind
from fastgw.gateway import curation, grants, origins, paths, prepared, rates, refusals
from fastgw.gateway.agent import JSON, Agent, Receive, Send
from fastgw.gateway.budget import Budget
from fastgw.gateway.exchange import Exchange
from fastgw.gateway.gateway import Gateway
from fastgw.gateway.lift.entrance import Entrance
from fastgw.gateway.lift.era import MESSAGES
from fastgw.gateway.lift.face import Recognised, Refused, Wish
from fastgw.gateway.outlet import BatchOutlet, HttpOutlet, Outlet
from fastgw.gateway.relay import relay
from fastgw.identity.keys import authenticate
from fastgw.mcp import names, params
from fastgw.policy import authorise as policies
from fastgw.policy.principal import ANONYMOUS

log = logging.getLogger("fastgw")

Scope = Mapping[str, Any]


async def serve(gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    """One HTTP request, from its head to the last byte of its answer."""
    agent = Agent(receive, send)
    exchange = gateway.begin(scope)
    try:
        entrance, verb = accept(exchange, scope), scope["method"]
        if origins.asks_first(exchange, verb):
            fields = [*gateway.common(exchange), *origins.permission(exchange, entrance.verbs(exchange))]
            await agent.answer(204, fields, b"")
            return
        identify(exchange)
        if verb != entrance.verb:
            check_verb(exchange, entrance, verb)
        if verb == "DELETE":
            await gateway.end_session(exchange)
            await agent.answer(200, gateway.common(exchange), b"")
            return
        body = await read(gateway, exchange, agent) if entrance.brings_body(exchange) else b""
        found = recognise(gateway, exchange, entrance, body)
        if isinstance(found, list):
            await batch(gateway, exchange, found, agent)
        else:
            await one(gateway, exchange, found, agent)
    except Fault as fault:
        await refuse(gateway, exchange, await gateway.limiter.turn_away(exchange, fault), agent)
    except asyncio.CancelledError:
        if not exchange.left:
            raise
    except Exception as wrong:
        log.exception("%s failed: %r", exchange.request_id, wrong)
        await refuse(gateway, exchange, Fault(Kind.INTERNAL), agent)
    finally:
        exchange.close()
        gateway.release(exchange)


def accept(exchange: Exchange, scope: Scope) -> Entrance:
    """Find the endpoint and the way in, and check what the head of the request says before all else.

    Raises:
        Fault: BAD_HOST, BAD_ORIGIN, NO_ENDPOINT.
    """
    snapshot, found, path = exchange.snapshot, exchange.headers, scope["path"]
    entrance: Entrance = MESSAGES
    endpoint = snapshot.endpoints.get(path)
    # Of another length than what it stands for: part of it was percent-encoded.
    if endpoint is None or len(scope.get("raw_path") or path) != len(path):
        endpoint, entrance = paths.find(snapshot.endpoints, scope)
        exchange.face = entrance.face
    host = found.get(b"host", b"").decode("latin-1").lower()
    if b"host" in exchange.twice or not host or (snapshot.hosts and host not in snapshot.hosts):
        raise Fault(Kind.BAD_HOST)
    if b"origin" in found:
        exchange.cors = origins.admitted(exchange, endpoint)
    if endpoint is None:
        raise Fault(Kind.NO_ENDPOINT, paths.meant(path))
    exchange.endpoint = endpoint
    return entrance


def identify(exchange: Exchange) -> None:
    """Find out who calls.

    Raises:
        Fault: UNAUTHENTICATED, WRONG_CREDENTIAL.
    """
    endpoint = exchange.endpoint
    if endpoint.anonymous:
        exchange.principal = ANONYMOUS
    else:
        exchange.principal = authenticate(exchange.headers, exchange.twice, exchange.snapshot.keys, time.time())
    at = endpoint.view_of.get(exchange.principal.agent)
    if at is None:  # a credential of ours, but of a kind that this endpoint does not take
        raise Fault(Kind.UNAUTHENTICATED, headers=((b"www-authenticate", b"Bearer"),))
    exchange.identified = True
    exchange.view = endpoint.views[at]


def check_verb(exchange: Exchange, entrance: Entrance, verb: str) -> None:
    """Refuse a method that is not taken here; only now, because clients show 405 where the key is what is wrong.

    Raises:
        Fault: BAD_VERB.
    """
    verbs = entrance.verbs(exchange)
    if verb not in verbs:
        raise Fault(Kind.BAD_VERB, headers=((b"allow", ", ".join(verbs).encode()),))


async def read(gateway: Gateway, exchange: Exchange, agent: Agent) -> bytes:
    """The body, whole.

    Raises:
        Fault: BODY_TOO_LARGE, BODY_TOO_SLOW, ABANDONED; FULL where the bodies of other requests leave no room for
            this one.
    """
    limit = exchange.snapshot.max_body
    declared = exchange.headers.get(b"content-length")
    length = int(declared) if declared is not None and declared.isdigit() else None
    if length is not None and length > limit:
        raise Fault(Kind.BODY_TOO_LARGE, data={"limitBytes": limit})
    exchange.body_due = exchange.started + exchange.snapshot.body_deadline
    try:
        body = await agent.read(limit, length, partial(gateway.hold, exchange))
    except asyncio.CancelledError:
        if exchange.too_slow:
            raise Fault(Kind.BODY_TOO_SLOW) from None
        raise
    finally:
        exchange.body_due = 0.0
    exchange.timestamp = time.time()
    exchange.bytes_in = len(body)
    return body


def recognise(
    gateway: Gateway, exchange: Exchange, entrance: Entrance, body: bytes
) -> Recognised | list[Recognised | Refused]:
    """Whatever the agent speaks, from here on there are only calls: one, or a batch of them.

    Raises:
        Fault: the body as a whole is refused.
    """
    return entrance.lift(exchange, body, gateway.door)


async def one(gateway: Gateway, exchange: Exchange, found: Recognised, agent: Agent) -> None:
    """The usual case: one message, answered over HTTP by itself."""
    if found.wish in (Wish.NOTHING, Wish.CANCEL):
        gateway.heed(exchange, found)
        await agent.answer(202, gateway.common(exchange), b"")
        return
    exchange.face = found.face
    if found.wish is Wish.CALL and found.face.leaving_cancels:
        exchange.when_old = partial(agent.watch, exchange.leave, gateway.registry)
    outlet = HttpOutlet(agent, exchange, gateway.common(exchange), gateway.registry)
    await carry_out(gateway, exchange, found, outlet)


async def batch(gateway: Gateway, exchange: Exchange, found: list[Recognised | Refused], agent: Agent) -> None:
    """Every message of a batch goes the whole path by itself; the answers leave as one array."""
    replies: list[BatchOutlet] = []
    work = []
    room = Budget(exchange.snapshot.max_reply)
    for item in found:
        if isinstance(item, Recognised) and item.wish in (Wish.NOTHING, Wish.CANCEL):
            gateway.heed(exchange, item)
            continue
        element = gateway.element(exchange, item)
        outlet = BatchOutlet(element, room)
        replies.append(outlet)
        if isinstance(item, Refused):
            await _answer_fault(element, item.fault, outlet)
            gateway.record(element)
        else:
            work.append(gateway.registry.spawn(carry_out(gateway, element, item, outlet), "batch element"))
    await asyncio.gather(*work)
    answers = [outlet.reply for outlet in replies if outlet.reply is not None]
    if answers:
        told = rates.fields(rates.tightest(outlet.exchange.verdict for outlet in replies))
        await agent.answer(200, [*gateway.common(exchange), *told, JSON], b"[%s]" % b",".join(answers))
    else:
        await agent.answer(202, gateway.common(exchange), b"")


async def carry_out(gateway: Gateway, exchange: Exchange, found: Recognised, outlet: Outlet) -> None:
    """Resolve to settle, for one message; a fault becomes its answer."""
    exchange.call, exchange.face, exchange.reply_to = found.call, found.face, found.call.id
    if exchange.task is None:
        exchange.task = asyncio.current_task()
    gateway.track(exchange)
    try:
        await _carry_out(gateway, exchange, found, outlet)
    except Fault as fault:
        await _answer_fault(exchange, fault, outlet)
    except asyncio.CancelledError:
        if exchange.expired:
            kind = Kind.LOST if exchange.attempts else Kind.FULL
            await _answer_fault(exchange, Fault(kind, "The gateway is stopping", sent=kind is Kind.LOST), outlet)
        elif exchange.withdrawn:
            await outlet.silence()
        elif not exchange.left:
            raise
    except Exception as wrong:  # the last line: whatever it is, the agent hears an id that stands in the log
        log.exception("%s failed: %r", exchange.request_id, wrong)
        await _answer_fault(exchange, Fault(Kind.INTERNAL, sent=exchange.attempts > 0), outlet)
    finally:
        settle(gateway, exchange)


async def _answer_fault(exchange: Exchange, fault: Fault, outlet: Outlet) -> None:
    refusals.note(exchange, fault)
    status = refusals.status(fault, exchange)
    await outlet.answer(status, refusals.headers(fault, status), refusals.body(fault, exchange))


async def _carry_out(gateway: Gateway, exchange: Exchange, found: Recognised, outlet: Outlet) -> None:
    if found.wish is Wish.LEVEL:
        await gateway.set_level(found.call.session or "", found.call.log_level or "")
    if found.wish is Wish.DESCRIBE:
        prepared_answer: bytes | tuple[bytes, ...] | None = await gateway.descriptions.of(
            exchange, gateway.listed(exchange)
        )
    else:
        prepared_answer = resolve(gateway, exchange, found)
    if prepared_answer is not None:
        exchange.outcome, exchange.status = "ok", 200
        await outlet.answer(200, found.headers, found.face.reply(found.call.id, prepared_answer))
        return
    arm = authorise(gateway, exchange)
    backend = await admit(gateway, exchange, arm)
    upstream = await forward(gateway, exchange, arm, backend)
    try:
        await relay(exchange, upstream, outlet, gateway.states)
    finally:
        upstream.close()


def resolve(gateway: Gateway, exchange: Exchange, found: Recognised) -> bytes | tuple[bytes, ...] | None:
    """An answer made here, as JSON text or the pieces of it; or None, and the call's grant stands in `exchange.grant`.

    A tool that is not this agent's is as unknown as one that is nobody's: its view does not hold it.

    Raises:
        Fault: UNKNOWN_NAME, UNKNOWN_RESOURCE, UNKNOWN_METHOD, BAD_PARAMS.
    """
    view = exchange.view
    assert view is not None
    if found.wish is Wish.CALL:
        name = found.call.name or ""
        if found.call.method != names.TOOLS_CALL:
            return grants.resolve(exchange, found.call)
        grant = view.grants.get(name)
        if grant is None:
            raise grants.unknown(found.call.method, name)
        exchange.grant, exchange.tool = grant, name
        return None
    if found.wish is Wish.LIST:
        return prepared.listed(exchange, found, gateway.listed(exchange), gateway.cursors)
    if found.wish is Wish.DISCOVER:
        return prepared.discover(exchange, gateway.listed(exchange))
    if found.wish is Wish.INITIALIZE:
        return prepared.initialize(exchange, gateway.listed(exchange), found.call.version)
    return b"{}"


def authorise(gateway: Gateway, exchange: Exchange) -> Arm:
    """What is left to decide when the arguments are known: their headers, the policies and the arm of the route.

    Raises:
        Fault: HEADER_MISMATCH, ARGUMENTS_DENIED, UNKNOWN_NAME where no arm fits these arguments; BAD_PARAMS where
            they, or a `requestState`, are not what they must be.
    """
    grant, call = exchange.grant, exchange.call
    assert grant is not None and call is not None and exchange.face is not None
    arguments = call.params.get("arguments", b"{}")
    if grant.route.param_headers and exchange.face.mirrors:
        _compare(exchange, grant.route.param_headers, arguments)
    arm = exchange.arm = arm_for(grant.arms, arguments)
    if arm is not None and (arm.fixed or arm.defaults or arm.checks):
        arguments = curation.settled(arm, arguments)
        if arm.fixed or arm.defaults:
            call.params["arguments"] = arguments
    if grant.conditions:
        exchange.refused_by = policies.refused_by(grant, arguments)
        if exchange.refused_by is not None:
            raise Fault(Kind.ARGUMENTS_DENIED)
    if arm is None:
        raise grants.unknown(call.method, call.name or "")
    if call.request_state is not None:
        gateway.resume(exchange, arm.targets[0].server)
    return arm


def _compare(exchange: Exchange, wanted: tuple[ParamHeader, ...], arguments: bytes) -> None:
    """The `Mcp-Param-*` headers must repeat the arguments (2026-07-28, Custom Headers from Tool Parameters)."""
    wrong = params.check(wanted, arguments, exchange.headers)
    if wrong is None and any(item.header.encode() in exchange.twice for item in wanted):
        wrong = "An Mcp-Param header came twice."
    if wrong is not None:
        raise Fault(Kind.HEADER_MISMATCH, wrong)


async def admit(gateway: Gateway, exchange: Exchange, arm: Arm) -> Backend:
    """Whether the call may go to its server now. The limits come last: what is refused otherwise counts in none.

    Raises:
        Fault: FULL where this worker carries all it can, or cannot check a limit that must hold; NO_SERVER while the
            server is under maintenance; RATE_LIMITED.
    """
    if gateway.in_flight > gateway.most_in_flight:
        raise Fault(Kind.FULL, retry_after=1)
    backend = exchange.snapshot.backends[arm.targets[0].server]
    if backend.maintenance is not None:
        raise Fault(Kind.NO_SERVER, backend.maintenance, data={"reason": "maintenance"}, retry_after=60)
    await gateway.limiter.admit(exchange)
    return backend


async def forward(gateway: Gateway, exchange: Exchange, arm: Arm, backend: Backend) -> Upstream:
    """Send the call to one instance; to the next one where nothing was sent to the first.

    Raises:
        Fault: NO_SERVER, TIMEOUT, LOST, INTERNAL, and what the server's refusals are mapped to.
    """
    call, target = exchange.call, arm.targets[0]
    assert call is not None
    identity = gateway.identity(exchange, backend)
    deadlines, first = arm.deadlines, asyncio.get_running_loop().time()
    failed = Fault(Kind.NO_SERVER, data={"reason": "down"}, retry_after=1)
    for instance in gateway.choose(backend, identity, call.instance):
        exchange.instance = instance
        exchange.attempts += 1
        began = time.monotonic()
        try:
            return await gateway.caller.call(call, target, backend, instance, identity, deadlines)
        except Fault as fault:
            if fault.sent:
                raise
            exchange.attempts -= 1
            if fault.kind is not Kind.NO_SERVER:
                raise
            failed, deadlines = fault, remaining(arm.deadlines, first)
        finally:
            exchange.waited += time.monotonic() - began
    raise failed


def settle(gateway: Gateway, exchange: Exchange) -> None:
    """Give back what was taken and write down what happened. Without a better word it was *cancelled*."""
    gateway.limiter.settle(exchange)
    gateway.untrack(exchange)
    gateway.record(exchange)


async def refuse(gateway: Gateway, exchange: Exchange, fault: Fault, agent: Agent) -> None:
    """Answer a request that was refused before it became a call."""
    refusals.note(exchange, fault)
    gateway.refusal_log.note(fault.kind, exchange)
    gateway.record(exchange)
    if agent.started:
        return
    status = refusals.status(fault, exchange)
    fields = [*gateway.common(exchange), *refusals.headers(fault, status), JSON]
    if fault.kind in (Kind.BODY_TOO_LARGE, Kind.BODY_TOO_SLOW):
        fields.append((b"connection", b"close"))
    await agent.answer(status, fields, refusals.body(fault, exchange))
    if fault.kind is Kind.BODY_TOO_LARGE:
        await agent.throw_away(exchange.snapshot.body_deadline)
