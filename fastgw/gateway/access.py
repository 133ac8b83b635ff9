"""Agents that have shown their credential before: who they are at an endpoint, found again by its hash alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import msgspec

from fastgw.auth.keys import authenticate, shown_token
from fastgw.catalog.route import Arm
from fastgw.errors import Fault, Kind
from fastgw.gateway.quota_charges import QuotaCharges
from fastgw.policy.limits import BucketCharge
from fastgw.policy.match import ANONYMOUS, Principal
from fastgw.protocol.headers import Fields
from fastgw.snapshot.model import Endpoint, Snapshot, View
from fastgw.usage.event import agent_fields

MOST = 20_000
"""Agents that are remembered; of one more, all are forgotten and found anew."""


class Access(msgspec.Struct, frozen=True, eq=False):
    """What one agent has at one endpoint.

    Args:
        expires: Unix seconds until which its credential is good.
        event: what its usage events say of it.
        subject: whose the access token is that it comes by, issuer and `sub`; empty for who comes by anything else. The
            token itself is in the request alone.
        charges: by name of a tool: an arm of its route, and the buckets that its calls by that arm count in.
        quotas: by name of a tool or prompt: what its calls reserve of quotas.
        credentials: by server that has several: tag of that for this agent, None where there is none.
    """

    principal: Principal
    view: View
    expires: float
    event: str
    subject: str = ""
    charges: dict[str, tuple[Arm, Sequence[BucketCharge]]] = {}
    quotas: dict[str, QuotaCharges] = {}
    credentials: dict[str, str | None] = {}


Key = tuple[str, bytes] | tuple[str, bytes, bytes]
"""Path of the endpoint, SHA-256 of the header `Authorization`; empty where nobody needs one. Of whom a proxy names: the
name of the identity, and the value of its header.
"""


class KnownAgents(dict[Key, Access]):
    """Those that one worker remembers, of the newest snapshot."""

    def find(self, snapshot: Snapshot, endpoint: Endpoint, key: Key, shown: Fields, now: float) -> Access | None:
        """Who sends these headers at `now` (Unix seconds); None where what they show may be an access token.

        Raises:
            Fault: UNAUTHENTICATED, WRONG_CREDENTIAL.
        """
        found, twice = shown
        principal, expires = ANONYMOUS, inf
        if not endpoint.anonymous:
            if endpoint.issuers and shown_token(found, twice, snapshot.keys) is not None:
                return None
            entry = authenticate(found, twice, snapshot.keys, now)
            principal, expires = entry.principal, inf if entry.expires is None else entry.expires
        view = endpoint.view_for(principal)
        if view is None:  # a credential of ours, but of a kind that this endpoint does not take
            raise Fault(Kind.UNAUTHENTICATED, headers=((b"www-authenticate", b"Bearer"),))
        access = access_of(snapshot, endpoint, (principal, view), expires)
        if endpoint.anonymous or not (twice or b"x-api-key" in found):
            self.remember(key, access)
        return access

    def remember(self, key: Key, access: Access) -> None:
        """Let it in by its hash from now on, until it expires or another snapshot comes."""
        if len(self) >= MOST:
            self.clear()
        self[key] = access


def access_of(
    snapshot: Snapshot, endpoint: Endpoint, who: tuple[Principal, View], expires: float, subject: str = ""
) -> Access:
    """What an agent has at an endpoint where it has this view; `subject` as in `Access`."""
    principal, view = who
    event = agent_fields(snapshot.gateway, endpoint.path, principal, snapshot.labels, snapshot.user_key)
    return Access(principal, view, expires, event, subject)
