"""`python -m bench limits`: what limits cost, from memory, from leases and through the store, and what buckets take.

The reference of a decision is reading the envelope of the call that asks for it, 390 bytes of JSON.
"""

from __future__ import annotations

import argparse
import gc
import signal
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench import asked, buckets, loop
from bench.beside import Measured, Subject, beside, text, timed
from bench.decisions import OWN, SHARED, Buckets, Crowd, InMemory, Leased, Line, Scene, envelope, now
from bench.gateway import NotAsMeant
from bench.processes import LostProcess
from bench.rounds import Wrong
from bench.started import NotStarted
from bench.versions import footer
from fastgw.limits.embedded import NoStore

FROM_MEMORY, FROM_LEASES = 2.0, 0.5
"""Of what reading the envelope costs."""
FLAT = 1.25
"""Of what a decision costs with ten buckets."""
BYTES = 300
"""For one bucket in memory."""
FEW, LIVE = 10, 100_000
HOUR = 3_600_000_000
KINDS: dict[str, Callable[[], Buckets]] = {"from memory": InMemory, "from leases": Leased}


def decisions(rounds: int, times: int) -> list[Measured]:
    """Four buckets, the same agent."""
    scene = Scene()
    memory, leased = (Line(scene, make()) for make in KINDS.values())
    subjects = [
        Subject("from memory, decision", timed(memory.decision, times), FROM_MEMORY),
        Subject("from memory, charges and decision", timed(memory.step, times), FROM_MEMORY),
        Subject("from memory, admit and settle", timed(memory.whole, times)),
        Subject("from leases, decision", timed(leased.decision, times), FROM_LEASES),
        Subject("from leases, charges and decision", timed(leased.step, times)),
        Subject("from leases, admit and settle", timed(leased.whole, times)),
    ]
    return beside(Subject("reading the envelope", timed(envelope(), times)), subjects, rounds)


def many(kind: str, rounds: int, times: int, live: int = LIVE) -> list[Measured]:
    """Few buckets and many. Calls of a few agents tell what their number costs, calls of all what the caches do."""
    alike, own = Scene(SHARED), Scene(OWN)
    few, all_own = FEW, live // len(OWN)
    subjects = [
        (f"{kind}, {live:,} buckets, {few} agents call", alike, live, few, FLAT),
        (f"{kind}, {live:,} buckets, any agent calls", alike, live, live, FLAT if kind == "from memory" else None),
        (f"{kind}, the same, all four buckets its own", own, all_own, all_own, None),
    ]
    make = KINDS[kind]
    first = Subject(f"{kind}, {few} buckets", partial(Crowd(alike, make(), few, few).decision, times))
    crowds = [Subject(name, partial(Crowd(scene, make(), agents, calling).decision, times), most)
              for name, scene, agents, calling, most in subjects]  # fmt: skip
    return beside(first, crowds, rounds)


def sizes(live: int = LIVE) -> list[Measured]:
    """What a bucket takes, names that nobody else keeps included, and how many are left once they are full again."""
    found = []
    for parts in (1, 2):
        memory = InMemory()
        taken = _taken(memory, parts, live)
        found.append(_fact(f"a bucket in memory, {parts} in its `by`", taken, BYTES, "bytes"))
        later, beats = now() + HOUR, 0
        while len(memory) and beats < live:
            memory.heartbeat(later)
            beats += 1
        found.append(
            _fact(f"of these left, full again, after {beats} beats, {parts} in its `by`", len(memory), 0, "buckets")
        )
    found.append(_fact("a bucket with a lease, 2 in its `by`", _taken(Leased(), 2, live), None, "bytes"))
    return found


def _fact(name: str, value: float, most: float | None, unit: str) -> Measured:
    return Measured(name, value, value, value, most=most, unit=unit)


def _taken(kept: Buckets, parts: int, live: int) -> float:
    """Bytes that each of so many buckets takes whose subjects have as many parts."""
    charge, begun = Scene().charges("agent")[0], now()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(live):
            agent = f"agent-{number:06d}"
            subject = agent if parts == 1 else (agent, *("tool" for _ in range(parts - 1)))
            kept.fill([charge._replace(bucket=("calls", subject))], begun)
        return (tracemalloc.get_traced_memory()[0] - before) / live
    finally:
        tracemalloc.stop()


def through_the_store(rounds: int, times: int) -> list[Measured]:
    """Decisions that the store makes."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        return asked.rows(Path(folder), rounds, 3 * times)


def gateways(rounds: int, told: list[str]) -> list[Measured]:
    """Whole gateways; what else is to be said of them is added to `told`."""
    found, words = buckets.rows(rounds, loop.Plan())
    told += words
    return found


def judged(suite: Callable[[], list[Measured]]) -> bool:
    """Measure and print; once more where a bound is missed. Whether one is missed both times."""
    missed: set[str] = set()
    for again in (False, True):
        rows = suite()
        print(("\nonce more:\n" if again else "") + text(rows) + "\n", flush=True)
        now_missed = {row.name for row in rows if row.missed}
        missed = missed & now_missed if again else now_missed
        if not missed:
            return False
    print("missed twice: " + "; ".join(sorted(missed)) + "\n")
    return True


def main(argv: list[str]) -> int:
    """Measure and print; 0 measured, 1 no figures, 3 a bound is missed in two runs."""
    parser = argparse.ArgumentParser(prog="python -m bench limits", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--times", type=int, default=4000, help="decisions of one look; asked of the store, three times as many"
    )
    parser.add_argument("--gateway", action="store_true", help="whole gateways, by where their buckets are, instead")
    args = parser.parse_args(argv)
    # As in a worker.
    gc.set_threshold(50_000, 20, 50)
    # A terminated benchmark still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    told: list[str] = []
    suites: list[Callable[[], list[Measured]]] = [partial(gateways, args.rounds, told)]
    if not args.gateway:
        suites = [partial(decisions, args.rounds, args.times)]
        suites += [partial(many, kind, args.rounds, args.times) for kind in KINDS]
        suites += [partial(through_the_store, args.rounds, args.times), sizes]
    try:
        missed = [judged(suite) for suite in suites]
    except (asked.NotAsked, NoStore, Wrong, LostProcess, NotStarted, NotAsMeant, OSError) as exc:
        print(f"no figures: {type(exc).__name__}: {exc}", file=sys.stderr)
        return 1
    print("\n".join([*told, ""]), end="")
    print(f"medians of {args.rounds} rounds, each ratio within its round; the first row of a table is the reference")
    print(footer())
    return 3 if any(missed) else 0
