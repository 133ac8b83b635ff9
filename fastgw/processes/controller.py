"""The controller: what must be one in the whole gateway.

changed --50 ms--> compile --> load at every worker --> activate.  A compile that fails keeps the snapshot before.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from dataclasses import replace
from typing import Any

import uvloop

from fastgw.admin.app import serve_admin
from fastgw.admin.status import Status
from fastgw.processes import child, ipc_framing
from fastgw.processes.ended_sessions import EndedSessions
from fastgw.processes.ipc_server import IpcServer, WorkerPeer
from fastgw.processes.limits import OperatorLimits
from fastgw.processes.plan import FIXED, ControlPlanePort, Factories, Plan
from fastgw.processes.sockets import Sockets
from fastgw.telemetry.metrics import Sums
from fastgw.upstream.tasks import BackgroundTasks
from fastgw.usage.writer import UsageWriter

log = logging.getLogger("fastgw")

GATHER = 0.05
"""Seconds in which changes are gathered before a compile."""
ADOPT_WITHIN = 1.0
"""Seconds in which workers have said which sessions at servers they know. Until all have, none is opened: a
controller that
was started again would open a second one for an agent whose first is known to a worker it has not heard yet."""
SETTLE_WITHIN = 0.5
"""Seconds that servers have to answer before the gateway calls itself ready without them."""

MOST_LEVELS = 50_000
"""Sessions whose log level is remembered; beyond it the oldest go back to the default."""


class ControllerProcess:
    """One controller at work."""

    def __init__(self, parts: Factories, plan: Plan, keys: tuple[bytes, ...]) -> None:
        self._parts = parts
        self._plan = plan
        self._tasks = BackgroundTasks()
        self._ipc_server = IpcServer(self._tasks)
        self._ended = EndedSessions(plan.data / "ended-sessions", time.time())
        self._levels: dict[str, str] = {}
        self._sums = Sums()
        self._writer = UsageWriter(plan.data)
        self._writer.aim(plan.sinks)
        self._changed = asyncio.Event()
        self._stop = asyncio.Event()
        self._generation = 0
        self._busy = False
        self._adopted: set[int] = set()
        self._all_adopted = asyncio.Event()
        self._control_plane: ControlPlanePort = parts.control_plane(plan, keys, self._tasks)
        self._limits = OperatorLimits(self._ipc_server.operate, lambda: self._plan.limits, plan.data / "audit.jsonl")
        self.status = Status(self._ipc_server, self._control_plane, self._sums, self._gauges)
        self.status.catching_up = lambda: self._busy or self._changed.is_set()

    async def run(self, places: Sockets) -> None:
        """Keep until the supervisor says stop."""
        links = await self._ipc_server.listen(places.ipc_server, self)
        await self._compile()
        admin = await serve_admin(places.admin, self.status, self._plan.admin_token, self._limits)
        self._control_plane.begin(self._changed.set, self._ipc_server.freshen)
        self._tasks.spawn(self._compile_when_changed(), "compiling")
        asyncio.get_running_loop().call_later(SETTLE_WITHIN, self.status.waited_enough)
        asyncio.get_running_loop().call_later(ADOPT_WITHIN, self._all_adopted.set)
        await self._stop.wait()
        links.close()
        await self._control_plane.close()
        await asyncio.to_thread(self._writer.close, 0.8)
        await admin.cleanup()

    def hear(self, words: list[str]) -> None:
        """A line of the supervisor."""
        match words:
            case ["drain", _]:
                self.status.draining = True
            case ["stop"]:
                self._stop.set()
            case ["reload"]:
                self._reload()
            case ["restarts", workers, controllers, stores]:
                self._sums.put(int(workers), "fastgw_worker_restarts_total")
                self._sums.put(int(controllers), "fastgw_controller_restarts_total")
                self._sums.put(int(stores), "fastgw_store_restarts_total")

    # -- snapshots -----------------------------------------------------------------------------------------------

    async def _compile_when_changed(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(GATHER)
            self._busy = True
            self._changed.clear()
            await self._compile()
            self._busy = False

    async def _compile(self) -> None:
        # The monotonic clock goes on over a restart of the controller: the next one's generations are higher.
        self._generation = max(self._generation + 1, time.monotonic_ns())
        try:
            snapshot = self._control_plane.compile(self._generation)
        except Exception:
            log.exception("the snapshot could not be compiled; the one before is kept")
            self._sums.inc("fastgw_snapshot_failures_total")
            return
        try:
            await self._ipc_server.push(self._generation, snapshot)
        except ipc_framing.BadMessage as wrong:
            log.error("the snapshot is too large for a frame; the one before is kept: %s", wrong)
            self._sums.inc("fastgw_snapshot_failures_total")
        except Exception:  # the controller would never compile again
            log.exception("the snapshot could not be sent to all; the next one goes to them whole")
            self._sums.inc("fastgw_snapshot_failures_total")

    def _reload(self) -> None:
        try:
            plan = self._parts.read()
            kept = [name for name in FIXED if getattr(plan, name) != getattr(self._plan, name)]
            self._control_plane.reload(plan.settings)
        except Exception as wrong:  # noqa: BLE001 - nothing in a file may end the controller
            log.error("the configuration is not applied, the one before is kept: %s", wrong)
            self._sums.inc("fastgw_reloads_total", "refused")
            return
        for name in kept:
            log.warning("`%s` has changed in the configuration; it takes a restart, the old value is kept", name)
        self._plan = replace(plan, **{name: getattr(self._plan, name) for name in FIXED})
        self._writer.aim(plan.sinks)
        self._sums.inc("fastgw_reloads_total", "applied")
        self._changed.set()
        log.info("the configuration was read again")

    # -- what workers say (`ipc_server.IpcHandlers`)
    # -----------------------------------------------------------------------------

    async def asked(self, verb: str, args: tuple[Any, ...]) -> Any:
        """A worker's question."""
        if verb == "end_session":
            session, seconds = args
            self._ended.add(session, seconds, time.time())
            self._levels.pop(session, None)
            await self._ipc_server.announce("ended", session, seconds)
        if verb == "suspect_session":
            await self._ipc_server.announce("suspects", *args)
            return None
        if verb == "set_level":
            await self._set_level(*args)
            return None
        if verb == "open_session":
            await self._all_adopted.wait()
        found = await self._control_plane.asked(verb, args)
        if verb == "keep_session":
            instance, identity, _, instead = args
            for _ in range(2):  # suspect twice: whoever was handed that session goes back too
                await self._ipc_server.announce("suspects", (instance, identity), instead.id)
        return found

    async def _set_level(self, session: str, level: str) -> None:
        self._levels.pop(session, None)
        self._levels[session] = level
        if len(self._levels) > MOST_LEVELS:
            del self._levels[next(iter(self._levels))]
        await self._ipc_server.announce("levels", session, level)

    def told(self, worker: WorkerPeer, message: ipc_framing.Message) -> None:
        """What a worker says and wants no answer to."""
        match message:
            case ("delta", delta):
                self._sums.merge(worker.number, delta)
            case ("usage", events, lines):
                self._sums.add(("fastgw_usage_events_total",), events)
                self._writer.put(events, lines)
            case ("sessions", sessions):
                self._control_plane.adopted(sessions)
                self._adopted.add(worker.number)
                if len(self._adopted) >= self._plan.workers:
                    self._all_adopted.set()
            case ("touch", sessions):
                self._control_plane.touched(sessions)
            case _:
                log.error("worker %d says %r", worker.number, message[0])

    def ended(self) -> list[tuple[str, float]]:
        """Sessions a new worker must refuse."""
        return self._ended.live(time.time())

    def levels(self) -> list[tuple[str, str]]:
        """Log levels of sessions that a new worker must know."""
        return list(self._levels.items())

    def gone(self, worker: WorkerPeer) -> None:
        """A worker's link has ended."""
        self._sums.forget(worker.number)

    def _gauges(self) -> dict[tuple[str, ...], float]:
        self._sums.put(self._writer.lost, "fastgw_usage_events_lost_total", "sink")
        states = [worker.state for worker in self._ipc_server.workers]
        found: dict[tuple[str, ...], float] = {
            ("fastgw_workers", state): states.count(state) for state in ("warming", "active", "draining")
        }
        found["fastgw_snapshot_generation",] = self._ipc_server.generation
        found["fastgw_sessions_ended",] = len(self._ended)
        for server, known in self._control_plane.backends().items():
            for kind in ("tools", "prompts", "resources", "templates"):
                found[f"fastgw_server_{kind}", server] = known.get(kind, 0)
        return found


def run(parts: Factories, plan: Plan, keys: tuple[bytes, ...], places: Sockets, control: socket.socket) -> None:
    """The whole life of a forked controller; returns when it was told to stop."""
    child.raise_files()

    async def main() -> None:
        keeping = ControllerProcess(parts, plan, keys)
        child.listen(control, keeping.hear)
        await keeping.run(places)

    uvloop.run(main())
