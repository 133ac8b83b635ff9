"""The regression gate: ratios of this run against ratios that were committed; only a repeat makes a failure.

Knows: a file `{"tolerance": 0.2, "ratios": {"nginx": {"fastgw modern > modern": 3.4}}}`. Refuses to know: seconds.
A row without a committed ratio, or a reference the file does not know, is not judged: that is said, and passes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

Ratios = Mapping[str, float]
"""Row name to ratio."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """Committed ratios, by reference and row; a ratio may exceed its own by the share `tolerance`."""

    tolerance: float
    ratios: Mapping[str, Ratios]


def load(file: Path) -> Baseline:
    """Read the file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not such a file.
    """
    raw = json.loads(file.read_text())
    if not isinstance(raw, dict) or not isinstance(raw.get("ratios"), dict):
        raise ValueError(f"{file}: no object with `ratios`")
    return Baseline(float(raw.get("tolerance", 0.2)), raw["ratios"])


def renew(file: Path, reference: str, measured: Ratios) -> None:
    """Write the measured ratios in place of this reference's; other references and the tolerance stay."""
    old = load(file) if file.exists() else Baseline(0.2, {})
    ratios = {**old.ratios, reference: {name: round(ratio, 2) for name, ratio in measured.items()}}
    file.write_text(json.dumps({"tolerance": old.tolerance, "ratios": ratios}, indent=1) + "\n")


def over(baseline: Baseline, reference: str, measured: Ratios) -> dict[str, str]:
    """The rows that cost more than they may, each with the words that say so."""
    committed = baseline.ratios.get(reference, {})
    limits = {name: ratio * (1 + baseline.tolerance) for name, ratio in committed.items()}
    return {
        name: f"{name}: {ratio:.2f}x {reference}, at most {limits[name]:.2f}x (committed {committed[name]:.2f}x)"
        for name, ratio in measured.items()
        if name in limits and ratio > limits[name]
    }


def judge(baseline: Baseline, reference: str, measured: Ratios, again: Callable[[], Ratios]) -> list[str]:
    """What is confirmed to cost more than it may; empty: the gate is passed.

    Args:
        baseline: what was committed.
        reference: what the ratios are to.
        measured: of this run.
        again: measures once more; called only where the first run is over.
    """
    first = over(baseline, reference, measured)
    if not first:
        return []
    second = over(baseline, reference, again())
    return [second[name] for name in first if name in second]
