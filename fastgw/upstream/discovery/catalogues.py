"""The catalogues of all servers: fetched ahead, refreshed, kept, one server never waiting for another.

One round of one instance:

    probe its era, where it is unknown, old or unsure  ->  fetch all lists, unless another instance of the server did
    ->  wait: as long as the list is fresh, `refresh` seconds, or until a change is announced
    any failure  ->  the copy there is stays in use; wait 0.25 s to 5 s, try again
    a list that fails where others come  ->  likewise, and after some tries as if it had come
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastgw.catalog.tools import Catalogue
from fastgw.errors import Fault, Kind
from fastgw.snapshot.model import BOTH
from fastgw.upstream.discovery import kept
from fastgw.upstream.discovery.discover import DISCOVER_WITHIN, LEGACY_LIFETIME
from fastgw.upstream.discovery.era_probe import EraProbe
from fastgw.upstream.discovery.fetch import NO_LIST, SHEETS, TOOLS, FetchedList, ListKind, Source, fetch_all
from fastgw.upstream.discovery.pages import NoSuchList
from fastgw.upstream.discovery.status import InstanceStatus, ServerStatus, WatchedServer
from fastgw.upstream.rpc import RpcClients
from fastgw.upstream.sessions import UpstreamSessions

log = logging.getLogger("fastgw")

COALESCE = 0.1
"""Seconds in which announced changes are gathered."""
SHORTEST, LONGEST = 1.0, 3600.0
"""Seconds between two fetches, whatever a server says about its freshness and its changes."""
_FIRST_RETRY, _LONGEST_RETRY = 0.25, 5.0
_DOUBT_AGAIN = 1.0
"""Seconds a verdict is beyond doubt."""
_SOON = 5
"""Tries at once for a list that fails where others come."""


class Incomplete(Exception):
    """Some lists came and some did not: which, and why."""


def retry_pause(failures: int, dice: float) -> float:
    """Seconds to wait after so many failures in a row: 0.25 to 5, `dice` from 0 to 1 takes up to a half away."""
    return min(_LONGEST_RETRY, _FIRST_RETRY * 2.0 ** min(failures - 1, 10)) * (1 - dice / 2)


class CatalogueFetcher:
    """All servers' catalogues and eras.

    Args:
        reach: how servers are reached.
        directory: has the gateway's own session at each legacy instance.
        data: folder of what outlives a restart; the last catalogues go to `catalogue` in it.
        on_change: called whenever catalogues or eras are others than before.
        on_fresh: called whenever only `freshness` is another than before.
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
        self._known = EraProbe(clients, sessions, self._publish_era)
        self._folder = data / "catalogue"
        self._on_change = on_change
        self._on_fresh = on_fresh
        self._servers: dict[str, ServerStatus] = {}
        self._settled = asyncio.Event()
        self.eras: dict[str, tuple[str, str]] = {}
        """Instance key to (era, revision), for every instance that ever answered."""

    # -- for the controller -----------------------------------------------------------------------------------------

    def watch(self, servers: Iterable[WatchedServer]) -> None:
        """Watch exactly these servers from now on: call it at start and after every reload.

        What is kept on disk of a new one counts at once; one that has not changed goes on undisturbed.
        """
        wanted = {watched.backend.name: watched for watched in servers}
        for name in [name for name, server in self._servers.items() if wanted.get(name) != server.watched]:
            for status in self._servers[name].instances.values():
                status.stop()
            if name not in wanted:
                del self._servers[name]
        for name, watched in wanted.items():
            known = self._servers.get(name)
            if known is None or known.watched != watched:
                self._servers[name] = self._begin(watched, known)
        alive = {key for server in self._servers.values() for key in server.instances}
        self.eras = {key: era for key, era in self.eras.items() if key in alive}
        self._note_settled()

    def catalogues(self) -> dict[str, Catalogue]:
        """The newest catalogue of every server that ever answered, by server name."""
        return {name: server.catalogue for name, server in self._servers.items() if server.catalogue is not None}

    def freshness(self) -> dict[str, float]:
        """Until when each catalogue is fresh, by server: CLOCK_MONOTONIC seconds, 0.0 where its server gave no hint."""
        return {name: catalogue.fresh_until for name, catalogue in self.catalogues().items()}

    @property
    def settled(self) -> bool:
        """Whether every server has answered or failed once."""
        return self._settled.is_set()

    async def first_round(self, within: float = 0.5) -> bool:
        """Wait until every server has answered or failed once, at most `within` seconds; whether they have."""
        try:
            await asyncio.wait_for(self._settled.wait(), within)
        except TimeoutError:
            return False
        return True

    def state(self) -> dict[str, dict[str, Any]]:
        """What is known of every server, fit for JSON and without secrets.

        Returns:
            server name to `tools`, `prompts`, `resources` and `templates` (counts), `fetched_at` (Unix seconds, None
            for never) and `instances`: for each
            `url` (no query, references as in the file), `era`, `version`, `error` (empty when its last round went
            well), `failures`; and `notes`: what was forgiven.
        """
        return {name: server.state(self.eras) for name, server in self._servers.items()}

    async def doubt(self, instance: str, believed: str) -> str:
        """Probe an instance again, unless it is known to speak otherwise than believed; `Controller.doubt_era`.

        Raises:
            Fault: NO_SERVER, TIMEOUT where nothing can be learned.
        """
        status = self._instance(instance)
        try:
            async with asyncio.timeout(DISCOVER_WITHIN + status.server.watched.backend.start_timeout), status.probing:
                fresh = self._clients.clock() - status.probed_at < _DOUBT_AGAIN
                if status.found is None or (status.found.spoken in (believed, BOTH) and not fresh):
                    await self._known.meet(status)
        except TimeoutError:
            raise _nothing("it did not answer the question for its era in time") from None
        except Fault as fault:
            raise _nothing(str(fault)) from None
        if status.found is None:
            raise _nothing("its era is not known")
        return status.found.spoken

    async def refresh(self, server: str, tool: str) -> tuple[tuple[str, tuple[str, ...], str], ...]:
        """Fetch a server's catalogue now; the tool's headers by it. See `Controller.refresh`.

        Raises:
            Fault: NO_SERVER where it cannot be had.
        """
        known = self._servers.get(server)
        if known is None:
            raise _nothing("no such server")
        status = known.instances.get(known.leader or "") or next(iter(known.instances.values()))
        asked = self._clients.clock()
        try:
            await self._fetch(status, asked, (TOOLS,))
        except (Fault, Incomplete) as fault:
            raise _nothing(str(fault)) from None
        tools = known.catalogue.tools if known.catalogue is not None else ()
        found = next((one for one in tools if one.name == tool), None)
        return tuple((item.header, item.path, item.kind) for item in found.param_headers) if found is not None else ()

    def close(self) -> None:
        """Stop watching."""
        for server in self._servers.values():
            for status in server.instances.values():
                status.stop()

    # -- one instance -------------------------------------------------------------------------------------------

    def _begin(self, watched: WatchedServer, known: ServerStatus | None) -> ServerStatus:
        server = ServerStatus(watched, known.catalogue if known is not None else None)
        own = [instance.key for instance in watched.backend.instances]
        if known is None and (recalled := kept.recall(self._folder, server.name, own)) is not None:
            server.catalogue, eras = recalled
            self.eras.update(eras)
        for instance in watched.backend.instances:
            status = InstanceStatus(instance.key, server)
            server.instances[instance.key] = status
            status.watch = self._clients.spawn(self._watch(status), f"watch {status.label}")
        return server

    async def _watch(self, status: InstanceStatus) -> None:
        """Round after round, whatever the server does."""
        while True:
            status.wake.clear()  # before the round: a change announced during it leads to another
            began = self._clients.clock()
            try:
                wait = await self._round(status)
                status.failures, status.strikes, status.error = 0, 0, ""
            except Incomplete as some:
                wait = self._incomplete(status, str(some))
            except Fault as fault:
                wait = self._failed(status, fault.detail or fault.message)
            except Exception as wrong:
                log.warning("%s: %r", status.label, wrong, exc_info=wrong)
                wait = self._failed(status, repr(wrong))
            status.rounds += 1
            self._note_wire(status)
            self._note_settled()
            await self._rest(status, wait, began)

    async def _rest(self, status: InstanceStatus, wait: float, began: float) -> None:
        """Wait so long, or until a change is announced, however many are: one round a second is enough."""
        try:
            await asyncio.wait_for(status.wake.wait(), wait)
        except TimeoutError:
            return
        await asyncio.sleep(max(COALESCE, began + SHORTEST - self._clients.clock()))

    async def _round(self, status: InstanceStatus) -> float:
        """Probe where needed, fetch where nobody else does; seconds until the next round."""
        async with status.probing:
            if self._known.is_due(status):
                await self._known.meet(status)
        server = status.server
        leader = server.instances.get(server.leader or "")
        if leader is None or leader is status or leader.error:
            if self._clients.clock() - status.asked_at > server.watched.refresh:
                await self._known.ask_again(status)
            return await self._fetch(status, self._clients.clock())
        return server.watched.refresh

    def _publish_era(self, status: InstanceStatus) -> None:
        if status.found is None:
            return
        era = (status.found.spoken, status.version)
        if self.eras.get(status.key) != era:
            self.eras[status.key] = era
            self._on_change()

    async def _fetch(self, status: InstanceStatus, asked: float, sheets: Iterable[ListKind] = SHEETS) -> float:
        """Fetch these lists, each unless a fetch of it began after `asked`; seconds until they should be fetched again.

        Raises:
            Fault: none could be had.
            Incomplete: some could not.
        """
        server = status.server
        async with status.fetching:
            due = [list_kind for list_kind in sheets if status.begun.get(list_kind, -1.0) < asked]
            if status.found is None or not due:
                return server.watched.refresh
            declared = self._known.said(status).declares
            had, wrong = await self._gather(status, due, declared)
        if self._known.said(status).declares != declared:
            status.wake.set()  # the session was opened anew meanwhile, by a server that offers something else now
        for list_kind, fault in wrong.items():
            if not had:
                raise Fault(fault.kind, detail=f"{list_kind.method}: {fault.detail or fault.message}", sent=fault.sent)
        if wrong:
            raise Incomplete(
                "; ".join(f"{list_kind.method}: {fault.detail or fault}" for list_kind, fault in wrong.items())
            )
        return self._pause(server)

    async def _gather(
        self, status: InstanceStatus, due: list[ListKind], declared: frozenset[str] | None
    ) -> tuple[dict[ListKind, FetchedList], dict[ListKind, Fault]]:
        """Fetch and accept what an instance declares of these lists: what came, and what did not."""
        begun = self._clients.clock()
        wanted = [list_kind for list_kind in due if list_kind.is_asked(declared) or self._is_tried(status, list_kind)]
        none = {list_kind: NO_LIST for list_kind in due if list_kind not in wanted}
        had: dict[ListKind, FetchedList] = {}
        wrong: dict[ListKind, Fault] = {}
        backend = status.server.watched.backend
        source = Source(status.server.name, self._known.pages(status), backend.start_timeout, declared)
        async for part in fetch_all(wanted, source, self._clients.spawn):
            lists: dict[ListKind, FetchedList] = {}
            for list_kind, found in part.items():
                if not list_kind.is_asked(declared) and not status.misses(list_kind, found):
                    came = status.undeclared_came(list_kind, found)
                    (none if came is NO_LIST else lists)[list_kind] = came
                elif isinstance(found, FetchedList):
                    if found.cut is not None:
                        wrong[list_kind] = found.cut
                    if found.cut is None or len(found.items) > len(status.server.listed(list_kind)):
                        lists[list_kind] = found
                elif (had or lists) and declared is None and self._is_none(status.server, list_kind, found):
                    lists[list_kind] = NO_LIST
                else:
                    wrong[list_kind] = found
            if lists:
                self._accept(status, {**none, **lists}, begun)
                had |= lists
                none = {}
        if none and (had or not wrong):
            self._accept(status, none, begun)
        return had, wrong

    def _is_tried(self, status: InstanceStatus, list_kind: ListKind) -> bool:
        """Whether a list is asked for that is not declared: some servers declare nothing and have everything."""
        now = self._clients.clock()
        if list_kind in status.undeclared or now - status.tried.get(list_kind, -LEGACY_LIFETIME) >= LEGACY_LIFETIME:
            status.tried[list_kind] = now
            return True
        return False

    def _pause(self, server: ServerStatus) -> float:
        """Seconds until its lists should be fetched again."""
        fresh = server.fresh()
        return max(SHORTEST, min(fresh, LONGEST)) if fresh else server.watched.refresh

    def _is_none(self, server: ServerStatus, list_kind: ListKind, wrong: Fault) -> bool:
        """Whether this means that there is no such list. What was listed before is not given up for a bare 404."""
        return isinstance(wrong, NoSuchList) and not server.listed(list_kind)

    def _accept(self, status: InstanceStatus, lists: dict[ListKind, FetchedList], begun: float) -> None:
        server, old = status.server, status.server.catalogue
        new = server.take(lists, self._known.said(status), begun, time.time())
        status.begun |= dict.fromkeys(lists, begun)
        server.leader, server.catalogue = status.key, new
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
            eras = {key: self.eras[key] for key in server.instances if key in self.eras}
            try:
                await asyncio.to_thread(kept.store, self._folder, catalogue, eras)
                server.kept = catalogue
            except OSError as wrong:
                log.warning("the catalogue of %s could not be kept: %s", server.name, wrong)

    def _failed(self, status: InstanceStatus, error: str) -> float:
        """Note a failure; seconds until the next try."""
        if not status.error:
            log.warning("%s: %s", status.label, error)
            for other in status.server.instances.values():
                if other is not status and status.server.leader == status.key:
                    other.wake.set()
        status.error = error
        status.failures += 1
        status.strikes += 1
        if status.failures > 1:
            status.found = None  # perhaps it speaks another era now; what is published stays until another is found
        return retry_pause(status.failures, random.random())

    def _incomplete(self, status: InstanceStatus, error: str) -> float:
        """Note that some lists did not come; seconds until the next try. What came says that the era is right."""
        if not status.error:
            log.warning("%s: %s", status.label, error)
        status.error = error
        status.failures += 1
        return (
            retry_pause(status.failures, random.random()) if status.failures <= _SOON else status.server.watched.refresh
        )

    def _note_wire(self, status: InstanceStatus) -> None:
        try:
            notes = self._clients.client(status.key).transport.notes
        except Fault:
            return  # a reload took it away
        for text in notes:
            status.note(text)

    def _instance(self, key: str) -> InstanceStatus:
        for server in self._servers.values():
            if key in server.instances:
                return server.instances[key]
        raise _nothing("no such instance")

    def _note_settled(self) -> None:
        if all(server.is_settled() for server in self._servers.values()):
            self._settled.set()


def _nothing(detail: str) -> Fault:
    return Fault(Kind.NO_SERVER, detail=detail, data={"reason": "down"}, retry_after=1)
