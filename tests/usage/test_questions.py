"""Questions and their answers: sums to the last place, what counts as what, and that no user text becomes SQL."""

from __future__ import annotations

import datetime
import json
import random
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from fastgw.usage import answers
from fastgw.usage.answers import Asked, CannotAnswer, Row, answer, as_csv, as_json, bounded_answer
from fastgw.usage.archive import Archive
from fastgw.usage.columns import LARGEST_LINE
from fastgw.usage.questions import KEYS, METRICS, Question, question
from tests.usage.events import line, spooled

TODAY = datetime.date(2026, 10, 31)
Parameters = dict[str, list[str]]


def ask(folder: Path, aliases: dict[str, str] | None = None, **parameters: str) -> list[Row]:
    """Rows for parameters, of which several values are joined by a bar."""
    given = {"by": "team", **parameters}
    asked = question({name: text.split("|") for name, text in given.items()}, TODAY)
    return answer(folder, asked, aliases or {})


@pytest.mark.parametrize(
    ("parameters", "begin", "end"),
    [
        ({}, "2026-10-01", "2026-11-01"),
        ({"month": ["last"]}, "2026-09-01", "2026-10-01"),
        ({"month": ["2026-12"]}, "2026-12-01", "2027-01-01"),
        ({"month": ["2028-02"]}, "2028-02-01", "2028-03-01"),
        ({"day": ["today"]}, "2026-10-31", "2026-11-01"),
        ({"day": ["yesterday"]}, "2026-10-30", "2026-10-31"),
        ({"day": ["2026-03-29"]}, "2026-03-29", "2026-03-30"),  # 23 hours long in Berlin, 24 here
        ({"from": ["2026-10-03"], "to": ["2026-10-05T14:30Z"]}, "2026-10-03", "2026-10-05T14:30"),
        ({"to": ["2026-10-05"]}, "1970-01-01", "2026-10-05"),
    ],
)
def test_periods(parameters: Parameters, begin: str, end: str) -> None:
    asked = question(parameters, TODAY)
    assert (asked.begin, asked.end) == tuple(map(datetime.datetime.fromisoformat, (begin, end)))


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"by": ["team,toool"]}, "there is no 'toool'"),
        ({"by": ["team; DROP TABLE events"]}, "there is no"),
        ({"metric": ["price"]}, "there are calls, errors"),
        ({"where": ["team"]}, "key=value"),
        ({"where": ["1=1 OR team=x"]}, "there is no '1'"),
        ({"where": ["team=\udcff"]}, "key=value"),
        ({"month": ["2026-13"]}, "a day as"),
        ({"month": ["2026-1"]}, "month must be"),
        ({"month": ["last", "this"]}, "twice"),
        ({"month": ["last"], "day": ["today"]}, "one of"),
        ({"day": ["0000-01-01"]}, "a day as"),
        ({"from": ["2026-10-03"], "to": ["2026-10-03"]}, "before"),
        ({"from": ["2026-10-03T14:30+02:00"]}, "a time of UTC"),
        ({"top": ["0"]}, "number"),
        ({"top": ["1; SELECT 1"]}, "number"),
        ({"least": ["-1"]}, "number"),
        ({"sql": ["SELECT 1"]}, "there is no parameter"),
    ],
)
def test_what_cannot_be_asked(parameters: Parameters, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        question(parameters, TODAY)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """100,000 events, the last tenth of them still in the spool, and the same as Python reads them."""
    folder = tmp_path_factory.mktemp("crowd")
    dice = random.Random(13)
    outcomes = ("ok",) * 8 + ("tool_error", "denied", "unavailable", "unknown")
    lines = []
    for number in range(100_000):
        cost = dice.choice(("null", "0", f"{dice.randrange(10**9)}.{dice.randrange(10**9):09}", "0.000000001"))
        changes = {
            "team": dice.choice(("payments", "search", None)),
            "tool": f"tool-{dice.randrange(5)}",
            "outcome": dice.choice(outcomes) if number % 5 else "ok",
            "timestamp": f"2026-10-{dice.randrange(1, 32):02}T{dice.randrange(24):02}:59:59.999Z",
            "latencyMs": round(dice.lognormvariate(4, 1), 3),
            "tokensIn": dice.choice((None, dice.randrange(10**6))),
        }
        lines.append(line(number, cost, **changes))
    Archive(folder).convert([spooled(folder, lines[:45_000], 1), spooled(folder, lines[45_000:90_000], 2)])
    spooled(folder, lines[90_000:], 3)
    return folder, [json.loads(text, parse_float=Decimal, parse_int=int) for text in lines]


def test_sums_agree_with_an_independent_count_to_the_last_place(crowd: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, events = crowd
    wanted: dict[tuple[Any, ...], list[Any]] = defaultdict(lambda: [0, 0, None, None])
    for event in events:
        found = wanted[event["team"], event["timestamp"][:10]]
        found[0] += 1
        found[1] += event["bytesIn"] + event["bytesOut"]
        if event["tokensIn"] is not None:
            found[2] = (found[2] or 0) + event["tokensIn"]
        if event["cost"] is not None:
            found[3] = (found[3] or 0) + Decimal(event["cost"])
    rows = ask(folder, by="team,day", metric="calls,bytes,tokens_in,cost")
    assert {row[:2]: list(row[2:]) for row in rows} == wanted
    assert sum(row[2] for row in rows if isinstance(row[2], int)) == len(events)
    assert json.loads(as_json(("cost",), [(row[5],) for row in rows]), parse_float=Decimal) == [
        {"cost": row[5]} for row in rows
    ]


def test_error_rates(crowd: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, events = crowd
    rows = ask(folder, by="tool", metric="error_rate,errors,calls")
    assert [row[1] for row in rows] == sorted((row[1] for row in rows), reverse=True)  # type: ignore[type-var]
    for tool, rate, errors, calls in rows:
        mine = [event["outcome"] for event in events if event["tool"] == tool]
        assert (errors, calls) == (sum(one in ("tool_error", "unavailable") for one in mine), len(mine))
        assert rate == (Decimal(errors) / Decimal(calls)).quantize(Decimal("0.000001"))


def test_percentiles_are_half_a_percent_off_at_most(crowd: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, events = crowd
    for team, p50, p95, p99, calls in ask(folder, by="team", metric="p50,p95,p99,calls"):
        times = sorted(event["latencyMs"] for event in events if event["team"] == team)
        assert calls == len(times)
        for percent, found in ((50, p50), (95, p95), (99, p99)):
            exact = times[-(-len(times) * percent // 100) - 1]
            assert abs(Decimal(str(found)) / exact - 1) < Decimal("0.0051")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("times", ["one", "two"])
def test_every_key_with_every_metric(crowd: tuple[Path, list[dict[str, Any]]], key: str, times: str) -> None:
    folder, events = crowd
    keys = key if times == "one" else f"{key},outcome"
    rows = ask(folder, by=keys, metric=",".join(METRICS))
    assert sum(row[-len(METRICS)] for row in rows) == len(events)  # type: ignore[misc]


def test_conditions(tmp_path: Path) -> None:
    spooled(tmp_path, [line(number, team=team) for number, team in enumerate(("a", "b", None, "'; --", "a=b"))])
    for where, calls in {
        "team=a": 1,
        "team=a|team=b": 2,
        "team=-": 1,
        "team=-|team=a": 2,
        "team='; --": 1,
        "team=a=b": 1,
        "team=a|tool=none": 0,
        "team=a|day=2026-10-03": 1,
        "hour=2026-10-03T14:00Z": 5,
        "model=gpt": 5,
        "model=codegen-openai": 0,
    }.items():
        rows = ask(tmp_path, {"codegen-openai": "gpt"}, by="server", metric="calls", where=where)
        assert [row[1] for row in rows] == ([calls] if calls else []), where


def test_without_a_key_it_is_one_row(tmp_path: Path) -> None:
    spooled(tmp_path, [line(1, "1"), line(2, "0.5", team=None)])
    asked = question({"metric": ["calls", "cost", "p50"]}, TODAY)
    assert answer(tmp_path, asked, {})[0][:2] == (2, Decimal("1.5"))
    assert answer(tmp_path / "none", asked, {}) == []


def test_percentiles_of_no_latency_are_unknown(tmp_path: Path) -> None:
    spooled(tmp_path, [line(1, team="a", latencyMs=None), line(2, team="b", latencyMs=None), line(3, team="b")])
    rows = ask(tmp_path, metric="calls,p50,p99")
    assert rows[0][:2] == ("b", 2)
    assert all(abs(Decimal(str(found)) - Decimal("342.118")) < 2 for found in rows[0][2:])
    assert rows[1] == ("a", 1, None, None)


def test_order_and_top(tmp_path: Path) -> None:
    spooled(
        tmp_path, [line(n, cost, team=team) for n, (team, cost) in enumerate((("a", "1"), ("b", "2"), ("c", "null")))]
    )
    assert [row[0] for row in ask(tmp_path, metric="cost")] == ["b", "a", "c"]
    assert [row[0] for row in ask(tmp_path, metric="cost", top="1")] == ["b"]
    assert ask(tmp_path, by="day", metric="cost") == [("2026-10-03", Decimal(3))]


def test_the_program_holds_no_more_rows_than_it_may_answer_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []

    def look(*asked: Any) -> list[Row]:
        rows = answer(*asked)
        held.append(len(rows))
        return rows

    monkeypatch.setattr(answers, "MOST", 3)
    monkeypatch.setattr(answers, "answer", look)
    asked = Asked(str(tmp_path), question({"by": ["team"]}, TODAY), {})
    spooled(tmp_path, [line(number, team=f"t{number}") for number in range(3)], 1)
    assert len(bounded_answer(asked)) == 3
    spooled(tmp_path, [line(number, team=f"t{number}") for number in range(3, 50)], 2)
    with pytest.raises(CannotAnswer, match="more than 3 rows"):
        bounded_answer(asked)
    assert held == [3, 4]


def test_of_rows_with_enough_calls_alone(tmp_path: Path) -> None:
    outcomes = {"rare": ["timeout"], "used": ["ok", "ok", "timeout"]}
    lines = [line(n, tool=tool, outcome=one) for n, (tool, all_) in enumerate(outcomes.items()) for one in all_]
    spooled(tmp_path, lines)
    assert [row[0] for row in ask(tmp_path, by="tool", metric="error_rate")] == ["rare", "used"]
    assert [row[0] for row in ask(tmp_path, by="tool", metric="error_rate", least="3")] == ["used"]


NAMES = (
    "'; DROP TABLE answer; --",
    "a\nb",
    "x" * 10_240,
    "=cmd()",
    "<script>",
    "\x1b[2J\u202e",
    "",
    "$begin",
    "%s{}\\",
)


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_are_values_and_nothing_else(tmp_path: Path, name: str) -> None:
    Archive(tmp_path).convert([spooled(tmp_path, [line(1, team=name, tool=name, agentId=name), line(2)], 1)])
    spooled(tmp_path, [line(3, team=name, tool=name, agentId=name)], 2)
    rows = ask(tmp_path, by="team,tool,agent", metric="calls", where=f"team={name}|tool={name}")
    assert rows == [(name, name, name, 2)]


def test_what_is_nowhere(tmp_path: Path) -> None:
    assert ask(tmp_path / "none") == []
    spooled(tmp_path, [])
    spooled(tmp_path, ["spoiled\n", '{"requestId":"cut","timest'], 2)
    assert ask(tmp_path) == []
    assert ask(tmp_path, metric="p50") == []


def test_money_of_two_currencies_is_not_added_up(tmp_path: Path) -> None:
    spooled(tmp_path, [line(1, "1"), line(2, "2", currency="EUR"), line(3, currency="CHF")])
    with pytest.raises(CannotAnswer, match="EUR and USD"):
        ask(tmp_path, metric="cost")
    assert ask(tmp_path, metric="calls") == [("engineering", 3)]
    assert ask(tmp_path, metric="cost", where="currency=EUR") == [("engineering", 2)]
    assert ask(tmp_path, by="currency", metric="cost") == [("EUR", 2), ("USD", 1), ("CHF", None)]


def test_files_that_vanish_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Converted and deleted between the look at the folder and the reading: the second look finds it all."""
    path = spooled(tmp_path, [line(1)])
    look = answers.read_manifest

    def overtaken(folder: Path) -> Any:
        found = look(folder)
        if path.exists():
            Archive(tmp_path).convert([path])
            path.unlink()
        return found

    monkeypatch.setattr(answers, "read_manifest", overtaken)
    assert ask(tmp_path, metric="calls") == [("engineering", 1)]


def test_a_line_that_is_longer_than_any_event_costs_no_answer(tmp_path: Path) -> None:
    path = spooled(tmp_path, [line(1)])
    with path.open("ab") as file:
        file.write(b"\0" * (3 * LARGEST_LINE) + b"\n" + line(2).encode() + b"\n")
    assert ask(tmp_path, metric="calls") == [("engineering", 2)]


def test_a_spoiled_file_is_named(tmp_path: Path) -> None:
    Archive(tmp_path).convert([spooled(tmp_path, [line(1)])])
    (file,) = (tmp_path / "archive").glob("*.parquet")
    file.write_bytes(b"PAR1 no more PAR1")
    with pytest.raises(CannotAnswer, match=file.name):
        ask(tmp_path)


def test_what_may_not_be_read_is_no_answer(tmp_path: Path) -> None:
    """Somebody who may not look into the spool is not told that there was nothing."""
    (tmp_path / "spool").symlink_to(tmp_path / "spool")  # root, too, cannot read that
    with pytest.raises(CannotAnswer, match="spool"):
        ask(tmp_path)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    Archive(tmp_path).convert([path := spooled(tmp_path, [line(1)])])
    path.unlink()
    (file,) = (tmp_path / "archive").glob("*.parquet")
    file.unlink()
    with pytest.raises(CannotAnswer, match=f"{file.name} is gone"):
        ask(tmp_path)


def test_a_manifest_that_is_gone_is_no_empty_one(tmp_path: Path) -> None:
    Archive(tmp_path).convert([spooled(tmp_path, [line(1)])])
    (tmp_path / "archive.json").unlink()
    with pytest.raises(CannotAnswer, match=r"archive\.json is gone"):
        ask(tmp_path)


def test_duckdb_reaches_nothing_but_our_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spooled(tmp_path, [line(1)])
    monkeypatch.setattr(answers, "sql", lambda asked, events: "SELECT *, NULL, NULL FROM read_text('/etc/hostname')")
    with pytest.raises(CannotAnswer, match="disabled by configuration"):
        ask(tmp_path)


def test_texts() -> None:
    columns = ("team", "calls", "cost", "p50")
    rows: list[Row] = [
        ('a"\n\x1b,Ö', 1, Decimal("1E-9"), Decimal("1.500")),
        (None, 0, Decimal("12345678.100000000"), None),
        ("x", 2, None, None),
    ]
    assert as_csv(columns, rows) == (
        'team,calls,cost,p50\r\n"a""\n\x1b,Ö",1,0.000000001,1.500\r\n,0,12345678.10,\r\nx,2,,\r\n'
    )
    assert as_csv(("tool",), [("=cmd()",), ("a=b",)]) == "tool\r\n'=cmd()\r\na=b\r\n"
    assert as_csv(("tool",), [("\uff1dcmd()",), ("\n=cmd()",)]) == "tool\r\n'\uff1dcmd()\r\n\"'\n=cmd()\"\r\n"
    assert as_json(columns, rows).isascii()
    assert '"cost": 0.000000001,' in as_json(columns, rows)
    assert json.loads(as_json(columns, rows))[0]["team"] == 'a"\n\x1b,Ö'
    assert json.loads(as_json(columns, [])) == []


def test_parquet(tmp_path: Path) -> None:
    spooled(tmp_path, [line(1, "0.5")])
    to = tmp_path / "it's.parquet"
    asked = question({"by": ["team", "day"], "metric": ["cost", "p50"]}, TODAY)
    rows = answer(tmp_path, asked, {}, to)
    with duckdb.connect() as duck:
        found = duck.execute("SELECT team, day, cost, p50 FROM read_parquet(?)", [str(to)]).fetchall()
    assert found == rows
    assert isinstance(asked, Question)
