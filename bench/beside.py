"""What is measured in this process: CPU microseconds of something beside a reference, between two looks at it.

A ratio is taken within its round only; what counts is the median over the rounds.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

Cost = Callable[[], float]
"""Does something some thousand times; gives CPU microseconds of one time."""
clock = time.thread_time
"""CPU time of this thread: what else the machine does is not counted, though it slows this down."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One row.

    Args:
        ratio: to the reference, or whatever `unit` says; the least and the greatest beside it.
        cost: CPU microseconds; 0.0 where none were measured.
        most: what `ratio` may be; None where nothing is wanted of it.
        unit: of `ratio`, `x` the reference.
    """

    name: str
    ratio: float
    least: float
    greatest: float
    cost: float = 0.0
    most: float | None = None
    unit: str = "x"

    @property
    def missed(self) -> bool:
        """Whether it costs more than it may."""
        return self.most is not None and self.ratio > self.most


@dataclass(frozen=True, slots=True)
class Subject:
    """Something to measure: its name, how, and its bound."""

    name: str
    cost: Cost
    most: float | None = None


def measured(name: str, most: float | None, costs: Sequence[float], references: Sequence[float]) -> Measured:
    """The row of what was seen in as many rounds."""
    ratios = [own / other for own, other in zip(costs, references, strict=True)]
    return Measured(name, median(ratios), min(ratios), max(ratios), median(costs), most)


def beside(reference: Subject, subjects: Sequence[Subject], rounds: int) -> list[Measured]:
    """A row for the reference and for each subject, all measured in every round, in an order that turns."""
    costs: list[list[float]] = [[] for _ in subjects]
    references: list[list[float]] = [[] for _ in subjects]
    for one in (reference, *subjects):
        one.cost()  # warm
    gc.collect()
    for number in range(rounds):
        places = range(len(subjects))
        turn = number % len(subjects)
        earlier = reference.cost()
        for at in (*places[turn:], *places[:turn]):
            costs[at].append(subjects[at].cost())
            later = reference.cost()
            references[at].append((earlier + later) / 2)
            earlier = later
    every = [one for line in references for one in line]
    first = Measured(reference.name, 1.0, 1.0, 1.0, median(every))
    return [
        first,
        *(measured(one.name, one.most, *found) for one, *found in zip(subjects, costs, references, strict=True)),
    ]


def timed(work: Callable[[], object], times: int) -> Cost:
    """The cost of calling `work`, so many times in a row."""

    def cost() -> float:
        begun = clock()
        for _ in range(times):
            work()
        return (clock() - begun) / times * 1e6

    return cost


def text(rows: Sequence[Measured]) -> str:
    """The table as people read it."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'':{width}}  CPU us   ratio    min - max      at most"]
    for row in rows:
        unit = "" if row.unit == "x" else f" {row.unit}"
        spread = f"{row.least:.2f} - {row.greatest:.2f}"
        cost = f"{row.cost:6.1f}" if row.cost else " " * 6
        wanted = "" if row.most is None else f"{row.most:g}{unit}{'  MISSED' if row.missed else ''}"
        lines.append(f"{row.name:{width}}  {cost}  {row.ratio:6.2f}  {spread:>14}  {wanted}".rstrip())
    return "\n".join(lines)
