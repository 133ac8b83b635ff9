"""What the processes themselves need of the configuration, and how the parts above them are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from fastgw.config.certificates import ListenerTls
from fastgw.config.files import ConfigFiles
from fastgw.config.schema.settings import UsageSettings, signing_key
from fastgw.config.schema.store import StorePlace

if TYPE_CHECKING:
    from fastgw.config.schema.rules import LimitSettings, QuotaSettings
    from fastgw.policy.match import Principal
    from fastgw.processes.token_issuers import TokenIssuers
    from fastgw.snapshot.model import Backend, Snapshot
    from fastgw.snapshot.trace import TracedCall
    from fastgw.telemetry.counters import Counters
    from fastgw.telemetry.spans import SpanRecord
    from fastgw.upstream.call_context import BackgroundTasks
    from fastgw.upstream.controller import ControllerPort, UpstreamSession
    from fastgw.upstream.health import HealthChecks


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
        usage: how long events are kept, and where they go.
        webhook: where alerts go; a secret. `webhook_keys`: each signs them.
        traces: where spans go.
        log: its level and format.
        store: where counters live that workers share.
        settings: the configuration itself, for the controller; `limits`: those in it.
        files: what was opened to read it.
        tls: what the listener of agents shows; None: plain HTTP.
    """

    listen: tuple[str, int]
    admin: tuple[str, int]
    data: Path
    admin_token: str | None = None
    workers: int = 1
    drain: float = 30.0
    secrets: tuple[str, ...] = ()
    usage: UsageSettings = field(default_factory=UsageSettings)
    webhook: str | None = field(default=None, repr=False)
    webhook_keys: tuple[bytes, ...] = field(default=(), repr=False)
    traces: str | None = field(default=None, repr=False)
    log: tuple[str, str] = ("info", "text")
    store: StorePlace = field(default_factory=StorePlace)
    settings: Any = None
    files: ConfigFiles = field(default_factory=ConfigFiles, compare=False)
    tls: ListenerTls | None = field(default=None, repr=False)

    @property
    def limits(self) -> tuple[LimitSettings, ...]:
        """The limits of the configuration."""
        return self.settings.limits if self.settings is not None else ()

    @property
    def quotas(self) -> tuple[QuotaSettings, ...]:
        """The quotas of the configuration."""
        return getattr(self.settings, "quotas", ())

    @property
    def aliases(self) -> dict[str, str]:
        """Aliases of servers by their names, of those that have one."""
        servers = self.settings.servers if self.settings is not None else {}
        return {name: server.alias for name, server in servers.items() if server.alias}

    def needs_restart(self, plan: Plan) -> list[str]:
        """What a reload that read `plan` leaves as it is here, though it is another there."""
        return [name for name in FIXED if getattr(plan, name) != getattr(self, name)]

    def reloaded(self, plan: Plan) -> Plan:
        """What holds after a reload that read `plan`: that, but what takes a restart as it is here."""
        return replace(plan, **{name: getattr(self, name) for name in FIXED})


FIXED = ("listen", "admin", "admin_token", "workers", "store", "data")
"""What a reload does not apply."""


@dataclass(frozen=True, slots=True)
class StoreAccess:
    """Where worker `number` (from 1) finds the store that `workers` of this machine share.

    `socket` is the path of the Unix socket of one that the supervisor runs; `data` the folder of what outlives a
    restart.
    """

    place: StorePlace
    socket: str | None = None
    workers: int = 1
    number: int = 1
    data: Path | None = None


class Lifecycle:
    """How far a worker is: warming, active, draining; never back."""

    def __init__(self) -> None:
        self.state: Literal["warming", "active", "draining"] = "warming"
        self.draining = False
        """Whether answers should end their connection and streams should end."""

    def activate(self) -> None:
        """The worker serves, with a snapshot that every worker has."""
        if self.state == "warming":
            self.state = "active"

    def drain(self) -> None:
        """Nothing new is wanted; what runs is brought to its end."""
        self.state = "draining"
        self.draining = True


class GatewayPort(Protocol):
    """The gateway as its worker sees it (`fastgw.gateway.gateway.Gateway`; a fake in the tests of processes).

    `freshened`: until when the catalogue of each server is fresh, CLOCK_MONOTONIC seconds; none that is missing is.
    `instance_status` takes `Address.era` and `Address.version`; `ended`: the id is not to be taken for `seconds`; both
    may come before a first `load`. `prepare` ends within a second or so: what is not there by then is done without.
    `slots` takes the fingerprints of calls being carried, `quarantined` those to refuse (`quarantine.py`).
    `write_event` is called with each usage event, encoded, without a line break, `write_spans` with some
    `telemetry.spans.SpanRecord` of what is recorded; neither waits.
    `issuer_keys` takes the key sets of all issuers by their URL, empty where none are known; before a `load`, too.
    `breaker` takes a `BreakerNews`, `breakers` gives those of instances whose breaker is not closed.
    `measure` sets the gauges that are sampled; it is called about once a second.
    `operate` answers `report`, `quotas`, `instances`, or `reset` and `raise` with one as text.
    """

    slots: memoryview
    write_event: Callable[[bytes], object]
    write_spans: Callable[[list[SpanRecord]], object]

    @property
    def in_flight(self) -> int: ...
    def quarantined(self, fingerprints: frozenset[int]) -> None: ...
    def load(self, snapshot: Snapshot) -> None: ...
    def activate(self, generation: int) -> None: ...
    def freshened(self, until: dict[str, float]) -> None: ...
    def instance_status(self, key: str, era: str, version: str) -> None: ...
    def issuer_keys(self, documents: dict[str, bytes]) -> None: ...
    def instance_health(self, key: str, *, healthy: bool, drained: bool) -> None: ...
    def breaker(self, key: str, news: Any) -> None: ...
    def breakers(self) -> list[tuple[str, Any]]: ...
    def suspected(self, key: tuple[str, str], session: str) -> None: ...
    def leveled(self, session: str, level: str) -> None: ...
    def ended(self, session: str, seconds: float) -> None: ...
    def expire(self) -> None: ...
    def flush(self) -> None: ...
    def measure(self) -> None: ...
    async def prepare(self) -> None: ...
    def operate(self, verb: str, args: tuple[Any, ...], answer: Callable[[Any], object]) -> None: ...
    def known_sessions(self) -> list[tuple[str, str, UpstreamSession]]: ...
    def cancelled(self, session: str, request: bytes) -> bool: ...


class ControlPlanePort(Protocol):
    """What the controller decides by (`fastgw.processes.control_plane.ControlPlane`; a fake in the tests).

    `questions` that workers may ask are those of `upstream.controller.ControllerPort`: `open_session`, `keep_session`,
    `end_session`, `doubt_era`, `refresh`, `server_token`, `look_for_key`, `introspect`; each raises `Fault` as said
    there. `meet` takes one who is known by claims alone: whether a compile is needed for its class. `count` counts a
    metric. Where `compile` raises, whatever it is, the snapshot before is kept. `begin` starts what runs beside: it
    calls `changed` whenever `compile` would give something else, `fresh` and `learned` with what
    `GatewayPort.freshened` and `instance_status` take whenever that alone is another.
    `expiries` are gauges for the metrics: when certificates and keys expire.
    `servers` are those whose instances are asked; `health` asks them, and says how they are.
    `who_sees` answers as `snapshot.access.who_sees`, `explain` as `snapshot.trace.Trace`, which raises the same.
    `initialized`: every server has answered or failed once. `close` ends upstream sessions that are ours, within a
    second.
    """

    @property
    def questions(self) -> Mapping[str, Callable[..., Any]]: ...
    @property
    def servers(self) -> Sequence[Backend]: ...
    @property
    def health(self) -> HealthChecks: ...

    count: Callable[..., object]

    @property
    def token_issuers(self) -> TokenIssuers: ...
    def meet(self, path: str, principal: Principal) -> bool: ...
    def compile(self, generation: int) -> Snapshot: ...
    def begin(
        self,
        changed: Callable[[], None],
        fresh: Callable[[dict[str, float]], None],
        learned: Callable[[str, str, str], None],
    ) -> None: ...
    def instance_statuses(self) -> dict[str, tuple[str, str]]: ...
    def reload(self, settings: Any) -> None: ...
    async def diff(self, settings: Any) -> dict[str, Any]: ...
    def touched(self, sessions: list[tuple[str, str]]) -> None: ...
    def adopted(self, sessions: list[tuple[str, str, UpstreamSession]]) -> None: ...
    def initialized(self) -> bool: ...
    def backends(self) -> dict[str, Any]: ...
    def expiries(self) -> dict[tuple[str, ...], float]: ...
    def catalogue(self) -> dict[str, Any]: ...
    def definitions(self) -> dict[str, str | None]: ...
    async def who_sees(self, find: str, most: int) -> dict[str, Any]: ...
    async def explain(self, call: TracedCall) -> dict[str, Any]: ...
    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Factories:
    """The makers of what the processes carry.

    Args:
        read: reads the configuration, and takes down which files it opens; raises whatever says file and line when it
            is bad.
        gateway: makes (gateway, ASGI application) in a worker; before the three arguments of ASGI the application takes
            a `Draining`, whose connections are to end with the answer they wait for.
        control_plane: makes the controller's control plane from (plan, sealing keys, background tasks).
        load: imports what workers will need, before they are forked.
    """

    read: Callable[[ConfigFiles], Plan]
    gateway: Callable[[ControllerPort, Counters, BackgroundTasks, StoreAccess], tuple[GatewayPort, Any]]
    control_plane: Callable[[Plan, tuple[bytes, ...], BackgroundTasks], ControlPlanePort]
    load: Callable[[Plan], object] = lambda _: None


def plan_of(settings: Any) -> Plan:
    """What the processes need of `fastgw.config.schema.settings.Settings`."""
    return Plan(
        listen=address(settings.listen),
        admin=address(settings.admin.listen),
        admin_token=settings.admin.token,
        workers=settings.worker_count,
        data=Path(settings.data),
        drain=settings.drain,
        secrets=settings.secret,
        usage=settings.usage,
        webhook=settings.alerts.webhook if settings.alerts is not None else None,
        webhook_keys=tuple(map(signing_key, settings.alerts.secret)) if settings.alerts is not None else (),
        traces=settings.traces.url if settings.traces is not None else None,
        log=(settings.log.level, settings.log.format),
        store=settings.store.place(settings.worker_count),
        settings=settings,
    )


def address(listen: str) -> tuple[str, int]:
    """`host:port` taken apart, an IPv6 host without its brackets."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)
