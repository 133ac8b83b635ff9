"""Whether instances are in order: the controller asks each of them all the time.

A modern instance is asked for `server/discover`, a legacy one to `ping`, in the session that the gateway itself has
there. What the answer is does not count, only that there is one: a refusal, too, comes from a server that runs.

    a JSON-RPC message with a status below 500, any 4xx           success
    no connection, a reset, silence, 5xx, 200 with anything else  failure
    no era is known yet                                           as the catalogue's fetcher fares: it asks all the time

    unknown, unhealthy --successes--> healthy     the first one, `healthy_after` in a row
    unknown, healthy --`unhealthy_after` failures in a row--> unhealthy
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from random import uniform
from typing import Any, NamedTuple

from fastgw.config.instance_urls import label
from fastgw.errors import Fault, Kind
from fastgw.protocol import names
from fastgw.protocol.names import Era
from fastgw.snapshot.compiler import effective_era
from fastgw.snapshot.model import Backend
from fastgw.upstream.discovery.status import InstanceStatus
from fastgw.upstream.rpc import RpcClient, RpcClients, RpcReply
from fastgw.upstream.sessions import UpstreamSessions

log = logging.getLogger("fastgw")

AGAIN = 1.0
"""Seconds between two checks, at most, as long as what is believed of an instance is not confirmed, and while it is
unhealthy: whoever starts a server again wants to see calls there at once.
"""
JITTER = 0.1
"""How much sooner or later a check comes, at most: gateways must not ask all at once."""
_FAILURES = ("unreachable", "lost", "timeout", "server_error")


class HealthPolicy(NamedTuple):
    """How often an instance is asked (seconds), how long it has (seconds), and what that makes of it."""

    interval: float = 10.0
    timeout: float = 2.0
    unhealthy_after: int = 3
    healthy_after: int = 2


class HealthState(Enum):
    """What is believed of an instance. Calls go to one of which nothing is known."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Health:
    """One instance's health, by the table; `against` are the checks in a row that speak against it."""

    __slots__ = ("against", "state")

    def __init__(self) -> None:
        self.state = HealthState.UNKNOWN
        self.against = 0

    def take(self, policy: HealthPolicy, *, succeeded: bool) -> bool:
        """A check has ended so; whether calls may go where they might not before, or the other way round."""
        was_unhealthy = self.state is HealthState.UNHEALTHY
        if self.state is HealthState.UNKNOWN and succeeded:
            self.state = HealthState.HEALTHY
        self.against = self.against + 1 if succeeded is was_unhealthy else 0
        if self.against < (policy.healthy_after if was_unhealthy else policy.unhealthy_after):
            return False
        self.state, self.against = HealthState.HEALTHY if was_unhealthy else HealthState.UNHEALTHY, 0
        return True

    def pause(self, policy: HealthPolicy, jitter: float) -> float:
        """Seconds until the next check; `jitter`: between -1 and 1, any."""
        is_settled = self.state is HealthState.HEALTHY and not self.against
        return (policy.interval if is_settled else min(AGAIN, policy.interval)) * (1 + JITTER * jitter)


@dataclass(slots=True)
class CheckedInstance:
    """One instance that is asked, and what it said last: when (Unix seconds), and what was wrong."""

    key: str
    policy: HealthPolicy
    health: Health = field(default_factory=Health)
    checked_at: float | None = None
    error: str = ""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[Any] | None = None


class HealthChecks:
    """The checks of all instances.

    Args:
        status: what the catalogue's fetcher knows of an instance; None for one it does not know.

    Attributes:
        on_check: called with an instance's key after each check, and whether it succeeded.
        on_change: called with an instance's key whenever it becomes unhealthy (False), or does not count as that any
            more (True).
    """

    def __init__(
        self, clients: RpcClients, sessions: UpstreamSessions, status: Callable[[str], InstanceStatus | None]
    ) -> None:
        self._clients = clients
        self._sessions = sessions
        self._status = status
        self._checked: dict[str, CheckedInstance] = {}
        self.on_check: Callable[[str, bool], object] = lambda _key, _succeeded: None
        self.on_change: Callable[[str, bool], object] = lambda _key, _healthy: None

    def watch(self, wanted: Mapping[str, HealthPolicy]) -> None:
        """Check exactly these instances, by key; what is known of those that stay is kept."""
        for key in [key for key in self._checked if key not in wanted]:
            self._forget(self._checked.pop(key))
        for key, policy in wanted.items():
            one = self._checked.get(key)
            if one is None:
                one = self._checked[key] = CheckedInstance(key, policy)
                one.task = self._clients.spawn(self._check_on(one), f"check {label(key)}")
            elif one.policy != policy:
                one.policy = policy
                one.wake.set()

    def check_now(self, key: str) -> None:
        """Something speaks against an instance: do not wait for its turn."""
        if (one := self._checked.get(key)) is not None and one.health.state is not HealthState.UNHEALTHY:
            one.wake.set()

    def state(self, key: str) -> dict[str, Any]:
        """What is known of an instance, fit for JSON; `checked_at` in Unix seconds."""
        one = self._checked.get(key) or CheckedInstance(key, HealthPolicy())
        return {"health": one.health.state.value, "checked_at": one.checked_at, "health_error": one.error}

    def close(self) -> None:
        for one in self._checked.values():
            if one.task is not None:
                one.task.cancel()

    def _forget(self, one: CheckedInstance) -> None:
        if one.task is not None:
            one.task.cancel()
        if one.health.state is HealthState.UNHEALTHY:
            self.on_change(one.key, True)

    async def _check_on(self, one: CheckedInstance) -> None:
        wait = one.health.pause(one.policy, 0.0) * uniform(0, 1)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await one.wake.wait()
            one.wake.clear()
            try:
                await self.check(one)
            except Exception:  # a defect of ours says nothing of the server, and must not end its checks
                log.exception("the check of %s", label(one.key))
            wait = one.health.pause(one.policy, uniform(-1, 1))

    async def check(self, one: CheckedInstance) -> None:
        """Ask an instance once, and take note of how it went."""
        wrong = await self._wrong_with(one)
        if wrong is None:
            return
        is_first = wrong and not one.error and one.health.state is not HealthState.UNHEALTHY
        one.error, one.checked_at = wrong, time.time()
        if is_first:
            log.info("%s: a check failed: %s", label(one.key), wrong)
        changes = one.health.take(one.policy, succeeded=not wrong)
        self.on_check(one.key, not wrong)
        if changes:
            is_healthy = one.health.state is HealthState.HEALTHY
            log.warning("%s: %s%s", label(one.key), one.health.state.value, f": {wrong}" if wrong else "")
            self.on_change(one.key, is_healthy)

    async def _wrong_with(self, one: CheckedInstance) -> str | None:
        """What is wrong with an instance, for operators: empty for nothing, None where that cannot be told yet."""
        status = self._status(one.key)
        if status is None:
            return None
        if status.known_era is None:
            return None if status.fault is None else failure_of(status.fault)
        is_legacy = effective_era(status.server.watched.era, status.known_era)[0] == Era.LEGACY.value
        try:
            client = (await self._clients.ready(one.key)).within(one.policy.timeout)
        except Fault as fault:  # that there is no token for it is not its fault, nor its merit
            return None if fault.data.get("reason") == "credential" else failure_of(fault)
        try:
            async with asyncio.timeout(one.policy.timeout):
                reply = await self._ask(one, client, is_legacy=is_legacy)
        except TimeoutError:
            return f"no answer within {one.policy.timeout:g} s"
        except Fault as fault:
            return failure_of(fault)
        return failure_in(reply, status.server.watched.backend)

    async def _ask(self, one: CheckedInstance, client: RpcClient, *, is_legacy: bool) -> RpcReply:
        if not is_legacy:
            return await client.ask_modern(names.DISCOVER, {}, self._clients.ours)
        # A ping without a session would have some servers make one of it, and keep that.
        return await client.ask_legacy(await self._sessions.own(one.key), names.PING, {})


def failure_in(reply: RpcReply, backend: Backend) -> str:
    """What is wrong with a server that answers so; empty for one that is in order."""
    if reply.status >= 500:
        return f"status {reply.status}{reply.shown_error(backend)}"
    if reply.message is not None or reply.error or reply.status >= 400:
        return ""
    return f"status {reply.status} without an answer"


def failure_of(fault: Fault) -> str:
    """What is wrong with a server that could not be asked; empty where it has answered, whatever it was."""
    is_failure = fault.failure in _FAILURES or fault.kind in (Kind.TIMEOUT, Kind.LOST)
    return fault.detail or fault.message if is_failure else ""
