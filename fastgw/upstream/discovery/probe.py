"""Which era an instance speaks, and what it declares.

    answer to server/discover, asked the modern way                             era
    a result naming our modern revision; -32020, -32021; -32022 naming it       modern; with sessions, where it has them
    anything else: another answer, any status, a reset, silence                 what `initialize` says:
        opens a session                                                             legacy
        -32022 naming our modern revision                                           modern
        anything else                                                               stays open
    no connection                                                               stays open

    found by a refusal     looked at again after ten minutes: an upgraded server still answers `initialize`
    found by a failure     in the next round: proxies and servers in trouble answer what they do not know with anything
    modern                 asked again for what it declares before its lists are fetched; failures there prove nothing

Source: 2026-07-28, Versioning and Streamable HTTP, Backward Compatibility.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from fastgw.catalog.definitions import DefinitionKind
from fastgw.errors import Fault
from fastgw.protocol import names
from fastgw.protocol.names import Era
from fastgw.snapshot.model import BOTH_ERAS
from fastgw.upstream.classify import about_session
from fastgw.upstream.controller import UpstreamSession
from fastgw.upstream.discovery.fetch import page_of
from fastgw.upstream.discovery.listen import Listener
from fastgw.upstream.discovery.status import LEGACY, MODERN, InstanceStatus, ProbeResult
from fastgw.upstream.rpc import NOTHING, Declared, RpcClient, RpcClients, RpcReply, declared_in, is_alive
from fastgw.upstream.sessions import ModernOnly, UpstreamSessions

LEGACY_LIFETIME = 600.0  # seconds after which what was found by a refusal is looked at again
DISCOVER_WITHIN = 3.0  # seconds for an answer to discover: some servers never answer what they do not know
_REFUSALS = (400, 404, 405, 406, 415, 422)
"""Statuses by which older servers refuse a method or a revision that they do not know."""
_MOST_FAILURES = 2  # rounds that may fail in one session before the gateway tries another


async def discover(client: RpcClient, ours: bytes, configured: str = "auto") -> ProbeResult:
    """What an instance answers to discover; that it is legacy `initialize` must confirm. Where `era` of the
    configuration is `legacy` nothing is asked. Raises Fault NO_SERVER where it cannot be reached.
    """
    if configured == Era.LEGACY.value:
        return LEGACY
    try:
        found = discovered(await client.within(DISCOVER_WITHIN).ask_modern(names.DISCOVER, {}, ours))
    except Fault as fault:
        if fault.repeatable:  # nobody was there to be asked
            raise
        found = replace(LEGACY, failure=fault.detail or fault.message)
    # The operator's word decides the era; that discover fails there does not.
    return MODERN if configured == Era.MODERN.value and not found.is_modern else found


def discovered(reply: RpcReply) -> ProbeResult:
    """What an answer to discover says."""
    result = reply.result
    versions = result.get("supportedVersions")
    if isinstance(versions, list) and names.MODERN_VERSION in versions:
        return replace(MODERN, declared=declared_in(result))
    if reply.speaks_modern:
        return MODERN
    is_sound = reply.message is not None and (reply.message.result or b"{").startswith(b"{")
    if reply.status in _REFUSALS or is_sound:
        return LEGACY
    return replace(LEGACY, failure=f"status {reply.status} without an answer")


class EraProbe:
    """Finds out what instances speak and declare, and listens at each as it is spoken to; `on_era` is called with the
    key of an instance that speaks otherwise than before.
    """

    def __init__(self, clients: RpcClients, sessions: UpstreamSessions, on_era: Callable[[str], object]) -> None:
        self._clients = clients
        self._sessions = sessions
        self._on_era = on_era

    def is_due(self, status: InstanceStatus) -> bool:
        """Whether its era is to be found out, or looked at again."""
        found = status.probed
        if found is None or found.failure:
            return True
        return not found.is_modern and self._clients.clock() - status.probed_at > LEGACY_LIFETIME

    async def probe(self, status: InstanceStatus) -> None:
        """Find its era out; raises Fault where that cannot be done."""
        client = await self._clients.ready(status.key)
        found = await discover(client, self._clients.ours, status.server.watched.era)
        if found.is_modern:
            found = await self._probe_sessions(status, client, found)
        else:
            try:
                found = replace(found, version=(await self._session(status, client)).version)
            except ModernOnly:
                if status.server.watched.era == Era.LEGACY.value:
                    raise
                found = replace(MODERN, failure=found.failure)
            except Fault as fault:
                if found.failure:
                    fault.detail = f"{fault.detail or fault.message}; server/discover before it: {found.failure}"
                raise
        status.probed_at = status.asked_at = self._clients.clock()
        self._note(status, found)
        declared = self.declared(status)
        if declared is not NOTHING and declared.capabilities is None:
            status.note("does not say what it has (`capabilities`): every list is asked for")
        if found.failure:
            status.note(f"fails at server/discover ({found.failure}), and answers initialize")

    async def refresh_declared(self, status: InstanceStatus) -> None:
        """What a modern server declares may change while it runs. Other answers prove nothing: its lists will tell."""
        if status.probed is None or not status.probed.is_modern:
            return
        status.asked_at = self._clients.clock()
        with suppress(Fault):
            client = await self._clients.ready(status.key)
            found = await discover(client, self._clients.ours, status.server.watched.era)
            if not found.is_modern or found.declared.capabilities is None:
                return
            if status.sessions_due or status.asked_at - status.probed_at > LEGACY_LIFETIME:
                status.sessions_due, status.probed_at = False, status.asked_at
                found = await self._probe_sessions(status, client, found)
            else:
                found = replace(found, era=status.probed.era)
            self._note(status, found)

    def declared(self, status: InstanceStatus) -> Declared:
        probed = status.probed
        return probed.declared if probed is not None and probed.is_modern else self._sessions.declared(status.key)

    async def page(self, status: InstanceStatus, method: str, cursor: bytes | None) -> bytes | None:
        """One page of one of its lists, as `fetch.Page`; a lost session is opened anew once."""
        client = await self._clients.ready(status.key)
        params = {} if cursor is None else {"cursor": cursor}
        if status.probed is not None and status.probed.is_modern:
            return page_of(await client.ask_modern(method, params, self._clients.ours), client.backend)
        session = await self._sessions.own(status.key)
        reply = await client.ask_legacy(session, method, params)
        # A list may be asked for twice, so whatever makes one doubt is reason enough to ask the session itself.
        doubted = about_session(reply.status, reply.message, reply.body) is not None
        if doubted and not await is_alive(client, session):
            session = await self._sessions.own(status.key, session)
            reply = await client.ask_legacy(session, method, params)
        return page_of(reply, client.backend)

    async def _session(self, status: InstanceStatus, client: RpcClient) -> UpstreamSession:
        """The gateway's own session, opened anew where rounds failed in it; also now and then where nothing else would
        tell what an upgraded server declares: the session has no id that could have died, or no list to ask for.
        """
        session = await self._sessions.own(status.key)
        capabilities = self._sessions.declared(status.key).capabilities
        silent = not session.id or not any(kind.is_declared(capabilities) for kind in DefinitionKind)
        doubted = status.failures >= _MOST_FAILURES or (status.probed is not None and silent)
        # One that agents have, too, is not taken from under them while it answers.
        if doubted and not (client.backend.shared_session and await is_alive(client, session)):
            session = await self._sessions.own(status.key, session)
        return session

    async def _probe_sessions(self, status: InstanceStatus, client: RpcClient, found: ProbeResult) -> ProbeResult:
        """Whether a modern server also has sessions: then agents that need one get theirs there."""
        if status.server.watched.era == Era.MODERN.value:
            return found
        try:
            async with asyncio.timeout(DISCOVER_WITHIN):  # the opening goes on; its lists must not wait for it
                session = await self._session(status, client)
                if not await is_alive(client, session):
                    await self._sessions.own(status.key, session)
        except TimeoutError:
            status.sessions_due = True  # it may be slow to start: the next round looks again
            return found
        except Fault:
            return found
        return replace(found, era=BOTH_ERAS)

    def _note(self, status: InstanceStatus, found: ProbeResult) -> None:
        old, status.probed = status.probed, found
        if status.known_era != (known := (found.era, found.version)):
            status.known_era = known
            self._on_era(status.key)
        if old is None or (old.is_modern, old.declared.announces) != (found.is_modern, found.declared.announces):
            if status.listen is not None:
                status.listen.cancel()
            listener = Listener(self._clients, self._sessions, status.key, status.wake.set)
            status.listen = self._clients.spawn(listener.run(found), f"listen to {status.label}")
