"""`fastgw catalogue lock` as it is typed, at a real admin face whose servers' tools the test has written."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fastgw.admin.app import AdminData, serve_admin
from fastgw.admin.limits import OperatorLimits
from fastgw.admin.orders import AuditLog
from fastgw.cli.main import main
from fastgw.config.reader import read_lock
from fastgw.telemetry.latencies import Latencies
from tests.admin.faces import ask_nobody, no_config, no_instances, no_quotas, no_usage
from tests.e2e.aside import aside

Said = pytest.CaptureFixture[str]


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, **more}


@dataclass
class Desk:
    """A gateway's admin port, its servers' tools (None: it has never answered), and the folder of its configuration."""

    folder: Path
    servers: dict[str, list[dict[str, Any]] | None] = field(default_factory=dict)
    url: str = ""

    @property
    def file(self) -> Path:
        return self.folder / "fastgw.lock"

    def definitions(self) -> dict[str, Any]:
        return {
            name: None if tools is None else json.dumps(tools, ensure_ascii=False)
            for name, tools in self.servers.items()
        }

    def lock(self, *options: str) -> int:
        config = str(self.folder / "fastgw.yaml")
        return main(["catalogue", "lock", "--config", config, "--admin", self.url, *options])

    def pinned(self) -> dict[str, list[str]]:
        return {name: [one.key for one in tools] for name, tools in read_lock(self.file).items()}


@asynccontextmanager
async def admin_face(desk: Desk) -> AsyncIterator[Desk]:
    listener = socket.create_server(("127.0.0.1", 0))
    limits = OperatorLimits(ask_nobody, tuple, AuditLog(Path("nowhere")))
    parts: tuple[Any, ...] = no_instances(), dict, limits, Latencies(), no_config(), no_quotas(), no_usage()
    runner = await serve_admin(listener, AdminData(dict, str, *parts, definitions=desk.definitions), None)  # type: ignore[arg-type]
    desk.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        yield desk
    finally:
        await runner.cleanup()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    servers = {"b": [tool("y"), tool("x", title="Größe")], "a": [tool("z")], "silent": None}
    with aside() as loop:
        yield loop.enter(admin_face(Desk(tmp_path, servers)))


def test_it_is_written_sorted_and_written_again_only_where_it_is_another(desk: Desk, capsys: Said) -> None:
    assert desk.lock("--check") == 1 and not desk.file.exists()
    assert desk.lock() == 0
    said = capsys.readouterr().out
    assert "+ b: 2 tools" in said and "not pinned, for they have never answered: silent" in said
    assert desk.pinned() == {"a": ["z"], "b": ["x", "y"]}
    assert "Größe" in desk.file.read_text("utf-8")
    before = desk.file.stat().st_mtime_ns, desk.file.read_bytes()
    desk.servers["b"] = [*reversed(desk.servers["b"] or [])]
    assert desk.lock() == 0 == desk.lock("--check")
    assert (desk.file.stat().st_mtime_ns, desk.file.read_bytes()) == before


def test_what_changes_is_shown_word_by_word(desk: Desk, capsys: Said) -> None:
    desk.servers["a"] = [tool("z", description="One.\nTwo."), tool("gone")]
    assert desk.lock() == 0
    desk.servers["a"] = [tool("z", description="One.\nTwo \u202ethree.", title="T"), tool("new")]
    capsys.readouterr()
    assert desk.lock("--check") == 1
    said = capsys.readouterr().out
    assert "! a/z: has invisible characters (U+202E) in description" in said
    assert "~ a/z: description, title" in said and "+ a/new: new" in said and "- a/gone: removed" in said
    assert '-    Two."' in said and '+    Two \\u202ethree."' in said and '+ "title": "T"' in said
    assert desk.lock("--check", "--json") == 1
    rows = json.loads(capsys.readouterr().out)["changes"]
    assert [(row["server"], row["tool"], row["kind"]) for row in rows] == [
        ("a", "z", "changed"),
        ("a", "new", "new"),
        ("a", "gone", "removed"),
    ]


def test_a_server_writes_no_line_of_its_own(desk: Desk, capsys: Said) -> None:
    forged = "x: title\n- b/forged: removed\n+"
    assert desk.lock() == 0
    desk.servers["a"] = [tool("z", **{"t\n- b/member: removed": 1}), tool(forged, title="\u200b"), tool("\x1b[2J")]
    assert desk.lock() == 0
    said = capsys.readouterr().out
    assert "+ a/x: title\\n- b/forged: removed\\n+: new" in said
    assert "\n- b/" not in said and "\x1b" not in said


def test_what_is_too_long_to_be_compared_is_shown_whole(desk: Desk, capsys: Said) -> None:
    before, after = (tool("z", title="\n".join(str(line * by % 100) for line in range(2500))) for by in (1, 7))
    desk.servers["a"] = [before]
    assert desk.lock() == 0
    desk.servers["a"] = [after]
    assert desk.lock() == 0
    said = capsys.readouterr().out.split("\n")
    assert sum(line.startswith("    -") for line in said) == sum(line.startswith("    +") for line in said) > 2500


def test_a_link_stays_one(desk: Desk) -> None:
    there = desk.folder / "versioned.lock"
    there.write_bytes(b'{"format":1,"servers":{}}')
    desk.file.symlink_to(there)
    assert desk.lock() == 0
    assert desk.file.is_symlink() and len(read_lock(there)) == 2


def test_one_server_alone_leaves_the_others(desk: Desk, capsys: Said) -> None:
    assert desk.lock() == 0
    desk.servers |= {"a": [tool("other")], "b": [], "silent": [tool("s")]}
    assert desk.lock("--server", "a", "--server", "silent") == 0
    assert desk.pinned() == {"a": ["other"], "b": ["x", "y"], "silent": ["s"]}
    assert desk.lock("--server", "nobody") == 2
    assert "nobody is no server that has answered; these are: b, a, silent" in capsys.readouterr().err


def test_what_has_never_answered_stays_and_what_is_no_server_goes(desk: Desk, capsys: Said) -> None:
    assert desk.lock() == 0
    desk.servers = {"a": None, "c": [tool("c")]}
    assert desk.lock() == 0
    assert desk.pinned() == {"a": ["z"], "c": ["c"]}
    assert "- b: it is no server of the gateway" in capsys.readouterr().out


def test_what_cannot_be_told_is_two(desk: Desk, capsys: Said) -> None:
    desk.file.write_text("{")
    assert desk.lock("--check") == 2
    assert "fastgw.lock:1:1: is no JSON" in capsys.readouterr().err
    desk.file.unlink()
    desk.url = "http://127.0.0.1:9"
    assert desk.lock("--check") == 2
