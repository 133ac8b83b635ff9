"""`fastgw backends` at an admin face whose answers a test writes."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fastgw.admin.app import AdminData, serve_admin
from fastgw.admin.instances import OperatorInstances
from fastgw.admin.limits import OperatorLimits
from fastgw.admin.orders import AuditLog
from fastgw.cli.admin_port import TOKEN_ENV
from fastgw.cli.main import main
from fastgw.telemetry.latencies import Latencies
from tests.admin.faces import ask_nobody, no_config, no_quotas, no_usage
from tests.e2e.aside import aside
from tests.upstream.fakes import backend, instance

TOKEN = "right"
Said = pytest.CaptureFixture[str]


@dataclass
class Face:
    """A gateway with one server of two instances, of which one has gone."""

    folder: Path
    url: str = ""
    done: list[tuple[str, str]] = field(default_factory=list)

    async def ask(self, verb: str, args: tuple[Any, ...]) -> list[Any]:
        breaker = {"state": "closed", "until": 0.0, "opened": 0, "why": "", "since": 0.0, "failures": 0}
        usual = {"in_flight": 2, "calls": 4, "latency_ms": 12.34, "last_error": None, "taken_over_by": None}
        gone = {**usual, "in_flight": 0, "last_error": ("cannot\n\x1b[2Jconnect", 60.0)}
        opened = {**breaker, "state": "open", "until": time.monotonic() + 21.44}
        return [{"shop|http://a/mcp": {**usual, "breaker": breaker}, "shop|http://b/mcp": {**gone, "breaker": opened}}]

    def told(self, key: str) -> dict[str, Any]:
        is_gone = key == "shop|http://b/mcp"
        health = "unhealthy" if is_gone else "healthy"
        drained = {"who": "me", "at": 1.0} if is_gone else None
        return {"health": health, "checked_at": 1.0, "health_error": "", "drained": drained}


@asynccontextmanager
async def admin_face(folder: Path) -> AsyncIterator[Face]:
    face = Face(folder)
    of = backend(instances=(instance("modern"), instance("modern", "http://b/mcp")))
    instances = OperatorInstances(
        face.ask, lambda: [of], lambda: {"shop": {"instances": [{"era": "modern"}, {"era": None}]}}, face.told,
        lambda do, _, key, __: face.done.append((do, key)), AuditLog(folder / "audit.jsonl"),
    )  # fmt: skip
    limits = OperatorLimits(ask_nobody, tuple, AuditLog(folder / "audit.jsonl"))
    listener = socket.create_server(("127.0.0.1", 0))
    face.url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    async def never_asked() -> dict[str, Any]:
        return {}

    runner = await serve_admin(
        listener,
        AdminData(never_asked, str, instances, dict, limits, Latencies(), no_config(), no_quotas(), no_usage()),
        TOKEN,
    )
    try:
        yield face
    finally:
        await runner.cleanup()


@pytest.fixture
def face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Face]:
    monkeypatch.setenv(TOKEN_ENV, TOKEN)
    with aside() as loop:
        yield loop.enter(admin_face(tmp_path))


def test_every_instance_is_a_row_and_nothing_in_it_commands_the_terminal(face: Face, capsys: Said) -> None:
    assert main(["backends", "--admin", face.url]) == 0
    head, one, two = capsys.readouterr().out.splitlines()
    assert head.split("  ")[0] == "instance"
    assert one.split() == ["shop/1", "a:80", "modern", "healthy", "closed", "2", "12.3", "-"]
    words = two.split()
    assert words[:6] == ["shop/2", "b:80", "-", "unhealthy,", "drained", "open,"]
    assert two.endswith(r" 0          12.3        1970-01-01T00:01:00Z cannot\n\x1b[2Jconnect")


def test_json_is_the_answer_as_it_came(face: Face, capsys: Said) -> None:
    assert main(["backends", "--json", "--admin", face.url]) == 0
    (server,) = json.loads(capsys.readouterr().out).values()
    assert [one["health"] for one in server["instances"]] == ["healthy", "unhealthy"]


@pytest.mark.parametrize("order", ["drain", "open", "close"])
def test_an_order_names_its_instance_as_the_table_does_or_by_address(face: Face, capsys: Said, order: str) -> None:
    assert main(["backends", order, "shop/2", "--admin", face.url]) == 0
    assert main(["backends", "--admin", face.url, order, "shop/a:80"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"shop/2 (b:80): {order}", f"shop/a:80 (a:80): {order}"]
    assert face.done == [(order, "shop|http://b/mcp"), (order, "shop|http://a/mcp")]


def test_what_the_gateway_refuses_it_says_itself(face: Face, capsys: Said) -> None:
    assert main(["backends", "drain", "shop/3", "--admin", face.url]) == 1
    said = capsys.readouterr().err
    assert said == "fastgw: refused (400): shop has no instance 3; there are 1 (a:80), 2 (b:80)\n"
    assert face.done == []


@pytest.mark.parametrize("instance", ["shop", "shop/", ""])
def test_what_names_no_instance_is_typed_wrong(face: Face, capsys: Said, instance: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["backends", "drain", instance, "--admin", face.url])
    assert ended.value.code == 2
    assert "must be server/number, such as data/2" in capsys.readouterr().err


def test_where_nobody_answers_it_says_so_and_does_not_go_on(tmp_path: Path, capsys: Said) -> None:
    assert main(["backends", "--watch", "--admin", "http://127.0.0.1:1"]) == 1
    assert capsys.readouterr().err != ""
