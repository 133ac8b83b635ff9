"""The gate of quotas as operators see it: reports, orders, warnings, and what the next call reserves."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

from fastgw.gateway.quota_charges import Estimate
from fastgw.gateway.quota_gate import QuotaGate
from fastgw.limits.quota_ledger import LocalLedger
from fastgw.policy.quotas import Amounts, Quota
from fastgw.telemetry.counters import Counters
from tests.limits.quota_worlds import CALL, HandClock, QuotaWorker

MONEY = Quota("purse", ("agent", "claims.team"), amounts=(10, -1, -1, -1, 5 * 10**9), warn_at=500)
WHO = ("bot", None)


def gate_of(worker: QuotaWorker) -> QuotaGate:
    gate = QuotaGate(worker.accounts, Counters())
    gate.load(SimpleNamespace(quotas=(MONEY,)))  # type: ignore[arg-type]
    return gate


async def spend(worker: QuotaWorker, used: Amounts) -> bool:
    charges = [(worker.accounts.find(MONEY, WHO), CALL)]
    verdict = worker.accounts.admit(charges) or await worker.accounts.ask(charges)
    worker.accounts.settle(verdict.taken, used)
    return verdict.refused is None


def order(**more: Any) -> str:
    whole = {"do": "raise", "number": 5, "quota": "purse", "subject": WHO, "amounts": [2, 0, 0, 0, 10**9]}
    return json.dumps(whole | more)


def test_report_raise_and_warning() -> None:
    async def story() -> None:
        worker = QuotaWorker(LocalLedger(None, "w", HandClock()), clock=HandClock())
        gate = gate_of(worker)
        warned: list[str] = []
        gate.on_warning = lambda words, report: warned.append(report["subject"])
        assert [await spend(worker, (1, 0, 0, 0, 10**6)) for _ in range(11)] == [True] * 10 + [False]
        assert warned == ["bot -"]
        assert gate.raise_amounts(order()) is gate.raise_amounts(order()) is None
        await worker.rest()
        assert [await spend(worker, (1, 0, 0, 0, 10**6)) for _ in range(3)] == [True, True, False]
        await worker.rest()
        report = await gate.report()
        (one,) = report["quotas"]
        assert (one["quota"], one["by"], one["subject"], one["share"]) == ("purse", list(MONEY.by), "bot -", 1.0)
        assert one["amounts"]["calls"] == {"amount": 10, "raised": 2, "used": 12, "held": 0, "reserved": 0}
        assert one["amounts"]["cost"] == {"amount": "5", "raised": "1", "used": "0.012", "held": "0", "reserved": "0"}
        assert json.dumps(report)
        await worker.close()

    asyncio.run(story())


def test_orders_that_are_none() -> None:
    async def story() -> None:
        worker = QuotaWorker(LocalLedger(None, "w", HandClock()), clock=HandClock())
        gate = gate_of(worker)
        for text in ("", "[]", order(quota="other"), order(subject=["bot"]), order(amounts=[-1, 0, 0, 0, 0]), "\udc80"):
            assert gate.raise_amounts(text), text
        await worker.close()

    asyncio.run(story())


def test_the_next_call_reserves_what_the_dearest_took() -> None:
    estimate = Estimate()
    for used, now in (((5, 1, 100), 1000.0), ((1, 9, 50), 1001.0)):
        estimate.learn(used, now)
    assert estimate.largest == (5, 9, 100)


def test_what_calls_took_long_ago_is_forgotten() -> None:
    estimate = Estimate()
    for used, now, largest in (
        ((9, 9, 9), 1000.0, 9),
        ((1, 1, 1), 1301.0, 9),  # of the stretch before
        ((2, 2, 2), 1602.0, 2),
        ((3, 3, 3), 9000.0, 3),
        ((1, 1, 1), 9001.0, 3),
    ):
        estimate.learn(used, now)
        assert estimate.largest == (largest,) * 3
