"""The catalogues of all servers: fetched ahead, refreshed, kept, one server never waiting for another.

One round of one instance:

    probe its era, where it is unknown, old or unsure  ->  fetch all lists, unless another instance of the server did
    ->  wait: as long as the lists are fresh, `refresh` seconds, or until a change is announced
    any failure  ->  the copy there is stays in use; wait 0.25 s to 5 s, try again
    a list that fails where others come  ->  likewise, and after some tries as if it had come

What becomes of one list:

    it comes     declared                                         not declared
    whole        used                                             used, with a note; empty: there is none
    in part      used where it is more than there was; failed     the same; where it came before: as declared
    not at all   stays as it was; failed                          there is none; where it came before: as declared

Of a server that says nothing of its capabilities all count as declared, and a bare 404 says that there is no such list.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fastgw.catalog.definitions import DefinitionKind
from fastgw.catalog.pins import digest_all
from fastgw.catalog.tools import Catalogue
from fastgw.errors import Fault
from fastgw.snapshot.model import BOTH_ERAS, Backend
from fastgw.upstream.discovery import kept
from fastgw.upstream.discovery.fetch import NO_LIST, FetchedList, NoSuchList, fetch_all
from fastgw.upstream.discovery.listen import pause
from fastgw.upstream.discovery.probe import DISCOVER_WITHIN, EraProbe
from fastgw.upstream.discovery.status import InstanceStatus, ServerStatus, WatchedServer
from fastgw.upstream.rpc import RpcClients
from fastgw.upstream.sessions import UpstreamSessions
from fastgw.upstream.transports import down

log = logging.getLogger("fastgw")

COALESCE = 0.1  # seconds in which announced changes are gathered
SHORTEST, LONGEST = 1.0, 3600.0
"""Seconds between two fetches, whatever a server says about its freshness and its changes."""
UNDECLARED_WITHIN = 3.0  # seconds for a list that a server does not declare: it may never answer
UNDECLARED_EVERY = 600.0  # seconds after which a list that is not declared, and was not there, is asked for again
FIRST_RETRY, LONGEST_RETRY = 0.25, 5.0
_DOUBT_AGAIN = 1.0  # seconds an era that was just found is beyond doubt
_SOON = 5  # tries at once for a list that fails where others come


class CatalogueFetcher:
    """All servers' catalogues and eras; the last catalogues go to `catalogue` in the folder `data`.

    `on_change` is called whenever catalogues are others than before, `on_fresh` whenever only `freshness` is.
    """

    def __init__(
        self,
        clients: RpcClients,
        sessions: UpstreamSessions,
        data: Path,
        on_change: Callable[[], None],
        on_fresh: Callable[[], None],
    ) -> None:
        self._clients = clients
        self._era_probe = EraProbe(clients, sessions, lambda key: self.on_era(key))
        self._folder = data / "catalogue"
        self._on_change = on_change
        self._on_fresh = on_fresh
        self.on_era: Callable[[str], object] = lambda _: on_change()
        """Called with the key of an instance that speaks otherwise than before."""
        self._servers: dict[str, ServerStatus] = {}

    def watch(self, servers: Iterable[WatchedServer]) -> None:
        """Watch exactly these servers from now on; those that have not changed undisturbed.

        What is kept on disk of a new one counts at once.
        """
        before, self._servers = self._servers, {}
        for watched in servers:
            known = before.get(watched.backend.name)
            same = known if known is not None and known.watched == watched else None
            self._servers[watched.backend.name] = same or self._begin(watched, known)
        for server in before.values():
            if self._servers.get(server.name) is not server:
                server.stop()

    @property
    def eras(self) -> dict[str, tuple[str, str]]:
        """Instance key to (era, revision), for every instance that ever answered."""
        return {key: era for server in self._servers.values() for key, era in server.known_eras.items()}

    def catalogues(self) -> dict[str, Catalogue]:
        """The newest catalogue of every server that ever answered, by server name."""
        return {name: server.catalogue for name, server in self._servers.items() if server.catalogue is not None}

    def freshness(self) -> dict[str, float]:
        """Until when each catalogue is fresh, by server: CLOCK_MONOTONIC seconds, 0.0 where its server gave no hint."""
        return {name: catalogue.fresh_until for name, catalogue in self.catalogues().items()}

    @property
    def settled(self) -> bool:
        return all(server.is_settled() for server in self._servers.values())

    def status(self, instance: str) -> InstanceStatus | None:
        """What is known of an instance, by its key; None for one that is not watched."""
        server = self._servers.get(instance.partition("|")[0])
        return server.instances.get(instance) if server is not None else None

    @property
    def backends(self) -> list[Backend]:
        """The servers that are watched, with the instances of each in the order of `state`."""
        return [server.watched.backend for server in self._servers.values()]

    def state(self) -> dict[str, dict[str, Any]]:
        """What is known of every server, by its name; see `ServerStatus.state`."""
        return {name: server.state() for name, server in self._servers.items()}

    async def doubt(self, instance: str, believed: str) -> str:
        """Probe an instance again, unless it is known to speak otherwise than believed; `ControllerPort.doubt_era`.
        Raises Fault: NO_SERVER where nothing can be learned.
        """
        if (status := self.status(instance)) is None:
            raise down("no such instance")
        within = DISCOVER_WITHIN + status.server.watched.backend.start_timeout
        try:
            async with asyncio.timeout(within), status.probing:
                fresh = self._clients.clock() - status.probed_at < _DOUBT_AGAIN
                if status.probed is None or (status.probed.era in (believed, BOTH_ERAS) and not fresh):
                    await self._era_probe.probe(status)
                assert status.probed is not None
                return status.probed.era
        except (TimeoutError, Fault) as wrong:
            raise down(str(wrong) or "it did not answer the question for its era in time") from None

    async def refresh(self, server: str, tool: str) -> tuple[tuple[str, tuple[str, ...], str], ...]:
        """Fetch a server's catalogue now; the tool's headers by it. See `ControllerPort.refresh`. Raises Fault
        NO_SERVER where it cannot be had.
        """
        known = self._servers.get(server)
        if known is None:
            raise down("no such server")
        status = known.leader or next(iter(known.instances.values()))
        try:
            missing = await self._fetch(status, (DefinitionKind.TOOL,))
        except Fault as fault:
            missing = str(fault)
        if missing:
            raise down(missing)
        headers = next((one.param_headers for one in known.listed(DefinitionKind.TOOL) if one.key == tool), ())
        return tuple((item.header, item.path, item.kind) for item in headers)

    def close(self) -> None:
        for server in self._servers.values():
            server.stop()

    def _begin(self, watched: WatchedServer, known: ServerStatus | None) -> ServerStatus:
        server = ServerStatus(watched)
        own = [instance.key for instance in watched.backend.instances]
        if known is not None:
            server.catalogue, eras = known.catalogue, known.known_eras
        else:
            server.catalogue, eras = kept.recall(self._folder, server.name, own) or (None, {})
        if (before := server.catalogue) is not None:
            server.catalogue = watched.pinned(before, grows=before.is_part)
            if server.catalogue != before:  # or a restart would find again what `accept` has had forgotten
                self._clients.spawn(self._keep(server), f"keep the catalogue of {server.name}")
        for key in own:
            status = server.instances[key] = InstanceStatus(key, server, eras.get(key))
            status.watch = self._clients.spawn(self._watch(status), f"watch {status.label}")
        return server

    async def _watch(self, status: InstanceStatus) -> None:
        while True:
            status.wake.clear()  # before the round: a change announced during it leads to another
            began = self._clients.clock()
            try:
                wait = await self._round(status)
                status.fault = None
            except Fault as fault:
                status.fault = fault
                wait = self._failed(status, fault.detail or fault.message)
            except Exception as wrong:
                log.warning("%s: %r", status.label, wrong, exc_info=wrong)
                wait = self._failed(status, repr(wrong))
            status.rounds += 1
            with suppress(Fault):  # a reload took it away
                status.note(*self._clients.client(status.key).transport.notes)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):  # not `wait_for`: it can swallow a cancel (Python 3.11)
                    await status.wake.wait()
                # However many changes are announced, one round a second is enough.
                await asyncio.sleep(max(COALESCE, began + SHORTEST - self._clients.clock()))

    async def _round(self, status: InstanceStatus) -> float:
        """Probe where needed, fetch where nobody else does; seconds until the next round. Raises as `_fetch`."""
        async with status.probing:
            if self._era_probe.is_due(status):
                await self._era_probe.probe(status)
        server = status.server
        leader, missing = server.leader, ""
        wait = server.watched.refresh
        if leader is None or leader is status or leader.error:
            if self._clients.clock() - status.asked_at > wait:
                await self._era_probe.refresh_declared(status)
            missing = await self._fetch(status)
            if server.catalogue is not None and server.catalogue.fresh_until:
                wait = max(SHORTEST, min(server.catalogue.fresh_until - self._clients.clock(), LONGEST))
        if not missing:
            status.failures, status.error = 0, ""
            return wait
        status.fail(missing)  # what came says that the era is right
        again = pause(status.failures, FIRST_RETRY, LONGEST_RETRY)
        return again if status.failures <= _SOON else server.watched.refresh

    def _failed(self, status: InstanceStatus, error: str) -> float:
        """Note a failure; seconds until the next try."""
        if not status.error and status.server.leader is status:
            for other in status.server.instances.values():
                if other is not status:
                    other.wake.set()
        status.fail(error)
        if status.failures > 1:
            status.probed = None  # perhaps it speaks another era now; what is published stays until another is found
        return pause(status.failures, FIRST_RETRY, LONGEST_RETRY)

    async def _fetch(self, status: InstanceStatus, kinds: Iterable[DefinitionKind] = DefinitionKind) -> str:
        """Fetch these lists, each unless another fetch of it begins meanwhile; which could not be had, and why. Raises
        Fault: none could be had.
        """
        server, asked = status.server, self._clients.clock()
        async with status.fetching:
            due = [kind for kind in kinds if kind not in server.lists or server.lists[kind][1] < asked]
            if status.probed is None or not due:
                return ""
            capabilities = self._era_probe.declared(status).capabilities
            wrong, is_any = await self._gather(status, due, capabilities)
        if self._era_probe.declared(status).capabilities != capabilities:
            status.wake.set()  # the session was opened anew meanwhile, by a server that offers something else now
        missing = [f"{kind.method}: {fault.detail or fault.message}" for kind, fault in wrong.items()]
        if wrong and not is_any:
            fault = next(iter(wrong.values()))
            raise Fault(fault.kind, detail=missing[0], sent=fault.sent)
        return "; ".join(missing)

    async def _gather(
        self, status: InstanceStatus, due: list[DefinitionKind], capabilities: frozenset[str] | None
    ) -> tuple[dict[DefinitionKind, Fault], bool]:
        """Fetch and accept these lists as they come: what went wrong, and whether any came."""
        server, begun, is_any = status.server, self._clients.clock(), False
        within = server.watched.backend.start_timeout
        asked = {kind: within for kind in due if kind.is_declared(capabilities)}
        for kind in due:  # some servers declare nothing and have everything
            since = begun - server.tried.get(kind, -UNDECLARED_EVERY)
            if kind not in asked and (server.listed(kind) or since >= UNDECLARED_EVERY):
                server.tried[kind] = begun
                asked[kind] = min(within, UNDECLARED_WITHIN)
        lists = {kind: NO_LIST for kind in due if kind not in asked}
        wrong: dict[DefinitionKind, Fault] = {}
        page = partial(self._era_probe.page, status)
        async for part in fetch_all(asked, server.name, page, self._clients.spawn):
            await _digested(server, part)
            for kind, found in part.items():
                fault, there = found.cut, len(server.listed(kind))
                if not kind.is_declared(capabilities) and (fault is None or not there):
                    if found.items:
                        status.note(f"answers {kind.method} though it does not declare {kind.capability}")
                    lists[kind] = found if found.items else NO_LIST
                elif isinstance(fault, NoSuchList) and is_any and capabilities is None and not there:
                    lists[kind] = NO_LIST
                else:
                    if fault is not None:
                        wrong[kind] = fault
                    if fault is None or len(found.items) > there:
                        lists[kind] = found
                is_any = is_any or (kind in lists and (lists[kind].known or kind.is_declared(capabilities)))
            if is_any and lists:
                self._accept(status, lists, begun)
                lists = {}
        if lists and not wrong:
            self._accept(status, lists, begun)
        return wrong, is_any

    def _accept(self, status: InstanceStatus, lists: dict[DefinitionKind, FetchedList], begun: float) -> None:
        server, old = status.server, status.server.catalogue
        new = server.updated(lists, self._era_probe.declared(status), begun, time.time())
        server.leader, server.catalogue = status, new
        if old is None or replace(old, fresh_until=new.fresh_until, fetched_at=new.fetched_at) != new:
            self._clients.spawn(self._keep(server), f"keep the catalogue of {server.name}")
            self._on_change()
        elif old.fresh_until != new.fresh_until:
            self._on_fresh()

    async def _keep(self, server: ServerStatus) -> None:
        async with server.writing:
            catalogue = server.catalogue
            if catalogue is None or catalogue is server.kept:
                return
            try:
                await asyncio.to_thread(kept.store, self._folder, catalogue, server.known_eras)
                server.kept = catalogue
            except OSError as wrong:
                log.warning("the catalogue of %s could not be kept: %s", server.name, wrong)


async def _digested(server: ServerStatus, part: Mapping[DefinitionKind, FetchedList]) -> None:
    """Prepare what the compile compares with what is pinned: that runs on the controller's loop."""
    tools = part.get(DefinitionKind.TOOL, NO_LIST).items
    if server.watched.pins and tools and tools != server.listed(DefinitionKind.TOOL):
        await asyncio.to_thread(digest_all, tools)
