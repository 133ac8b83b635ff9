"""What the status page shows, part by part: which part is made how often, and in which form it goes to the page.

A part is made of sections, and a section of keys with small values, so that what has not changed is not sent again.
Lists are cut to what a person reads; the whole stands on the other paths of this port.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import nlargest
from itertools import islice
from typing import Any

import msgspec

from fastgw import __version__
from fastgw.admin.history import CallHistory
from fastgw.admin.instances import OperatorInstances
from fastgw.admin.limits import OperatorLimits
from fastgw.admin.live import LiveSource
from fastgw.admin.orders import shown_time
from fastgw.admin.paces import RecentPaces, Tally, ToolKey
from fastgw.admin.quotas import OperatorQuotas
from fastgw.admin.usage import OperatorUsage
from fastgw.snapshot.model import Backend
from fastgw.telemetry.busiest import RecentAgents
from fastgw.telemetry.latencies import Latencies
from fastgw.telemetry.refusals import Refusal
from fastgw.upstream.breaker import BreakerState

MOST_TOOLS, MOST_INSTANCES, MOST_ROWS = 20, 60, 10
MOST_STRANGERS = 3
"""Refusals of callers without a valid key that are shown: they knock as often as they like."""
NEARLY_FULL = 0.5
"""The share of a limit or a quota that is used, from which it is shown."""
COST_EVERY = 60.0
"""Seconds: the question of cost starts a process that reads the archive."""
TROUBLE = ("down", "open", "failing", "trying", "maintenance", "drained", "unknown", "up")
"""States of an instance, the worst first."""
_COST = {"by": ["team,currency"], "metric": ["cost,calls"], "month": ["this"], "top": [str(MOST_ROWS)]}
_REFUSAL = ("timestamp", "endpoint", "agent", "tool", "method", "reason", "refusedBy")
JsonRows = Mapping[str, Any]
Made = Mapping[str, JsonRows]


@dataclass(frozen=True, slots=True)
class TileData:
    """What parts are made of.

    Args:
        readiness: as `/readyz` answers.
        config: as `/config` answers.
        refusals: the newest first.
        anomalies: as `/anomalies` answers.
    """

    gateway: str
    readiness: Callable[[], Awaitable[dict[str, Any]]]
    config: Callable[[], dict[str, Any]]
    latencies: Latencies
    history: CallHistory
    instances: OperatorInstances
    limits: OperatorLimits
    quotas: OperatorQuotas
    usage: OperatorUsage
    agents: RecentAgents
    refusals: Iterable[Refusal]
    anomalies: Callable[[], dict[str, Any]]


@dataclass(slots=True)
class Tiles:
    """The parts, each a method that makes its sections.

    Attributes:
        paces: of the last minute, as they were made last.
    """

    data: TileData
    paces: RecentPaces = field(init=False)
    _in_flight: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.paces = RecentPaces(Latencies())

    def sources(self) -> list[LiveSource]:
        """All parts, with the seconds between two makings."""
        parts: list[tuple[str, float, Callable[[], Awaitable[Made]]]] = [
            ("servers", 1.0, self.servers),
            ("calls", 3.0, self.calls),
            ("load", 5.0, self.load),
            ("gateway", 2.0, self.gateway),
            ("history", 5.0, self.history),
            ("agents", 5.0, self.agents),
            ("refusals", 5.0, self.refusals),
            ("limits", 10.0, self.limits),
            ("anomalies", 15.0, self.anomalies),
            ("cost", COST_EVERY, self.cost),
        ]
        return [LiveSource(name, every, make) for name, every, make in parts]

    async def gateway(self) -> Made:
        """Whether agents are served, by which configuration; the time tells the page that it is not stale."""
        report, config = await self.data.readiness(), self.data.config()
        known = {"name": self.data.gateway, "version": __version__, "now": int(time.time())}
        return {"gateway": {**known, **report, "reason": report.get("reason", "")}, "config": _without_none(config)}

    async def calls(self) -> Made:
        """The last minute: in all, of the busiest tools, of servers."""
        self.data.latencies.settle()
        self.paces = paces = await asyncio.to_thread(RecentPaces, self.data.latencies)
        servers = nlargest(MOST_INSTANCES, paces.servers.items(), key=_calls)
        return {
            "all": {"row": paces.everything.row, "tools": len(paces.tools)},
            "tools": dict(tool_rows(paces.tools.items())),
            "pace": {name: tally.row for name, tally in servers},
        }

    async def servers(self) -> Made:
        """How each instance is, those in trouble first."""
        report = await self.data.instances.report()
        backends = {backend.name: backend for backend in self.data.instances.servers()}
        rows = {}
        self._in_flight.clear()
        for name, known in report.items():
            for number, one in enumerate(known["instances"], 1):
                rows[f"{name}/{number}"] = _instance(one, backends.get(name))
                self._in_flight[f"{name}/{number}"] = one.get("in_flight", 0)
        shown = sorted(rows, key=lambda key: TROUBLE.index(rows[key]["state"]))[:MOST_INSTANCES]
        states = [row["state"] for row in rows.values()]
        counts = {state: states.count(state) for state in TROUBLE if state in states}
        return {"servers": {key: rows[key] for key in shown}, "states": counts}

    async def load(self) -> Made:
        """Calls that are at each instance now."""
        return {"load": dict(nlargest(MOST_INSTANCES, self._in_flight.items(), key=lambda one: one[1]))}

    async def history(self) -> Made:
        """The last hour of all calls."""
        return {"history": self.data.history.points()}

    async def agents(self) -> Made:
        """The busiest of the last minute."""
        found = self.data.agents.top("1m", MOST_ROWS)
        return {"agents": {one.agent: [one.calls, one.errors, one.refused] for one in found}}

    async def refusals(self) -> Made:
        """The newest refusals."""
        rows: dict[str, Any] = {}
        for one in islice(_few_strangers(self.data.refusals), MOST_ROWS):
            row = msgspec.to_builtins(one)
            rows[row["requestId"]] = {name: row[name] for name in _REFUSAL if row[name] is not None}
        return {"refusals": rows}

    async def limits(self) -> Made:
        """Buckets and accounts that are at least half used, and who was refused most."""
        limits, quotas = await self.data.limits.report(), await self.data.quotas.report()
        full = [one for one in limits["buckets"] if one["used"] >= NEARLY_FULL][:MOST_ROWS]
        accounts = [one for one in quotas if one["share"] >= NEARLY_FULL][:MOST_ROWS]
        return {
            "limits": {f"{one['limit']}\n{one['subject']}\n{one['at_once']}": one for one in full},
            "quotas": {f"{one['quota']}\n{one['subject']}": _account(one) for one in accounts},
            "refused": {f"{one['limit']}\n{one['subject']}": one for one in limits["refused"][:MOST_ROWS]},
        }

    async def anomalies(self) -> Made:
        """The newest anomalies."""
        return {
            "anomalies": {str(number): one for number, one in enumerate(self.data.anomalies()["anomalies"][:MOST_ROWS])}
        }

    async def cost(self) -> Made:
        """What teams have cost since the month began (UTC)."""
        status, found = await self.data.usage.answered(_COST)
        told = {"at": shown_time(time.time()), "error": found if isinstance(found, str) else ""}
        rows = msgspec.json.decode(found) if status == 200 else []
        return {"cost": {f"{one['team'] or ''}\n{one['currency'] or ''}": one for one in rows}, "cost_told": told}


def tool_rows(tools: Iterable[tuple[ToolKey, Tally]]) -> list[tuple[str, list[Any]]]:
    """The busiest by `server/tool`, which no two share: names of servers have no slash."""
    return [(f"{server}/{tool}", tally.row) for (tool, server), tally in nlargest(MOST_TOOLS, tools, key=_calls)]


def _few_strangers(refusals: Iterable[Refusal]) -> Iterator[Refusal]:
    strangers = 0
    for one in refusals:
        strangers += one.agent is None
        if one.agent is not None or strangers <= MOST_STRANGERS:
            yield one


def _calls(row: tuple[object, Tally]) -> int:
    return row[1].calls


def _instance(one: Mapping[str, Any], backend: Backend | None) -> dict[str, Any]:
    """How one instance is, in a word, and why."""
    breaker, drained = one.get("breaker", {}), one.get("drained")
    words = ""
    if drained:
        state, words = "drained", f"no new calls since {drained['at']}, by {drained['who']}"
    elif one.get("health") == "unhealthy":
        state, words = "down", one["health_error"]
    elif breaker.get("state") == BreakerState.OPEN.value:
        state, words = "open", breaker["why"]
    elif backend is not None and backend.maintenance is not None:
        state, words = "maintenance", backend.maintenance
    elif one.get("health_error") or one["error"]:
        state, words = "failing", one.get("health_error") or one["error"]
    elif breaker.get("state") == BreakerState.HALF_OPEN.value:
        state, words = "trying", breaker["why"]
    else:
        state = "up" if one["era"] else "unknown"
    place = one.get("address") or one["url"]
    return {"state": state, "words": words, "address": place, "breaker": breaker.get("state", "closed")}


def _account(one: Mapping[str, Any]) -> dict[str, Any]:
    """The fullest amount of an account, and when it is used up at this pace."""
    row = {name: one[name] for name in ("quota", "subject", "share", "end")} | {"used_up": one["usedUp"] or ""}
    kinds = one["amounts"].items()
    kind, amount = max(kinds, key=lambda pair: float(pair[1]["used"]) / max(_whole(pair[1]), 1e-9))
    whole = _whole(amount)
    return {**row, "kind": kind, "used": str(amount["used"]), "amount": f"{whole:.12g}"}


def _whole(amount: Mapping[str, Any]) -> float:
    return float(amount["amount"]) + float(amount["raised"])


def _without_none(known: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in known.items() if value is not None}
