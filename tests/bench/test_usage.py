"""The made-up month is an archive as the gateway's own code reads it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from bench import usage


def test_every_question_is_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert usage.main(["--events", "6000", "--lines", "100", "--folder", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert all(f"\n{name}: " in said for name in usage.QUESTIONS), said
    assert list(tmp_path.iterdir()) == []


def test_its_calls_fail_and_cost_something(tmp_path: Path) -> None:
    usage.make_month(tmp_path / "month", 6000)
    ((rate, cost, p50),) = usage.ask(tmp_path / "month", {"metric": "error_rate,cost,p50", **usage.MONTH})
    assert all(isinstance(value, Decimal) and value > 0 for value in (rate, cost, p50))
