"""Agents that have shown their credential before: who they are at an endpoint, found again by its hash alone."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from math import inf

import msgspec

from fastgw.auth.keys import authenticate
from fastgw.catalog.route import Arm
from fastgw.errors import Fault, Kind
from fastgw.policy.limits import BucketCharge
from fastgw.policy.match import ANONYMOUS, Principal
from fastgw.protocol.headers import Fields
from fastgw.snapshot.model import Endpoint, Snapshot, View
from fastgw.usage.event import agent_fields

MOST = 20_000
"""Agents that are remembered. To find one again takes a third of reading its headers anew (`python -m bench steps`)."""


class Access(msgspec.Struct, frozen=True, eq=False):
    """What one agent has at one endpoint.

    Args:
        expires: Unix seconds until which its credential is good.
        event: what its usage events say of it.
        charges: by name of a tool: an arm of its route, and the buckets that its calls by that arm count in.
    """

    principal: Principal
    view: View
    expires: float
    event: str
    charges: dict[str, tuple[Arm, Sequence[BucketCharge]]] = {}


class KnownAgents:
    """Those that one worker remembers, of one snapshot."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._known: dict[tuple[str, bytes], Access] = {}

    def find(self, snapshot: Snapshot, endpoint: Endpoint, headers: Fields, now: float) -> Access:
        """Who sends these headers at `now` (Unix seconds). Raises Fault: UNAUTHENTICATED, WRONG_CREDENTIAL."""
        if snapshot is not self._snapshot or len(self._known) > MOST:
            self._snapshot = snapshot
            self._known.clear()
        found, twice = headers
        shown = found.get(b"authorization", b"")
        is_usual = endpoint.anonymous or (shown and not twice and b"x-api-key" not in found)
        key = endpoint.path, b"" if endpoint.anonymous else sha256(shown).digest()
        access = self._known.get(key) if is_usual else None
        if access is not None and now < access.expires:
            return access
        principal, expires = ANONYMOUS, inf
        if not endpoint.anonymous:
            entry = authenticate(found, twice, snapshot.keys, now)
            principal, expires = entry.principal, inf if entry.expires is None else entry.expires
        view = endpoint.view_for(principal)
        if view is None:  # a credential of ours, but of a kind that this endpoint does not take
            raise Fault(Kind.UNAUTHENTICATED, headers=((b"www-authenticate", b"Bearer"),))
        event = agent_fields(snapshot.gateway, endpoint.path, principal, snapshot.labels)
        access = Access(principal, view, expires, event)
        if is_usual:
            self._known[key] = access
        return access
