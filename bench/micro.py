"""`python -m bench micro`: the pieces of a call (`pieces`) by pytest-benchmark, as ratios to a loop of the same run.

Slower than committed by more than the tolerance, twice: exit code 3. All that was measured is kept in `REPORT`.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from bench import gate

ROOT = Path(__file__).parent.parent
FILE, REPORT = ROOT / "bench" / "baseline" / "micro.json", ROOT / "build" / "micro.json"
REFERENCE = f"calibration loop on Python {platform.python_version()}"
"""The ratios of another interpreter are others: one without committed ratios is not judged."""


def ratios(only: Collection[str] = ()) -> dict[str, float]:
    """Thousandths of the loop for each piece; or for those named `only`, kept beside the report of all.

    Raises:
        CalledProcessError: there are no figures.
    """
    report = REPORT.with_stem("micro-again") if only else REPORT
    report.parent.mkdir(exist_ok=True)
    options = f"--benchmark-timer=time.thread_time --benchmark-disable-gc --benchmark-json={report} --benchmark-quiet"
    own = ["-q", "--no-header", "-o", "addopts=--import-mode=importlib -p no:cacheprovider", *options.split()]
    chosen = ["-k", " or ".join(f"test_{name}" for name in only)] if only else []
    subprocess.run([sys.executable, "-m", "pytest", *own, *chosen, "bench/pieces.py"], check=True, cwd=ROOT)
    found = json.loads(report.read_text())["benchmarks"]
    return {one["name"].removeprefix("test_"): one["extra_info"]["ratio"] for one in found}


def main(argv: list[str]) -> int:
    """Measure, print and judge; 0 passed, 1 no figures, 3 something is slower, twice."""
    parser = argparse.ArgumentParser(prog="python -m bench micro", description=__doc__.split("\n")[0])
    parser.add_argument("--renew", action="store_true", help="write the ratios down as those to commit")
    renews = parser.parse_args(argv).renew
    try:
        found = ratios()
        for name, ratio in found.items():
            print(f"{name:24} {ratio:7.2f}")
        if renews:
            gate.renew(FILE, REFERENCE, found)
            return 0
        return gate.passed(FILE, REFERENCE, found, ratios)
    except subprocess.CalledProcessError as exc:
        print(f"no figures: {exc}", file=sys.stderr)
        return 1
