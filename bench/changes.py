"""`python -m bench changes`: whether calls notice that one of thirty servers lists something else once a second.

Latencies are of this machine with all that runs on it: what counts is the ratio of a changing stretch to the quiet one
beside it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import uvloop

from bench import loop, processes
from bench.catalogues import Size
from bench.loop import Outcome, Paced, Plan
from bench.rounds import Wrong
from bench.servers import Crowd, crowd
from bench.started import NotStarted
from bench.versions import footer

AGAIN = 1000
"""Milliseconds that the lists of the server which changes look fresh: the controller looks once a second."""
SETTLE = 1.5
"""Seconds for the last change to be over."""


def stretch(running: Crowd, plan: Plan) -> Outcome:
    """One stretch.

    Raises:
        Wrong: an answer was wrong.
    """
    outcome = uvloop.run(loop.run(running.target(), plan, partial(processes.read, running.gateway), Paced))
    if outcome.errors:
        raise Wrong(f"{outcome.errors} wrong answers: {'; '.join(outcome.samples)}")
    return outcome


def turns(running: Crowd, plan: Plan, count: int) -> list[tuple[Outcome, Outcome]]:
    """Quiet and changing stretches in turn."""
    found = []
    for _ in range(count):
        quiet = stretch(running, plan)
        os.kill(running.servers, signal.SIGUSR1)
        changing = stretch(running, plan)
        os.kill(running.servers, signal.SIGUSR1)
        time.sleep(SETTLE)
        found.append((quiet, changing))
    return found


def show(found: list[tuple[Outcome, Outcome]]) -> list[str]:
    """The table: microseconds, medians over the turns, and the ratio within each turn."""
    lines = ["       quiet us  changing us   ratio   min - max"]
    for share in (50, 90, 99, 99.9):
        pairs = [
            (loop.percentile(one.latencies, share), loop.percentile(other.latencies, share)) for one, other in found
        ]
        ratios = [other / one for one, other in pairs]
        quiet, changing = (median(column) for column in zip(*pairs, strict=True))
        spread = f"{min(ratios):.2f} - {max(ratios):.2f}"
        lines.append(f"p{share:<5g} {quiet:8.0f}  {changing:11.0f}  {median(ratios):6.2f}  {spread:>12}")
    quiet, changing = (median(pair[at].cpu_per_call for pair in found) for at in (0, 1))
    lines.append(f"CPU    {quiet:8.0f}  {changing:11.0f}  of the whole gateway, per call")
    late = max(loop.percentile(outcome.late, 99) for pair in found for outcome in pair)
    lines.append(f"\nthe generator's own timer was late by {late} us at p99, which is not counted")
    return lines


def main(argv: list[str]) -> int:
    """Measure and print; 0 measured, 1 no figures."""
    parser = argparse.ArgumentParser(prog="python -m bench changes", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each stretch")
    parser.add_argument("--rate", type=float, default=300.0, help="calls per second")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args(argv)
    plan = Plan(16, args.seconds, 0.3, args.rate)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="bench-") as folder,
            crowd(Path(folder), Size(), args.workers, AGAIN) as running,
        ):
            found = turns(running, plan, args.rounds)
    except (Wrong, processes.LostProcess, NotStarted, OSError) as exc:
        print(f"no figures: {type(exc).__name__}: {exc}", file=sys.stderr)
        return 1
    print("\n".join(show(found)))
    print(footer())
    return 0
