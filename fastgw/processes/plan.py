"""What the processes themselves need of the configuration, and how the parts above them are made."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fastgw.config.schema.store import StorePlace, place_of

if TYPE_CHECKING:
    from fastgw.config.schema.rules import LimitSettings
    from fastgw.ports import Controller, UpstreamSession
    from fastgw.processes.lifecycle import Lifecycle
    from fastgw.snapshot.model import Snapshot
    from fastgw.telemetry.counters import Counters
    from fastgw.upstream.tasks import BackgroundTasks


@dataclass(frozen=True, slots=True)
class Plan:
    """One reading of the configuration.

    Args:
        listen, admin: (host, port); port 0 takes a free one.
        admin_token: what operators show beyond loopback; None on loopback.
        workers: how many.
        data: folder of what outlives a restart.
        drain: seconds that calls in flight have at the end.
        secrets: of the configuration, first seals; empty: one is kept under `data`.
        sinks: `stdout` and `file:PATH`.
        store: where counters live that workers share.
        settings: the configuration itself, for the controller; `limits`: those in it.
    """

    listen: tuple[str, int]
    admin: tuple[str, int]
    data: Path
    admin_token: str | None = None
    workers: int = 1
    drain: float = 30.0
    secrets: tuple[str, ...] = ()
    sinks: tuple[str, ...] = ()
    log_level: str = "info"
    log_form: str = "text"
    store: StorePlace = field(default_factory=StorePlace)
    settings: Any = None

    @property
    def limits(self) -> tuple[LimitSettings, ...]:
        """The limits of the configuration."""
        return self.settings.limits if self.settings is not None else ()


FIXED = ("listen", "admin", "admin_token", "workers", "store", "data")
"""What a reload does not apply."""


@dataclass(frozen=True, slots=True)
class StoreAccess:
    """Where a worker finds the store.

    Args:
        place: as configured.
        socket: path of the Unix socket of one that the supervisor runs; None of any other.
        workers: how many of this machine share it.
    """

    place: StorePlace
    socket: str | None = None
    workers: int = 1


class GatewayPort(Protocol):
    """The gateway as its worker sees it (`fastgw.gateway.gateway.Gateway`)."""

    @property
    def in_flight(self) -> int:
        """Calls being carried."""
        ...

    def load(self, snapshot: Snapshot) -> None:
        """Use this snapshot for calls."""
        ...

    def activate(self, generation: int) -> None:
        """Use the snapshot of this generation for lists too."""
        ...

    def freshened(self, until: dict[str, float]) -> None:
        """Until when the catalogue of each server is fresh: CLOCK_MONOTONIC seconds; none that is missing is."""
        ...

    def suspected(self, key: tuple[str, str], session: str) -> None:
        """A server may have lost this upstream session."""
        ...

    def leveled(self, session: str, level: str) -> None:
        """An agent's session wants log messages from this level on."""
        ...

    def ended(self, session: str, seconds: float) -> None:
        """An agent's session is over; its id is not to be taken for `seconds`. Called after a first `load` only."""
        ...

    def expire(self) -> None:
        """Answer the calls in flight: the worker ends before they do."""
        ...

    async def prepare(self) -> None:
        """Get ready to serve, within a second or so: what is not there by then is done without."""
        ...

    def operate(self, verb: str, args: tuple[Any, ...], answer: Callable[[Any], object]) -> None:
        """Do what an operator asks of every worker, and answer: `report`, or `reset` with one as text."""
        ...

    def known_sessions(self) -> list[tuple[str, str, UpstreamSession]]:
        """(instance, identity, session) of upstream sessions in use here, for a controller that was started again."""
        ...

    def cancelled(self, session: str, request: bytes) -> bool:
        """Cancel this call, if it is here."""
        ...


class ControlPlanePort(Protocol):
    """What the controller thinks about: catalogues, eras, upstream sessions
    (`fastgw.processes.control_plane.ControlPlane`).
    """

    def compile(self, generation: int) -> Snapshot:
        """The snapshot of what is known now.

        Raises:
            Exception: anything; the snapshot before is kept.
        """
        ...

    def begin(self, changed: Callable[[], None], fresh: Callable[[dict[str, float]], None]) -> None:
        """Start what runs beside.

        Args:
            changed: called whenever `compile` would give something else.
            fresh: called whenever only the freshness of catalogues is another, with all of it: see
            `GatewayPort.freshened`.
        """
        ...

    def reload(self, settings: Any) -> None:
        """Go by these settings from now on."""
        ...

    async def asked(self, verb: str, args: tuple[Any, ...]) -> Any:
        """Answer a worker: `open_session`, `keep_session`, `end_session`, `doubt_era` or `refresh`, arguments as in
        `ports.Controller`.

        Raises:
            Fault: as said there.
        """
        ...

    def touched(self, sessions: list[tuple[str, str]]) -> None:
        """These upstream sessions (instance, identity) are in use."""
        ...

    def adopted(self, sessions: list[tuple[str, str, UpstreamSession]]) -> None:
        """A worker knows these upstream sessions: (instance, identity, session)."""
        ...

    def settled(self) -> bool:
        """Whether every server has answered or failed once."""
        ...

    def backends(self) -> dict[str, Any]:
        """What is known of each server, fit for JSON, without secrets."""
        ...

    def catalogue(self) -> dict[str, Any]:
        """Exposed names and notices, fit for JSON."""
        ...

    async def close(self) -> None:
        """End upstream sessions that are ours, within a second."""
        ...


@dataclass(frozen=True, slots=True)
class Factories:
    """The makers of what the processes carry.

    Args:
        read: reads the configuration; raises whatever says file and line when it is bad.
        gateway: makes (gateway, ASGI application) in a worker.
        mind: makes the controller's mind from (plan, sealing keys, registry).
        load: imports what the children will need, before they are forked.
    """

    read: Callable[[], Plan]
    gateway: Callable[[Controller, Counters, BackgroundTasks, Lifecycle, StoreAccess], tuple[GatewayPort, Any]]
    control_plane: Callable[[Plan, tuple[bytes, ...], BackgroundTasks], ControlPlanePort]
    load: Callable[[Plan], object] = lambda _: None


def plan_of(settings: Any) -> Plan:
    """What the processes need of `fastgw.config.schema.settings.Settings`."""
    workers = len(os.sched_getaffinity(0)) if settings.workers == "auto" else settings.workers
    return Plan(
        listen=address(settings.listen),
        admin=address(settings.admin.listen),
        admin_token=_revealed(settings.admin.token),
        workers=workers,
        data=Path(settings.data),
        drain=settings.drain,
        secrets=tuple(str(_revealed(secret)) for secret in settings.secret),
        sinks=tuple(sink.url for sink in settings.usage.sinks),
        log_level=settings.log.level,
        log_form=settings.log.format,
        store=place_of(settings.store, workers),
        settings=settings,
    )


def _revealed(secret: Any) -> str | None:
    reveal = getattr(secret, "get_secret_value", None)
    if reveal is not None:
        return str(reveal())
    return None if secret is None else str(secret)


def address(listen: str) -> tuple[str, int]:
    """`host:port` taken apart, an IPv6 host without its brackets."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)
