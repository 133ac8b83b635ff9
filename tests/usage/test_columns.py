"""Lines as rows: money to its last place, and nothing of what is no event."""

from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb

from fastgw.usage.columns import rows_of_lines
from fastgw.usage.event import amount

START = '{"requestId":"r","timestamp":"2026-02-26T14:32:01.445Z"'


def rows(folder: Path, lines: list[str], names: str) -> list[Any]:
    file = folder / "events.jsonl"
    file.write_text("\n".join(lines))
    found = duckdb.connect().execute(f"SELECT {names} FROM ({rows_of_lines()})", [[str(file)]])
    return found.fetchall()


def test_money_is_exact(tmp_path: Path) -> None:
    dice = random.Random(3)
    costs = [dice.randrange(10 ** dice.randrange(1, 18)) for _ in range(20_000)]
    lines = [f'{START},"cost":{amount(cost)}}}' for cost in costs]
    assert [cost for (cost,) in rows(tmp_path, lines, "cost")] == [Decimal(cost).scaleb(-9) for cost in costs]


def test_what_is_no_event_is_left_out(tmp_path: Path) -> None:
    whole = f'{START},"team":"../../etc\\n","latencyMs":342.118,"later":{{"a":[1]}}}}'
    lines = [whole, "not json", "7", "[1]", "{}", "\0\0\0", '{"requestId":"r","timestamp":"yesterday"}', START]
    assert rows(tmp_path, lines, "team, latency_us") == [("../../etc\n", 342118)]
