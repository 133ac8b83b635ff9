"""The matrix: which suite runs against which kind of server, and the table that comes of it.

Knows: the cells, the command line, the table. What a failure is, `verdict.py` decides.

    python -m tests.conformance [--all] [--direct] [--cell 2026-07-28/dual] [--scenario caching] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conformance import cell, suite
from tests.conformance.verdict import Outcome, Terms, judge_cell, read_terms

_SAME_ERA = ("2025-11-25/legacy", "2026-07-28/modern", "2025-11-25/dual", "2026-07-28/dual")
ALONE = tuple(f"{name}/alone" for name in _SAME_ERA)
GATED = (*ALONE, *_SAME_ERA)
REPORTED = ("2025-11-25/modern", "2026-07-28/legacy")
DECOYS = {
    "tools-list": ("tools", {"decoy_echo", "decoy_count", "decoy_shout"}),
    "prompts-list": ("prompts", {"decoy_prompt"}),
    "resources-list": ("resources", {"decoy://notes"}),
}
"""Scenarios that show in their `details` what was listed, and what of it is the decoy's."""
NOT_REQUIRED = "tasks-"
"""Scenarios of an extension that neither the fixture nor the gateway speaks."""


def decoy_check(results: dict[str, list[dict[str, Any]]]) -> None:
    """Adds a check of ours to each list: what the decoy offers must be there, or nothing was brought together."""
    for scenario, (member, wanted) in DECOYS.items():
        for check in list(results.get(scenario, [])):
            if check["id"] == scenario and check["status"] == "SUCCESS":
                missing = sorted(wanted - set((check.get("details") or {}).get(member) or []))
                status = "FAILURE" if missing else "SUCCESS"
                words = f"missing {missing}"
                results[scenario].append({"id": "decoy-listed", "status": status, "errorMessage": words})


def run_cell(name: str, options: argparse.Namespace, place: Path) -> dict[str, list[dict[str, Any]]]:
    """The suite's checks by scenario for one cell."""
    revision, era = name.split("/")[:2]
    place.mkdir(parents=True, exist_ok=True)
    before = cell.direct if options.direct else cell.alone if name in ALONE else cell.beside_decoy
    with before(era, place) as url:
        results = suite.serve_tests(url, revision, place / "results", options.scenario)
    if before is cell.beside_decoy:
        decoy_check(results)
    return results


def terms_of(options: argparse.Namespace, results: dict[str, list[dict[str, Any]]], revision: str) -> Terms:
    """What this cell is held to: a direct run to everything that is required, without an excuse."""
    if options.direct:
        return Terms({revision: sorted(name for name in results if not name.startswith(NOT_REQUIRED))})
    terms = read_terms()
    if options.scenario is not None:
        terms.gated = {key: [one for one in value if one == options.scenario] for key, value in terms.gated.items()}
    return terms


def print_outcomes(name: str, outcomes: list[Outcome]) -> None:
    """The rows of one cell, then what failed and what was excused."""
    for one in outcomes:
        counts = (len(one.passed), len(one.failed), len(one.excused), len(one.other))
        print(f"{name:24} {one.scenario:40} {counts[0]:6} {counts[1]:6} {counts[2]:7} {counts[3]:6}")
    verdict = "reported" if name in REPORTED else "FAILED"
    for one in outcomes:
        for check, words in one.failed.items():
            print(f"  {verdict}  {name} {one.scenario} {check}: {words}")


def print_rest(name: str, outcomes: list[Outcome]) -> None:
    """The scenarios that are run but not counted, in two lines."""
    whole = [one.scenario for one in outcomes if not one.failed]
    partly = [one.scenario for one in outcomes if one.failed]
    print(f"{name:24} not counted, passing: {', '.join(whole) or 'none'}")
    print(f"{name:24} not counted, failing: {', '.join(partly) or 'none'}\n")


def run_all(options: argparse.Namespace, place: Path) -> tuple[int, int]:
    """Runs the cells and prints them; passed and failed checks of those that are gated."""
    passed = failed = 0
    cells = options.cell or [*GATED, *(REPORTED if options.all else ())]
    print(f"{'suite/server':24} {'scenario':40} passed failed excused other")
    for name in cells:
        try:
            results = run_cell(name, options, place / name.replace("/", "-"))
        except (cell.StartError, suite.SuiteError) as error:
            print(f"  FAILED  {name}: {error}")
            failed += 1
            continue
        revision = name.split("/")[0]
        counted, rest = judge_cell(revision, results, terms_of(options, results, revision))
        print_outcomes(name, counted)
        print_rest(name, rest)
        if name not in REPORTED:
            passed += sum(len(one.passed) for one in counted)
            failed += sum(len(one.failed) for one in counted)
    return passed, failed


@contextlib.contextmanager
def folder(keep: Path | None) -> Iterator[Path]:
    """Where results and logs go: `keep`, or a folder that is gone afterwards."""
    if keep is not None:
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="conformance-") as name:
        yield Path(name)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description="Run the official MCP suite")
    parser.add_argument("--direct", action="store_true", help="against the fixture itself, without the gateway")
    parser.add_argument("--all", action="store_true", help="cross-era cells too: reported, never counted")
    parser.add_argument("--cell", action="append", choices=[*GATED, *REPORTED], help="only this one (repeatable)")
    parser.add_argument("--scenario", help="only this one; the table and the closing line then speak of it alone")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep results and logs there")
    options = parser.parse_args(argv)
    try:
        suite.prepare()
    except suite.SuiteError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    with folder(options.keep) as place:
        passed, failed = run_all(options, place)
    print(f"{passed} passed, {failed} failed")
    counted = options.cell is None or any(name not in REPORTED for name in options.cell)
    return 1 if failed or (counted and not passed) else 0


if __name__ == "__main__":
    sys.exit(main())
