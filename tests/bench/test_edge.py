"""When a run may not be reported or compared, and what is drawn of one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest

from bench import edge, loop, plot, rounds
from bench.messages import Target
from bench.rounds import Contender
from bench.versions import interpreter

CONTENDERS = [Contender("nginx", 1, Target(1)), Contender("fastgw", 1, Target(1))]


def outcome(cost: float, own: float = 0.5) -> loop.Outcome:
    """Of 10,000 calls that took `cost` microseconds of CPU each."""
    return loop.Outcome(10_000, 2.0, cost / 100, 0, (), [], [], own)


def figures(**changed: Any) -> dict[str, Any]:
    rows = rounds.table(CONTENDERS, [[outcome(10), outcome(40)], [outcome(12), outcome(60)]])
    shown = [{name: getattr(row, name) for name in ("name", "cpu", "ratio", "least", "greatest")} for row in rows]
    found = {"reference": "nginx", "rounds": 2, "load": (0.5, 0.5, 0.5), "versions": {"python": "CPython 3"}}
    return {**found, "rows": shown, **changed}


def test_a_reference_that_stays_where_it_is_may_be_reported() -> None:
    rounds.refuse(CONTENDERS, [[outcome(10), outcome(40)], [outcome(15), outcome(200)]])


def test_a_reference_that_moved_is_refused() -> None:
    moved = [[outcome(10), outcome(40)], [outcome(17), outcome(40)]]
    with pytest.raises(rounds.Wrong, match=r"nginx moved by more than 1\.6x between rounds: 10\.0, 17\.0"):
        rounds.refuse(CONTENDERS, moved)
    rounds.refuse(CONTENDERS, moved, drift=1.8)


def test_a_generator_that_was_the_bottleneck_is_refused() -> None:
    found = [[outcome(10), outcome(40, own=0.9)], [outcome(10), outcome(40)]]
    with pytest.raises(rounds.Wrong, match=r"fastgw: the load generator was the bottleneck, 90% of its core"):
        rounds.refuse(CONTENDERS, found)
    rounds.refuse([CONTENDERS[0], replace(CONTENDERS[1], floor=True)], found)


def test_runs_of_two_interpreters_or_references_are_not_compared() -> None:
    assert edge.compare(figures(), figures()) == [f"{'nginx':26}    1.00 then    1.00 now",
                                                  f"{'fastgw':26}    4.50 then    4.50 now"]  # fmt: skip
    with pytest.raises(rounds.Wrong, match="another interpreter"):
        edge.compare(figures(versions={"python": "CPython 3 (--enable-optimizations)"}), figures())
    with pytest.raises(rounds.Wrong, match="another reference"):
        edge.compare(figures(reference="haproxy"), figures())


def test_the_interpreter_says_how_it_was_built() -> None:
    assert "--enable-optimizations" in interpreter() and "CPython 3." in interpreter()


def test_a_plot_has_a_bar_and_a_spread_for_each_row() -> None:
    drawn = ElementTree.fromstring(plot.svg(figures()))
    space = "{http://www.w3.org/2000/svg}"
    first, second = drawn.findall(f"{space}rect")
    assert float(second.attrib["width"]) == pytest.approx(4.5 * float(first.attrib["width"]), abs=1)
    spread = [one for one in drawn.findall(f"{space}line") if "class" not in one.attrib][1]
    end = float(second.attrib["x"]) + float(second.attrib["width"])
    assert float(spread.attrib["x1"]) < end < float(spread.attrib["x2"])


def test_only_loopback_is_loaded() -> None:
    assert Target.at("http://127.0.0.1:8080/mcp/x", "legacy", "echo") == Target(8080, "legacy", "/mcp/x", "echo")
    for url in ("http://example.com:80/mcp", "https://127.0.0.1:1/", "http://127.0.0.1/mcp"):
        with pytest.raises(ValueError, match="no http"):
            Target.at(url, "modern", "echo")
