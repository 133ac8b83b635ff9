"""Which era a server speaks.

    server/discover, asked the modern way
        a result naming our modern revision; -32020, -32021; -32022 naming it      modern
        anything else: another answer, any status, a reset, silence                `initialize` is asked next
        no connection                                                              nothing is learned

Source: 2026-07-28, Versioning and Streamable HTTP, Backward Compatibility. Proxies and servers in trouble answer a
method they do not know with anything at all, so what was found by a server's failure is soon looked at again.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastgw.errors import Fault
from fastgw.protocol import names
from fastgw.protocol.names import Era
from fastgw.snapshot.model import BOTH
from fastgw.upstream import modern
from fastgw.upstream.classify import speaks_modern
from fastgw.upstream.discovery.capabilities import NOTHING, Declared, announced, said_in
from fastgw.upstream.ids import new_id
from fastgw.upstream.rpc import RpcClient, RpcReply, result_of

LEGACY_LIFETIME = 600.0
"""Seconds. A server that was upgraded still answers `initialize`, so a legacy verdict would never correct itself."""

DISCOVER_WITHIN = 3.0
"""Seconds for an answer to discover: some servers never answer what they do not know."""

_REFUSALS = (400, 404, 405, 406, 415, 422)
"""Statuses by which older servers refuse a method or a revision that they do not know."""


@dataclass(frozen=True, slots=True)
class DiscoveredEra:
    """What a probe found.

    Args:
        era: how the server is spoken to.
        version: the revision; empty for a legacy server, whose `initialize` will say.
        announces: of which lists a modern server announces changes: members of a listen filter.
        said: what a modern server says of itself.
        failure: what it answered to discover, where that was a failure rather than a refusal.
        has_sessions: a modern server that also takes `initialize`.
    """

    era: Era
    version: str
    announces: tuple[str, ...] = ()
    said: Declared = NOTHING
    failure: str = ""
    has_sessions: bool = False

    @property
    def spoken(self) -> str:
        """As in `Instance.era`."""
        return BOTH if self.has_sessions else self.era.value


LEGACY = DiscoveredEra(Era.LEGACY, "")
MODERN = DiscoveredEra(Era.MODERN, names.MODERN_VERSION)


async def probe(client: RpcClient, ours: bytes, override: str = "auto") -> DiscoveredEra:
    """Find out which era an instance speaks. A legacy verdict is one only when `initialize` confirms it.

    Args:
        asker: who asks it.
        ours: our `clientInfo` as JSON text.
        override: `era:` of the configuration; `legacy` asks nothing.

    Raises:
        Fault: NO_SERVER where it cannot be reached.
    """
    if override == Era.LEGACY.value:
        return LEGACY
    upstream_id = new_id()
    headers, body = modern.question(names.DISCOVER, {}, upstream_id, ours)
    try:
        reply = await client.within(DISCOVER_WITHIN).ask(client.backend.headers + headers, body, upstream_id)
        found = classified(reply)
    except Fault as fault:
        if fault.repeatable:  # nobody was there to be asked
            raise
        found = DiscoveredEra(Era.LEGACY, "", failure=fault.detail or fault.message)
    # The operator's word decides the era; that discover fails there does not.
    return MODERN if override == Era.MODERN.value and found.era is not Era.MODERN else found


def classified(reply: RpcReply) -> DiscoveredEra:
    """What an answer to discover says."""
    result = result_of(reply)
    versions = result.get("supportedVersions")
    if isinstance(versions, list) and names.MODERN_VERSION in versions:
        said = said_in(result)
        return DiscoveredEra(Era.MODERN, names.MODERN_VERSION, announced(result.get("capabilities")), said)
    if speaks_modern(reply.message, reply.body):
        return MODERN
    if reply.status in _REFUSALS or reply.message is not None:
        return LEGACY
    return DiscoveredEra(Era.LEGACY, "", failure=f"status {reply.status} without an answer")
