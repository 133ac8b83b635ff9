"""`/config`, `/config/diff` and `/reload` on a served admin face."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fastgw.admin.app import AdminData, serve_admin
from fastgw.admin.config import OperatorConfig
from fastgw.admin.limits import OperatorLimits
from fastgw.admin.orders import AuditLog
from fastgw.telemetry.latencies import Latencies
from tests.admin.faces import no_instances, no_quotas, no_usage
from tests.e2e.http import Asked, Reply, exchange

TOKEN = "right"
BAD = 'fastgw.yaml:1:2: unknown key "workres"'


@dataclass
class Stage:
    """A configuration that is `wrong`, or empty: is not."""

    folder: Path
    wrong: str = ""
    read: int = 0
    lines_when_read: list[int] = field(default_factory=list)

    def lines(self) -> list[dict[str, Any]]:
        file = self.folder / "audit.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []

    async def reload(self) -> str:
        self.read += 1
        self.lines_when_read.append(len(self.lines()))
        return self.wrong

    async def diff(self) -> dict[str, Any]:
        if self.wrong:
            raise ValueError(self.wrong)
        return {"settings": []}

    def answered(self, asked: Asked, path: str, token: str | None = TOKEN) -> Reply:
        async def nobody(*_: object) -> list[Any]:
            return []

        async def main() -> Reply:
            listener = socket.create_server(("127.0.0.1", 0))
            audit = AuditLog(self.folder / "audit.jsonl")
            config = OperatorConfig(lambda: {"generation": 7}, self.reload, self.diff, audit)
            limits = OperatorLimits(nobody, tuple, audit)
            data = AdminData(nobody, str, no_instances(), dict, limits, Latencies(), config, no_quotas(), no_usage())  # type: ignore[arg-type]
            runner = await serve_admin(listener, data, token)
            try:
                return await exchange(f"http://127.0.0.1:{listener.getsockname()[1]}{path}", asked)
            finally:
                await runner.cleanup()

        return asyncio.run(main())

    def order(self, change: Callable[[Asked], Asked] = lambda asked: asked, token: str | None = TOKEN) -> Reply:
        headers = [("Authorization", f"Bearer {TOKEN}"), ("Content-Type", "application/json")]
        return self.answered(change(Asked(b"{}", headers)), "/reload", token)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_a_reload_is_written_down_then_done_and_what_is_in_force_is_said(stage: Stage) -> None:
    reply = stage.order()
    assert (reply.status, reply.json()) == (200, {"generation": 7})
    assert stage.lines_when_read == [1]
    assert stage.lines()[0]["do"] == "reload"
    assert stage.lines()[0]["who"].startswith("127.0.0.1 token:")


def test_what_is_wrong_with_the_file_is_said(stage: Stage) -> None:
    stage.wrong = BAD
    assert (stage.order().status, stage.order().json()) == (409, {"error": BAD})


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda asked: asked.without("Authorization"), 401),
        (lambda asked: asked.having("Authorization", "Bearer wrong"), 401),
        (lambda asked: asked.having("Origin", "http://evil.example"), 403),
        (lambda asked: asked.having("Content-Type", "text/plain"), 415),
        (lambda asked: Asked(b'{"file": "other.yaml"}', asked.headers), 400),
        (lambda asked: Asked(b"", asked.headers), 400),
        (lambda asked: Asked(b"", asked.headers, "GET"), 405),
    ],
    ids=["no token", "wrong token", "foreign page", "form", "another member", "empty", "GET"],
)
def test_the_guard_is_that_of_every_order(stage: Stage, change: Callable[[Asked], Asked], status: int) -> None:
    assert stage.order(change).status == status
    assert (stage.read, stage.lines()) == (0, [])


def test_where_there_is_no_token_nobody_orders(stage: Stage) -> None:
    assert (stage.order(token=None).status, stage.read) == (403, 0)


def test_what_cannot_be_written_down_is_not_done(stage: Stage) -> None:
    (stage.folder / "audit.jsonl").mkdir()
    assert (stage.order().status, stage.read) == (500, 0)


def test_the_differences_are_asked_for_without_an_order(stage: Stage) -> None:
    asked = Asked(headers=[("Authorization", f"Bearer {TOKEN}")], verb="GET")
    assert stage.answered(asked, "/config/diff").json() == {"settings": []}
    stage.wrong = BAD
    reply = stage.answered(asked, "/config/diff")
    assert (reply.status, reply.json(), stage.lines()) == (409, {"error": BAD}, [])
    assert stage.answered(Asked(verb="GET"), "/config/diff").status == 401
