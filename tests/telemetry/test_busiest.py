"""Rows of the busiest and the rest, and the pace of agents, by a clock that is set by hand."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from random import Random

from fastgw.telemetry.busiest import MOST_KEPT, AgentPace, BusiestRows, RecentAgents


class Hand:
    """A clock."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def shown(rows: BusiestRows) -> dict[str, float]:
    found: Counter[str] = Counter()
    for name, _, count in rows:
        found["/".join(name)] += count  # type: ignore[assignment]
    return dict(found)


# -- rows ------------------------------------------------------------------------------------------------------------


def test_the_first_have_rows_and_one_row_sums_the_rest_by_outcome() -> None:
    rows = BusiestRows(1, 2, Hand())
    for name in "abcd":
        rows.add((name,), "ok", 2)
        rows.add((name,), "timeout", 1)
    expected = {((name,), outcome) for name in ("a", "b", "other") for outcome in ("ok", "timeout")}
    assert {(name, outcome) for name, outcome, _ in rows} == expected
    assert shown(rows) == {"a": 3, "b": 3, "other": 6}


def test_whoever_is_called_other_has_no_row_of_its_own() -> None:
    """Two series with the same labels would cost Prometheus the whole page."""
    rows = BusiestRows(2, 10, Hand())
    rows.add(("other", "other"), "ok", 1)
    rows.add(("other", "shop"), "ok", 2)
    names = [name for name, _, _ in rows]
    assert len(names) == len(set(names)) == 2
    assert shown(rows) == {"other/other": 1, "other/shop": 2}


def test_after_a_minute_the_busy_take_the_rows_of_the_idle_and_start_at_nought() -> None:
    clock = Hand()
    rows = BusiestRows(1, 2, clock)
    rows.add(("early",), "ok", 5)
    rows.add(("busy",), "ok", 5)
    for minute in range(4):
        for name, count in (("busy", 100), ("late", 90), ("later", 80)):
            rows.add((name,), "ok", count)
        before = shown(rows)["other"]
        clock.now += 60
        rows.turn()
        assert shown(rows)["other"] == before, minute
    rows.add(("late",), "ok", 7)
    found = shown(rows)
    assert "early" not in found
    assert (found["busy"], found["late"]) == (405, 3 * 90 + 7)


def test_rows_do_not_change_hands_among_those_who_are_about_as_busy() -> None:
    clock, dice = Hand(), Random(3)
    rows = BusiestRows(1, 20, clock)
    owners = set()
    for _ in range(120):
        for _ in range(1000):
            rows.add((f"agent-{dice.randrange(500)}",), "ok", 1)
        clock.now += 60
        rows.turn()
        owners |= {name for name, _, _ in rows}
    assert len(owners) <= 30, "of 500"


def test_who_is_much_busier_has_a_row_within_a_minute_and_keeps_it_for_a_while() -> None:
    clock = Hand()
    rows = BusiestRows(1, 1, clock)
    rows.add(("steady",), "ok", 10)
    for _ in range(3):
        rows.add(("steady",), "ok", 10)
        clock.now += 60
        rows.turn()
    rows.add(("runaway",), "ok", 1000)
    clock.now += 60
    rows.turn()
    rows.add(("runaway",), "ok", 1)
    assert shown(rows)["runaway"] == 1
    for _ in range(5):
        rows.add(("steady",), "ok", 10)
        clock.now += 60
        rows.turn()
        assert "runaway" in shown(rows)


def test_a_flood_of_names_costs_bounded_memory_and_loses_no_count() -> None:
    clock = Hand()
    tracemalloc.start()
    try:
        rows = BusiestRows(1, 100, clock)
        for number in range(300_000):
            rows.add((f"agent-{number}",), "ok", 1)
        assert tracemalloc.get_traced_memory()[0] < 25_000_000
    finally:
        tracemalloc.stop()
    assert (sum(shown(rows).values()), len(shown(rows))) == (300_000, 101)
    for _ in range(7):
        clock.now += 60
        rows.turn()
    assert rows._lately == {}


# -- agents ----------------------------------------------------------------------------------------------------------


def test_calls_errors_and_refusals_of_the_last_minute_and_hour() -> None:
    clock = Hand()
    agents = RecentAgents(clock)
    agents.add("slow", "timeout", 2)
    agents.add("slow", "ok", 1)
    clock.now += 600
    agents.add("fast", "ok", 10)
    agents.add("fast", "rate_limited", 5)
    agents.add("fast", "invalid", 1)
    assert agents.top("1m", 5) == [AgentPace("fast", 16, 0, 5)]
    assert agents.top("1h", 5) == [AgentPace("fast", 16, 0, 5), AgentPace("slow", 3, 2, 0)]
    assert agents.top("1h", 1) == [AgentPace("fast", 16, 0, 5)]
    clock.now += 3700
    assert agents.top("1h", 5) == []


def test_a_minute_holds_all_of_its_calls() -> None:
    clock = Hand()
    agents = RecentAgents(clock)
    for _ in range(600):
        agents.add("steady", "ok", 1)
        clock.now += 0.5
    (pace,) = agents.top("1m", 1)
    assert 120 <= pace.calls <= 140


def test_of_many_agents_a_slice_keeps_the_busiest_and_the_sum_of_the_rest() -> None:
    clock = Hand()
    agents = RecentAgents(clock)
    for number in range(3 * MOST_KEPT):
        agents.add(f"agent-{number}", "ok", 1 + (number == 7))
    clock.now += 61
    agents.add("agent-7", "ok", 1)
    found = {pace.agent: pace.calls for pace in agents.top("1h", 10_000)}
    assert len(found) == MOST_KEPT + 1
    assert found["agent-7"] == 3
    assert sum(found.values()) == 3 * MOST_KEPT + 2
