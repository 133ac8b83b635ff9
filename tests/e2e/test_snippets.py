"""What `fastgw keys new --for` prints is run as it stands, against the demo on an IPv6 address."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastgw.cli.snippets import snippet
from tests.e2e.demo import Demo, running
from tests.e2e.ports import free_port
from tests.e2e.tour import TOOLS, given

PATIENCE = 60  # seconds


@pytest.fixture(scope="module")
def place() -> str:
    return f"[::1]:{free_port()}"


@pytest.fixture(scope="module")
def demo(place: str) -> Iterator[Demo]:
    with running("--listen", place) as it:
        yield it


def ran(demo: Demo, order: list[str], folder: Path, **environment: str) -> str:
    """What it says, with the key in its environment."""
    around = {**os.environ, "FASTGW_KEY": demo.key("engineering"), "HOME": str(folder), **environment}
    done = subprocess.run(order, env=around, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown(said: str) -> set[str]:
    return {tool for tool in TOOLS if tool in said}


def test_the_demo_is_where_it_was_told_to_be(demo: Demo, place: str) -> None:
    assert demo.endpoint == f"http://{place}/mcp"
    assert demo.admin.startswith("http://127.0.0.1:"), "operators' port has no token"


def test_python(demo: Demo, tmp_path: Path) -> None:
    text = snippet("python", demo.endpoint, "unused")
    assert shown(ran(demo, [sys.executable, "-c", text], tmp_path)) == TOOLS


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_curl(demo: Demo, tmp_path: Path) -> None:
    text = snippet("curl", demo.endpoint, demo.key("engineering"))
    assert shown(ran(demo, ["sh", "-c", text], tmp_path)) == TOOLS


@pytest.mark.node_client
def test_typescript(demo: Demo, tmp_path: Path) -> None:
    packages = Path(given("FASTGW_NODE_CLIENTS", "folder with Node and the clients"))
    (tmp_path / "node_modules").symlink_to(packages / "node_modules")
    module = tmp_path / "snippet.mjs"
    module.write_text(snippet("typescript", demo.endpoint, "unused").replace("#", "//"), encoding="utf-8")
    assert shown(ran(demo, [str(packages / "node"), str(module)], tmp_path)) == TOOLS


@pytest.mark.node_client
def test_inspector(demo: Demo, tmp_path: Path) -> None:
    packages = Path(given("FASTGW_NODE_CLIENTS", "folder with Node and the clients")).resolve()
    program = packages / "node_modules" / "@modelcontextprotocol" / "inspector" / "clients/launcher/build/index.js"
    text = snippet("inspector", demo.endpoint, demo.key("engineering"))
    text = text.replace("npx -y @modelcontextprotocol/inspector", f"'{packages / 'node'}' '{program}'")
    assert shown(ran(demo, ["sh", "-c", text], tmp_path)) == TOOLS
