"""The sandbox for SQL: what strangers may not do to the file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from fastgw.demo import data
from fastgw.demo.data import open_shop


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return open_shop(tmp_path / "shop.sqlite")


@pytest.mark.parametrize(
    "sql",
    [
        "delete from orders",
        "update orders set amount = 0",
        "insert into customers values (9, 'x', 'x', 'x')",
        "drop table orders",
        "create temp table t (x)",
        "pragma writable_schema = 1",
        "attach '/tmp/other.sqlite' as other",
        "vacuum into '/tmp/copy.sqlite'",
        "select load_extension('x')",
        "select 1; delete from orders",
        "begin",
        "select randomblob(2000000)",
        "no sql at all",
    ],
)
def test_refused_and_nothing_is_changed(shop: Path, sql: str) -> None:
    before = shop.read_bytes()
    with pytest.raises((sqlite3.Error, sqlite3.Warning)):
        data.query(shop, sql)
    assert shop.read_bytes() == before


def test_an_endless_query_ends(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "TIME_LIMIT", 0.05)
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        data.query(shop, endless)


def test_rows_beyond_the_limit_are_cut_and_said(shop: Path) -> None:
    numbers = "with recursive n(i) as (select 1 union all select i + 1 from n where i < {}) select i from n"
    whole = data.query(shop, numbers.format(data.ROW_LIMIT))
    cut = data.query(shop, numbers.format(data.ROW_LIMIT + 1))
    assert (len(whole["rows"]), whole["truncated"]) == (data.ROW_LIMIT, False)
    assert (len(cut["rows"]), cut["truncated"]) == (data.ROW_LIMIT, True)


def test_a_blob_becomes_hex_digits(shop: Path) -> None:
    assert data.query(shop, "select x'00ff'")["rows"] == [["00ff"]]
