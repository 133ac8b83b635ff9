"""A gateway that the status page shows, without one: what it would have counted and found stands here, for tests to
change. Histograms, limits and quotas go through the code that operators meet.
"""

from __future__ import annotations

import itertools
import math
import random
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from fastgw.admin.app import AdminData, serve_admin
from fastgw.admin.history import MOST_POINTS, STEP, CallHistory
from fastgw.admin.instances import OperatorInstances
from fastgw.admin.limits import OperatorLimits
from fastgw.admin.orders import AuditLog
from fastgw.admin.page import PageData
from fastgw.admin.quotas import OperatorQuotas
from fastgw.admin.tiles import TileData
from fastgw.config.instance_urls import instance_key
from fastgw.config.schema.rules import QuotaSettings
from fastgw.snapshot.model import Address, Backend
from fastgw.snapshot.trace import NoSuch, TracedCall
from fastgw.telemetry.busiest import AgentPace
from fastgw.telemetry.counters import CallSeries, CallTimes, Counters
from fastgw.telemetry.histogram import add_counts, bucket_of
from fastgw.telemetry.metrics import Sums
from fastgw.telemetry.refusals import Refusal
from fastgw.upstream.call_context import BackgroundTasks
from tests.admin.faces import no_config


def took(told: Counters, series: CallSeries, seconds: float, overhead: float = 0.0002) -> None:
    """Have a worker tell of one call: how long an agent waited, and how much of that was not for its server."""
    times = told.calls.setdefault(series, CallTimes())
    micros, over = round(seconds * 1e6), round(overhead * 1e6)
    for counts, value in ((times.total, micros), (times.upstream, micros - over), (times.overhead, over)):
        add_counts(counts, {bucket_of(max(0, value)): 1})
    times.sent += 1


BUSY = [
    ("search-docs", "knowledge", 412, 0.009), ("query", "data", 280, 0.031), ("generate-code", "openai", 96, 1.4),
    ("list-deployments", "deployment", 188, 0.014), ("deploy-service", "deployment", 31, 0.42),
    ("create-ticket", "knowledge", 64, 0.022), ("generate-code", "anthropic", 7, 1.9),
    ("table-schema", "data", 22, 0.006),
]  # fmt: skip
"""The calls of a minute: tool, server, how many, and seconds that a usual one takes."""


@cache
def an_hour() -> list[Counters]:
    """What a worker would have told of each step of an hour, made once for all worlds."""
    dice, hour = random.Random(7), []
    usual, weights = [row[3] for row in BUSY], [row[2] for row in BUSY]
    for number in range(MOST_POINTS):
        told, slow = Counters(), 4 if 215 < number < 260 else 1
        calls = round(187 + 110 * math.sin((number - MOST_POINTS) / 30) + 12 * dice.random())
        for seconds in dice.choices(usual, weights, k=calls):
            draw = dice.random()
            outcome = "unavailable" if draw < 0.009 * slow else "rate_limited" if draw > 0.99 else "ok"
            told.inc("fastgw_requests_total", "/mcp", "tools/call", outcome)
            took(told, ("t", "s", outcome), slow * seconds * dice.lognormvariate(0, 0.45))
        hour.append(told)
    return hour


@dataclass
class World:
    """What there is to show."""

    folder: Path
    servers: dict[str, list[str]] = field(default_factory=dict)
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By instance key: what differs from an instance in order."""
    agents: list[AgentPace] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    anomalies: list[dict[str, Any]] = field(default_factory=list)
    buckets: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    accounts: list[dict[str, Any]] = field(default_factory=list)
    cost: list[dict[str, Any]] = field(default_factory=list)
    access: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    ready: dict[str, Any] = field(default_factory=lambda: {"ready": True, "workers": {"active": 2}, "generation": 7})
    asked_cost: int = 0
    orders: list[tuple[str, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sums = Sums()
        self.history = CallHistory(self.sums)

    # -- calls -------------------------------------------------------------------------------------------------------

    def call(self, tool: str, server: str | None, seconds: float, outcome: str = "ok", times: int = 1) -> None:
        """Some calls that took so long, as a worker tells of them."""
        told = Counters()
        for _ in range(times):
            told.inc("fastgw_requests_total", "/mcp", "tools/call", outcome)
            took(told, (tool, server, outcome), seconds)
        self.sums.merge(1, told)

    def live_through_an_hour(self, now: float) -> None:
        """An hour in which load rose and fell, with a slow stretch and some errors; its end is as the last minute."""
        sums, clock = Sums(), itertools.count(0.0, STEP)
        self.history = CallHistory(sums, lambda: next(clock))
        for number, told in enumerate(an_hour()):
            sums.merge(1, told)
            self.history.add(now - (MOST_POINTS - number) * STEP)

    # -- what operators meet -----------------------------------------------------------------------------------------

    def backends(self) -> list[Backend]:
        return [
            Backend(
                name,
                tuple(Address(instance_key(name, url), name, url, "modern", "2026-07-28") for url in urls),
                b"", (None, None, None), shared_session=False, session_idle=600, max_sessions=9, maintenance=None,
            )
            for name, urls in self.servers.items()
        ]  # fmt: skip

    def known(self) -> dict[str, Any]:
        row = {"era": "modern", "version": "2026-07-28", "error": "", "failures": 0}
        return {
            name: {"tools": 3, "instances": [{"url": url, **row} for url in urls]}
            for name, urls in self.servers.items()
        }

    def state(self, key: str) -> dict[str, Any]:
        usual = {"health": "healthy", "checked_at": None, "health_error": "", "drained": None}
        return {name: self.told.get(key, {}).get(name, value) for name, value in usual.items()}

    async def ask(self, verb: str, args: tuple[Any, ...], **_: Any) -> list[Any]:
        if verb == "report":
            return [{"store": "up", "refused": self.refused, "buckets": self.buckets}]
        if verb == "quotas":
            return [{"quotas": self.accounts}]
        closed = {"state": "closed", "since": 0.0, "until": 0.0, "why": "", "failures": 0}
        usual = {
            "breaker": closed,
            "in_flight": 0,
            "calls": 1,
            "latency_ms": 1.0,
            "last_error": None,
            "taken_over_by": None,
        }
        keys = [one.key for backend in self.backends() for one in backend.instances]
        return [{key: {name: self.told.get(key, {}).get(name, value) for name, value in usual.items()} for key in keys}]

    def carry_out(self, do: str, backend: Backend, key: str, who: str) -> None:
        self.orders.append((do, backend.name, key))
        self.told.setdefault(key, {})["drained"] = {"who": who, "at": time.time()} if do == "drain" else None

    async def answered(self, _: Any) -> tuple[int, bytes | str]:
        self.asked_cost += 1
        return 200, msgspec.json.encode(self.cost)

    async def readiness(self) -> dict[str, Any]:
        return self.ready

    async def who_sees(self, find: str, most: int) -> dict[str, Any]:
        found = [row for row in self.access if find.lower() in row["name"].lower()]
        return {"found": len(found), "rows": found[:most]}

    async def explain(self, call: TracedCall) -> dict[str, Any]:
        if call.agent not in {row.agent for row in self.agents}:
            raise NoSuch(f"there is no agent {call.agent}")
        rule = {"policy": "staff", "applies": True, "why": [], "denies": [], "allows": ["*"]}
        return {
            "verdict": "sent to data as query",
            "absence": [],
            "rules": [rule],
            "limits": [{"name": "per-agent", "rate": "5/hour"}],
            "quotas": [{"name": "monthly-spend"}],
        }

    def data(self, tasks: BackgroundTasks) -> AdminData:
        audit = AuditLog(self.folder / "audit.jsonl")
        instances = OperatorInstances(self.ask, self.backends, self.known, self.state, self.carry_out, audit)
        limits = OperatorLimits(self.ask, tuple, audit)
        one = QuotaSettings.model_validate({"name": "any", "by": ["agent"], "per": "month", "calls": 5})
        quotas = OperatorQuotas(self.ask, lambda: [one], audit)
        usage: Any = self
        applied = {"applied": {"at": "2026-11-29T08:00:00Z", "by": "file"}, "needs_restart": []}
        recent: Any = SimpleNamespace(top=lambda _, most: self.agents[:most])
        tiles = TileData(
            gateway="gateway-1", readiness=self.readiness, config=lambda: applied, latencies=self.sums.latencies,
            history=self.history, instances=instances, limits=limits, quotas=quotas, usage=usage,
            agents=recent, refusals=Listed(self), anomalies=lambda: {"anomalies": self.anomalies},
        )  # fmt: skip
        page = PageData(tiles, lambda: self.settings, self.who_sees, self.explain, tasks.spawn)
        return AdminData(
            self.readiness, str, instances, dict, limits, self.sums.latencies, no_config(), quotas, usage, page=page
        )  # type: ignore[arg-type]

    async def handle(self, _: Any) -> Any:
        """`/usage` is not asked here."""
        raise NotImplementedError

    @asynccontextmanager
    async def served(self, token: str | None = None, **shown: Any) -> AsyncIterator[str]:
        """The root of its admin port; `shown` are further fields of `AdminData`."""
        tasks, listener = BackgroundTasks(), socket.create_server(("127.0.0.1", 0))
        runner = await serve_admin(listener, replace(self.data(tasks), **shown), token)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            await runner.cleanup()
            await tasks.close()


class Listed:
    """Its refusals, whichever they are when somebody looks."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __iter__(self) -> Any:
        return iter(self._world.refusals)


def busy_world(folder: Path) -> World:
    """A gateway of five servers on a working day, one instance down."""
    world = World(folder)
    world.servers = {
        "deployment": ["http://10.0.4.11:9001/mcp", "http://10.0.4.12:9001/mcp"],
        "data": ["http://10.0.5.20:9002/mcp"],
        "knowledge": ["http://10.0.6.31:9004/mcp"],
        "openai": ["http://10.0.7.40:9101/mcp"],
        "anthropic": ["http://10.0.7.41:9102/mcp"],
    }
    down = instance_key("deployment", "http://10.0.4.12:9001/mcp")
    world.told[down] = {"health": "unhealthy", "health_error": "cannot connect to 10.0.4.12:9001: connection refused"}
    dice = random.Random(3)
    for tool, server, calls, seconds in BUSY:
        for _ in range(calls):
            world.call(tool, server, seconds * dice.lognormvariate(0, 0.45))
    world.call("generate-code", "openai", 2.5, "unavailable", 7)
    world.call("query", "data", 0.04, "tool_error", 3)
    world.call("create-ticket", None, 0.0004, "rate_limited", 12)
    world.live_through_an_hour(time.time())
    world.agents = [
        AgentPace("ci-pipeline", 604, 3, 0), AgentPace("support-desk", 231, 0, 12), AgentPace("code-helper", 110, 7, 0),
        AgentPace("reports", 88, 0, 0), AgentPace("deploy-bot", 79, 0, 0),
    ]  # fmt: skip
    bucket = {"limit": "tickets", "subject": "support-desk", "used": 0.98, "left": 0, "burst": 3, "at_once": False}
    world.buckets = [
        bucket,
        {**bucket, "limit": "per-agent", "subject": "ci-pipeline", "used": 0.61, "left": 39, "burst": 100},
    ]
    world.refused = [{"limit": "tickets", "subject": "support-desk", "calls": 212}]
    money = {"amount": "500", "raised": "0", "used": "431.20", "held": "0", "reserved": "0"}
    world.accounts = [
        {"quota": "monthly-spend", "by": ["team"], "subject": "payments", "start": "2026-11-01T00:00:00Z",
         "end": "2026-12-01T00:00:00Z", "amounts": {"cost": money}, "inFlight": 1, "share": 0.8624,
         "usedUp": "2026-11-30T16:20:00Z"},
    ]  # fmt: skip
    world.cost = [
        {"team": team, "currency": "USD", "cost": cost, "calls": calls}
        for team, cost, calls in [
            ("payments", "431.200", 188_204),
            ("search", "207.915", 92_551),
            ("support", "38.020", 40_118),
        ]
    ]
    at = time.strftime("%Y-%m-%dT%H:%M:", time.gmtime())
    world.refusals = [
        refusal(f"{at}04Z", "support-desk", "create-ticket", "rate_limited", "limit tickets is used up", by="tickets"),
        refusal(f"{at}01Z", "reports", "deploy-service", "denied", "policy staff does not allow these arguments"),
        refusal(f"{at}00Z", None, None, "unauthenticated", "A valid credential is needed"),
    ]
    words = "server openai: a typical call in this hour took 1,840 ms, usually 610 ms"
    unusual = {"kind": "latency", "subject": {"server": "openai"}, "value": 1840, "usual": 610, "score": 7.2}
    world.anomalies = [{**unusual, "hour": "2026-11-29T09:00:00Z", "says": words}]
    world.access = [
        offered("query", "data/db_query", "reports", "ci-pipeline"),
        {**offered("deploy-service", "deployment/deploy-service", "deploy-bot"), "conditional": True},
        offered("drop-index", "data/drop_index"),
    ]
    admin = {"listen": "127.0.0.1:8081", "token": "(hidden)"}
    world.settings = {"listen": "127.0.0.1:8080", "admin": admin, "workers": 2}
    return world


def refusal(  # as many as it has members
    at: str, agent: str | None, tool: str | None, outcome: str, reason: str, by: str | None = None
) -> Refusal:
    """One refused call of a tool, or knock at the door."""
    return Refusal(at, at, "/mcp", agent, tool, "tools/call" if tool else "none", outcome, None, by, reason)


def offered(name: str, to: str, *agents: str) -> dict[str, Any]:
    """One tool of the catalogue and who sees it."""
    row = {"endpoint": "/mcp", "kind": "tool", "name": name, "to": [to], "conditional": False}
    return {**row, "agents": list(agents), "seen_by": len(agents)}
