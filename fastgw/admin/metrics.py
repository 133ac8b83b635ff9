"""`/metrics` on the admin port: all that is counted, for Prometheus, in the format that it asks for.

No worker is waited for, and nothing that takes long: what does is as it was at the time before.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import web

from fastgw.admin.quotas import OperatorQuotas
from fastgw.telemetry.counters import Series
from fastgw.telemetry.exposition import OPENMETRICS, TEXT, wants_openmetrics, written
from fastgw.telemetry.metrics import FAMILIES, Sums, quantiles

PATIENCE = 0.02
"""Seconds that percentiles are waited for: of ten thousand tools they take 0.2 s to work out, in a thread."""
QUOTAS_EVERY = 5.0
"""Seconds between two looks at the accounts of quotas, at least; who asks for metrics has the workers asked."""
STALE = 120.0
"""Seconds after which what was found out at the time before is not shown any more."""
SOMEBODY = "a user"
"""Of accounts of people the fullest alone is shown, and not whose it is: metrics go far, and stay."""
MOST_ACCOUNTS, MOST_OF_ONE = 100, 5
"""Accounts whose remaining share is shown, in all and of one quota: the fullest."""

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]
"""Runs a task beside; as `BackgroundTasks.spawn`."""


class Earlier:
    """Gauges that take a while to find out: as they were when that last came to its end.

    Args:
        find: finds them out.
        what: in words, for the log.
    """

    def __init__(self, find: Callable[[], Coroutine[Any, Any, dict[Series, float]]], spawn: Spawn, what: str) -> None:
        self._find, self._spawn, self._what = find, spawn, what
        self._known: dict[Series, float] = {}
        self._began = self._ended = -STALE
        self._finding: asyncio.Task[None] | None = None

    def look(self, every: float = 0.0) -> asyncio.Task[None] | None:
        """Begin to find them out anew, unless that is under way, or was begun less than `every` seconds ago."""
        now = time.monotonic()
        if (self._finding is None or self._finding.done()) and now >= self._began + every:
            self._began = now
            self._finding = self._spawn(self._look(), self._what)
        return self._finding

    async def _look(self) -> None:
        self._known, self._ended = await self._find(), time.monotonic()

    @property
    def known(self) -> dict[Series, float]:
        """As last found; empty where that is too long ago."""
        return self._known if time.monotonic() < self._ended + STALE else {}


class OperatorMetrics:
    """The metrics, as operators and their Prometheus meet them.

    Args:
        gauges: values that only the controller knows.
    """

    def __init__(
        self, sums: Sums, gauges: Callable[[], dict[Series, float]], quotas: OperatorQuotas, spawn: Spawn
    ) -> None:
        self._sums, self._gauges, self._quotas = sums, gauges, quotas
        self._percentiles = Earlier(self._find_percentiles, spawn, "working out percentiles")
        self._left = Earlier(self._find_left, spawn, "looking at quotas")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Text of 0.0.4, or OpenMetrics where `Accept` prefers that."""
        openmetrics = wants_openmetrics(",".join(request.headers.getall("Accept", ())))
        if self._quotas.quotas():
            self._left.look(QUOTAS_EVERY)
        if (looking := self._percentiles.look()) is not None:
            await asyncio.wait((looking,), timeout=PATIENCE if self._percentiles.known else None)
        readings = self._sums.read(self._gauges() | self._left.known | self._percentiles.known)
        body = await asyncio.to_thread(written, FAMILIES, readings, openmetrics=openmetrics)
        return web.Response(body=body, headers={"content-type": OPENMETRICS if openmetrics else TEXT})

    async def _find_percentiles(self) -> dict[Series, float]:
        self._sums.latencies.settle()
        return await asyncio.to_thread(quantiles, self._sums.latencies)

    async def _find_left(self) -> dict[Series, float]:
        shown: Counter[str] = Counter()
        left: dict[Series, float] = {}
        for row in await self._quotas.report():  # the fullest first
            quota = row["quota"]
            if shown[quota] < MOST_OF_ONE and len(left) < MOST_ACCOUNTS:
                shown[quota] += 1
                subject = SOMEBODY if "user" in row["by"] else row["subject"]
                left.setdefault(("fastgw_quota_remaining_ratio", quota, subject), round(max(0.0, 1 - row["share"]), 4))
        return left
