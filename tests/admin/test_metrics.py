"""`/metrics` over HTTP: its two formats, and what is shown as it was before because it takes a while."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from fastgw.admin import metrics
from fastgw.admin.metrics import MOST_OF_ONE, OperatorMetrics
from fastgw.admin.orders import AuditLog
from fastgw.admin.quotas import OperatorQuotas
from fastgw.telemetry.counters import Counters, Series
from fastgw.telemetry.latencies import Latencies
from fastgw.telemetry.metrics import Sums

GAUGES: dict[Series, float] = {("fastgw_workers", "active"): 2}


def account(quota: str, subject: str, share: float) -> dict[str, Any]:
    by = ["user", "tool"] if quota == "people" else ["agent"]
    return {"quota": quota, "by": by, "subject": subject, "share": share, "inFlight": 0, "amounts": {}}


class Face:
    """`/metrics` of a gateway whose workers report these accounts, as often as they are asked."""

    def __init__(self, *accounts: dict[str, Any]) -> None:
        self.asked = 0
        self.accounts = list(accounts)
        self.sums = Sums()
        self.tasks: set[asyncio.Task[None]] = set()
        self.may_answer = asyncio.Event()
        quotas = OperatorQuotas(self._ask, lambda: self.accounts, AuditLog(Path("nowhere")))  # type: ignore[arg-type, return-value]
        self._metrics = OperatorMetrics(self.sums, lambda: GAUGES, quotas, self._spawn)

    async def _ask(self, verb: str, args: tuple[Any, ...]) -> list[Any]:
        self.asked += 1
        await self.may_answer.wait()
        return [{"quotas": self.accounts}, None]

    def _spawn(self, work: Any, _: str) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        return task

    def called(self, tool: str) -> None:
        counters = Counters()
        counters.call((tool, "s", "ok"), 10_000, 1_000, 1)
        self.sums.merge(1, counters)

    async def text(self, accept: str = "") -> str:
        found = await self._metrics.handle(make_mocked_request("GET", "/metrics", {"Accept": accept}))
        assert isinstance(found, web.Response) and isinstance(found.body, bytes)
        self.kind = found.headers["content-type"]
        return found.body.decode()

    async def settled(self) -> None:
        """Workers answer."""
        self.may_answer.set()
        await asyncio.gather(*self.tasks)


def play(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]


def test_prometheus_gets_openmetrics_and_a_browser_gets_text() -> None:
    async def story() -> None:
        face = Face()
        assert "# EOF" not in await face.text("text/html, */*")
        assert face.kind == "text/plain; version=0.0.4; charset=utf-8"
        assert (await face.text("application/openmetrics-text; version=1.0.0")).endswith("# EOF\n")
        assert face.kind == "application/openmetrics-text; version=1.0.0; charset=utf-8"

    play(story)


def test_what_is_left_of_the_fullest_accounts_is_shown_once_workers_have_said_it_and_never_waited_for() -> None:
    async def story() -> None:
        many = [account("day", f"agent-{number}", 0.5 - number / 100) for number in range(20)]
        face = Face(account("month", 'team "a"\n', 0.97), account("month", "over", 1.2), *many)
        assert "fastgw_quota_remaining_ratio{" not in await face.text()
        await face.settled()
        lines = [line for line in (await face.text()).splitlines() if line.startswith("fastgw_quota_remaining_ratio")]
        assert 'fastgw_quota_remaining_ratio{quota="month",subject="team \\"a\\"\\n"} 0.03' in lines
        assert 'fastgw_quota_remaining_ratio{quota="month",subject="over"} 0.0' in lines
        assert 'fastgw_quota_remaining_ratio{quota="day",subject="agent-0"} 0.5' in lines
        assert len(lines) == 2 + MOST_OF_ONE
        assert face.asked == 1, "it was asked a moment ago"

    play(story)


def test_accounts_of_people_name_nobody() -> None:
    async def story() -> None:
        face = Face(account("people", "jane@example.com", 0.9), account("people", "joe@example.com", 0.8))
        face.may_answer.set()
        await face.text()
        await face.settled()
        lines = [line for line in (await face.text()).splitlines() if line.startswith("fastgw_quota_remaining_ratio")]
        assert lines == ['fastgw_quota_remaining_ratio{quota="people",subject="a user"} 0.1']

    play(story)


def test_without_quotas_no_worker_is_asked() -> None:
    async def story() -> None:
        face = Face()
        await face.text()
        await face.settled()
        assert face.asked == 0

    play(story)


def test_percentiles_that_take_long_are_those_of_the_time_before(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    right = metrics.quantiles

    def slow(latencies: Latencies) -> dict[Series, float]:
        assert go_on.wait(10)
        return right(latencies)

    async def story() -> None:
        face = Face()
        face.called("first")
        assert 'tool="first"' in await face.text()
        monkeypatch.setattr(metrics, "quantiles", slow)
        face.called("second")
        for _ in range(3):
            lines = [line for line in (await face.text()).splitlines() if "quantile_seconds{" in line]
            assert any('tool="first"' in line for line in lines)
            assert not any('tool="second"' in line for line in lines)
        assert len(face.tasks) == 2, "one at a time"
        go_on.set()
        await face.settled()
        assert 'tool="second"' in await face.text()

    play(story)
