"""From what a request names to the grant it goes by: a tool, a prompt, a resource, or whoever completes an argument.

What is not this agent's is as unknown as what is nobody's: the same words and fields.
"""

from __future__ import annotations

from dataclasses import replace

from fastgw.catalog.route import Arm, Route, Target
from fastgw.errors import Fault, Kind
from fastgw.gateway.context import RequestContext
from fastgw.protocol import names, results
from fastgw.protocol.call import Call
from fastgw.protocol.envelope import NotAMessage, NotJson, emit, members, quote, string
from fastgw.snapshot.model import Endpoint, Grant, View

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
    return Grant(Route(name, (arm,), (), ()), (arm,), True, ())
