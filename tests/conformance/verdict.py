"""What a run of the suite comes to: each check against what is gated and what is excused.

Knows: statuses of the suite's checks, `excused.yaml`. Refuses to know: processes, files of results, how a table looks.
A check id may stand several times in one scenario, once for each case: it fails if one of them fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

EXCUSED = Path(__file__).with_name("excused.yaml")
NEVER_RAN = "the scenario did not run to its end"


@dataclass(frozen=True, slots=True)
class Excuse:
    """One check that may fail; see `excused.yaml`."""

    revision: str
    scenario: str
    check: str
    reason: str


@dataclass(slots=True)
class Terms:
    """What a run is held to.

    Args:
        gated: scenarios that count, by revision.
        excuses: checks of these that may fail.
    """

    gated: dict[str, list[str]]
    excuses: list[Excuse] = field(default_factory=list)


@dataclass(slots=True)
class Outcome:
    """What became of one scenario: check ids, and for failed ones the suite's words."""

    scenario: str
    passed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    excused: dict[str, str] = field(default_factory=dict)
    other: list[str] = field(default_factory=list)
    """Neither passed nor failed: skipped, informative, or a SHOULD that was not met."""


def read_terms(file: Path = EXCUSED) -> Terms:
    """The terms in `file`.

    Raises:
        ValueError: an excuse without a reason, given twice, or for a scenario that is not gated.
    """
    content = yaml.safe_load(file.read_text())
    gated = {str(revision): list(scenarios) for revision, scenarios in content["gated"].items()}
    excuses: list[Excuse] = []
    for entry in content["excused"] or []:
        excuse = Excuse(str(entry["revision"]), entry["scenario"], entry["check"], entry.get("reason") or "")
        if not excuse.reason.strip():
            raise ValueError(f"{excuse.scenario} {excuse.check}: an excuse needs a reason")
        if excuse.scenario not in gated.get(excuse.revision, []):
            raise ValueError(f"{excuse.scenario} {excuse.check}: not gated for {excuse.revision}, so nothing to excuse")
        if any((excuse.revision, excuse.scenario, excuse.check) == (e.revision, e.scenario, e.check) for e in excuses):
            raise ValueError(f"{excuse.scenario} {excuse.check}: excused twice")
        excuses.append(excuse)
    return Terms(gated, excuses)


def judge(scenario: str, checks: Iterable[Mapping[str, Any]], excuses: Iterable[Excuse]) -> Outcome:
    """One scenario's checks, as the suite wrote them, in the light of the excuses of its revision.

    Args:
        checks: members `id`, `status` (SUCCESS, FAILURE, WARNING, SKIPPED, INFO), `errorMessage`.
    """
    outcome = Outcome(scenario)
    statuses: dict[str, set[str]] = {}
    words: dict[str, str] = {}
    for check in checks:
        statuses.setdefault(check["id"], set()).add(check["status"])
        if check["status"] == "FAILURE":
            words.setdefault(check["id"], str(check.get("errorMessage")))
    reasons = {excuse.check: excuse.reason for excuse in excuses if excuse.scenario == scenario}
    for identity, found in statuses.items():
        if "FAILURE" in found:
            (outcome.excused if identity in reasons else outcome.failed)[identity] = words[identity]
        elif "SUCCESS" in found:
            outcome.passed.append(identity)
        else:
            outcome.other.append(identity)
    for identity in reasons.keys() - outcome.excused.keys():
        outcome.failed[f"{identity} (excuse)"] = "stale: this check does not fail any more, take its excuse out"
    if not statuses:
        outcome.failed[scenario] = NEVER_RAN
    return outcome


def judge_cell(
    revision: str, results: Mapping[str, list[dict[str, Any]]], terms: Terms
) -> tuple[list[Outcome], list[Outcome]]:
    """All outcomes of one cell: the gated ones, in the order of the terms, and the rest."""
    excuses = [excuse for excuse in terms.excuses if excuse.revision == revision]
    gated = terms.gated.get(revision, [])
    counted = [judge(scenario, results.get(scenario, []), excuses) for scenario in gated]
    rest = [judge(scenario, checks, []) for scenario, checks in sorted(results.items()) if scenario not in gated]
    return counted, rest
