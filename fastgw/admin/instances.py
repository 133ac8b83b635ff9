"""`/backends` on the admin port: what the controller and all workers know of servers and their instances, and orders
about one instance, which need the admin token.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from fastgw.admin.orders import AuditLog, Handler, ordering, shown_time
from fastgw.config.instance_urls import place
from fastgw.snapshot.model import Address, Backend
from fastgw.upstream.breaker import BreakerState
from fastgw.upstream.rpc import without_secrets

ORDERS = {
    "drain": "give an instance no new calls, until `close`",
    "open": "open an instance's breaker for its open_for",
    "close": "end a drain, and close the breaker",
}
_RANK = {BreakerState.CLOSED.value: 0, BreakerState.HALF_OPEN.value: 1, BreakerState.OPEN.value: 2}


class InstanceOrder(msgspec.Struct, forbid_unknown_fields=True):
    """Which instance of a server: its number in the file, from 1, or its host:port."""

    server: str
    instance: int | str


@dataclass(frozen=True, slots=True)
class OperatorInstances:
    """Instances, as operators meet them.

    Args:
        ask: asks all workers.
        servers: those whose instances are asked.
        known: what is known of every server, by its name; `instances` in the order they have in `servers`.
        told: what the controller says of an instance, by its key: `health`, `checked_at`, `health_error`, `drained`
            (None, or `who` and `at`); times in Unix seconds.
        carry_out: has an order carried out: which of `ORDERS`, the server, the instance's key, who gave it.
    """

    ask: Callable[[str, tuple[Any, ...]], Awaitable[list[Any]]]
    servers: Callable[[], Sequence[Backend]]
    known: Callable[[], dict[str, Any]]
    told: Callable[[str], dict[str, Any]]
    carry_out: Callable[[str, Backend, str, str], object]
    audit: AuditLog

    async def report(self) -> dict[str, Any]:
        """All of `/backends`, as docs/servers.md lists it."""
        reports = [report for report in await self.ask("instances", ()) if report]
        found = self.known()
        for tool in (tool for one in found.values() for tool in (one.get("pins") or {}).get("tools", ())):
            tool["since"] = shown_time(tool["since"])
        for backend in self.servers():
            for row, one in zip(found[backend.name]["instances"], backend.instances, strict=True):
                of_workers = [report[one.key] for report in reports if one.key in report]
                row.update(address=place(one.url), **_told(self.told(one.key)), **_merged(of_workers, backend))
        return found

    def orders(self, token: str | None) -> list[tuple[str, Handler, str]]:
        """Path, handler and words for the index of each order."""
        return [
            (f"/backends/{do}", ordering(token, InstanceOrder, partial(self._order, do)), words)
            for do, words in ORDERS.items()
        ]

    async def _order(self, do: str, order: InstanceOrder, who: str) -> dict[str, Any]:
        """Carry an order out; what was written down of it. Raises web.HTTPBadRequest, OSError; see `ordering`."""
        backend, address = self._find(order)
        entry = self.audit.write(who, do, server=backend.name, instance=place(address.url))
        self.carry_out(do, backend, address.key, who)
        return entry

    def _find(self, order: InstanceOrder) -> tuple[Backend, Address]:
        servers = {backend.name: backend for backend in self.servers()}
        if (backend := servers.get(order.server)) is None:
            words = f"there is no server {order.server!r} with an address; there are {', '.join(servers) or 'none'}"
            raise web.HTTPBadRequest(text=words)
        numbered = enumerate(backend.instances, 1)
        found = [one for number, one in numbered if order.instance in (number, place(one.url))]
        if len(found) != 1:
            there = ", ".join(f"{number} ({place(one.url)})" for number, one in enumerate(backend.instances, 1))
            wrong = "more than one instance" if found else "no instance"
            raise web.HTTPBadRequest(text=f"{order.server} has {wrong} {order.instance!r}; there are {there}")
        return backend, found[0]


def _told(found: dict[str, Any]) -> dict[str, Any]:
    """What the controller says, as operators read it."""
    checked_at, drain = found["checked_at"], found["drained"]
    return {
        **found,
        "checked_at": checked_at and shown_time(checked_at),
        "drained": {**drain, "at": shown_time(drain["at"])} if drain else False,
    }


def _merged(reports: Sequence[dict[str, Any]], backend: Backend) -> dict[str, Any]:
    """What all workers together say of one instance; see `Instance.report`."""
    calls = sum(one["calls"] for one in reports)
    measured = [(one["latency_ms"], max(1, one["calls"])) for one in reports if one["latency_ms"] is not None]
    weight = sum(weight for _, weight in measured)
    last = max((one["last_error"] for one in reports if one["last_error"]), key=lambda one: one[1], default=None)
    return {
        "breaker": _breaker([one["breaker"] for one in reports], backend),
        "in_flight": sum(one["in_flight"] for one in reports),
        "calls": calls,
        "latency_ms": round(sum(value * weight for value, weight in measured) / weight, 3) if measured else None,
        "last_error": last and {"text": without_secrets(last[0], backend), "at": shown_time(last[1])},
        "taken_over_by": next((one["taken_over_by"] for one in reports if one["taken_over_by"]), None),
    }


def _breaker(reports: Sequence[dict[str, Any]], backend: Backend) -> dict[str, Any]:
    """One that is open in any worker counts as open."""
    if not reports:
        return {"state": BreakerState.CLOSED.value, "since": None, "why": "", "failures": 0, "opens_for": None}
    worst = max(reports, key=lambda one: (_RANK[one["state"]], one["until"], one["since"]))
    is_open = worst["state"] == BreakerState.OPEN.value
    return {
        "state": worst["state"],
        "since": shown_time(worst["since"]) if worst["since"] else None,
        "why": without_secrets(worst["why"], backend),
        "failures": max(one["failures"] for one in reports),
        "opens_for": round(max(0.0, worst["until"] - time.monotonic()), 1) if is_open else None,
    }
