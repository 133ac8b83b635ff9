"""`fastgw run` before it serves: what it refuses, in which words, and that it says so before a port is taken."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from fastgw.cli.main import main
from fastgw.cli.run import NotSafe, read_plan
from fastgw.config.files import ConfigFiles
from tests.e2e.ports import free_port
from tests.processes.gateway_process import until

ROOT = Path(__file__).resolve().parents[2]
LIMITED = "workers: 1\nservers:\n  few: {command: [x]}\nendpoints:\n  /mcp: {refusals: result}\n"
AGENT = {"a": {"key": f"sha256:{'0' * 64}"}}
WITHIN = 20
ADDRESSES = re.compile(r"agents: (\S+)  operators: (\S+)")


def written(folder: Path, text: str) -> Path:
    file = folder / "fastgw.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_setting_that_would_not_hold_stops_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, LIMITED)
    assert main(["run", "--config", str(file)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert [line for line in lines if line.startswith(f"{file}:3:9: servers.few.command is not active")]
    assert [line for line in lines if line.startswith(f"note: {file}:5:20: endpoints./mcp.refusals is not active")]
    assert lines[-1] == f"{file}: not safe to run as it is; --allow-inactive runs it without these settings"
    assert not (tmp_path / "data").exists(), "nothing was begun"


def test_what_keeps_agents_away_is_told_at_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, f"listen: '[::]:8080'\ndata: {tmp_path}/file\nservers: {{a: {{url: http://h}}}}\n")
    (tmp_path / "file").write_text("no folder", "utf-8")
    assert main(["run", "--config", str(file)]) == 1
    said = capsys.readouterr().err
    for place, words in (("1:1", "there are no agents"), ("1:9", "public_url: http://NAME:8080"), ("3:20", "no path")):
        assert re.search(rf"^note: {re.escape(str(file))}:{place}: .*{words}", said, re.MULTILINE), place


def test_they_can_be_left_out_on_demand(tmp_path: Path) -> None:
    plan = read_plan(written(tmp_path, LIMITED), {}, ConfigFiles(), allow_inactive=True)
    assert plan.workers == 1
    with pytest.raises(NotSafe):
        read_plan(written(tmp_path, LIMITED), {}, ConfigFiles(), allow_inactive=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workres: 2\n", ':1:1: unknown key "workres" (did you mean "workers"?)'),
        ("timeout: 5s\ndrain: soon\n", ":2:8: "),
        ("- a list\n", ":1:1: the file must be a map of settings"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    file = written(tmp_path, text)
    assert main(["run", "--config", str(file)]) == 1
    assert capsys.readouterr().err.startswith(f"{file}{said}")


def test_no_file_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--config", str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["listen", "admin"])
def test_a_port_in_use_is_told_in_one_line(tmp_path: Path, key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        addresses = {"listen": f"127.0.0.1:{free_port()}", "admin": f"127.0.0.1:{free_port()}", key: place}
        file = written(tmp_path, json.dumps({**addresses, "agents": AGENT}))
        ended = subprocess.run(
            [sys.executable, "-m", "fastgw", "run", "--config", str(file)],
            cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=WITHIN, check=False,
        )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr == f"{key}: {place} cannot be taken: Address already in use\n"


def test_the_addresses_it_prints_can_be_asked(tmp_path: Path) -> None:
    """On IPv6, where a host stands in brackets."""
    listen, admin = f"[::1]:{free_port()}", f"[::1]:{free_port()}"
    file = written(tmp_path, json.dumps({"listen": listen, "admin": admin}))
    order = [sys.executable, "-m", "fastgw", "run", "--config", str(file)]
    with subprocess.Popen(order, cwd=ROOT, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert running.stderr is not None
            found = next(found for line in running.stderr if (found := ADDRESSES.search(line)))
            assert found.groups() == (f"http://{listen}", f"http://{admin}")
            until(lambda: status(f"{found[2]}/readyz") == 200, WITHIN)
            assert status(f"{found[1]}/mcp") in (401, 405)
        finally:
            running.terminate()


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=WITHIN) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code
