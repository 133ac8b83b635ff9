"""A short `make load`: it passes, and fails with a budget that nothing can keep."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.e2e.tour import given

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("echo", "echo-legacy", "tools/list")


def steady(budgets: Path, seconds: int) -> subprocess.CompletedProcess[str]:
    python = given("FASTGW_LOAD_PYTHON", "Python with Locust")
    order = [python, "-m", "loadtests", "steady", "--seconds", str(seconds), "--budgets", str(budgets)]
    return subprocess.run(order, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)


def rows(output: str) -> dict[tuple[str, str], int]:
    """Calls by era and tool, as the table has them."""
    lines = [line.split() for line in output.splitlines() if line.startswith(("modern ", "legacy "))]
    return {(words[0], words[1]): int(words[2]) for words in lines}


def test_agents_of_both_eras_keep_within_the_budgets() -> None:
    done = steady(ROOT / "loadtests" / "budgets.yaml", 4)
    assert done.returncode == 0, done.stdout + done.stderr
    calls = rows(done.stdout)
    assert all(calls[era, tool] > 0 for era in ("modern", "legacy") for tool in TOOLS), done.stdout
    assert calls["legacy", "initialize"] == calls["legacy", "initialized"] >= calls["legacy", "DELETE"] >= 10


def test_a_budget_that_nothing_can_keep_is_missed(tmp_path: Path) -> None:
    budgets = tmp_path / "budgets.yaml"
    budgets.write_text('steady: {echo: {p99: 0.001}, "*": {}}', encoding="utf-8")
    done = steady(budgets, 2)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "MISSED modern echo: p99" in done.stdout and "MISSED legacy echo: p99" in done.stdout
