"""The official conformance suite: getting it, running it, reading what it found.

Knows: the npm package (`package.json` beside this file, locked with integrity hashes and without any registry's
address), the suite's command line and result files.
Refuses to know: what is run against, and what the results are worth.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PLACE = ROOT / ".venv" / "conformance-suite"
PROGRAM = PLACE / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
STAMPED = re.compile(r"-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-\d+Z$")
PATIENCE = 300
"""Seconds for one run of a whole revision; it takes about ten."""


class SuiteError(Exception):
    """The suite could not be had or could not be run."""


def prepare() -> None:
    """The suite and its Node under `.venv/conformance-suite`; nothing is done where they are there already.

    Raises:
        SuiteError: a package index or the npm registry did not give them.
    """
    python = getattr(sys, "_base_executable", None) or sys.executable  # the environment's own one may lack pip
    order = [python, str(ROOT / "requirements" / "npm.py"), str(HERE.relative_to(ROOT)), PLACE.name]
    if subprocess.run(order, cwd=ROOT, check=False).returncode:
        raise SuiteError("the suite could not be installed")


def serve_tests(url: str, revision: str, place: Path, scenario: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """Runs everything the suite has for servers of `revision`, or one scenario, against `url`.

    Args:
        url: of an MCP endpoint, with `localhost` for its host.
        place: folder for the suite's results and its own words (`suite.txt`), emptied first.

    Returns:
        Checks by scenario: objects with `id`, `status`, `errorMessage`, `details`.

    Raises:
        SuiteError: it wrote no result at all.
    """
    which = ["--requirements", revision] if scenario is None else ["--scenario", scenario, "--spec-version", revision]
    return _run(["server", "--url", url, *which], place, "server-")


def client_test(command: str, revision: str, place: Path, scenario: str) -> list[dict[str, Any]]:
    """Lets the suite play the server of one scenario: it runs `command` with its URL added, and judges what arrived.

    Raises:
        SuiteError: it wrote no result at all.
    """
    order = ["client", "--command", command, "--scenario", scenario, "--spec-version", revision, "--timeout", "60000"]
    order += ["--force"] if scenario.startswith("auth/") else []  # extensions are of no revision
    return next(iter(_run(order, place, "").values()))


def _run(order: list[str], place: Path, prefix: str) -> dict[str, list[dict[str, Any]]]:
    shutil.rmtree(place, ignore_errors=True)  # an older result must not stand in for one that is missing now
    place.mkdir(parents=True)
    whole = [str(PLACE / "node"), str(PROGRAM), *order, "-o", str(place)]
    with (place / "suite.txt").open("w") as words:
        subprocess.run(whole, cwd=ROOT, stdout=words, stderr=subprocess.STDOUT, check=False, timeout=PATIENCE)
    results: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(one for one in place.rglob("checks.json") if one.parent.name.startswith(prefix)):
        results[STAMPED.sub("", file.parent.name.removeprefix(prefix))] = json.loads(file.read_text())
    if not results:
        raise SuiteError(f"the suite wrote no result:\n{(place / 'suite.txt').read_text()[-2000:]}")
    return results
