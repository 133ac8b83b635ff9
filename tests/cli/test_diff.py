"""`fastgw diff` of two files, and its exit codes, which are those of diff(1)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastgw.cli.main import main
from fastgw.upstream.discovery.kept import store
from tests.e2e.ports import free_port
from tests.snapshot.compiling import HASH, catalogue

Said = pytest.CaptureFixture[str]
BASE: dict[str, Any] = {
    "servers": {"one": {"url": "http://127.0.0.1:9/one"}},
    "agents": {"bot": {"key": HASH}},
    "limits": [{"name": "l", "by": ["agent"], "rate": "10/minute"}],
}


def written(folder: Path, name: str, **more: Any) -> str:
    file = folder / name
    file.write_text(json.dumps({**BASE, **more}))
    return str(file)


@pytest.fixture
def old(tmp_path: Path) -> str:
    store(tmp_path / "data" / "catalogue", catalogue("one", "read", "write"), {})
    return written(tmp_path, "old.yaml")


def test_no_change(tmp_path: Path, old: str, capsys: Said) -> None:
    assert main(["diff", old, written(tmp_path, "new.yaml")]) == 0
    assert capsys.readouterr().out == "no change\n"


def test_what_changes_is_listed(tmp_path: Path, old: str, capsys: Said) -> None:
    more = {
        "servers": {
            "one": {"url": "http://127.0.0.1:9/one", "tools": ["read"]},
            "new": {"url": "http://127.0.0.1:9/n"},
        },
        "limits": [{"name": "l", "by": ["agent"], "rate": "20/minute"}],
        "timeout": "30s",
    }
    assert main(["diff", old, written(tmp_path, "new.yaml", **more)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "- /mcp: tool write -> one/write",
        "! /mcp: bot: loses write",
        "+ servers.one.tools",
        "+ servers.new",
        "~ limits.l.rate: 10/minute -> 20/minute",
        "~ timeout: 55 -> 30",
        "not known is what these bring, which have never answered: new",
    ]


def test_as_json(tmp_path: Path, old: str, capsys: Said) -> None:
    assert main(["diff", "--json", old, written(tmp_path, "new.yaml", timeout="30s")]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["settings"] == [{"setting": "timeout", "change": "changed", "before": 55.0, "after": 30.0}]


def test_a_file_that_cannot_be_used_is_2_and_says_where(tmp_path: Path, old: str, capsys: Said) -> None:
    (tmp_path / "bad.yaml").write_text("workres: 2\n")
    assert main(["diff", old, str(tmp_path / "bad.yaml")]) == 2
    assert "bad.yaml:1:1: " in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 3])
def test_two_files_or_none(old: str, count: int) -> None:
    assert main(["diff", *[old] * count]) == 2


def test_nobody_answers(tmp_path: Path, old: str, capsys: Said) -> None:
    assert main(["diff", "--admin", f"http://127.0.0.1:{free_port()}"]) == 2
    assert capsys.readouterr().err


def test_long_lists_are_cut_short(tmp_path: Path, capsys: Said) -> None:
    agents = {f"agent-{at:02}": {"key": f"sha256:{at:064x}"} for at in range(20)}
    store(tmp_path / "data" / "catalogue", catalogue("one", "read", "write"), {})
    sides = [written(tmp_path, f"{allow}.yaml", agents=agents, policies=[{"name": "p", "allow": [allow]}])
             for allow in ("read", "write")]  # fmt: skip
    assert main(["diff", *sides]) == 1
    names = ", ".join(f"agent-{at:02}" for at in range(8))
    assert f"! /mcp: {names} and 12 more: gains write; loses read" in capsys.readouterr().out
