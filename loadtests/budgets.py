"""Whether what was measured keeps to its budgets; `budgets.yaml` says them for each scenario and tool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FIGURES = ("p50", "p95", "p99")
Budget = Mapping[str, float]
"""`p50`, `p95`, `p99` in milliseconds, `errors` in percent; what is missing is not judged, errors are 0."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What was measured of one tool (or method) by agents of one era; `times` are those of `FIGURES`, in ms."""

    era: str
    tool: str
    calls: int
    failures: int
    times: Sequence[float]


def verdict(entries: Sequence[Entry], budgets: Mapping[str, Budget]) -> tuple[list[str], list[str]]:
    """A table's lines, and what is missed. `*` is the budget of whatever has none of its own.

    A budget whose tool was not called is missed: such a run has shown nothing.
    """
    columns = f"{'agents':<7} {'tool':<32} {'calls':>7}"
    lines = [f"{columns} {'errors':>15}" + "".join(f"{figure + ' ms':>16}" for figure in FIGURES)]
    faults = [
        f"{tool}: never called"
        for tool in budgets
        if tool != "*" and not any(one.tool == tool and one.calls for one in entries)
    ]
    faults += [
        f"{tool}: no figure is called {name}"
        for tool, budget in budgets.items()
        for name in budget
        if name not in ("errors", *FIGURES)
    ]
    for one in entries:
        budget = {"errors": 0.0, **budgets.get(one.tool, budgets.get("*", {}))}
        measured = {"errors": 100 * one.failures / max(1, one.calls)} | dict(zip(FIGURES, one.times, strict=True))
        cells = []
        for figure, value in measured.items():
            unit, width, digits = ("%", 15, 1) if figure == "errors" else ("", 16, 0)
            allowed = budget.get(figure)
            text = f"{value:.{digits}f}{unit}" + ("" if allowed is None else f" ({allowed:g}{unit})")
            cells.append(f"{text:>{width}}")
            if allowed is not None and value > allowed:
                faults.append(f"{one.era} {one.tool}: {figure} {value:.{digits}f}{unit}, budget {allowed:g}{unit}")
        lines.append(f"{one.era:<7} {one.tool:<32} {one.calls:>7} {''.join(cells)}")
    return lines, faults
