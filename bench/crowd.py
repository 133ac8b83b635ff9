"""The load generator in several processes, for a target that one process cannot fill.

Knows: how to begin together and to sum. Refuses to know: how one process loads (`bench.loop`).
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from multiprocessing.synchronize import Barrier

import uvloop

from bench import loop, processes
from bench.histogram import Histogram
from bench.messages import Target

PATIENCE = 60.0
"""Seconds for a process to start, and for a run to end after its planned time."""


def run_many(
    target: Target, plan: loop.Plan, count: int, meter: Callable[[], processes.Reading | None]
) -> loop.Outcome:
    """As `loop.run`, by `count` processes which each do the whole plan; metered from the first mark to the last.

    Raises:
        processes.LostProcess: a metered process ended.
        EOFError: a process of the generator died.
    """
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(count)
    pipes, children = [], []
    for _ in range(count):
        ours, theirs = context.Pipe()
        children.append(context.Process(target=_child, args=(theirs, barrier, target, plan), daemon=True))
        children[-1].start()
        theirs.close()
        pipes.append(ours)
    readings = []
    for _ in ("begin", "end"):
        for pipe in pipes:
            _receive(pipe, plan)
        readings.append(meter())
    outcomes = [_receive(pipe, plan) for pipe in pipes]
    for child in children:
        child.join(PATIENCE)
    before, after = readings
    return _sum(outcomes, processes.spent(before, after) if before and after else 0.0)


def _child(pipe: Pipe, barrier: Barrier, target: Target, plan: loop.Plan) -> None:
    barrier.wait(PATIENCE)
    pipe.send(uvloop.run(loop.run(target, plan, lambda: pipe.send("mark"))))


def _receive(pipe: Pipe, plan: loop.Plan) -> loop.Outcome:
    if not pipe.poll(PATIENCE + plan.warm + plan.seconds):
        raise EOFError("a process of the load generator does not answer")
    outcome: loop.Outcome = pipe.recv()
    return outcome


def _sum(outcomes: list[loop.Outcome], cpu: float) -> loop.Outcome:
    return loop.Outcome(
        calls=sum(one.calls for one in outcomes),
        seconds=max(one.seconds for one in outcomes),
        cpu=cpu,
        errors=sum(one.errors for one in outcomes),
        samples=tuple(sample for one in outcomes for sample in one.samples)[: loop.SAMPLES],
        latencies=Histogram().merge(one.latencies for one in outcomes),
        late=Histogram().merge(one.late for one in outcomes),
    )
