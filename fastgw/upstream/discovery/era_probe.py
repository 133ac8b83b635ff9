"""Getting to know one instance of a server: which era it speaks, what it declares, how its lists are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from fastgw.errors import Fault
from fastgw.ports import UpstreamSession
from fastgw.protocol.names import MODERN_VERSION, Era
from fastgw.upstream.discovery.capabilities import NOTHING, Declared
from fastgw.upstream.discovery.discover import DISCOVER_WITHIN, LEGACY_LIFETIME, MODERN, DiscoveredEra, probe
from fastgw.upstream.discovery.fetch import SHEETS
from fastgw.upstream.discovery.listen import Listener
from fastgw.upstream.discovery.pages import Pages, legacy_pages, modern_pages
from fastgw.upstream.discovery.status import InstanceStatus
from fastgw.upstream.rpc import RpcClient, RpcClients, is_alive
from fastgw.upstream.sessions import KEEPER, ModernOnly, UpstreamSessions, own_identity

_STRIKES = 2
"""Rounds that may fail in one session before the gateway tries another."""


class EraProbe:
    """What instances say of themselves.

    Args:
        reach: how servers are reached.
        directory: has the gateway's own session at each legacy instance.
        on_era: called with an instance whose era was found.
    """

    def __init__(
        self, clients: RpcClients, sessions: UpstreamSessions, on_era: Callable[[InstanceStatus], None]
    ) -> None:
        self._clients = clients
        self._sessions = sessions
        self._on_era = on_era

    def is_due(self, status: InstanceStatus) -> bool:
        """Whether its era is to be found out, or looked at again."""
        found = status.found
        if found is None or found.failure:
            return True
        return found.era is Era.LEGACY and self._clients.clock() - status.probed_at > LEGACY_LIFETIME

    async def meet(self, status: InstanceStatus) -> None:
        """Find its era out. A legacy verdict counts only when `initialize` confirms it: a proxy's passing 404 to an
        unknown method must not turn a modern server into a legacy one.

        Raises:
            Fault: it cannot be told.
        """
        client = self._clients.client(status.key)
        found = await probe(client, self._clients.ours, status.server.watched.era)
        version = found.version
        if found.era is Era.MODERN:
            found = await self._with_sessions(status, client, found)
        else:
            try:
                version = (await self._opened(status, client)).version
            except ModernOnly:
                if status.server.watched.era == Era.LEGACY.value:
                    raise
                found = replace(MODERN, failure=found.failure)
            except Fault as fault:
                if found.failure:
                    fault.detail = f"{fault.detail or fault.message}; server/discover before it: {found.failure}"
                raise
        said = found.said if found.era is Era.MODERN else self._sessions.said(status.key)
        if said is not NOTHING and said.declares is None:
            status.note("does not say what it has (`capabilities`): every list is asked for")
        if found.failure:
            status.note(f"fails at server/discover ({found.failure}), and answers initialize")
        status.probed_at = status.asked_at = self._clients.clock()
        self._note_found(status, found, version or MODERN_VERSION)

    async def _opened(self, status: InstanceStatus, client: RpcClient) -> UpstreamSession:
        """The gateway's own session, opened anew where what was asked in it failed twice; also now and then where
        nothing else would tell what a server that was upgraded declares: its session has no id that could have died, or
        there is no list to ask for in it.
        """
        identity = own_identity(client.backend)
        session = await self._sessions.open(status.key, identity)
        declared = self._sessions.said(status.key).declares
        silent = not session.id or not any(list_kind.is_asked(declared) for list_kind in SHEETS)
        if status.strikes >= _STRIKES or (status.found is not None and silent):
            status.strikes = 0
            # One that agents have, too, is not taken from under them while it answers.
            if identity == KEEPER or not await is_alive(client, session):
                session = await self._sessions.open(status.key, identity, session)
        return session

    async def _with_sessions(self, status: InstanceStatus, client: RpcClient, found: DiscoveredEra) -> DiscoveredEra:
        """Whether a modern server also has sessions: then agents that need one get theirs there."""
        if status.server.watched.era == Era.MODERN.value:
            return found
        try:
            async with asyncio.timeout(DISCOVER_WITHIN):  # the opening goes on; its lists must not wait for it
                session = await self._opened(status, client)
                if not await is_alive(client, session):
                    await self._sessions.open(status.key, own_identity(client.backend), session)
        except TimeoutError:
            status.sessions_due = True  # it may be slow to start: the next round looks again
            return found
        except Fault:
            return found
        return replace(found, has_sessions=True)

    async def ask_again(self, status: InstanceStatus) -> None:
        """What a modern server declares may change while it runs. Other answers prove nothing: its lists will tell."""
        if status.found is None or status.found.era is not Era.MODERN:
            return
        client = self._clients.client(status.key)
        status.asked_at = self._clients.clock()
        try:
            found = await probe(client, self._clients.ours, status.server.watched.era)
        except Fault:
            return
        if found.era is not Era.MODERN or found.said.declares is None:
            return
        if status.sessions_due or status.asked_at - status.probed_at > LEGACY_LIFETIME:
            status.sessions_due, status.probed_at = False, status.asked_at
            found = await self._with_sessions(status, client, found)
        else:
            found = replace(found, has_sessions=status.found.has_sessions)
        self._note_found(status, found, found.version)

    def _note_found(self, status: InstanceStatus, found: DiscoveredEra, version: str) -> None:
        old = status.found
        status.found, status.version = found, version
        self._on_era(status)
        if old is None or (old.era, old.announces) != (found.era, found.announces):
            self._listen(status, found)

    def _listen(self, status: InstanceStatus, found: DiscoveredEra) -> None:
        if status.listen is not None:
            status.listen.cancel()
        listener = Listener(self._clients, self._sessions, status.key, status.wake.set)
        status.listen = self._clients.spawn(listener.run(found), f"listen to {status.label}")

    def pages(self, status: InstanceStatus) -> Pages:
        """How its lists are asked for."""
        client = self._clients.client(status.key)
        if status.found is not None and status.found.era is Era.MODERN:
            return modern_pages(client, self._clients.ours)
        return legacy_pages(client, self._sessions, status.key)

    def said(self, status: InstanceStatus) -> Declared:
        """What an instance says of itself."""
        if status.found is None:
            return NOTHING
        return status.found.said if status.found.era is Era.MODERN else self._sessions.said(status.key)
