"""The gate: only a ratio, only against the same reference, only when a repeat confirms."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from bench import gate


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    file = tmp_path / "baseline.json"
    file.write_text(json.dumps({"tolerance": 0.1, "ratios": {"nginx": {"fastgw": 4.0, "other": 5.0}}}))
    return file


def never(names: Collection[str]) -> dict[str, float]:
    raise AssertionError("measured again without need")


def second(**ratios: float) -> Callable[[Collection[str]], dict[str, float]]:
    def again(names: Collection[str]) -> dict[str, float]:
        assert set(names) == ratios.keys(), "only what was over is measured again"
        return ratios

    return again


def test_within_the_tolerance_nothing_is_measured_again(baseline: Path) -> None:
    assert gate.judge(baseline, "nginx", {"fastgw": 4.39, "other": 1.0}, never) == []


def test_a_repeat_confirms(baseline: Path) -> None:
    found = gate.judge(baseline, "nginx", {"fastgw": 4.5, "other": 5.0}, second(fastgw=4.6))
    assert found == ["fastgw: 4.60x nginx, at most 4.40x (committed 4.00x)"]
    assert gate.passed(baseline, "nginx", {"fastgw": 4.5}, second(fastgw=4.6)) == 3


def test_a_repeat_acquits(baseline: Path) -> None:
    assert gate.passed(baseline, "nginx", {"fastgw": 4.5}, second(fastgw=4.1)) == 0


def test_two_different_rows_do_not_confirm_each_other(baseline: Path) -> None:
    measured = {"fastgw": 4.5, "other": 5.0}
    assert gate.judge(baseline, "nginx", measured, lambda _: {"fastgw": 4.0, "other": 6.0}) == []


def test_what_is_not_committed_is_not_judged(baseline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate.judge(baseline, "granian answer", {"fastgw": 40.0}, never) == []
    assert gate.judge(baseline, "nginx", {"new": 40.0}, never) == []
    assert "new has no committed ratio to nginx and is not judged" in capsys.readouterr().out


def test_renewing_keeps_other_references_and_the_tolerance(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    file.write_text(json.dumps({"tolerance": 0.3, "ratios": {"haproxy": {"fastgw": 3.0}, "nginx": {"gone": 1.0}}}))
    gate.renew(file, "nginx", {"fastgw": 3.456})
    found = json.loads(file.read_text())
    assert found == {"tolerance": 0.3, "ratios": {"haproxy": {"fastgw": 3.0}, "nginx": {"fastgw": 3.46}}}


def test_a_first_file_is_made(tmp_path: Path) -> None:
    gate.renew(tmp_path / "new.json", "nginx", {"fastgw": 3.4})
    assert json.loads((tmp_path / "new.json").read_text())["ratios"] == {"nginx": {"fastgw": 3.4}}
