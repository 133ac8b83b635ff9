"""Whole gateways that differ in where the buckets of their limits are alone: in memory (the reference), in the embedded
store, nowhere. One worker each, in front of the same server.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from bench import loop
from bench.beside import Measured
from bench.gateway import LIMITS, ON, Behind, Gateway, NotAsMeant
from bench.rounds import Row
from bench.stage import FEW, TOOLS, Setting, Stage

WANTED = 1.15
"""CPU per call with the embedded store, of that in memory (P10)."""
MEMORY, EMBEDDED = "gateway, store: memory", "gateway, store: embedded"
ASKED, NONE = "gateway, store: embedded, each call asked", "gateway, no limits"
LIMITED = replace(ON, quotas=())
"""Quotas are in the store too, and would hide what its buckets cost."""
SETTINGS = {
    MEMORY: LIMITED,
    EMBEDDED: replace(LIMITED, store="embedded"),
    ASKED: replace(LIMITED, store="embedded", limits=tuple({**limit, "exact": True} for limit in LIMITS)),
    NONE: replace(LIMITED, limits=()),
}
DECIDED = {MEMORY: {"memory"}, EMBEDDED: {"lease", "store"}, ASKED: {"store"}, NONE: set[str]()}
"""Who may have decided: anybody else costs less, or more, than what is meant."""
TOLD = 2.0
"""Seconds until a worker has told its controller what it has counted."""


class ByStore(Stage):
    """All of them, running."""

    def build(self) -> None:
        """Start them; the first is the reference."""
        self.reference, self.named = MEMORY, dict[str, Gateway]()
        backend = self.backend("modern", FEW)
        behind = Behind(backend.port, "modern", TOOLS["modern"])
        for name, on in SETTINGS.items():
            self.named[name] = running = self.gateway([behind], on)
            self.add(name, running.pid, running.target(behind, "modern"))

    def decided(self) -> dict[str, dict[str, int]]:
        """Admitted calls of each gateway, by who decided.

        Raises:
            NotAsMeant: it was not who is meant.
        """
        time.sleep(TOLD)
        found = {name: running.decisions() for name, running in self.named.items()}
        for name, decisions in found.items():
            if not decisions.keys() <= DECIDED[name] or (DECIDED[name] and not decisions):
                raise NotAsMeant(f"{name}: decided by {decisions}")
        return found


def rows(rounds: int, plan: loop.Plan) -> tuple[list[Measured], list[str]]:
    """The gateways' rows, and who decided in words.

    Raises:
        NotAsMeant, NotStarted, Wrong, LostProcess, OSError: there are no figures.
    """
    with ByStore(Setting(plan, rounds)) as stage:
        found = stage.measure()
        decided = stage.decided()
    told = [f"{name}: decided by {decisions}" for name, decisions in decided.items() if decisions]
    return [_measured(row) for row in found], [*told, *_busy(found)]


def _busy(rows: Sequence[Row]) -> list[str]:
    return [f"{row.name}: {row.busy:.0%} of a core, {row.rate:.0f} calls/s" for row in rows]


def _measured(row: Row) -> Measured:
    most = WANTED if row.name == EMBEDDED else None
    return Measured(row.name, row.ratio, row.least, row.greatest, row.cpu, most)
