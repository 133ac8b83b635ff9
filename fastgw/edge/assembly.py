"""The real gateway's parts, put together for the launcher.

Knows: which class fills which place. Refuses to know: what any of them does.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

from fastgw.edge.asgi import application
from fastgw.edge.life import Life
from fastgw.edge.mind import Thinking
from fastgw.edge.plan import Parts, Plan, Served, StoreSeat
from fastgw.gateway.buckets import Buckets
from fastgw.gateway.gateway import Gateway
from fastgw.gateway.ledger import Ledger
from fastgw.gateway.limiter import Limiter
from fastgw.gateway.orders import Orders
from fastgw.gateway.registry import Registry
from fastgw.ports import Keeper
from fastgw.stores.flights import Flights
from fastgw.stores.memory import Memory
from fastgw.stores.port import Connection
from fastgw.stores.script import Keys
from fastgw.stores.shared import Shared
from fastgw.telemetry.counters import Counters

CLIENT = "fastgw.stores.connection"
"""Imported where there is a store: its client takes 100 to 300 ms."""


def parts(read: Callable[[], Plan]) -> Parts:
    """The parts of a gateway whose configuration `read` reads."""
    return Parts(read=read, gateway=_gateway, mind=Thinking, load=_load)


def _load(plan: Plan) -> None:
    """Import what only some gateways need, before children are forked, who share it then."""
    if plan.store.kind != "memory":
        import_module(CLIENT)


def _gateway(keeper: Keeper, counters: Counters, registry: Registry, life: Life, seat: StoreSeat) -> tuple[Served, Any]:
    buckets: Buckets = Memory()
    tell = None
    if seat.place.kind != "memory":
        buckets = shared = _shared(counters, registry, seat)
        tell = shared.order
    orders = Orders(tell)
    if tell is not None:
        shared.ordered, shared.forgotten = orders.heard, orders.repeat
    gateway = Gateway(keeper, Ledger(counters), registry, life, Limiter(buckets, counters, orders))
    return gateway, application(gateway)


def _shared(counters: Counters, registry: Registry, seat: StoreSeat) -> Shared:
    connection: Connection = import_module(CLIENT).RedisConnection(seat.place, seat.socket)
    keys = Keys(seat.place.prefix)
    flights: Flights[Any] = Flights(connection, keys, os.urandom(8).hex(), registry.spawn)
    flights.seconds = lambda seconds: counters.record(seconds, "fastgw_store_seconds")
    return Shared(keys, flights, counters.inc, seat.workers)
