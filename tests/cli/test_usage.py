"""`fastgw usage` as it is typed, on events under `data`."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from fastgw.cli.main import main
from fastgw.usage.archive import Archive
from tests.usage.events import line, spooled

Said = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: a configuration, and events half of which are archived."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fastgw.yaml").write_text("servers: {codegen-openai: {url: http://127.0.0.1:1/mcp, alias: gpt}}\n")
    usage = tmp_path / "data" / "usage"
    archived = [line(1, "1.5"), line(2, "0.000000001", outcome="tool_error"), line(3, "2", team=None, tool=None)]
    Archive(usage).convert([spooled(usage, archived, 1)])
    spooled(
        usage, [line(4, "0.25", team="red\x1b[2J\nteam", tool="search"), line(5, timestamp="2026-09-30T23:59:59Z")], 2
    )
    return tmp_path


def typed(said: Said, *words: str) -> tuple[int, str]:
    """Exit status and what is on stdout."""
    try:
        status = main(["usage", *words])
    except SystemExit as left:
        status = int(str(left.code))
    return status, said.readouterr().out


def test_a_table(folder: Path, capsys: Said) -> None:
    """Unknown is `-`; nothing in a cell commands the terminal."""
    status, text = typed(capsys, "--by", "team", "--month", "2026-10")
    assert status == 0
    assert text.splitlines() == [
        "team              calls  errors  error_rate  cost",
        "engineering       2      1       50.00%      1.500000001",
        "red\\x1b[2J\\nteam  1      0       0.00%       0.25",
        "-                 1      0       0.00%       2.00",
    ]


def test_the_two_questions(folder: Path, capsys: Said) -> None:
    status, text = typed(capsys, "--by", "team", "--month", "2026-10", "--metric", "cost", "--top", "1")
    assert (status, text.split()) == (0, ["team", "cost", "-", "2.00"])
    status, text = typed(capsys, "--by", "tool", "--month", "2026-10", "--metric", "error_rate,errors,calls")
    assert (status, text.splitlines()[1].split()) == (0, ["generate-code", "50.00%", "1", "2"])


def test_a_chart(folder: Path, capsys: Said) -> None:
    _, text = typed(capsys, "--by", "team", "--month", "2026-10", "--metric", "cost", "--chart")
    assert [row.count("█") for row in text.splitlines()] == [0, 40, 30, 5]


def test_json_and_where(folder: Path, capsys: Said) -> None:
    words = "--by", "model,day", "--metric", "calls,cost", "--where", "team=engineering", "--where", "team=-"
    status, text = typed(capsys, *words, "--from", "2026-01-01", "--to", "2027-01-01", "--format", "json")
    assert status == 0
    assert text == (
        '[{"model": "gpt", "day": "2026-09-30", "calls": 1, "cost": null},\n'
        ' {"model": "gpt", "day": "2026-10-03", "calls": 3, "cost": 3.500000001}]\n'
    )
    assert json.loads(text)


def test_to_files(folder: Path, capsys: Said) -> None:
    assert typed(capsys, "--by", "team", "--month", "2026-10", "--format", "csv", "-o", "it.csv") == (0, "")
    assert (folder / "it.csv").read_bytes().startswith(b"team,calls,errors,error_rate,cost\r\n")
    assert typed(capsys, "--month", "2026-10", "--format", "parquet", "-o", "it.parquet") == (0, "")
    assert (folder / "it.parquet").read_bytes()[:4] == b"PAR1"
    assert typed(capsys, "-o", "none/it.csv")[0] == 1
    assert typed(capsys, "--format", "parquet", "-o", "none/it.parquet")[0] == 1


def test_a_long_name_is_cut_and_a_terminal_of_few_letters_gets_what_it_has(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spooled(folder / "data" / "usage", [line(6, team="x" * 10_240), line(7, team="größe")], 3)
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr("sys.stdout", out)
    assert main(["usage", "--by", "team", "--month", "2026-10", "--chart"]) == 0
    out.seek(0)
    lines = out.read().splitlines()
    assert max(map(len, lines)) < 500
    assert any(text.startswith("x" * 79 + "\\u2026 ") for text in lines)
    assert any(text.startswith("gr\\xf6\\xdfe ") for text in lines)


def test_nothing_there(folder: Path, capsys: Said) -> None:
    status, text = typed(capsys, "--day", "2026-01-01")
    assert (status, text.splitlines()[1]) == (0, "no events from 2026-01-01T00:00 to 2026-01-02T00:00, UTC")
    (folder / "fastgw.yaml").write_text("data: elsewhere\n")
    assert typed(capsys, "--format", "json") == (0, "[]\n")
    assert not (folder / "elsewhere").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--by", "x"],
        ["--metric", "x"],
        ["--top", "-3"],
        ["--month", "2026"],
        ["--format", "parquet"],
        ["--where", "x"],
        ["report"],
    ],
)
def test_typed_wrong(folder: Path, capsys: Said, words: list[str]) -> None:
    assert typed(capsys, *words) == (2, "")


def test_the_secrets_of_the_configuration_are_not_needed(folder: Path, capsys: Said) -> None:
    server = "{url: http://127.0.0.1:1/mcp, alias: gpt, credential: {bearer: '${env:NOBODY_HAS_THIS}'}}"
    (folder / "fastgw.yaml").write_text(f"servers: {{codegen-openai: {server}}}\n")
    assert typed(capsys, "--day", "2026-10-03", "--by", "model", "--metric", "calls")[1].split() == [
        *("model", "calls", "gpt", "4")
    ]
    (folder / "fastgw.yaml").write_text("data: ${env:NOBODY_HAS_THIS}\n")
    assert typed(capsys)[0] == 2
    (folder / "fastgw.yaml").unlink()
    words = "--by", "model", "--metric", "calls", "--day", "2026-10-03", "--data"
    assert typed(capsys, *words, "data")[1].split()[-2:] == ["codegen-openai", "4"]


def test_no_configuration(folder: Path, capsys: Said) -> None:
    assert typed(capsys, "--config", "none.yaml")[0] == 1


def test_the_charge_back_page(folder: Path, capsys: Said) -> None:
    status, page = typed(capsys, "report", "--billing-account", "acme-eng", "--month", "2026-10")
    assert (status, page.startswith("<!doctype html>"), "3.750000001 USD" in page) == (0, True, True)
    status, _ = typed(
        capsys, "report", "--billing-account", "acme-eng", "--month", "2026-10", "--format", "csv", "-o", "a.csv"
    )
    assert status == 0
    assert b"total,acme-eng,4,1,5000,1948,3.750000001,USD\r\n" in (folder / "a.csv").read_bytes()
    status, page = typed(capsys, "report", "--billing-account", "nobody", "--month", "2026-10")
    assert (status, "No calls." in page) == (0, True)
