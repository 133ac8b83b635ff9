"""What README.md shows is true: the configuration is accepted and short, the pages are there, the targets exist."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The first block of a language."""
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found, language
    return found.group(1)


def test_the_configuration_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "fastgw.yaml"
    file.write_text(block("yaml"), encoding="utf-8")
    order = [sys.executable, "-m", "fastgw", "check", "--config", str(file)]
    around = {**os.environ, "DEPLOYMENT_TOKEN": "x"}
    done = subprocess.run(order, capture_output=True, text=True, cwd=ROOT, env=around, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_configuration_has_20_lines() -> None:
    assert len(block("yaml").splitlines()) == 20


def test_the_snippet_is_json() -> None:
    assert json.loads(block("json"))["mcpServers"]["fastgw"]["type"] == "http"


def test_the_client_compiles() -> None:
    compile(block("python"), "README.md", "exec")


def test_the_pages_are_there() -> None:
    pages = set(re.findall(r"\]\(([a-z][^):]*)\)", README))
    assert pages
    assert [page for page in sorted(pages) if not (ROOT / page).is_file()] == []


def test_the_targets_exist() -> None:
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    assert {"run", "test", "check", "bench", "load", "conformance", "soak"} <= targets
