"""What an endpoint offers to one agent: answers that tell of it, and from what a request names to the grant it goes by.

What is not this agent's is as unknown as what is nobody's: the same words and fields.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import orjson

from fastgw.catalog.route import Arm, Route, Target
from fastgw.errors import Fault, Kind
from fastgw.gateway.context import RequestContext
from fastgw.gateway.dialects.dialect import ParsedRequest, RequestKind
from fastgw.gateway.dialects.modern import SUPPORTED
from fastgw.gateway.gateway import Gateway
from fastgw.protocol import names, results
from fastgw.protocol.call import Call
from fastgw.protocol.envelope import NotAMessage, NotJson, emit, members, quote, string
from fastgw.protocol.sealing import NONCE, Sealer
from fastgw.snapshot.model import EMPTY_LISTING, PAGE, Endpoint, Grant, Listing, View

_SHOWN = 128
"""Characters of an unknown name that are repeated to who asked."""
_LONGEST_URI = 8192
_REF = frozenset(("type", "name", "uri"))
_NAMING = frozenset(("name", "uri"))
_NO_VALUES = b'{"completion":{"values":[],"total":0,"hasMore":false}}'


def unknown(method: str, name: str) -> Fault:
    """No such tool or prompt, or none for this agent."""
    shown = name[:_SHOWN]
    what = "prompt" if method in (names.PROMPTS_GET, names.COMPLETE) else "tool"
    return Fault(Kind.UNKNOWN_NAME, f"Unknown {what}: {shown}", data={"name": shown})


def unknown_resource(uri: str) -> Fault:
    """No such resource, or none for this agent."""
    return Fault(Kind.UNKNOWN_RESOURCE, data={"uri": uri[:_LONGEST_URI]})


def reads(view: View) -> bool:
    """Whether any resource or template is there for who has this view."""
    return any(view.lists.get(method) for method in (names.RESOURCES_LIST, names.TEMPLATES_LIST))


def completes(endpoint: Endpoint, view: View) -> bool:
    """Whether there is anything that could be completed: who sees nothing does not learn that servers would."""
    return bool(endpoint.completes) and (bool(view.prompts) or reads(view))


def resolve(context: RequestContext, call: Call) -> bytes | None:
    """As the step of the same name, for every call but one of a tool. Raises a Fault: as `grant_of`."""
    view, dialect = context.view, context.dialect
    assert view is not None
    grant = context.grant = grant_of(call, context.endpoint, view)
    if call.method != names.RESOURCES_READ and context.grant.arms[0].target.member:
        context.tool = call.name
    if call.method != names.COMPLETE or grant.arms[0].target.server in context.endpoint.completes:
        return None
    # Its server knows no values; that is no fault (2025-11-25, Completion).
    return dialect.result(results.read(_NO_VALUES), context.snapshot.server_info)


def grant_of(call: Call, endpoint: Endpoint, view: View) -> Grant:
    """What a call other than of a tool goes by; of a completion, `call.params` then holds the server's own `ref`.

    Raises:
        Fault: UNKNOWN_NAME, UNKNOWN_RESOURCE; UNKNOWN_METHOD for completions where no server completes; BAD_PARAMS.
    """
    if call.method == names.PROMPTS_GET:
        return _prompt(call.method, call.name or "", view)
    if call.method == names.RESOURCES_READ:
        server, uri = _owned(call.name or "", endpoint, view)
        return _made(call.name or "", endpoint.readers[server], Target(server, uri, quote(uri), member="uri"))
    return _completion(call, endpoint, view)


def _prompt(method: str, name: str, view: View) -> Grant:
    grant = view.prompts.get(name)
    if grant is None:
        raise unknown(method, name)
    return grant


def _owned(uri: str, endpoint: Endpoint, view: View) -> tuple[str, str]:
    """The server that a URI leads to, and its own spelling of it."""
    uris = endpoint.uris
    owned = uris.owner(uri)
    if owned is None or owned.server not in endpoint.readers or not uris.permits(view.uri_rules, uri, owned):
        raise unknown_resource(uri)
    return owned.server, owned.uri


def _completion(call: Call, endpoint: Endpoint, view: View) -> Grant:
    if not completes(endpoint, view):
        raise Fault(Kind.UNKNOWN_METHOD)
    try:
        ref = members(call.params["ref"], _REF)
        kind = string(ref.get("type", b""), "ref.type")
        named = string(ref.get("uri" if kind == "ref/resource" else "name", b""), "ref")
    except (KeyError, NotJson, NotAMessage) as wrong:
        raise Fault(Kind.BAD_PARAMS, f"Invalid params: {wrong}") from None
    if kind == "ref/prompt":
        arm = _prompt(call.method, named, view).arms[0]
        target, member = arm.target, "name"
    elif kind == "ref/resource":
        server, uri = _owned(named, endpoint, view)
        if endpoint.uris.listed(server, uri) is None:
            # Its server would refuse it in other words than we refuse what is hidden.
            raise unknown_resource(named)
        arm, target, member = endpoint.readers[server], Target(server, uri, quote(uri)), "uri"
    else:
        raise Fault(Kind.BAD_PARAMS, "Invalid params: ref.type must be ref/prompt or ref/resource")
    # The member that names another kind, which nobody has checked, goes no further.
    rest = {name: value for name, value in ref.items() if name not in _NAMING}
    call.params["ref"] = emit({**rest, member: target.name_json})
    return _made(named, arm, replace(target, member=""))


def _made(name: str, arm: Arm, target: Target) -> Grant:
    """A grant made for one call: policies have spoken, nothing is left to ask of its arguments."""
    arm = replace(arm, match=None, targets=(target,))
    return Grant(True, (), Route(name, (arm,), (), ()), (arm,))


# -- lists, and what there is ---------------------------------------------------------------------------------------


def capabilities(endpoint: Endpoint, view: View) -> dict[str, dict[str, bool]]:
    """What is offered to whoever has this view. No `listChanged` and no `subscribe`: nobody could listen for it yet."""
    found: dict[str, dict[str, bool]] = {"logging": {}, "tools": {}}
    more = {"prompts": view.prompts, "resources": reads(view), "completions": completes(endpoint, view)}
    return found | {name: {} for name, offers in more.items() if offers}


def discover(gateway: Gateway, context: RequestContext, _: ParsedRequest) -> bytes:
    """The result of `server/discover` (2026-07-28, Discovery)."""
    found: dict[str, Any] = {
        "resultType": "complete",
        "supportedVersions": SUPPORTED,
        "capabilities": capabilities(context.endpoint, gateway.listed(context)),
        "ttlMs": _ttl_ms(context.endpoint),
        "cacheScope": "private",
        "_meta": {names.META_SERVER: orjson.Fragment(context.snapshot.server_info)},
    }
    _add_instructions(context, found)
    return orjson.dumps(found)


def initialize(gateway: Gateway, context: RequestContext, request: ParsedRequest) -> bytes:
    """The result of `initialize` (2025-11-25, Lifecycle)."""
    found: dict[str, Any] = {
        "protocolVersion": request.call.version,
        "capabilities": capabilities(context.endpoint, gateway.listed(context)),
        "serverInfo": orjson.Fragment(context.snapshot.server_info),
    }
    _add_instructions(context, found)
    return orjson.dumps(found)


def _add_instructions(context: RequestContext, found: dict[str, Any]) -> None:
    guide = context.endpoint.guide(context.principal)
    if guide:
        found["instructions"] = guide


def list_page(gateway: Gateway, context: RequestContext, request: ParsedRequest) -> tuple[bytes, ...]:
    """The result of a list as JSON text in pieces, for it can be large.

    Raises:
        Fault: BAD_PARAMS for a cursor that is foreign, altered, or of a list that has changed since.
    """
    call, dialect = request.call, request.dialect
    listing, sealer = gateway.listed(context).lists.get(call.method, EMPTY_LISTING), gateway.cursors
    bond = f"{context.endpoint.path}\n{context.principal.agent}\n{call.method}".encode()
    start = _start(listing, call.params.get("cursor"), bond, sealer)
    following, page = b"", gateway.list_pages.of(listing, start, dialect.list_form)
    if start + PAGE < len(listing.entries):
        plain = orjson.dumps([start + PAGE, listing.fingerprint])
        following = b',"nextCursor":"%s"' % sealer.seal(plain, bond, os.urandom(NONCE)).encode()
    tail = dialect.list_tail(_ttl_ms(context.endpoint), context.snapshot.server_info)
    member = names.LISTS[call.method].encode()
    return b'{"', member, b'":', page, following, tail, b"}"


def _start(listing: Listing, cursor: bytes | None, bond: bytes, sealer: Sealer) -> int:
    if cursor is None or cursor == b"null":
        return 0
    try:
        plain = sealer.open(string(cursor, "cursor"), bond)
    except NotAMessage:
        plain = None
    if plain is not None:
        start, fingerprint = orjson.loads(plain)
        if fingerprint == listing.fingerprint and start in listing.starts:
            return int(start)
    raise Fault(Kind.BAD_PARAMS, "Invalid params: unknown cursor")


def _ttl_ms(endpoint: Endpoint) -> int:
    """Milliseconds the lists stay fresh: what the least patient server granted, less the age of our copy."""
    return max(0, int((endpoint.fresh_until - time.monotonic()) * 1000))


def _describe(gateway: Gateway, context: RequestContext, _: ParsedRequest) -> Awaitable[bytes]:
    return gateway.descriptions.of(context, gateway.listed(context))


def _set_level(gateway: Gateway, _: RequestContext, request: ParsedRequest) -> Awaitable[bytes]:
    return gateway.set_level(request.call.session or "", request.call.log_level or "")


def _pong(_: Gateway, __: RequestContext, ___: ParsedRequest) -> bytes:
    return b"{}"


Answer = bytes | tuple[bytes, ...] | Awaitable[bytes]
"""A result as JSON text, or the pieces of it; awaited where it takes a while."""

ANSWERS: dict[RequestKind, Callable[[Gateway, RequestContext, ParsedRequest], Answer]] = {
    RequestKind.LIST: list_page,
    RequestKind.DESCRIBE: _describe,
    RequestKind.DISCOVER: discover,
    RequestKind.INITIALIZE: initialize,
    RequestKind.LEVEL: _set_level,
    RequestKind.PING: _pong,
}
"""What is answered here, without a server."""
