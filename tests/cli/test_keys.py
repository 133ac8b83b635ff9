"""`fastgw keys list`, `used`, `expire` and `revoke` as they are typed."""

from __future__ import annotations

import io
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fastgw.auth.keys import digest
from fastgw.cli.main import main
from fastgw.config.reader import read_settings
from fastgw.usage.archive import Archive
from tests.usage.events import line, spooled

Said = pytest.CaptureFixture[str]
OLD, NEW, SPARE = "fgw_old", "fgw_new", "fgw_spare"
OVER, SOON = (f"{datetime.now(UTC) + timedelta(days=days):%Y-%m-%d}" for days in (-3, 3))
CONFIG = f"""\
secret: ${{env:NOBODY_HAS_SET_THIS}}
agents:
  bot:   # of the build
    key:
      - sha256:{digest(OLD)}   # since 2025
      - {{sha256: {digest(NEW)}, expires: {SOON}}}
  lost:
    key: {{sha256: {digest("fgw_lost")}, expires: {OVER}}}
include: more/*.yaml
"""
MORE = f"agents: {{spare: {{key: {digest(SPARE)}, disabled: true}}}}\n"


def name(key: str) -> str:
    return f"key:{digest(key)[:8]}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fastgw.yaml").write_text(CONFIG)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.yaml").write_text(MORE)
    return tmp_path


def typed(said: Said, *words: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr."""
    try:
        status = main(["keys", *words])
    except SystemExit as left:
        status = int(str(left.code))
    return status, *said.readouterr()


def test_list(folder: Path, capsys: Said) -> None:
    status, text, _ = typed(capsys, "list")
    assert status == 0
    rows = [row.split() for row in text.splitlines()]
    assert [(row[0], row[1], " ".join(row[3:-1]), row[-1]) for row in rows[1:]] == [
        ("bot", name(OLD), "good", "fastgw.yaml:5:9"),
        ("bot", name(NEW), "expires soon", "fastgw.yaml:6:9"),
        ("lost", name("fgw_lost"), "expired", "fastgw.yaml:8:10"),
        ("spare", name(SPARE), "disabled", "more/a.yaml:1:23"),
    ]
    _, text, _ = typed(capsys, "list", "--json", "--agent", "bot")
    assert [(row["key"], row["expires"] is None) for row in json.loads(text)] == [(name(OLD), True), (name(NEW), False)]


def test_used(folder: Path, capsys: Said) -> None:
    usage, now = folder / "data" / "usage", datetime.now(UTC)

    def call(number: int, agent: str, credential: str | None, days: float) -> str:
        at = f"{now - timedelta(days=days):%Y-%m-%dT%H:%M:%S}.000Z"
        return line(number, agentId=agent, credential=credential, timestamp=at)

    events = [call(1, "bot", name(OLD), 2), call(2, "bot", name(OLD), 1), call(3, "bot", name(OLD), 60)]
    Archive(usage).convert([spooled(usage, events, 1)])
    others = [call(4, "bot", "key:00000000", 5), call(5, "login:bob", "login", 1), call(6, "anonymous", None, 1)]
    spooled(usage, others, 2)
    status, text, _ = typed(capsys, "used", "--json")
    last = f"{now - timedelta(days=1):%Y-%m-%dT%H:%M:%S}Z"
    assert status == 0
    assert [tuple(row.values()) for row in json.loads(text)] == [
        ("bot", name(OLD), last, 2, "good"),
        ("bot", "key:00000000", f"{now - timedelta(days=5):%Y-%m-%dT%H:%M:%S}Z", 1, "gone"),
        ("bot", name(NEW), None, 0, "expires soon"),
        ("lost", name("fgw_lost"), None, 0, "expired"),
        ("spare", name(SPARE), None, 0, "disabled"),
    ]
    _, text, _ = typed(capsys, "used", "--days", "90", "--agent", "bot")
    assert text.splitlines()[1].split() == ["bot", name(OLD), last, "3", "good"]
    assert "spare" not in text


def test_a_key_is_revoked_by_what_leaked(folder: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file says nothing else than before, and nothing has shown the key."""
    file = folder / "fastgw.yaml"
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{OLD}\n"))
    status, text, _ = typed(capsys, "revoke", "-")
    assert status == 0 and "not written" in text and file.read_text() == CONFIG
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{OLD}\n"))
    status, text, _ = typed(capsys, "revoke", "-", "--write")
    assert status == 0 and OLD not in text and "that are good: 1" in text
    was, new = CONFIG.splitlines(), file.read_text().splitlines()
    assert [at for at, (one, other) in enumerate(zip(was, new, strict=True)) if one != other] == [4]
    assert new[4].endswith("}   # since 2025")
    settings = read_settings(file, {"NOBODY_HAS_SET_THIS": "a" * 32})
    assert settings.agents["bot"].key[0].expires is not None
    assert settings.agents["bot"].key[0].expires <= time.time() < settings.agents["bot"].key[0].expires + 60
    status, _, words = typed(capsys, "revoke", name(OLD), "--write")
    assert status == 1 and "expired already" in words


def test_a_key_of_an_included_file_expires_when_it_is_said(folder: Path, capsys: Said) -> None:
    status, text, _ = typed(capsys, "expire", name(SPARE), "--at", "2036-01-31", "--write")
    assert status == 0 and "is let in no more" in text
    wanted = f"agents: {{spare: {{key: {{sha256: {digest(SPARE)}, expires: 2036-01-31}}, disabled: true}}}}\n"
    assert (folder / "more" / "a.yaml").read_text() == wanted
    assert (folder / "fastgw.yaml").read_text() == CONFIG


def test_an_agent_gets_one_key_more(folder: Path, capsys: Said) -> None:
    """What is printed can take the place of its `key`."""
    status, text, _ = typed(capsys, "new", "--agent", "bot", "--expires", "2036-01-31", "--config", "fastgw.yaml")
    assert status == 0 and "`key` at fastgw.yaml:4:5" in text
    (folder / "f.yaml").write_text(text)
    key = text.splitlines()[1].removeprefix("# ")
    found = read_settings(folder / "f.yaml", {}).agents["bot"].key
    assert [one.sha256 for one in found] == [digest(OLD), digest(NEW), digest(key)]
    assert [one.expires is None for one in found] == [True, False, False]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("revoke", OLD), 2, "does not belong on a command line"),
        (("revoke", "key:1234567"), 2, "which key?"),
        (("revoke", "key:01234567"), 1, "no agent has a key"),
        (("expire", name(OLD)), 2, "--at"),
        (("expire", name(OLD), "--at", "tomorrow"), 2, "must be a day"),
        (("used", "--days", "0"), 2, "number of days"),
        (("list", "--config", "none.yaml"), 1, "cannot be read"),
    ],
)
def test_what_is_refused(folder: Path, capsys: Said, words: tuple[str, ...], status: int, said: str) -> None:
    done, out, err = typed(capsys, *words)
    assert (done, out) == (status, "") and said in err


def test_an_unusual_form_is_left_to_people(folder: Path, capsys: Said) -> None:
    odd = f"agents:\n  bot:\n    key: &mine {digest(OLD)}\n"
    (folder / "fastgw.yaml").write_text(odd)
    status, _, words = typed(capsys, "revoke", name(OLD), "--write")
    assert status == 1 and "fastgw.yaml:3:10" in words and "expires:" in words
    assert (folder / "fastgw.yaml").read_text() == odd
