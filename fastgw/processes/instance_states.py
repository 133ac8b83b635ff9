"""What holds of an instance in the whole gateway, beside the snapshot: its health, its breaker, whether it is drained.
The controller hears it from its checks, from workers and from operators, and tells every worker at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fastgw.config.instance_urls import place
from fastgw.processes.kept import Drain, KeptDrains
from fastgw.processes.plan import ControlPlanePort
from fastgw.snapshot.model import Backend
from fastgw.telemetry.metrics import Sums
from fastgw.upstream.breaker import BreakerNews, BreakerState

CLOSED, OPEN = BreakerState.CLOSED.value, BreakerState.OPEN.value
Send = Callable[..., object]
"""Takes a message's name and its arguments, as `Channel.send`."""


class InstanceStates:
    """All instances, by `Address.key`.

    Args:
        broadcast: sends every worker a message, `but` one; as `IpcServer.broadcast`.
    """

    def __init__(self, control_plane: ControlPlanePort, drains: KeptDrains, sums: Sums, broadcast: Send) -> None:
        self._control_plane = control_plane
        self._health = control_plane.health
        self._drains = drains
        self._sums = sums
        self._broadcast = broadcast
        self._unhealthy: set[str] = set()
        self._breakers: dict[str, tuple[Any, ...]] = {}
        self._health.on_check = self._checked
        self._health.on_change = self._changed

    def tell(self, send: Send) -> None:
        """Say all there is to say: to a worker that has just connected, or to all after a reload."""
        for backend in self._control_plane.servers:
            for one in backend.instances:
                self._tell_marks(send, one.key)
        for key, news in self._breakers.items():
            send("breaker", key, news)

    def breaker(self, key: str, news: tuple[Any, ...], but: Any = None) -> None:
        """What became of a breaker in one worker becomes of it in all; an instance at which it opens is checked."""
        self._count(key, before=self._breakers.pop(key, (CLOSED,))[0], now=news[0])
        if news[0] != CLOSED:
            self._breakers[key] = news
        self._broadcast("breaker", key, news, but=but)
        if news[0] == OPEN and but is not None:
            self._health.check_now(key)

    def _count(self, key: str, before: str, now: str) -> None:
        """What one worker after the other says of the same is one transition."""
        for backend in self._control_plane.servers if before != now else ():
            for one in backend.instances:
                if one.key == key:
                    self._sums.inc("fastgw_breaker_transitions_total", backend.name, place(one.url), now)

    def told(self, key: str) -> dict[str, Any]:
        """Health and drain of an instance; times in Unix seconds."""
        drain = self._drains.get(key)
        return {**self._health.state(key), "drained": drain and drain._asdict()}

    def carry_out(self, do: str, backend: Backend, key: str, who: str) -> None:
        """An operator's order: `drain`, `open` or `close`. Raises OSError where a drain cannot be kept."""
        if do == "open":
            until = time.monotonic() + backend.breaker[1]
            self.breaker(key, tuple(BreakerNews(OPEN, until, 1, "an operator has opened it", time.time())))
            return
        self._drains.put(key, Drain(who, time.time()) if do == "drain" else None)
        self._tell_marks(self._broadcast, key)
        if do == "close":
            self.breaker(key, tuple(BreakerNews(CLOSED, 0.0, 0, "", time.time())))

    def gauges(self) -> dict[tuple[str, ...], float]:
        """For `/metrics`. Instances of a server at one host:port are one there, as ill as the worst of them."""
        found: dict[tuple[str, ...], float] = {}
        for backend in self._control_plane.servers:
            for one in backend.instances:
                labels, key = (backend.name, place(one.url)), one.key
                ill = {
                    "fastgw_breaker_open": key in self._breakers,
                    "fastgw_instance_drained": self._drains.get(key) is not None,
                }
                for name, value in ill.items():
                    found[name, *labels] = max(found.get((name, *labels), 0), int(value))
                for to in BreakerState:  # from the start: of a counter that begins with 1 `increase` says nothing
                    series = ("fastgw_breaker_transitions_total", *labels, to.value)
                    found[series] = self._sums.counts.get(series, 0)
                healthy = ("fastgw_instance_healthy", *labels)
                found[healthy] = min(found.get(healthy, 1), int(key not in self._unhealthy))
        return found

    def _checked(self, key: str, succeeded: bool) -> None:  # noqa: FBT001 - as `HealthChecks.on_check` has it
        server = key.partition("|")[0]
        self._sums.inc("fastgw_health_checks_total", server, "ok" if succeeded else "failed")

    def _changed(self, key: str, healthy: bool) -> None:  # noqa: FBT001 - as `HealthChecks.on_change` has it
        if healthy:
            self._unhealthy.discard(key)
        else:
            self._unhealthy.add(key)
        self._tell_marks(self._broadcast, key)

    def _tell_marks(self, send: Send, key: str) -> None:
        send("instance_health", key, key not in self._unhealthy, self._drains.get(key) is not None)
