"""The controller: what must be one in the whole gateway.

changed --50 ms--> compile --> load at every worker --> activate.  A compile that fails keeps the snapshot before.
A reload compiles at once, so that who ordered it hears what has become of it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import socket
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import uvloop

from fastgw.admin.status import Readiness
from fastgw.catalog.pins import CHANGE_KINDS
from fastgw.config.certificates import expiries
from fastgw.config.effective import shown_settings
from fastgw.policy.match import Principal
from fastgw.processes import child
from fastgw.processes.anomaly_reports import AnomalyReports
from fastgw.processes.instance_states import InstanceStates
from fastgw.processes.ipc_server import IpcServer, WorkerPeer
from fastgw.processes.kept import EndedSessions, KeptDrains
from fastgw.processes.plan import ControlPlanePort, Factories, Plan
from fastgw.processes.reloads import Reloads
from fastgw.processes.sockets import Sockets
from fastgw.processes.usage import told_by_usage
from fastgw.telemetry import logs
from fastgw.telemetry.alerts import Webhook
from fastgw.telemetry.metrics import Sums
from fastgw.telemetry.process import ProcessMeter, build
from fastgw.upstream.call_context import BackgroundTasks

log = logging.getLogger("fastgw")

ADMIN = "fastgw.admin.app"
"""Imported here, once workers have what they need: its server takes 100 ms, and nobody else needs it."""
GIVES_WAY = 5
"""How much lower than the workers' its priority is (`nice`): a compile must not take the core from calls."""
GATHER = 0.05
"""Seconds in which changes are gathered before a compile."""
ADOPT_WITHIN = 1.0
"""Seconds in which workers have said which sessions at servers they know. Until all have, none is opened: a
controller that was started again would open a second one for an agent whose first is known to a worker it has not
heard yet.
"""
SETTLE_WITHIN = 0.5
"""Seconds that servers have to answer before the gateway calls itself ready without them."""

SHOWN_WITHIN = 0.5
"""Seconds that workers have to say how instances are: one that is stopped must not hide what the others know."""
READY_LOOK_EVERY = 0.02
"""Seconds between two looks at whether the gateway is ready, at the start."""
MEET_AT_ONCE = 8
"""New classes of agents that one compile is for: with thousands of tools each takes some ten milliseconds, in which
nothing else has its turn.
"""
MEET_TRIES = 2
"""Compiles for a new class of agents, at most: a controller that has just begun has made none before."""
MOST_LEVELS = 50_000
"""Sessions whose log level is remembered; beyond it the oldest go back to the default."""


class ControllerProcess:
    """One controller at work."""

    def __init__(
        self, parts: Factories, plan: Plan, keys: tuple[bytes, ...], tell: Callable[[str], object] = lambda _: None
    ) -> None:
        self._reloads = Reloads(plan, parts.read, self._apply, self._told)
        self._tell = tell
        self._listener_tls = plan.tls
        self._tasks = BackgroundTasks()
        self._ended = EndedSessions(plan.data / "ended-sessions", time.time())
        self._levels: dict[str, str] = {}
        self._sums = Sums()
        self._alerts = Webhook(plan.usage.gateway or platform.node(), self._sums, self._tasks.spawn)
        self._alerts.aim(plan.webhook, plan.webhook_keys)
        self._anomalies = AnomalyReports(plan.data / "usage", self._sums, self._alerts.send)
        self._changed = asyncio.Event()
        self._stop = asyncio.Event()
        self._generation = 0
        self._busy = False
        self._compiling = asyncio.Lock()
        self._meeting = asyncio.Lock()
        self._meeting_some = asyncio.Semaphore(MEET_AT_ONCE)
        self._reload_succeeded_at = time.time()
        self._link = ""
        self._adopted: set[int] = set()
        self._all_adopted = asyncio.Event()
        self._control_plane: ControlPlanePort = parts.control_plane(plan, keys, self._tasks)
        self._control_plane.count = self._sums.inc
        questions = self._control_plane.questions
        self.handlers: dict[str, Callable[..., Any]] = {
            **{name: lambda _, *args, ask=ask: ask(*args) for name, ask in questions.items()},
            "open_session": self._open_session,
            "keep_session": self._keep_session,
            "end_session": self._end_session,
            "meet": self._meet,
            "suspect_session": lambda _, key, session: self._ipc_server.announce("suspects", [(key, session)]),
            "set_level": self._set_level,
            "breaker": lambda worker, key, news: self._instances.breaker(key, news, but=worker),
            "sessions": self._adopt,
            "touch": lambda _, sessions: self._control_plane.touched(sessions),
            "alert": lambda _, kind, text, details: self._alerts.send(kind, text, details),
            "delta": lambda worker, delta: self._sums.merge(worker.number, delta),
        }
        """What each message of a worker does; see `ipc_server.IpcServer`."""
        self._ipc_server = IpcServer(
            self._tasks, self.handlers, self._welcome, lambda worker: self._sums.forget(worker.number)
        )
        drains = KeptDrains(plan.data / "drains.json")
        self._instances = InstanceStates(self._control_plane, drains, self._sums, self._ipc_server.broadcast)
        issuers = self._control_plane.token_issuers
        issuers.count = self._sums.inc
        issuers.keys.on_change = partial(self._ipc_server.broadcast, "issuer_keys")
        self._readiness = Readiness(
            self._states,
            lambda: self._ipc_server.generation,
            lambda: self._control_plane.initialized() and not self._busy and not self._changed.is_set(),
        )

    async def run(self, places: Sockets) -> None:
        """Keep until the supervisor says stop."""
        self._link = places.link
        links = await self._ipc_server.listen(places.ipc_server)
        await self._compile()
        admin_app = import_module(ADMIN)
        admin = await admin_app.serve_admin(places.admin, self._shown(admin_app), self._reloads.plan.admin_token)
        server = self._ipc_server
        self._control_plane.begin(self._changed.set, server.freshen, partial(server.broadcast, "instance_status"))
        self._tasks.spawn(self._compile_when_changed(), "compiling")
        self._tasks.spawn(self._reloads.watch(), "watching the configuration")
        self._tasks.spawn(self._anomalies.watch(), "telling of anomalies")
        self._tasks.spawn(self._tell_when_ready(), "becoming ready")
        self._tasks.spawn(ProcessMeter("controller", self._sums).watch(), "measuring the process")
        asyncio.get_running_loop().call_later(SETTLE_WITHIN, self._readiness.waited_enough)
        asyncio.get_running_loop().call_later(ADOPT_WITHIN, self._all_adopted.set)
        await self._stop.wait()
        links.close()
        await self._control_plane.close()
        await admin.cleanup()

    def _shown(self, admin_app: Any) -> Any:
        control_plane, ask = self._control_plane, self._ipc_server.operate
        audit = admin_app.AuditLog(self._reloads.plan.data / "audit.jsonl")
        instances = admin_app.OperatorInstances(
            partial(ask, within=SHOWN_WITHIN), lambda: control_plane.servers, control_plane.backends,
            self._instances.told, self._instances.carry_out, audit,
        )  # fmt: skip
        limits = admin_app.OperatorLimits(ask, lambda: self._reloads.plan.limits, audit)
        quotas = admin_app.OperatorQuotas(ask, lambda: self._reloads.plan.quotas, audit)
        usage = admin_app.OperatorUsage(
            self._reloads.plan.data / "usage", lambda: self._reloads.plan.aliases, time.time
        )
        history = admin_app.CallHistory(self._sums)
        self._tasks.spawn(history.run(), "history of calls")
        page = admin_app.PageData(
            tiles=admin_app.TileData(
                gateway=self._reloads.plan.usage.gateway or platform.node(),
                readiness=self._readiness.report,
                config=self._config,
                latencies=self._sums.latencies,
                history=history,
                instances=instances,
                limits=limits,
                quotas=quotas,
                usage=usage,
                agents=self._sums.agents,
                refusals=self._sums.refusals,
                anomalies=self._anomalies.report,
            ),
            settings=lambda: shown_settings(self._reloads.plan.settings),
            who_sees=control_plane.who_sees,
            explain=control_plane.explain,
            spawn=self._tasks.spawn,
        )
        return admin_app.AdminData(
            readiness=self._readiness.report,
            metrics=admin_app.OperatorMetrics(self._sums, self._gauges, quotas, self._tasks.spawn).handle,
            instances=instances,
            catalogue=control_plane.catalogue,
            definitions=control_plane.definitions,
            limits=limits,
            latencies=self._sums.latencies,
            config=admin_app.OperatorConfig(
                self._config, self._order_reload, partial(self._reloads.diff, control_plane.diff), audit
            ),
            quotas=quotas,
            usage=usage,
            anomalies=self._anomalies.report,
            agents=self._sums.agents,
            page=page,
            count=self._sums.inc,
        )

    async def _tell_when_ready(self) -> None:
        while self._readiness.not_ready() is not None:  # noqa: ASYNC110 - once, and many things decide about it
            await asyncio.sleep(READY_LOOK_EVERY)
        self._tell("ready")

    def _states(self) -> list[str]:
        return [worker.state for worker in self._ipc_server.workers]

    def on_command(self, words: list[str]) -> None:
        """A line of the supervisor."""
        match words:
            case ["drain", _]:
                self._readiness.draining = True
            case ["stop"]:
                self._stop.set()
            case ["reload"]:
                self._tasks.spawn(self._reloads.reload("signal"), "reload")
            case ["restarts", workers, controllers, stores, usage]:
                self._sums.put(int(workers), "fastgw_worker_restarts_total")
                self._sums.put(int(controllers), "fastgw_controller_restarts_total")
                self._sums.put(int(stores), "fastgw_store_restarts_total")
                self._sums.put(int(usage), "fastgw_usage_restarts_total")

    # -- snapshots -----------------------------------------------------------------------------------------------

    async def _compile_when_changed(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(GATHER)
            self._busy = True
            self._changed.clear()
            await self._compile()
            self._busy = False

    async def _compile(self) -> bool:
        """Whether every worker has what is known now; where that cannot be made, they keep what they have."""
        async with self._compiling:
            # The monotonic clock goes on over a restart of the controller: the next one's generations are higher.
            self._generation = max(self._generation + 1, time.monotonic_ns())
            failed = "compiled; the one before is kept"
            try:
                snapshot = self._control_plane.compile(self._generation)
                failed = "sent to all"
                await self._ipc_server.push(self._generation, snapshot)
            except Exception:  # whatever it is: the controller would never compile again
                log.exception("the snapshot could not be %s", failed)
                self._sums.inc("fastgw_snapshot_failures_total")
                return False
            return True

    # -- the configuration ---------------------------------------------------------------------------------------

    async def _apply(self, plan: Plan) -> None:
        """Put a plan in force. Raises ValueError where that cannot be; then the one before is."""
        self._control_plane.reload(plan.settings)
        if not await self._compile():
            self._control_plane.reload(self._reloads.plan.settings)
            raise ValueError("no snapshot can be made of it: the log says why")
        self._listener_tls = plan.tls
        await self._ipc_server.announce("listener_tls", plan.tls)
        self._alerts.aim(plan.webhook, plan.webhook_keys)
        if plan.log != self._reloads.plan.log:
            logs.change(*plan.log)
        self._instances.tell(self._ipc_server.broadcast)

    def _told(self, applied: bool) -> None:  # noqa: FBT001 - the only argument
        outcome = "applied" if applied else "refused"
        self._sums.inc("fastgw_reloads_total", outcome)
        self._tell(f"reloaded {outcome}")
        if applied:
            self._reload_succeeded_at = time.time()

    async def _order_reload(self) -> str:
        return (await self._reloads.reload("order")).error

    def _config(self) -> dict[str, Any]:
        return {**self._reloads.report(), "generation": self._ipc_server.generation}

    # -- what workers say ------------------------------------------------------------------------------------------

    def _welcome(self, worker: WorkerPeer) -> None:
        """Tell a new worker what the others know."""
        send = worker.channel.send
        send("ended", self._ended.live(time.time()))
        send("levels", list(self._levels.items()))
        send("listener_tls", self._listener_tls)
        send("issuer_keys", self._control_plane.token_issuers.keys.documents())
        for key, (era, version) in self._control_plane.instance_statuses().items():
            send("instance_status", key, era, version)
        self._instances.tell(send)

    async def _open_session(self, _: WorkerPeer, *args: Any) -> Any:
        await self._all_adopted.wait()
        return await self._control_plane.questions["open_session"](*args)

    async def _keep_session(self, _: WorkerPeer, instance: str, identity: str, session: Any, instead: Any) -> Any:
        found = self._control_plane.questions["keep_session"](instance, identity, session, instead)
        for _turn in range(2):  # suspect twice: whoever was handed that session goes back too
            await self._ipc_server.announce("suspects", [((instance, identity), instead.id)])
        return found

    async def _meet(self, _: WorkerPeer, path: str, principal: Principal) -> None:
        async with self._meeting_some:
            self._control_plane.meet(path, principal)  # one compile is for all that have come meanwhile
            async with self._meeting:
                for _try in range(MEET_TRIES):
                    async with self._compiling:  # what has been compiled may still be on its way to the workers
                        new = self._control_plane.meet(path, principal)
                    if not new or not await self._compile():
                        return

    async def _end_session(self, _: WorkerPeer, session: str, seconds: float) -> None:
        self._ended.add(session, seconds, time.time())
        self._levels.pop(session, None)
        await self._ipc_server.announce("ended", [(session, seconds)])
        self._control_plane.questions["end_session"](session)

    async def _set_level(self, _: WorkerPeer, session: str, level: str) -> None:
        self._levels.pop(session, None)
        self._levels[session] = level
        if len(self._levels) > MOST_LEVELS:
            del self._levels[next(iter(self._levels))]
        await self._ipc_server.announce("levels", [(session, level)])

    def _adopt(self, worker: WorkerPeer, sessions: list[Any]) -> None:
        self._control_plane.adopted(sessions)
        self._adopted.add(worker.number)
        if len(self._adopted) >= self._reloads.plan.workers:
            self._all_adopted.set()

    def _gauges(self) -> dict[tuple[str, ...], float]:
        states = self._states()
        found: dict[tuple[str, ...], float] = {
            **{("fastgw_workers", state): states.count(state) for state in ("warming", "active", "draining")},
            ("fastgw_snapshot_generation",): self._ipc_server.generation,
            ("fastgw_sessions_ended",): len(self._ended),
            ("fastgw_config_last_reload_successful",): int(self._reloads.refused is None),
            ("fastgw_config_last_reload_success_timestamp_seconds",): self._reload_succeeded_at,
        }
        for server, known in self._control_plane.backends().items():
            for kind in ("tools", "prompts", "resources", "templates"):
                found[f"fastgw_server_{kind}", server] = known.get(kind, 0)
            for kind in CHANGE_KINDS if known.get("pins") else ():
                found["fastgw_server_tool_changes", server, kind] = known["pins"][kind]
        ends = expiries(self._listener_tls).items()
        found |= {("fastgw_listener_certificate_expiry_timestamp_seconds", kind): at for kind, at in ends}
        found |= build() | self._control_plane.expiries() | self._control_plane.token_issuers.keys.gauges()
        told, counted = told_by_usage(self._link), self._sums.counts
        told = {series: value + counted.get(series, 0) for series, value in told.items()}  # workers lose spans, too
        return found | self._instances.gauges() | told


def run(parts: Factories, plan: Plan, keys: tuple[bytes, ...], places: Sockets, control: socket.socket) -> None:
    """The whole life of a forked controller; returns when it was told to stop."""
    child.raise_files()
    os.nice(GIVES_WAY)

    async def main() -> None:
        controller = ControllerProcess(parts, plan, keys, partial(child.tell, control))
        child.listen(control, controller.on_command)
        await controller.run(places)

    uvloop.run(main())
