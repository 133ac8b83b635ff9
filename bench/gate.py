"""The gate: ratios of this run against ratios that were committed; only a repeat makes a failure.

The file: `{"tolerance": 0.2, "ratios": {"nginx": {"fastgw modern > modern": 3.4}}}`.
A row without a committed ratio, or a reference the file does not know, is not judged: that is said, and passes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

Ratios = Mapping[str, float]
"""Row name to ratio."""


def renew(file: Path, reference: str, measured: Ratios) -> None:
    """Write the measured ratios in place of this reference's; other references and the tolerance stay."""
    known = json.loads(file.read_text()) if file.exists() else {"tolerance": 0.2, "ratios": {}}
    known["ratios"][reference] = {name: round(ratio, 2) for name, ratio in measured.items()}
    file.write_text(json.dumps(known, indent=1) + "\n")


def judge(file: Path, reference: str, measured: Ratios, again: Callable[[Collection[str]], Ratios]) -> list[str]:
    """What is confirmed to cost more than it may, in words; empty: the gate is passed.

    Args:
        file: what was committed, and by what share of it a ratio may exceed its own (`tolerance`).
        reference: what the ratios are to.
        measured: of this run.
        again: measures once more, at least the rows that are named; called only where the first run is over.
    """
    baseline = json.loads(file.read_text())
    committed, most = baseline["ratios"].get(reference, {}), 1 + baseline["tolerance"]
    for name in sorted(measured.keys() - committed.keys()):
        print(f"gate: {name} has no committed ratio to {reference} and is not judged")

    def over(found: Ratios, names: Collection[str]) -> dict[str, float]:
        return {name: found[name] for name in names if found[name] > committed[name] * most}

    first = over(measured, [name for name in measured if name in committed])
    if not first:
        return []
    print(f"gate: once more: {', '.join(sorted(first))}", flush=True)
    return [
        f"{name}: {ratio:.2f}x {reference}, at most {committed[name] * most:.2f}x (committed {committed[name]:.2f}x)"
        for name, ratio in over(again(first), first).items()
    ]


def passed(file: Path, reference: str, measured: Ratios, again: Callable[[Collection[str]], Ratios]) -> int:
    """Judge and say so; 0 or, where something is confirmed to cost too much, 3."""
    failures = judge(file, reference, measured, again)
    for failure in failures:
        print(f"gate: confirmed by a repeat: {failure}")
    return 3 if failures else 0
