"""`fastgw stats` as it is typed, at a real admin face whose latencies the test has counted."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fastgw.admin.app import AdminData, serve_admin
from fastgw.admin.limits import OperatorLimits
from fastgw.admin.orders import AuditLog
from fastgw.cli.main import main
from fastgw.telemetry.counters import Counters
from fastgw.telemetry.latencies import Latencies
from tests.admin.faces import ask_nobody, no_config, no_instances, no_quotas, no_usage
from tests.e2e.aside import aside

Said = pytest.CaptureFixture[str]
HEAD = "tool    server  outcome  stage     calls  p50    p90     p95     p99     p99.9   max"
ROWS = [
    "search  docs    ok       total     2      1.500  20.015  20.015  20.015  20.015  20.015",
    "search  docs    ok       upstream  2      1.250  19.759  19.759  19.759  19.759  19.759",
    "search  docs    ok       overhead  2      0.250  0.250   0.250   0.250   0.250   0.250",
]


@asynccontextmanager
async def admin_face(latencies: Latencies) -> AsyncIterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    limits = OperatorLimits(ask_nobody, tuple, AuditLog(Path("nowhere")))
    data = AdminData(dict, str, no_instances(), dict, limits, latencies, no_config(), no_quotas(), no_usage())  # type: ignore[arg-type]
    runner = await serve_admin(listener, data, None)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
def latencies() -> Latencies:
    counters = Counters()
    for seconds in (0.0015, 0.02):
        counters.call(("search", "docs", "ok"), int(seconds * 1e6), 250, 1)
    delta = counters.take()
    assert delta is not None
    found = Latencies()
    found.merge(delta.calls)
    return found


@pytest.fixture
def admin(latencies: Latencies) -> Iterator[str]:
    with aside() as loop:
        yield loop.enter(admin_face(latencies))


def test_all_windows_are_aligned_tables(admin: str, capsys: Said) -> None:
    assert main(["stats", "--admin", admin]) == 0
    minute, hour, start = capsys.readouterr().out.split("\n\n")
    assert minute.splitlines() == ["last minute, milliseconds", HEAD, *ROWS]
    assert hour.splitlines() == ["last hour, milliseconds", HEAD, *ROWS]
    assert start.splitlines() == ["since the start, milliseconds", HEAD, *ROWS]


def test_one_window_and_json(admin: str, capsys: Said) -> None:
    assert main(["stats", "--admin", admin, "--window", "1h", "--json"]) == 0
    windows = json.loads(capsys.readouterr().out)["windows"]
    assert list(windows) == ["1h"]
    names = {"tool": "search", "server": "docs", "outcome": "ok", "stage": "overhead", "count": 2}
    assert windows["1h"][2] == names | dict.fromkeys(("p50", "p90", "p95", "p99", "p999", "max"), 0.25)


def test_watching_goes_on_until_it_is_stopped(admin: str, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    assert main(["stats", "--admin", admin, "--window", "1m", "--watch"]) == 130
    assert slept == [2.0] * 3
    assert capsys.readouterr().out.splitlines() == ["last minute, milliseconds", HEAD, *ROWS] * 3


def test_nothing_called_is_said(latencies: Latencies, capsys: Said) -> None:
    with aside() as loop:
        admin = loop.enter(admin_face(Latencies()))
        assert main(["stats", "--admin", admin, "--window", "start"]) == 0
    assert capsys.readouterr().out == "since the start, milliseconds\nno calls\n"


def test_logs_are_written_and_added_up(admin: str, tmp_path: Path, capsys: Said) -> None:
    a, b = str(tmp_path / "a.hlog"), str(tmp_path / "b.hlog")
    assert main(["stats", "--admin", admin, "--hlog", a]) == 0
    assert main(["stats", "--admin", admin, "--hlog", b, "--window", "1m"]) == 0
    assert capsys.readouterr().out == ""
    assert Path(a).read_text().startswith("#[")
    assert main(["stats", a, b]) == 0
    double = [row.replace("  2      ", "  4      ") for row in ROWS]
    assert capsys.readouterr().out.splitlines() == ["all logs, milliseconds", HEAD, *double]


@pytest.mark.parametrize("words", [["nowhere.hlog"], ["--hlog", "no/such/folder", "--admin", "ADMIN"]])
def test_what_cannot_be_read_or_written_is_said(admin: str, words: list[str], capsys: Said) -> None:
    assert main(["stats", *(word.replace("ADMIN", admin) for word in words)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "No such file" in said.err


def test_without_the_package_the_log_alone_is_missing(
    admin: str, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "hdrh.histogram", None)
    assert main(["stats", "--admin", admin, "--hlog", "x"]) == 1
    assert "hdrhistogram is not installed beside the gateway" in capsys.readouterr().err
    assert main(["stats", "--admin", admin]) == 0


def test_there_is_no_other_window(admin: str, capsys: Said) -> None:
    for path in ("stats", "stats.hlog"):
        assert main(["limits", "--admin", f"{admin}/{path}?window=2h&"]) == 1
        assert "there is no window '2h'; there are 1m, 1h, start" in capsys.readouterr().err
