"""`fastgw limits` as it is typed, at a real admin face whose workers the test plays."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fastgw.admin.app import AdminData, serve_admin
from fastgw.admin.limits import OperatorLimits
from fastgw.admin.orders import AuditLog
from fastgw.cli.admin_port import TOKEN_ENV
from fastgw.cli.main import main
from fastgw.config.schema.rules import LimitSettings
from fastgw.limits.quota_script import QUOTA_SOURCE
from fastgw.limits.script import SOURCE
from fastgw.telemetry.latencies import Latencies
from tests.admin.faces import no_config, no_instances, no_quotas, no_usage
from tests.e2e.aside import aside
from tests.e2e.ports import free_port

Said = pytest.CaptureFixture[str]
ROOT = Path(__file__).resolve().parents[2]
TOKEN = "operators' own, ä"
LIMITS = (
    LimitSettings.model_validate({"name": "per-agent", "by": ["agent"], "rate": "60/minute"}),
    LimitSettings.model_validate({"name": "writes", "by": ["claims.team", "tool"], "rate": "10/hour"}),
)
BUCKETS = [
    {"limit": "per-agent", "subject": "tester", "used": 0.9999, "left": 0, "burst": 60, "at_once": False},
    {"limit": "per-agent", "subject": "tester", "used": 0.35, "left": 13, "burst": 20, "at_once": True},
    {"limit": "writes", "subject": "\x1b[2Jred\u202e deploy\nx", "used": 0.1, "left": 9, "burst": 10, "at_once": False},
]
REFUSED = [{"limit": "per-agent", "subject": "tester", "calls": 7}]
FULL = {"store": "up", "buckets": BUCKETS, "refused": REFUSED}
EMPTY: dict[str, Any] = {"store": "memory", "buckets": [], "refused": []}


@dataclass
class Workers:
    """What the gateway's workers answer, and what they were told."""

    port: int
    folder: Path
    report: dict[str, Any] = field(default_factory=lambda: FULL)
    heard: list[dict[str, Any]] = field(default_factory=list)

    async def ask(self, verb: str, args: tuple[Any, ...]) -> list[Any]:
        if verb == "report":
            return [json.loads(json.dumps(self.report))]
        self.heard.append(json.loads(*args))
        return [None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def configured(self, admin: Any) -> str:
        """A configuration with this `admin`."""
        file = self.folder / "fastgw.yaml"
        file.write_text(json.dumps({"admin": admin}), encoding="utf-8")
        return str(file)


async def never_asked() -> dict[str, Any]:
    return {}


@asynccontextmanager
async def admin_face(folder: Path, token: str | None) -> AsyncIterator[Workers]:
    listener = socket.create_server(("127.0.0.1", 0))
    workers = Workers(listener.getsockname()[1], folder)
    limits = OperatorLimits(workers.ask, lambda: LIMITS, AuditLog(folder / "audit.jsonl"))
    data = AdminData(never_asked, str, no_instances(), dict, limits, Latencies(), no_config(), no_quotas(), no_usage())
    runner = await serve_admin(listener, data, token)
    try:
        yield workers
    finally:
        await runner.cleanup()


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    monkeypatch.setenv(TOKEN_ENV, TOKEN)
    with aside() as loop:
        yield loop.enter(admin_face(tmp_path, TOKEN))


@pytest.fixture
def open_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    """One on loopback, without a token."""
    monkeypatch.delenv(TOKEN_ENV, raising=False)
    with aside() as loop:
        yield loop.enter(admin_face(tmp_path, None))


# -- what is shown --------------------------------------------------------------------------------------------------


def test_how_the_limits_stand_is_an_aligned_table(workers: Workers, capsys: Said) -> None:
    assert main(["limits", "--admin", workers.url]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "store: up (1 worker)",
        "",
        "fullest buckets",
        "limit      subject                     used  left",
        "per-agent  tester                      100%  0/60",
        "per-agent  tester                      35%   13/20 at the same time",
        "writes     \\x1b[2Jred\\u202e deploy\\nx  10%   9/10",
        "",
        "refused most",
        "limit      subject  calls",
        "per-agent  tester   7",
    ]
    assert said.err == ""


def test_nothing_to_show_is_no_table(workers: Workers, capsys: Said) -> None:
    workers.report = EMPTY
    assert main(["limits", "--admin", workers.url]) == 0
    assert capsys.readouterr().out == "store: memory (1 worker)\n"


def test_json_is_printed_as_it_came_and_commands_no_terminal(workers: Workers, capsys: Said) -> None:
    assert main(["limits", "--admin", workers.url, "--json"]) == 0
    text = capsys.readouterr().out
    assert json.loads(text)["buckets"] == BUCKETS
    assert text.isascii()
    assert "\x1b" not in text


# -- orders ---------------------------------------------------------------------------------------------------------


def test_a_reset_of_one_bucket_and_of_all(workers: Workers, capsys: Said) -> None:
    assert main(["limits", "reset", "per-agent", "tester", "--admin", workers.url]) == 0
    assert main(["limits", "reset", "per-agent", "--admin", workers.url]) == 0
    assert capsys.readouterr().out == "per-agent tester: full\nper-agent, all buckets: full\n"
    assert [(one["do"], one["limit"], one["subject"]) for one in workers.heard] == [
        ("reset", "per-agent", ["tester"]),
        ("reset", "per-agent", None),
    ]


def test_a_dash_is_the_missing_value(workers: Workers, capsys: Said) -> None:
    assert main(["limits", "reset", "writes", "-", "deploy-web", "--admin", workers.url]) == 0
    assert workers.heard[0]["subject"] == [None, "deploy-web"]
    assert capsys.readouterr().out == "writes - deploy-web: full\n"


def test_a_subject_that_looks_like_an_option(workers: Workers) -> None:
    assert main(["limits", "reset", "--admin", workers.url, "writes", "--", "--json", "-x"]) == 0
    assert workers.heard[0]["subject"] == ["--json", "-x"]


def test_the_answer_to_a_reset_as_json(workers: Workers, capsys: Said) -> None:
    assert main(["limits", "--admin", workers.url, "reset", "per-agent", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["do"] == "reset"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["reset", "nothing"], "fastgw: refused (400): there is no limit 'nothing'; there are per-agent, writes, "),
        (["reset", "writes", "a"], "fastgw: refused (400): subject must be the values of [claims.team, tool], in"),
        (["reset", "\x1b[2J"], "fastgw: refused (400): there is no limit '\\x1b[2J'"),
    ],
)  # fmt: skip
def test_what_the_gateway_refuses_it_says_itself(workers: Workers, capsys: Said, words: list[str], said: str) -> None:
    assert main(["limits", *words, "--admin", workers.url]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(said)
    assert "\x1b" not in told.err
    assert workers.heard == []


# -- the address and the token --------------------------------------------------------------------------------------


def test_address_and_token_stand_in_the_configuration(
    workers: Workers, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN_ENV)
    monkeypatch.setenv("OPERATORS", TOKEN)
    file = workers.configured({"listen": f"0.0.0.0:{workers.port}", "token": "${env:OPERATORS}"})
    assert main(["limits", "--config", file]) == 0
    assert main(["limits", "reset", "per-agent", "--config", file]) == 0
    assert "per-agent, all buckets: full" in capsys.readouterr().out


def test_without_a_token_the_report_is_shown_and_orders_fail_with_the_gateways_words(
    open_face: Workers, capsys: Said
) -> None:
    file = open_face.configured(f"127.0.0.1:{open_face.port}")
    assert main(["limits", "--config", file]) == 0
    assert capsys.readouterr().out.startswith("store: up")
    assert main(["limits", "reset", "per-agent", "--config", file]) == 1
    assert capsys.readouterr().err.startswith("fastgw: refused (403): Orders need an admin token")
    assert open_face.heard == []


@pytest.mark.parametrize("token", ["", "wrong"])
def test_a_wrong_token_is_refused(workers: Workers, capsys: Said, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv(TOKEN_ENV, token)
    assert main(["limits", "--admin", workers.url]) == 1
    assert capsys.readouterr().err == "fastgw: refused (401): A token is needed.\n"


def test_a_token_that_cannot_be_sent_is_not_shown(
    workers: Workers, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_ENV, "very\r\nsecret")
    assert main(["limits", "--admin", workers.url]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "secret" not in said


@pytest.mark.parametrize("words", [["limits"], ["limits", "reset", "per-agent"]])
def test_where_nobody_listens_it_is_one_line(capsys: Said, words: list[str]) -> None:
    assert main([*words, "--admin", f"127.0.0.1:{(port := free_port())}"]) == 1
    assert capsys.readouterr().err == f"fastgw: cannot reach 127.0.0.1:{port}: Connection refused\n"


@pytest.mark.parametrize(
    ("admin", "said"),
    [
        ("ftp://h", "the address must be http:// or https://, name a host, and carry no user or password"),
        ("http://u:p@h", "the address must be http:// or https://, name a host, and carry no user or password"),
    ],
)
def test_an_address_that_cannot_be_used(capsys: Said, admin: str, said: str) -> None:
    assert main(["limits", "--admin", admin]) == 1
    assert capsys.readouterr().err == f"fastgw: {said}\n"


def test_a_configuration_that_does_not_say_where(tmp_path: Path, capsys: Said) -> None:
    file = tmp_path / "fastgw.yaml"
    file.write_text("admin: 127.0.0.1:0\n", encoding="utf-8")
    assert main(["limits", "--config", str(file)]) == 1
    assert capsys.readouterr().err == "fastgw: the admin port is a free one: say with --admin which\n"
    assert main(["limits", "--config", str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml:1:1: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, "<html>", "fastgw: the answer is not fastgw's: is this its admin port?"),
        (200, '{"store": "up"}', "fastgw: the answer is not fastgw's: is this its admin port?"),
        (404, "no \x1b[2J such page", "fastgw: refused (404): no \\x1b[2J such page"),
        (502, "", "fastgw: refused (502): without a word"),
    ],
)
def test_who_answers_may_be_somebody_else(capsys: Said, status: int, body: str, said: str) -> None:
    @asynccontextmanager
    async def stranger() -> AsyncIterator[int]:
        async def answer(_: web.BaseRequest) -> web.StreamResponse:
            return web.Response(status=status, text=body)

        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        listener = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, listener).start()
        yield listener.getsockname()[1]
        await runner.cleanup()

    with aside() as loop:
        port = loop.enter(stranger())
        assert main(["limits", "--admin", f"http://127.0.0.1:{port}"]) == 1
    assert capsys.readouterr().err == said + "\n"


def test_what_the_page_shows_is_how_it_looks(workers: Workers, capsys: Said) -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    shown = re.search(r"```text\n(store: up.*?)```", page, re.DOTALL)
    assert shown
    rows = [
        {"limit": limit, "subject": subject, "used": used, "left": left, "burst": burst, "at_once": burst == 20}
        for limit, subject, used, left, burst in (
            ("per-agent", "deploy-bot", 1.0, 0, 60),
            ("at-a-time", "deploy-bot", 0.35, 13, 20),
            ("team-writes", "support deploy-web", 0.1, 900, 1000),
        )
    ]
    refused = [{"limit": "per-agent", "subject": "deploy-bot", "calls": 90}]
    workers.report = {"store": "up", "buckets": rows, "refused": refused}
    assert main(["limits", "--admin", workers.url]) == 0
    assert capsys.readouterr().out == shown[1].replace("(2 workers)", "(1 worker)")


def test_the_page_allows_every_command_of_the_scripts_and_no_other() -> None:
    page = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    allowed = re.search(r"(?m)^user fastgw on .*$", page)
    assert allowed
    called = {command.lower() for command in re.findall(r"redis\.call\('(\w+)'", SOURCE + QUOTA_SOURCE)}
    assert set(re.findall(r" \+(\S+)", allowed[0])) == called | {"evalsha", "eval"}
