"""`fastgw quota` as it is typed, at a real admin face whose workers the test plays."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fastgw.admin.app import AdminData, serve_admin
from fastgw.admin.limits import OperatorLimits
from fastgw.admin.orders import AuditLog
from fastgw.admin.quotas import OperatorQuotas
from fastgw.cli.admin_port import TOKEN_ENV
from fastgw.cli.main import main
from fastgw.config.schema.rules import QuotaSettings
from fastgw.telemetry.latencies import Latencies
from tests.admin.faces import ask_nobody, no_config, no_instances, no_usage
from tests.e2e.aside import aside

Said = pytest.CaptureFixture[str]
TOKEN = "operators' own"
QUOTAS = (
    QuotaSettings.model_validate(
        {"name": "support-monthly", "by": ["claims.team"], "per": "month", "calls": 50000, "cost": 250}
    ),
    QuotaSettings.model_validate({"name": "everybody", "per": "day", "tokens": 1000}),
)
ACCOUNT = {
    "quota": "support-monthly",
    "by": ["claims.team"],
    "subject": "support\x1b[2J",
    "start": "2026-11-01T00:00:00Z",
    "end": "2026-12-01T00:00:00Z",
    "amounts": {
        "calls": {"amount": 50000, "raised": 0, "used": 40000, "held": 7, "reserved": 2},
        "cost": {
            "amount": "250.000000000",
            "raised": "50.000000000",
            "used": "99.123456789",
            "held": "0.500000000",
            "reserved": "0.25",
        },
    },
    "inFlight": 2,
    "share": 0.8,
    "usedUp": "2026-11-21T08:00:00Z",
}


@dataclass
class Workers:
    """What two workers answer, and what they were told."""

    url: str
    folder: Path
    heard: list[dict[str, Any]] = field(default_factory=list)

    async def ask(self, verb: str, args: tuple[Any, ...]) -> list[Any]:
        if verb == "quotas":
            behind: dict[str, Any] = deepcopy({**ACCOUNT, "share": 0.7, "usedUp": None})
            behind["amounts"]["calls"]["used"] = 35000
            return [{"quotas": [behind]}, {"quotas": [deepcopy(ACCOUNT)]}, None]
        self.heard.append(json.loads(*args))
        return [None]


@asynccontextmanager
async def admin_face(folder: Path) -> AsyncIterator[Workers]:
    listener = socket.create_server(("127.0.0.1", 0))
    workers = Workers(f"http://127.0.0.1:{listener.getsockname()[1]}", folder)
    audit = AuditLog(folder / "audit.jsonl")
    limits, quotas = OperatorLimits(ask_nobody, list, audit), OperatorQuotas(workers.ask, lambda: QUOTAS, audit)
    runner = await serve_admin(
        listener,
        AdminData(dict, str, no_instances(), dict, limits, Latencies(), no_config(), quotas, no_usage()),
        TOKEN,  # type: ignore[arg-type]
    )
    try:
        yield workers
    finally:
        await runner.cleanup()


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    monkeypatch.setenv(TOKEN_ENV, TOKEN)
    with aside() as loop:
        yield loop.enter(admin_face(tmp_path))


def test_how_accounts_stand_and_until_when_they_last(workers: Workers, capsys: Said) -> None:
    assert main(["quota", "--admin", workers.url]) == 0
    out = capsys.readouterr().out
    rows = [line.split("  ") for line in out.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert cells[0] == ["quota", "subject", "counts", "used", "of", "share", "ends", "used up at this pace"]
    ending = ["2026-12-01T00:00:00Z", "2026-11-21T08:00:00Z"]
    assert cells[1] == ["support-monthly", "support\\x1b[2J", "calls", "40000", "50000", "80%", *ending]
    assert cells[2][2:6] == ["cost", "99.123456789", "300 (50 of it raised)", "33%"]
    assert "calls in flight: 4" in out
    assert "\x1b" not in out


def test_what_workers_hold_is_added_up(workers: Workers, capsys: Said) -> None:
    assert main(["quota", "--admin", workers.url, "--json"]) == 0
    [account] = json.loads(capsys.readouterr().out)["quotas"]
    assert account["amounts"]["calls"] == {"amount": 50000, "raised": 0, "used": 40000, "held": 14, "reserved": 4}
    assert account["amounts"]["cost"]["held"] == "1.000000000"
    assert account["amounts"]["cost"]["reserved"] == "0.50"


def test_raising_reaches_the_workers_and_the_audit(workers: Workers, capsys: Said) -> None:
    words = ["quota", "raise", "support-monthly", "support", "--cost", "12.50", "--calls", "10", "--admin", workers.url]
    assert main(words) == 0
    assert "support-monthly support: 10 calls, 12.5 cost more" in capsys.readouterr().out
    [heard] = workers.heard
    assert heard.pop("number") > 0
    assert heard == {
        "do": "raise", "quota": "support-monthly", "subject": ["support"], "amounts": [10, 0, 0, 0, 12_500_000_000],
    }  # fmt: skip
    [entry] = [json.loads(line) for line in (workers.folder / "audit.jsonl").read_text().splitlines()]
    assert (entry["do"], entry["calls"], entry["cost"]) == ("raise", 10, "12.5")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["nothing", "--calls", "1"], "there is no quota 'nothing'"),
        (["support-monthly", "--calls", "1"], "subject must be the values of [claims.team]"),
        (["support-monthly", "support", "--tokens", "1"], "does not count tokens"),
        (["everybody"], "say by how much"),
        (["everybody", "--tokens", "-1"], "An order is a JSON object"),
    ],
)
def test_an_order_that_is_no_good_is_refused_with_words(
    workers: Workers, capsys: Said, words: list[str], why: str
) -> None:
    assert main(["quota", "raise", *words, "--admin", workers.url]) == 1
    assert why in capsys.readouterr().err
    assert workers.heard == []
    assert not (workers.folder / "audit.jsonl").exists()
