"""Decisions over four buckets in one process, in memory and from leases, as the path of a call makes them.

It imports the gateway, since these steps cannot be told apart from outside.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from math import inf
from time import monotonic_ns
from typing import Any, Protocol

from bench.beside import clock
from bench.catalogues import Size, offered
from bench.compile import catalogue
from bench.messages import Target, template
from fastgw.config.schema.settings import Settings
from fastgw.gateway.access import Access
from fastgw.gateway.admission import Limiter
from fastgw.gateway.context import RequestContext
from fastgw.gateway.dialects import dialect, modern
from fastgw.limits.leases import Leases
from fastgw.limits.memory_buckets import MemoryBuckets
from fastgw.limits.script import StoreKeys
from fastgw.policy.limits import Bucket, BucketCharge, LimitVerdict
from fastgw.policy.match import Principal
from fastgw.protocol import names
from fastgw.protocol.call import Call
from fastgw.snapshot.compiler import Learned, compile_snapshot
from fastgw.snapshot.model import View
from fastgw.telemetry.counters import Counters

RATE = {"rate": "1000/second", "burst": 1_000_000}
"""So much that no bucket is full or empty while it is measured: then every decision does all its arithmetic."""
SPENT = 500_000
Limits = list[dict[str, Any]]
OWN: Limits = [
    {"name": "agents", "by": ["agent"], **RATE},
    {"name": "agents and tools", "by": ["agent", "tool"], **RATE},
    {"name": "projects and agents", "by": ["claims.project", "agent"], **RATE},
    {"name": "agents on endpoints", "by": ["agent", "endpoint"], **RATE},
]
"""Every one of them has a bucket for each agent."""
SHARED: Limits = [
    {"name": "agents", "by": ["agent"], **RATE},
    {"name": "tools", "by": ["tool"], **RATE},
    {"name": "projects", "by": ["claims.project"], **RATE},
    {"name": "all", **RATE},
]
"""One has a bucket for each agent; of the others all agents here use the same."""
STEP = 10
"""Microseconds of a played clock that pass from one decision to the next."""
BATCH = 64
"""Calls that are made ready before the clock is read: so many fit into the processor's caches."""
HELD, FOR_EVER = 1 << 40, 1 << 60


class Buckets(Protocol):
    """Some of `gateway.limiter.Buckets`."""

    def decide(self, charges: Sequence[BucketCharge], now: int) -> LimitVerdict | None: ...
    def release(self, permits: Sequence[BucketCharge]) -> None: ...
    def fill(self, charges: Sequence[BucketCharge], now: int) -> None:
        """Make these half full, and ready to be decided about."""
        ...


class InMemory(MemoryBuckets):
    """`stores.memory.MemoryBuckets`."""

    def fill(self, charges: Sequence[BucketCharge], now: int) -> None:
        """See `Buckets.fill`."""
        self.decide([charge._replace(cost=SPENT) for charge in charges], now)


class Leased:
    """As `stores.shared.Shared` decides while its store is in use and all that is asked for is held."""

    def __init__(self) -> None:
        self._leases = Leases(StoreKeys("bench"))

    def __len__(self) -> int:
        return len(self._leases)

    def decide(self, charges: Sequence[BucketCharge], now: int) -> LimitVerdict | None:
        """See `Shared.decide`."""
        return self._leases.grant(charges, now)

    def release(self, permits: Iterable[BucketCharge]) -> None:
        """See `Shared.release`."""
        self._leases.release(permits)

    def fill(self, charges: Sequence[BucketCharge], now: int) -> None:
        """See `Buckets.fill`: more is lent than can be spent here."""
        for charge in charges:
            lease = self._leases.find(charge)
            lease.held, lease.until = HELD, FOR_EVER
            assert charge.rate is not None
            lease.lacks(SPENT * charge.rate.price, now)


class Scene:
    """A configuration with the four limits, compiled, and calls of its only server's last tool.

    Args:
        limits: four.
        further: keys of each of them.
    """

    def __init__(self, limits: Limits = OWN, **further: Any) -> None:
        lists = offered(Size(1, 5, 1, 1), 0)
        settings = Settings.model_validate(
            {
                "servers": {"server-00": {"url": "http://127.0.0.1:9/"}},
                "agents": {"agent": {"key": f"sha256:{1:064x}"}},
                "policies": [{"name": "all", "allow": ["*"]}],
                "limits": [{**limit, **further} for limit in limits],
            }
        )
        learned = Learned(catalogues={"server-00": catalogue("server-00", lists)}, seal_keys=(bytes(32),))
        self._snapshot = compile_snapshot(settings, learned, 1)[0]
        self._endpoint = self._snapshot.endpoints["/mcp"]
        view = self._endpoint.view_for(Principal("agent"))
        assert view is not None
        self._tool = lists["tools/list"][-1]["name"]
        self._grant = view.grants[self._tool]

    def limiter(self, buckets: Any) -> Limiter:
        """One that goes by the four limits."""
        limiter = Limiter(buckets, Counters())
        limiter.load(self._snapshot)
        return limiter

    def exchange(self, principal: Principal) -> RequestContext:
        """A call of this agent, at the point where the path asks the limits."""
        found = RequestContext("r", self._snapshot, self._endpoint, modern.DIALECT, {}, frozenset(), 0.0)
        found.principal, found.tool = principal, self._tool
        found.access = Access(principal, View(), inf, "")
        found.call = Call(b"1", names.TOOLS_CALL, names.MODERN_VERSION, self._tool, {"arguments": b"{}"})
        found.grant, found.arm = self._grant, self._grant.arms[0]
        return found

    def charges(self, agent: str) -> list[BucketCharge]:
        """What a call of this agent counts in."""
        return self.limiter(MemoryBuckets()).charges(self.exchange(principal(agent)))


def principal(agent: str) -> Principal:
    """An agent with a claim."""
    return Principal(agent, {"project": "project-1"})


def now() -> int:
    """CLOCK_MONOTONIC microseconds, as the limiter has them."""
    return monotonic_ns() // 1000


def envelope() -> Callable[[], object]:
    """The reference: reading the envelope of a call of 390 bytes (`gateway.dialects.dialect`)."""
    body = template(Target(1)).fill(1_234_567_890, "f" * 16).split(b"\r\n\r\n", 1)[1]
    return lambda: dialect.open_message(dialect.read_message(body), b"1")


class Line:
    """One agent's calls, one after the other."""

    def __init__(self, scene: Scene, buckets: Buckets) -> None:
        self._buckets = buckets
        self._limiter = scene.limiter(buckets)
        self._exchange = scene.exchange(principal("agent-1"))
        self._charges = self._limiter.charges(self._exchange)
        self._clock = count(now(), STEP)
        buckets.fill(self._charges, next(self._clock))

    def decision(self) -> LimitVerdict | None:
        """The charges are there."""
        return self._buckets.decide(self._charges, next(self._clock))

    def step(self) -> LimitVerdict | None:
        """What the call counts in, and the decision."""
        return self._buckets.decide(self._limiter.charges(self._exchange), next(self._clock))

    def whole(self) -> None:
        """All that limits add to the path of a call, but for headers and the usage event."""
        if self._limiter.admit(self._exchange) is not None:
            raise AssertionError("nothing is to be waited for here")
        self._limiter.settle(self._exchange)


class Crowd:
    """Calls of many agents, each of which has all its buckets already.

    Args:
        agents: so many have buckets.
        calling: so many of them call, in no order that a cache could make use of.
    """

    def __init__(self, scene: Scene, buckets: Buckets, agents: int, calling: int) -> None:
        self._scene, self._buckets = scene, buckets
        self._limiter = scene.limiter(buckets)
        self._clock = count(now(), STEP)
        self._dice = random.Random(agents)
        every = [principal(f"agent-{number:06d}") for number in range(agents)]
        self._calling = self._dice.sample(every, calling)
        full: dict[Bucket, BucketCharge] = {}
        for one in every:
            full |= {charge.bucket: charge for charge in self._limiter.charges(scene.exchange(one))}
        for charge in full.values():
            buckets.fill([charge], next(self._clock))

    def decision(self, times: int) -> float:
        """CPU microseconds of a decision; the charges are there, as whoever made them has left them in the caches."""
        decide, ticks, spent, done = self._buckets.decide, self._clock, 0.0, 0
        while done < times:
            drawn = self._dice.choices(self._calling, k=BATCH)
            batch = [self._limiter.charges(self._scene.exchange(one)) for one in drawn]
            begun = clock()
            for charges in batch:
                verdict = decide(charges, next(ticks))
            spent += clock() - begun
            done += BATCH
            assert verdict is not None and verdict.refused is None
        return spent / done * 1e6
