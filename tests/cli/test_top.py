"""`fastgw top` as it is typed: once where there is no terminal, live in a real pseudo-terminal where there is one."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from fastgw.cli.main import main
from tests.e2e.ports import free_port

Said = pytest.CaptureFixture[str]
Pages = dict[str, Any]
HOSTILE = "evil\x1b[2J<script>\n[bold red]\u202e"
SHOWN = "evil\\x1b[2J<script>\\n[bold red]\\u202e"


def row(name: str | None, calls: int, errors: int = 0, p99: float = 80.0, *servers: str) -> dict[str, Any]:
    return {"name": name, "calls": calls, "errors": errors, "p50": 1.25, "p95": 40.0, "p99": p99, "servers": servers}


def instance(health: str, breaker: str, in_flight: int) -> dict[str, Any]:
    return {"address": "h:1", "health": health, "breaker": {"state": breaker}, "in_flight": in_flight}


def pages() -> Pages:
    """What a gateway says that has no `/agents`."""
    total = row(None, 600, 60)
    return {
        "/stats/tools": {
            "seconds": 60.0,
            "total": total,
            "rows": [row("search", 480, 0, 80.0, "docs"), row(HOSTILE, 120, 60, 15_000.4, "docs", "archive")],
        },
        "/stats/servers": {"seconds": 60.0, "total": total, "rows": [row("docs", 600, 60)]},
        "/backends": {
            "docs": {"instances": [instance("healthy", "closed", 2), instance("unhealthy", "open", 1)]},
            "idle": {"instances": [instance("healthy", "closed", 0)]},
        },
        "/anomalies": {"anomalies": [{"says": f"agent {HOSTILE}: 500 calls in this hour", "found": time.time()}]},
    }


AGENTS = {"windows": {"1m": [{"agent": "busy-bot", "calls": 90, "errors": 9, "refused": 4}], "1h": []}}


@contextmanager
def face(shown: Pages, port: int = 0) -> Iterator[str]:
    """An admin port that says this."""

    class Answers(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            found = shown.get(self.path)
            body = b"404: Not Found" if found is None else json.dumps(found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        allow_reuse_address = True
        daemon_threads = True

    server = Server(("127.0.0.1", port), Answers)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_where_stdout_is_no_terminal_everything_is_printed_once(capsys: Said) -> None:
    with face({**pages(), "/agents": AGENTS}) as admin:
        assert main(["top", "--admin", admin]) == 0
    first, unusual, *tables = capsys.readouterr().out.splitlines()
    assert first.endswith("10.0 calls/s  10.0% errors  p99 80.0 ms  1/2 servers ok")
    assert unusual == f"unusual: agent {SHOWN}: 500 calls in this hour"
    assert [re.split(r"  +", line) for line in tables] == [
        [""],
        ["tool", "server", "calls/s", "errors", "p50 ms", "p95 ms", "p99 ms"],
        ["search", "docs", "8.0", "0.0%", "1.2", "40.0", "80.0"],
        [SHOWN, "2 servers", "2.0", "50.0%", "1.2", "40.0", "15,000"],
        [""],
        ["server", "health", "breaker", "busy", "calls/s", "errors", "p50 ms", "p95 ms", "p99 ms"],
        ["docs", "1/2 up", "open", "3", "10.0", "10.0%", "1.2", "40.0", "80.0"],
        ["idle", "1/1 up", "closed", "0", "0.0", "-", "-", "-", "-"],
        [""],
        ["agent", "calls/s", "errors", "refused"],
        ["busy-bot", "1.5", "10.0%", "4"],
    ]


def test_as_json_and_without_agents_or_a_gateway(capsys: Said) -> None:
    with face(pages()) as admin:
        assert main(["top", "--admin", admin, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["tools"]["rows"][1]["name"], told["agents"]) == (HOSTILE, None)
    assert main(["top", "--admin", admin]) == 1
    assert "cannot reach" in capsys.readouterr().err
    with face({**pages(), "/stats/tools": {"strange": 1}}) as admin:
        assert main(["top", "--admin", admin]) == 1
        assert "is this its admin port?" in capsys.readouterr().err


class Terminal:
    """A real pseudo-terminal of 80 columns and 12 lines, with `fastgw top` in it."""

    def __init__(self, admin: str, **environment: str) -> None:
        self.ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 80, 0, 0))
        self.before = termios.tcgetattr(self.theirs)
        around = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        command = [sys.executable, "-m", "fastgw", "top", "--admin", admin, "--every", "0.2"]
        self.process = subprocess.Popen(
            command,
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            env={**around, "TERM": "xterm-256color", **environment},
            start_new_session=True,
        )
        self.raw = ""

    def screen(self) -> list[str]:
        """The lines of what was drawn last, as a whole; of everything where nothing was drawn."""
        drawn = [frame for frame in self.raw.split("\x1b[H") if "[q]uit" in frame]
        last = drawn[-1] if drawn else self.raw
        return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", last).splitlines()]

    def shows(self, look: Callable[[list[str]], object], within: float = 15.0) -> list[str]:
        """The screen as soon as it looks so."""
        end = time.monotonic() + within
        while not look(self.screen()):
            assert time.monotonic() < end, self.raw[-4000:]
            if select.select([self.ours], [], [], 0.05)[0]:
                self.raw += os.read(self.ours, 65536).decode()
        return self.screen()

    def type(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        os.close(self.ours)
        os.close(self.theirs)


@contextmanager
def terminal(admin: str, **environment: str) -> Iterator[Terminal]:
    made = Terminal(admin, **environment)
    try:
        yield made
    finally:
        made.close()


def has(text: str) -> Callable[[list[str]], bool]:
    return lambda lines: any(text in line for line in lines)


def starts(order: list[str], start: int) -> Callable[[list[str]], bool]:
    """Whether rows begin so, in this order, from line `start` on."""
    return lambda lines: [line.split(" ")[0] for line in lines[start : start + len(order)]] == order


def test_it_is_live_in_a_terminal_and_obeys_keys() -> None:
    shown = pages()
    evil = SHOWN.split(" ")[0]
    with face(shown) as admin, terminal(admin) as screen:
        lines = screen.shows(has("search"))
        assert all(len(line) <= 80 for line in lines) and len(lines) <= 12
        assert lines[2].split() == ["tool", "server", "calls/s*", "errors", "p50", "ms", "p95", "ms", "p99", "ms"]
        assert starts(["search", evil], 3)(lines) and "\x1b[31m" in screen.raw
        screen.type("e")
        screen.shows(starts([evil, "search"], 3))
        screen.type("n")
        screen.shows(has("tool*"))
        screen.type("\t")
        assert any(line.split()[:4] == ["docs", "1/2", "up", "open"] for line in screen.shows(has("1/2 up")))
        shown["/backends"]["docs"]["instances"][1] = instance("healthy", "closed", 0)
        screen.shows(has("2/2 up"))
        screen.type("\x1b[Aa")  # an arrow is no letter
        screen.shows(has("does not say which agents"))
        shown["/agents"] = AGENTS
        screen.shows(has("busy-bot"))
        fcntl.ioctl(screen.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 70, 0, 0))
        screen.shows(lambda lines: 65 < max(map(len, lines)) <= 70)
        screen.type("q")
        assert screen.process.wait(10) == 0
        assert termios.tcgetattr(screen.theirs) == screen.before
        assert not re.search("\x1b\\[2J|\u202e", screen.raw)


def test_without_colour_and_with_more_rows_than_lines() -> None:
    shown = pages()
    shown["/stats/tools"]["rows"] += [row(f"tool-{number:02}", 50 - number) for number in range(20)]
    with face(shown) as admin, terminal(admin, NO_COLOR="1") as screen:
        lines = screen.shows(has("more"))
        assert len(lines) == 12 and lines[-1].endswith("14 more")
        assert not re.search(r"\x1b\[(?:\d+;)*[34][0-9]", screen.raw)


def test_a_gateway_that_is_away_is_said_and_waited_for() -> None:
    port = free_port()
    with terminal(f"http://127.0.0.1:{port}") as screen:
        assert screen.shows(has("cannot reach"))[0] == "fastgw: no answer yet"
        with face(pages(), port):
            screen.shows(lambda lines: has("search")(lines) and not has("no answer")(lines))
        assert has("search")(screen.shows(has("no answer since")))
        with face(pages(), port):
            screen.shows(lambda lines: has("search")(lines) and not has("no answer")(lines))
        screen.type("q")
        assert screen.process.wait(10) == 0


def test_a_dumb_terminal_gets_it_once() -> None:
    with face(pages()) as admin, terminal(admin, TERM="dumb") as screen:
        screen.shows(has("idle"))
        assert screen.process.wait(10) == 0
        assert "\x1b" not in screen.raw
