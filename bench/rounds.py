"""Rounds: every contender in every round, in an order that turns, each figure beside the reference of its own round.

Machines differ from one minute to the next by half, so nothing here is ever compared across rounds, let alone runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import uvloop

from bench import loop, processes
from bench.messages import Target

DRIFT = 1.6
"""How far the reference's most costly round may be from its cheapest: beyond, the machine was doing something else."""
BOTTLENECK = 0.85
"""Share of its core that the load generator may take: beyond, it is measured and not the contender."""


class Wrong(Exception):
    """An answer was wrong, or the run was not fit to tell anything: no figure of it counts."""


@dataclass(frozen=True, slots=True)
class Contender:
    """Something to measure.

    Args:
        name: the row's name in the table and in the gate's file.
        pid: root of the process tree whose CPU counts.
        target: how to call it.
        floor: the server itself, so cheap that the load generator may well be the bottleneck.
    """

    name: str
    pid: int
    target: Target
    floor: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """What one contender showed, medians over the rounds.

    Args:
        cpu: CPU microseconds per call of its process tree.
        busy: share of the measured time that the tree was on a CPU, 1.0 for one core. A tree that mostly waits pays
            more for each call, because it wakes up for each.
        ratio: its CPU per call over the reference's in the same round; the least and the greatest beside it.
        rate: calls per second.
        calls: over all rounds.
        generator: share of its core that the load generator took.
    """

    name: str
    cpu: float
    busy: float
    ratio: float
    least: float
    greatest: float
    rate: float
    calls: int
    generator: float


def measure(
    contenders: Sequence[Contender], plan: loop.Plan, count: int, progress: Callable[[str], None]
) -> list[list[loop.Outcome]]:
    """One list of outcomes, in the contenders' order, for each of `count` rounds.

    Raises:
        Wrong: an answer was wrong; nothing is measured after it.
        processes.LostProcess: a process of a contender ended.
    """
    rounds = []
    for number in range(count):
        outcomes: dict[str, loop.Outcome] = {}
        turn = number % len(contenders)
        for one in [*contenders[turn:], *contenders[:turn]]:
            outcome = uvloop.run(loop.run(one.target, plan, partial(processes.read, one.pid)))
            if outcome.errors:
                raise Wrong(f"{one.name}: {outcome.errors} wrong answers: {'; '.join(outcome.samples)}")
            outcomes[one.name] = outcome
        rounds.append([outcomes[one.name] for one in contenders])
        progress(f"round {number + 1} of {count}")
    return rounds


def table(contenders: Sequence[Contender], rounds: list[list[loop.Outcome]], reference: int = 0) -> list[Row]:
    """One row for each contender, ratios to the one at index `reference`."""
    return [_row(one.name, [line[at] for line in rounds], [line[reference] for line in rounds])
            for at, one in enumerate(contenders)]  # fmt: skip


def refuse(contenders: Sequence[Contender], rounds: list[list[loop.Outcome]], drift: float = DRIFT) -> None:
    """See whether the run may be reported.

    Raises:
        Wrong: the reference, the first contender, moved by more than the factor `drift`, or the generator was the
            bottleneck.
    """
    costs = [line[0].cpu_per_call for line in rounds]
    if max(costs) > drift * min(costs):
        told = ", ".join(f"{cost:.1f}" for cost in costs)
        raise Wrong(f"{contenders[0].name} moved by more than {drift:g}x between rounds: {told} us a call")
    for at, one in enumerate(contenders):
        if (own := max(line[at].own for line in rounds)) > BOTTLENECK and not one.floor:
            raise Wrong(f"{one.name}: the load generator was the bottleneck, {own:.0%} of its core")


def _row(name: str, own: list[loop.Outcome], other: list[loop.Outcome]) -> Row:
    ratios = [mine.cpu_per_call / theirs.cpu_per_call for mine, theirs in zip(own, other, strict=True)]
    return Row(
        name=name,
        cpu=median(one.cpu_per_call for one in own),
        busy=median(one.cpu / one.seconds for one in own),
        ratio=median(ratios),
        least=min(ratios),
        greatest=max(ratios),
        rate=median(one.rate for one in own),
        calls=sum(one.calls for one in own),
        generator=max(one.own for one in own),
    )


def text(rows: Sequence[Row]) -> str:
    """The table as people read it. Figures are CPU microseconds per call, ratios, calls per second."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'':{width}}  CPU us/call   ratio   min - max    busy  calls/s    calls"]
    for row in rows:
        spread = f"{row.least:.2f} - {row.greatest:.2f}"
        lines.append(
            f"{row.name:{width}}  {row.cpu:11.1f}  {row.ratio:6.2f}  {spread:>12}  {row.busy:5.0%}"
            f"  {row.rate:7.0f}  {row.calls:7d}"
        )
    return "\n".join(lines)
