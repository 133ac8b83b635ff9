"""The real gateway's parts, put together for the supervisor."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from fastgw.config.files import ConfigFiles
from fastgw.gateway.admission import Limiter
from fastgw.gateway.gateway import Gateway
from fastgw.gateway.pipeline import serve
from fastgw.gateway.quota_gate import QuotaGate
from fastgw.limits.batcher import Batcher
from fastgw.limits.memory_buckets import MemoryBuckets
from fastgw.limits.quota_accounts import QuotaAccounts
from fastgw.limits.quota_ledger import LocalLedger
from fastgw.limits.quota_script import QuotaKeys, QuotaLedger
from fastgw.limits.quota_store import StoreLedger
from fastgw.limits.script import StoreKeys
from fastgw.limits.shared_buckets import SharedBuckets
from fastgw.processes.control_plane import ControlPlane
from fastgw.processes.plan import Factories, GatewayPort, Plan, StoreAccess
from fastgw.telemetry.counters import Counters
from fastgw.upstream.call_context import BackgroundTasks
from fastgw.upstream.controller import ControllerPort

CLIENT = "fastgw.limits.redis_connection"
"""Imported where there is a store: its client takes 100 to 300 ms."""


def parts(read: Callable[[ConfigFiles], Plan]) -> Factories:
    """The parts of a gateway whose configuration `read` reads."""
    return Factories(read=read, gateway=_gateway, control_plane=ControlPlane, load=_load)


def _load(plan: Plan) -> None:
    if plan.store.kind != "memory":
        import_module(CLIENT)


def _gateway(
    controller: ControllerPort, counters: Counters, tasks: BackgroundTasks, store: StoreAccess
) -> tuple[GatewayPort, Any]:
    if store.place.kind == "memory":
        limiter = Limiter(MemoryBuckets(), counters)
        folder = store.data / "quotas" if store.data is not None else None
        ledger: QuotaLedger = LocalLedger(folder, os.urandom(8).hex(), count=counters.inc)
    else:
        connection = import_module(CLIENT).RedisConnection(store.place, store.socket)
        own = import_module(CLIENT).RedisConnection(store.place, store.socket)
        ledger = StoreLedger(own, QuotaKeys(store.place.prefix), os.urandom(8).hex())
        keys = StoreKeys(store.place.prefix)
        batcher = Batcher(connection, keys, os.urandom(8).hex(), tasks.spawn)
        batcher.seconds = lambda seconds: counters.record(seconds, "fastgw_store_seconds")
        buckets = SharedBuckets(keys, batcher, counters.inc, store.workers)
        limiter = Limiter(buckets, counters)
        buckets.on_resets = limiter.take_resets
    accounts = QuotaAccounts(ledger, QuotaKeys(store.place.prefix), tasks.spawn, counters.inc, store.workers)
    quotas = QuotaGate(accounts, counters, ledger if isinstance(ledger, LocalLedger) else None)
    gateway = Gateway(controller, counters, tasks, limiter, quotas)
    gateway.caller.bulkheads.worker = store.number, store.workers
    return gateway, partial(serve, gateway)
