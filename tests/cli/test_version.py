"""One version everywhere: in the package, on the command line, in what is built."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import fastgw

ROOT = Path(__file__).resolve().parents[2]


def test_the_project_file_says_the_same() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "version" in project.get("dynamic", ()) or project["version"] == fastgw.__version__


def test_the_command_line_says_it_without_the_package_being_installed() -> None:
    # -S: no site-packages, so nothing that an installer could have left there.
    order = [sys.executable, "-S", "-m", "fastgw", "--version"]
    ended = subprocess.run(order, cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
    assert ended.stdout == f"fastgw {fastgw.__version__}\n"
