"""Whether the gateway is ready, and the texts of the admin port."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastgw.processes.ipc_server import IpcServer
from fastgw.processes.plan import ControlPlanePort
from fastgw.telemetry.counters import Series
from fastgw.telemetry.metrics import Sums


class Status:
    """What operators may ask.

    Args:
        gauges: values that only the controller knows, at the moment of asking.
    """

    def __init__(
        self,
        ipc_server: IpcServer,
        control_plane: ControlPlanePort,
        sums: Sums,
        gauges: Callable[[], dict[Series, float]],
    ) -> None:
        self.draining = False
        self._ipc_server = ipc_server
        self._control_plane = control_plane
        self._sums = sums
        self._gauges = gauges
        self._waited = False
        self.catching_up: Callable[[], bool] = lambda: False

    def waited_enough(self) -> None:
        """Servers that have not answered by now are not waited for."""
        self._waited = True

    def not_ready(self) -> str | None:
        """Why the gateway is not ready; None where it is."""
        if self.draining:
            return "draining"
        if not any(worker.state == "active" for worker in self._ipc_server.workers):
            return "no worker is active"
        if not self._waited and (not self._control_plane.settled() or self.catching_up()):
            return "servers have not answered yet"
        return None

    def readiness(self) -> dict[str, Any]:
        """`ready`, `reason` where it is not, and how many workers are in which state."""
        reason = self.not_ready()
        states = [worker.state for worker in self._ipc_server.workers]
        workers = {state: states.count(state) for state in ("warming", "active", "draining")}
        said: dict[str, Any] = {"ready": reason is None, "workers": workers, "generation": self._ipc_server.generation}
        return said if reason is None else {**said, "reason": reason}

    def metrics(self) -> str:
        """Prometheus text, all workers summed."""
        return self._sums.render(self._gauges())

    def backends(self) -> dict[str, Any]:
        """What is known of each server."""
        return self._control_plane.backends()

    def catalogue(self) -> dict[str, Any]:
        """Exposed names and what was noticed about them."""
        return self._control_plane.catalogue()
