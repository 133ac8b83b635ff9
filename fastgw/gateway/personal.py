"""What servers are shown of who asks, where their requests differ by that: which of several credentials of a server,
and headers of the agent that are handed on.

Headers go with the call, and with what follows it (a cancel, a resumed stream, a second attempt), never with what the
gateway asks for itself (`initialize`, lists, checks). Nothing of them is kept: each request brings its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastgw.catalog.route import Arm
from fastgw.errors import Fault, Kind
from fastgw.gateway.context import RequestContext
from fastgw.protocol.call import SentAs, SubjectToken
from fastgw.protocol.headers import Unforwardable, forwarded
from fastgw.protocol.trace_context import BAGGAGE
from fastgw.snapshot.model import Backend

_BAGGAGE = BAGGAGE.encode()


def sent_as(context: RequestContext, arm: Arm) -> Mapping[str, SentAs] | None:
    """By server, for those that a call by this arm may go to; None where none is shown anything of the agent.

    Raises:
        Fault: INVALID_REQUEST where a header cannot be handed on.
    """
    backends, personal = context.snapshot.backends, context.snapshot.personal
    found: dict[str, SentAs] = {}
    for target in arm.targets:
        for server in (target.server, *backends[target.server].backup):
            if server in personal and server not in found:
                found[server] = _sent_as(context, backends[server])
    return found or None


def _sent_as(context: RequestContext, backend: Backend) -> SentAs:
    forwards, call = backend.forwards, context.call
    if call is not None and call.trace is not None and call.trace.baggage:  # the call's own goes along with its trace
        forwards = tuple([one for one in forwards if one[0] != _BAGGAGE])
    try:
        lines = forwarded(context.headers, forwards)
    except Unforwardable as wrong:
        raise Fault(Kind.INVALID_REQUEST, f"Invalid request: {wrong}") from None
    tag, subject = _credential(context, backend) if backend.credentials else "", None
    if tag and any(one.exchanges for one in backend.credentials if one.tag == tag):
        subject = _subject(context)
        tag = f"{tag}.{subject.user}" if subject is not None else tag
    return SentAs(lines, b"%b\n%b" % ((tag or "").encode(), lines), tag, subject)


def _credential(context: RequestContext, backend: Backend) -> str | None:
    """The tag of the server's credential for this agent, worked out once; None where it has none."""
    access = context.access
    assert access is not None
    if backend.name not in access.credentials:
        who, path = context.principal, context.endpoint.path
        fitting = [
            one for one in backend.credentials if one.match is None or one.match.for_class(who, path) is not None
        ]
        access.credentials[backend.name] = fitting[0].tag if fitting else None
    return access.credentials[backend.name]


def _subject(context: RequestContext) -> SubjectToken | None:
    """The access token by which the agent has come, which has been verified; None where it has come otherwise."""
    access = context.access
    if access is None or not access.subject:
        return None
    token = context.headers[b"authorization"].partition(b" ")[2].strip()
    return SubjectToken(token.decode("ascii"), access.subject)
