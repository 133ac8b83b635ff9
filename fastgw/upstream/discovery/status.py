"""What the controller knows of each server and of each of its instances."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fastgw.catalog.notice import Notice
from fastgw.catalog.tools import Catalogue
from fastgw.config.instance_urls import label, origin
from fastgw.errors import Fault
from fastgw.snapshot.model import Backend
from fastgw.upstream.discovery.capabilities import Declared
from fastgw.upstream.discovery.discover import DiscoveredEra
from fastgw.upstream.discovery.fetch import NO_LIST, SHEETS, FetchedList, ListKind

log = logging.getLogger("fastgw")

_MOST_NOTES = 50
"""Of one server: what it does wrong must not fill memory."""


@dataclass(frozen=True, slots=True)
class WatchedServer:
    """One server to watch.

    Args:
        backend: addresses and credential. What its instances say of their era is not looked at.
        era: `auto`, `modern` or `legacy`, from the configuration.
        refresh: seconds after which a list without a word on its freshness is fetched again.
    """

    backend: Backend
    era: str = "auto"
    refresh: float = 60.0


@dataclass(slots=True)
class InstanceStatus:
    """One instance as its last rounds found it.

    `strikes` counts rounds that failed in the session there is; `sessions_due`: a modern server was too slow to tell
    whether it also has sessions; `tried` says when a list that is not declared was asked for last, `undeclared` which
    of these came.
    """

    key: str
    server: ServerStatus
    found: DiscoveredEra | None = None
    version: str = ""
    probed_at: float = 0.0
    error: str = ""
    failures: int = 0
    rounds: int = 0
    asked_at: float = 0.0
    begun: dict[ListKind, float] = field(default_factory=dict)
    strikes: int = 0
    sessions_due: bool = False
    tried: dict[ListKind, float] = field(default_factory=dict)
    undeclared: set[ListKind] = field(default_factory=set)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    probing: asyncio.Lock = field(default_factory=asyncio.Lock)
    fetching: asyncio.Lock = field(default_factory=asyncio.Lock)
    watch: asyncio.Task[Any] | None = None
    listen: asyncio.Task[Any] | None = None

    @property
    def label(self) -> str:
        """What logs call it."""
        return label(self.key)

    def note(self, text: str) -> None:
        """Remember what of the server was forgiven, for its author; the log says it once."""
        notes = self.server.notes
        if text not in notes and len(notes) < _MOST_NOTES:
            notes[text] = None
            log.warning("%s: %s", self.label, text)

    def misses(self, list_kind: ListKind, found: FetchedList | Fault) -> bool:
        """Whether a list that is not declared, and was there before, failed this time: then it stays as it was."""
        there = list_kind in self.undeclared or (list_kind not in self.begun and bool(self.server.listed(list_kind)))
        failed = isinstance(found, Fault) or found.cut is not None
        if there and failed:
            self.undeclared.add(list_kind)
        return there and failed

    def undeclared_came(self, list_kind: ListKind, found: FetchedList | Fault) -> FetchedList:
        """What came of a list that is not declared: a failure, or an empty one, says that there is none."""
        if isinstance(found, Fault) or not found.items:
            self.undeclared.discard(list_kind)
            return NO_LIST
        self.undeclared.add(list_kind)
        self.note(f"answers {list_kind.method} though it does not declare {list_kind.capability}")
        return found

    def stop(self) -> None:
        """End its background work."""
        for task in (self.watch, self.listen):
            if task is not None:
                task.cancel()


@dataclass(slots=True)
class ServerStatus:
    """One server: what is known of it, and of each instance."""

    watched: WatchedServer
    catalogue: Catalogue | None = None
    leader: str | None = None
    kept: Catalogue | None = None
    hints: dict[ListKind, tuple[float, float]] = field(default_factory=dict)
    notices: dict[ListKind, tuple[Notice, ...]] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    instances: dict[str, InstanceStatus] = field(default_factory=dict)
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def name(self) -> str:
        """The server's name."""
        return self.watched.backend.name

    def listed(self, list_kind: ListKind) -> tuple[Any, ...]:
        """What of this list is in use."""
        found: tuple[Any, ...] = getattr(self.catalogue, list_kind.place, ())
        return found

    def is_settled(self) -> bool:
        """Whether some instance has answered, or all have failed once."""
        return any(status.rounds and not status.error for status in self.instances.values()) or all(
            status.rounds for status in self.instances.values()
        )

    def take(self, lists: Mapping[ListKind, FetchedList], said: Declared, begun: float, now: float) -> Catalogue:
        """The catalogue with these lists in place of those it had, which goes on being the one in use.

        Args:
            lists: what was listed.
            said: what it says of itself; a list that it has stands for its capability all the same.
            begun: when the lists were asked for, in monotonic seconds.
            now: Unix seconds.
        """
        old = self.catalogue if self.catalogue is not None else Catalogue(self.name, ())
        changed: dict[str, Any] = {}
        names = set(old.capabilities)
        for list_kind, listing in lists.items():
            self.notices[list_kind] = listing.notices
            self.hints.pop(list_kind, None)
            if listing.fresh is not None:
                self.hints[list_kind] = (listing.fresh, begun + listing.fresh if listing.fresh else 0.0)
            if getattr(old, list_kind.place) != listing.items:
                changed[list_kind.place] = listing.items
            names -= {list_kind.capability}
        had = {list_kind for list_kind in SHEETS if changed.get(list_kind.place, getattr(old, list_kind.place))}
        names |= {
            list_kind.capability
            for list_kind in SHEETS
            if list_kind in had or (list_kind in lists and lists[list_kind].known)
        }
        return replace(
            old,
            fresh_until=min((until for _, until in self.hints.values()), default=0.0),
            fetched_at=now,
            notices=tuple(notice for list_kind in SHEETS for notice in self.notices.get(list_kind, ())),
            capabilities=said.declares | {list_kind.capability for list_kind in had}
            if said.declares is not None
            else frozenset(names),
            instructions=said.instructions,
            **changed,
        )

    def fresh(self) -> float:
        """Seconds for which it vouched for all lists that it gave a hint for; 0.0 for none."""
        return min((seconds for seconds, _ in self.hints.values()), default=0.0)

    def state(self, eras: dict[str, tuple[str, str]]) -> dict[str, Any]:
        """As `CatalogueFetcher.state` describes it. `eras`: instance key to (era, revision)."""
        instances = []
        for instance in self.watched.backend.instances:
            status = self.instances[instance.key]
            era, version = eras.get(instance.key, (None, ""))
            known = {"era": era, "version": version, "error": status.error, "failures": status.failures}
            shown = instance.shown if "://" in instance.shown else origin(instance.url)
            instances.append({"url": shown, **known})
        catalogue = self.catalogue
        notices = catalogue.notices if catalogue is not None else ()
        return {
            "notes": [*self.notes, *(notice.text for notice in notices if notice.subject == self.name)],
            **{list_kind.place: len(getattr(catalogue, list_kind.place, ())) for list_kind in SHEETS},
            "fetched_at": catalogue.fetched_at if catalogue is not None else None,
            "instances": instances,
        }
