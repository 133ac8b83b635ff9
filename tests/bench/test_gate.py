"""The gate: only a ratio, only against the same reference, only when a repeat confirms."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import gate

BASELINE = gate.Baseline(0.1, {"nginx": {"fastgw": 4.0, "other": 5.0}})


def never() -> dict[str, float]:
    raise AssertionError("measured again without need")


def second(**ratios: float) -> Callable[[], dict[str, float]]:
    return lambda: ratios


def test_within_the_tolerance_nothing_is_measured_again() -> None:
    assert gate.judge(BASELINE, "nginx", {"fastgw": 4.39, "other": 1.0}, never) == []


def test_a_repeat_confirms() -> None:
    found = gate.judge(BASELINE, "nginx", {"fastgw": 4.5}, second(fastgw=4.6))
    assert found == ["fastgw: 4.60x nginx, at most 4.40x (committed 4.00x)"]


def test_a_repeat_acquits() -> None:
    assert gate.judge(BASELINE, "nginx", {"fastgw": 4.5}, second(fastgw=4.1)) == []


def test_two_different_rows_do_not_confirm_each_other() -> None:
    assert gate.judge(BASELINE, "nginx", {"fastgw": 4.5, "other": 5.0}, second(fastgw=4.0, other=6.0)) == []


def test_another_reference_is_not_judged() -> None:
    assert gate.judge(BASELINE, "granian answer", {"fastgw": 40.0}, never) == []


def test_renewing_keeps_other_references_and_the_tolerance(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    file.write_text(json.dumps({"tolerance": 0.3, "ratios": {"haproxy": {"fastgw": 3.0}, "nginx": {"gone": 1.0}}}))
    gate.renew(file, "nginx", {"fastgw": 3.456})
    assert gate.load(file) == gate.Baseline(0.3, {"haproxy": {"fastgw": 3.0}, "nginx": {"fastgw": 3.46}})


def test_a_first_file_is_made(tmp_path: Path) -> None:
    gate.renew(tmp_path / "new.json", "nginx", {"fastgw": 3.4})
    assert gate.load(tmp_path / "new.json").ratios == {"nginx": {"fastgw": 3.4}}


@pytest.mark.parametrize("text", ["[]", "{}", '{"ratios": 3}', "no"])
def test_a_broken_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "baseline.json"
    file.write_text(text)
    with pytest.raises(ValueError):
        gate.load(file)
