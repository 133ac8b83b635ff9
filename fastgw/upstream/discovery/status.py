"""What the controller knows of each server and of each of its instances, and how operators see it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fastgw.catalog.definitions import Definition, DefinitionKind
from fastgw.catalog.elements import Notice
from fastgw.catalog.tools import Catalogue
from fastgw.config.instance_urls import label, origin
from fastgw.errors import Fault
from fastgw.protocol import names
from fastgw.protocol.names import Era
from fastgw.snapshot.model import Backend
from fastgw.upstream.discovery.fetch import MOST_BYTES, FetchedList
from fastgw.upstream.rpc import NOTHING, Declared

log = logging.getLogger("fastgw")

_MOST_NOTES = 50  # of one server: what it does wrong must not fill memory


@dataclass(frozen=True, slots=True)
class WatchedServer:
    """One server to watch: what its addresses say of their era is not looked at; `era` is that of the configuration.
    A list without a word on its freshness is fetched again after `refresh` seconds. `pins`: its tools are pinned as
    they are first seen.
    """

    backend: Backend
    era: str = "auto"
    refresh: float = 60.0
    pins: bool = False

    def pinned(self, catalogue: Catalogue, *, grows: bool) -> Catalogue:
        """The catalogue with its tools pinned, unless some were before; where what is pinned `grows`, each that was
        not, within bounds: a server whose list breaks off for ever must not have them change for ever.
        """
        first = catalogue.first if self.pins else ()
        if grows and (len(first) >= DefinitionKind.TOOL.most or sum(one.size for one in first) > MOST_BYTES):
            grows = False
        if self.pins and (grows or not first):
            first = tuple({one.key: one for one in (*catalogue.tools, *first)}.values())
        return replace(catalogue, first=first)


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a probe found.

    Args:
        era: as in `Address.era`: `both` is a modern server that also takes `initialize`.
        version: the revision; empty for a legacy server before its `initialize`.
        failure: what it answered to discover, where that was no refusal.
    """

    era: str
    version: str
    declared: Declared = NOTHING
    failure: str = ""

    @property
    def is_modern(self) -> bool:
        return self.era != Era.LEGACY.value


LEGACY = ProbeResult(Era.LEGACY.value, "")
MODERN = ProbeResult(Era.MODERN.value, names.MODERN_VERSION)


@dataclass(slots=True)
class InstanceStatus:
    """One instance as its last rounds found it.

    Args:
        known_era: (era, revision) in use, which stays until another is found; None before the first.
        probed: by the last probe; None where it has to be probed.
        error: of the last round; empty when it went well. `fault`: why nothing came in it.
        failures: rounds in a row that did not bring everything.
        sessions_due: a modern server was too slow to tell whether it also has sessions.
        asked_at: when it was asked last what it declares; `probed_at`: for its era, too. Monotonic seconds.
    """

    key: str
    server: ServerStatus
    known_era: tuple[str, str] | None = None
    probed: ProbeResult | None = None
    error: str = ""
    fault: Fault | None = None
    failures: int = 0
    rounds: int = 0
    sessions_due: bool = False
    probed_at: float = 0.0
    asked_at: float = 0.0
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    probing: asyncio.Lock = field(default_factory=asyncio.Lock)
    fetching: asyncio.Lock = field(default_factory=asyncio.Lock)
    watch: asyncio.Task[Any] | None = None
    listen: asyncio.Task[Any] | None = None

    @property
    def label(self) -> str:
        return label(self.key)

    def note(self, *texts: str) -> None:
        """Remember what of the server was forgiven, for its author; the log says it once."""
        notes = self.server.notes
        for text in texts:
            if text not in notes and len(notes) < _MOST_NOTES:
                notes[text] = None
                log.warning("%s: %s", self.label, text)

    def fail(self, error: str) -> None:
        """A round did not bring everything; the log says the first of several in a row."""
        if not self.error:
            log.warning("%s: %s", self.label, error)
        self.error = error
        self.failures += 1


@dataclass(slots=True)
class ServerStatus:
    """One server: what is known of it, and of each instance.

    Args:
        catalogue: the one in use; `kept`: the one on disk.
        leader: the instance whose lists are in use.
        lists: each list as it came last in this run, less its items, and when it was asked for (monotonic seconds).
        tried: when a list that is not declared was asked for last.
        notes: what of the server was forgiven, in order.
    """

    watched: WatchedServer
    catalogue: Catalogue | None = None
    kept: Catalogue | None = None
    leader: InstanceStatus | None = None
    lists: dict[DefinitionKind, tuple[FetchedList, float]] = field(default_factory=dict)
    tried: dict[DefinitionKind, float] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    instances: dict[str, InstanceStatus] = field(default_factory=dict)
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def name(self) -> str:
        return self.watched.backend.name

    @property
    def known_eras(self) -> dict[str, tuple[str, str]]:
        """Instance key to (era, revision), of those that ever answered."""
        return {key: status.known_era for key, status in self.instances.items() if status.known_era is not None}

    def listed(self, kind: DefinitionKind) -> tuple[Definition, ...]:
        found: tuple[Definition, ...] = getattr(self.catalogue, kind.field, ())
        return found

    def is_settled(self) -> bool:
        """Whether some instance has answered, or all have failed once."""
        rounds = [status for status in self.instances.values() if status.rounds]
        return len(rounds) == len(self.instances) or any(not status.error for status in rounds)

    def updated(
        self, lists: Mapping[DefinitionKind, FetchedList], declared: Declared, begun: float, now: float
    ) -> Catalogue:
        """The catalogue with these lists in place of those it had, which goes on being the one in use. A list that
        comes stands for its capability whatever is declared. They were asked for at `begun` (monotonic seconds); `now`
        is in Unix seconds.
        """
        self.lists |= {kind: (replace(found, items=()), begun) for kind, found in lists.items()}
        old = self.catalogue if self.catalogue is not None else Catalogue(self.name, (), is_part=True)
        items = {kind: lists[kind].items if kind in lists else getattr(old, kind.field) for kind in DefinitionKind}
        capabilities = declared.capabilities
        if capabilities is None:
            capabilities = old.capabilities - {kind.capability for kind in lists}
            capabilities |= {kind.capability for kind, (found, _) in self.lists.items() if found.known}
        # An equal list stays the same object.
        changed: dict[str, Any] = {kind.field: new for kind, new in items.items() if getattr(old, kind.field) != new}
        fresh = [(found.fresh, at) for found, at in self.lists.values() if found.fresh is not None]
        new = replace(
            old,
            fresh_until=min((at + seconds if seconds else 0.0 for seconds, at in fresh), default=0.0),
            fetched_at=now,
            notices=tuple(one for kind in DefinitionKind if kind in self.lists for one in self.lists[kind][0].notices),
            capabilities=capabilities | {kind.capability for kind in DefinitionKind if items[kind]},
            instructions=declared.instructions,
            is_part=old.is_part and (DefinitionKind.TOOL not in lists or lists[DefinitionKind.TOOL].cut is not None),
            **changed,
        )
        return self.watched.pinned(new, grows=old.is_part)

    def stop(self) -> None:
        for status in self.instances.values():
            for task in (status.watch, status.listen):
                if task is not None:
                    task.cancel()

    def state(self) -> dict[str, Any]:
        """What is known of it, fit for JSON and without secrets: as docs/servers.md lists it, less `sessions`."""
        instances = []
        for instance in self.watched.backend.instances:
            status = self.instances[instance.key]
            era, version = status.known_era or (None, "")
            shown = instance.shown if "://" in instance.shown else origin(instance.url)
            known = {"era": era, "version": version, "error": status.error, "failures": status.failures}
            instances.append({"url": shown, **known})
        notices: tuple[Notice, ...] = getattr(self.catalogue, "notices", ())
        return {
            "notes": [*self.notes, *(notice.text for notice in notices if notice.subject == self.name)],
            **{kind.field: len(self.listed(kind)) for kind in DefinitionKind},
            "fetched_at": getattr(self.catalogue, "fetched_at", None),
            "instances": instances,
        }
