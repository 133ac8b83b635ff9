"""One request of each kind costs as many calls, instructions and objects as is committed, neither more nor less."""

from __future__ import annotations

import subprocess
import sys

from bench import counts


def test_every_kind_costs_what_is_committed() -> None:
    # In a process of its own: its clocks stand still.
    run = subprocess.run([sys.executable, "-m", "bench", "counts"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_usual_call_without_limits_enters_few_files() -> None:
    for known in counts.every_version().values():
        assert known.keys() == counts.KINDS.keys()
        assert known[counts.UNLIMITED].files <= counts.MOST_FILES
