"""Agents that a proxy names in a header, on its word, as far as it is a proxy whose word counts.

Who shows a credential of its own is judged by that alone, whatever a proxy says beside it.
"""

from __future__ import annotations

import re

from fastgw.errors import Fault, Kind
from fastgw.gateway.context import RequestContext
from fastgw.gateway.refusals import RefusalLog
from fastgw.policy.match import Principal
from fastgw.policy.networks import address_of
from fastgw.snapshot.issuers import HeaderIdentity
from fastgw.telemetry.counters import Counters

LONGEST_NAME = 256
"""Letters of an agent's name, as of one that a token names."""

_UNFIT = re.compile(r"[\x00-\x1f\x7f]")


class HeaderAgents:
    """Who is named by a header, for one worker."""

    def __init__(self, counters: Counters, refusals: RefusalLog) -> None:
        self._counters, self._refusals = counters, refusals

    def identity(self, context: RequestContext) -> HeaderIdentity | None:
        """The identity by which a proxy names the agent of this request; None where none does. A header from another
        address than its proxies' counts as not sent.

        Raises:
            Fault: WRONG_CREDENTIAL where it is named by several.
        """
        fields = context.headers
        if b"authorization" in fields or b"x-api-key" in fields:
            return None
        peer = str(context.client[0]) if context.client else ""
        found = None
        for name in context.endpoint.proxies:
            identity = context.snapshot.header_identities[name]
            if identity.header not in fields:
                continue
            if not identity.trusted.hold(address_of(peer)):
                self._counters.inc("fastgw_untrusted_headers_total", name)
                self._refusals.note_untrusted(context, name, identity.header, peer)
                continue
            if found is not None:
                raise _wrong("several headers name the agent")
            found = identity
        return found


def named(context: RequestContext, identity: HeaderIdentity) -> Principal:
    """Whom the header of this identity names in a request that has it.

    Raises:
        Fault: WRONG_CREDENTIAL where it is none, or not one.
    """
    if identity.header in context.twice:
        raise _wrong("the header that names the agent came more than once")
    try:
        name = context.headers[identity.header].decode("utf-8")
    except UnicodeDecodeError:
        name = ""
    if not 0 < len(name) <= LONGEST_NAME or _UNFIT.search(name):
        raise _wrong("the header that names the agent holds no name")
    return Principal(f"{identity.name}:{name}", dict(identity.fixed), identity.name)


def _wrong(what: str) -> Fault:
    challenge = (b"www-authenticate", b"Bearer")
    return Fault(Kind.WRONG_CREDENTIAL, f"The agent is not known: {what}.", detail=what, headers=(challenge,))
