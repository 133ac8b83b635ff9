"""What one worker holds between requests: the snapshot in force, connections, sessions, calls in flight.

Knows: the live objects the path needs, by identity. Refuses to know: the order of the path, and HTTP.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, Protocol
from zlib import crc32

import orjson

from fastgw.backends.caller import Caller
from fastgw.config.snapshot import Backend, Endpoint, Instance, Snapshot, View
from fastgw.faults import Fault, Kind
from fastgw.gateway.agent import Fields
from fastgw.gateway.budget import Budget
from fastgw.gateway.exchange import Exchange
from fastgw.gateway.ledger import Ledger
from fastgw.gateway.lift import legacy
from fastgw.gateway.lift.door import Door
from fastgw.gateway.lift.face import Recognised, Refused, Wish
from fastgw.gateway.limiter import Limiter
from fastgw.gateway.openapi import Descriptions
from fastgw.gateway.patrol import Patrol
from fastgw.gateway.refusal_log import RefusalLog
from fastgw.gateway.registry import Registry
from fastgw.gateway.wires import Wires
from fastgw.mcp import headers, rounds, sessions
from fastgw.mcp.sealing import Sealer
from fastgw.policy.principal import ANONYMOUS
from fastgw.ports import Keeper, UpstreamSession

MOST_IN_FLIGHT = 10_000
"""Calls one worker carries at a time; above it an answer in no time beats a place in a queue without end."""

_NOWHERE = Endpoint("", {}, (View(),), {ANONYMOUS.agent: 0}, False, 0.0, (), "")


class Life(Protocol):
    """How far this worker's life is, as far as answers tell."""

    @property
    def draining(self) -> bool:
        """Whether connections are to end with the answer they wait for."""
        ...


class Gateway:
    """One worker's live state.

    Args:
        keeper: the port to what must be one in the whole gateway.
        ledger: counts and events of finished requests.
        registry: background work.
        life: state of the worker.
        limiter: holds calls to the limits.
    """

    most_in_flight = MOST_IN_FLIGHT

    def __init__(self, keeper: Keeper, ledger: Ledger, registry: Registry, life: Life, limiter: Limiter) -> None:
        self.keeper = keeper
        self.limiter = limiter
        self.registry = registry
        self.refusal_log = RefusalLog()
        self._ledger = ledger
        self._life = life
        self._newest: Snapshot | None = None
        self._listed: Snapshot | None = None
        self._wires = Wires(registry)
        self._bodies = Budget()
        self._calls: dict[tuple[str, bytes], Exchange] = {}
        self._running: set[Exchange] = set()
        self._boot = os.urandom(5).hex()
        self._numbers = count(1)
        self._patrol = Patrol()
        self._loop = asyncio.get_running_loop()
        self.door = Door()
        self.descriptions = Descriptions()
        self.cursors: Sealer
        self.states: Sealer
        self.caller: Caller

    @property
    def in_flight(self) -> int:
        """Calls being carried."""
        return len(self._running)

    # -- snapshots ----------------------------------------------------------------------------------------------

    def load(self, snapshot: Snapshot) -> None:
        """Use this snapshot for calls. Lists follow with `activate`, when every worker can serve what they name."""
        previous, self._newest = self._newest, snapshot
        if previous is None:
            self._listed = snapshot
            self.caller = Caller(self.keeper, self._wires.find, self.registry.spawn, our_client(snapshot))
        if previous is None or previous.seal_keys != snapshot.seal_keys:
            self.door.renew(snapshot.seal_keys)
            self.cursors = Sealer(snapshot.seal_keys, "cursor")
            self.states = Sealer(snapshot.seal_keys, "state")
        self.limiter.load(snapshot)
        self.caller.max_reply = snapshot.max_reply
        self.caller.forget(self._wires.connect(snapshot))
        if previous is not None:
            self._wires.retire(previous.longest)

    def activate(self, generation: int) -> None:
        """Every worker has loaded this generation: list from it."""
        if self._newest is not None and self._newest.generation == generation:
            self._listed = self._newest
            self.descriptions.forget()

    def freshened(self, until: dict[str, float]) -> None:
        """What lists say of their freshness goes by this from now on; see `plan.Served`."""
        if self._newest is not None:
            self._newest = self._newest.freshened(until)

    def listed(self, exchange: Exchange) -> View:
        """The view that lists are answered from: of the newest snapshot that *every* worker serves calls from."""
        listed = self._listed
        endpoint = listed.endpoints.get(exchange.endpoint.path) if listed is not None else None
        if endpoint is None or exchange.principal.agent not in endpoint.view_of:
            endpoint = exchange.endpoint
        return endpoint.views[endpoint.view_of[exchange.principal.agent]]

    # -- one request --------------------------------------------------------------------------------------------

    def begin(self, scope: Mapping[str, Any]) -> Exchange:
        """A new exchange. The snapshot taken here is the one it keeps."""
        assert self._newest is not None
        found, twice = headers.index(scope["headers"])
        name = f"req_{self._boot}{next(self._numbers):06x}"
        now = time.monotonic()
        exchange = Exchange(name, self._newest, _NOWHERE, found, twice, now, timestamp=time.time())
        exchange.client = scope.get("client")
        exchange.task = asyncio.current_task(self._loop)
        self._patrol.add(exchange)
        return exchange

    def element(self, whole: Exchange, found: Recognised | Refused) -> Exchange:
        """The exchange of one message of a batch."""
        name = f"req_{self._boot}{next(self._numbers):06x}"
        element = Exchange(
            name, whole.snapshot, whole.endpoint, whole.headers, whole.twice, whole.started,
            timestamp=whole.timestamp, principal=whole.principal, identified=True, view=whole.view, face=whole.face,
            method=found.method, bytes_in=found.size,
        )  # fmt: skip
        element.reply_to = found.id if isinstance(found, Refused) else found.call.id
        return element

    def hold(self, exchange: Exchange, count: int) -> bool:
        """Take room for `count` bytes of the body of this request, besides what it has; given back by `release`."""
        if not self._bodies.take(count):
            return False
        exchange.held += count
        return True

    def release(self, exchange: Exchange) -> None:
        """The request is over: its body is no more."""
        self._bodies.give(exchange.held)
        exchange.held = 0

    def common(self, exchange: Exchange) -> Fields:
        """The headers of every answer."""
        found = [(b"x-request-id", exchange.request_id.encode())]
        if self._life.draining:
            found.append((b"connection", b"close"))
        if exchange.cors:
            found += exchange.cors
        return found

    def track(self, exchange: Exchange) -> None:
        """The call runs: it can be cancelled by its session, and a drain waits for it."""
        self._running.add(exchange)
        call = exchange.call
        if call is not None and call.session is not None:
            self._calls[call.session, call.id] = exchange

    def untrack(self, exchange: Exchange) -> None:
        """The call is over."""
        self._running.discard(exchange)
        call = exchange.call
        if call is not None and call.session is not None and self._calls.get((call.session, call.id)) is exchange:
            del self._calls[call.session, call.id]

    def expire(self) -> None:
        """The worker ends before these calls do: each is told so, rather than cut off."""
        for exchange in self._running:
            exchange.expire()

    def record(self, exchange: Exchange) -> None:
        """Count the request; write a usage event where it was a call and its agent is known."""
        self._ledger.record(exchange, self.keeper)

    # -- sessions and cancels -----------------------------------------------------------------------------------

    def heed(self, exchange: Exchange, found: Recognised) -> None:
        """Take note of a notification; a cancel is carried to whichever worker has the call."""
        call = found.call
        if found.wish is Wish.CANCEL and call.session is not None and not self.cancelled(call.session, call.id):
            self.keeper.cancel(call.session, call.id)

    def cancelled(self, session: str, request: bytes) -> bool:
        """An agent has withdrawn a call; whether this worker had it."""
        exchange = self._calls.get((session, request))
        if exchange is None:
            return False
        exchange.withdraw()
        return True

    async def end_session(self, exchange: Exchange) -> None:
        """End the session a DELETE names, on every worker.

        Raises:
            Fault: NOT_ONE_MESSAGE, SESSION_UNKNOWN.
        """
        session = legacy.session_of(exchange, self.door)
        self.door.end(session.id, sessions.LIFETIME)
        await self.keeper.end_session(session.id, sessions.LIFETIME)

    def known_sessions(self) -> list[tuple[str, str, UpstreamSession]]:
        """(instance, identity, session) of the sessions at servers that this worker uses."""
        return self.caller.known_sessions() if self._newest is not None else []

    async def set_level(self, session: str, level: str) -> None:
        """The agent wants log messages of this session from `level` on, whichever worker has its next call."""
        self.door.set_level(session, level)
        await self.keeper.set_level(session, level)

    def suspected(self, key: tuple[str, str], session: str) -> None:
        """A call in this upstream session was answered as if its server had lost it."""
        if self._newest is not None:
            self.caller.suspect(key, session)

    def leveled(self, session: str, level: str) -> None:
        """A level was set through another worker, or before this one started."""
        self.door.set_level(session, level)

    def ended(self, session: str, seconds: float) -> None:
        """A session was ended through another worker, or before this one started."""
        self.door.end(session, seconds)

    # -- limits -------------------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """See `plan.Served`."""
        await self.limiter.prepare(self.registry.spawn)

    def operate(self, verb: str, args: tuple[Any, ...], answer: Callable[[Any], object]) -> None:
        """See `plan.Served`."""
        if verb == "report":
            self.registry.spawn(self._report(answer), "reporting limits")
            return
        (self.limiter.orders.give if verb == "order" else self.limiter.orders.remember)(*args)
        answer(None)

    async def _report(self, answer: Callable[[Any], object]) -> None:
        report = None
        try:
            report = await self.limiter.report()
        finally:
            answer(report)

    # -- servers ------------------------------------------------------------------------------------------------

    def identity(self, exchange: Exchange, backend: Backend) -> str:
        """Whose session at a server this call may use: the agent's own session's, or the agent's; `*` for anyone's."""
        if backend.shared_session:
            return "*"
        call = exchange.call
        if call is not None and call.session is not None:
            return f"session:{exchange.principal.agent}:{call.session}"
        return f"agent:{exchange.principal.agent}"

    def resume(self, exchange: Exchange, server: str) -> None:
        """Open the `requestState` of a call, so that the server that gave it gets its own back.

        Args:
            server: where the call goes.

        Raises:
            Fault: BAD_PARAMS where it is altered, expired, or was given to another agent or for something else.
        """
        call = exchange.call
        assert call is not None and call.request_state is not None
        bound = rounds.bond(exchange.endpoint.path, exchange.principal.agent, call.method, call.name or "")
        state = rounds.open_state(call.request_state, self.states, bound, time.time())
        if state is None or state.server != server:
            raise Fault(Kind.BAD_PARAMS, "Invalid params: unknown or expired requestState")
        call.params[rounds.STATE] = state.inner
        call.instance = state.instance

    def choose(self, backend: Backend, identity: str, first: str | None = None) -> list[Instance]:
        """The instances in the order they are to be tried: the same first one for the same identity on every worker.

        Rendezvous hashing (Thaler and Ravishankar, 1998): when an instance goes, only its identities move.

        Args:
            first: key of the instance to begin with, where there is still such a one.
        """
        if len(backend.instances) == 1:
            return [backend.instances[0]]
        ranks = {one.key: (one.key != first, _rank(one.key, identity)) for one in backend.instances}
        return sorted(backend.instances, key=lambda instance: ranks[instance.key])

    async def close(self) -> None:
        """End what runs in the background and every connection."""
        await self.registry.close()
        await self._wires.close()


def _rank(instance: str, identity: str) -> int:
    """A number of 32 bits. A CRC alone will not do: two of them differ by the same bits for every identity of a
    length, so that of three instances one would get half of all; to multiply (a step of lowbias32) ends that.
    """
    mixed = crc32(f"{instance}\n{identity}".encode())
    return (mixed ^ mixed >> 16) * 0x21F0AAAD & 0xFFFFFFFF


def our_client(snapshot: Snapshot) -> bytes:
    """Our `clientInfo` towards servers whose agent gave none, as JSON text."""
    return orjson.dumps({"name": snapshot.server_name, "version": snapshot.server_version})
