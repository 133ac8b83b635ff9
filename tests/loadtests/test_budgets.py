"""What is over its budget is told, and a run that has shown nothing is too."""

from __future__ import annotations

from pathlib import Path

import yaml

from loadtests.budgets import Entry, verdict
from loadtests.scenarios import LIST, SCENARIOS

ECHO = Entry("modern", "echo", 200, 1, (4.0, 20.0, 90.0))


def test_what_keeps_to_its_budget_misses_nothing() -> None:
    lines, faults = verdict([ECHO], {"echo": {"p50": 4, "p95": 20, "p99": 90, "errors": 0.5}})
    assert faults == []
    assert lines[1].split() == ["modern", "echo", "200", "0.5%", "(0.5%)", "4", "(4)", "20", "(20)", "90", "(90)"]


def test_each_figure_over_its_budget_is_told() -> None:
    faults = verdict([ECHO], {"echo": {"p50": 3, "p95": 19, "p99": 89}})[1]
    assert faults == [
        "modern echo: errors 0.5%, budget 0%",
        "modern echo: p50 4, budget 3",
        "modern echo: p95 20, budget 19",
        "modern echo: p99 90, budget 89",
    ]


def test_one_era_does_not_make_up_for_the_other() -> None:
    slow = Entry("legacy", "echo", 200, 0, (4.0, 20.0, 900.0))
    assert verdict([ECHO, slow], {"echo": {"p99": 100, "errors": 1}})[1] == ["legacy echo: p99 900, budget 100"]


def test_a_tool_that_is_never_called_misses_its_budget() -> None:
    assert verdict([ECHO], {"*": {"errors": 1}, "other": {}})[1] == ["other: never called"]


def test_a_figure_that_nobody_measures_is_told() -> None:
    assert verdict([ECHO], {"echo": {"p90": 3, "errors": 1}})[1] == ["echo: no figure is called p90"]


def test_the_rest_is_held_to_the_star_and_to_no_errors() -> None:
    assert verdict([ECHO], {"*": {"p50": 3, "errors": 1}})[1] == ["modern echo: p50 4, budget 3"]
    assert verdict([ECHO], {})[1] == ["modern echo: errors 0.5%, budget 0%"]


def test_every_scenario_has_budgets_for_what_it_asks() -> None:
    budgets = yaml.safe_load((Path(__file__).parents[2] / "loadtests" / "budgets.yaml").read_text(encoding="utf-8"))
    assert {name for name in budgets if not name.startswith("x-")} == set(SCENARIOS)
    for name, scenario in SCENARIOS.items():
        assert set(scenario.asks) - set(budgets[name]) <= {LIST}, name
