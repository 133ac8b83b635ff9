"""The real gateway's parts, put together for the launcher.

Knows: which class fills which place. Refuses to know: what any of them does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastgw.edge.asgi import application
from fastgw.edge.life import Life
from fastgw.edge.mind import Thinking
from fastgw.edge.plan import Parts, Plan, Served
from fastgw.gateway.gateway import Gateway
from fastgw.gateway.ledger import Ledger
from fastgw.gateway.registry import Registry
from fastgw.ports import Keeper
from fastgw.telemetry.counters import Counters


def parts(read: Callable[[], Plan]) -> Parts:
    """The parts of a gateway whose configuration `read` reads."""
    return Parts(read=read, gateway=_gateway, mind=Thinking)


def _gateway(keeper: Keeper, counters: Counters, registry: Registry, life: Life) -> tuple[Served, Any]:
    gateway = Gateway(keeper, Ledger(counters), registry, life)
    return gateway, application(gateway)
