"""SQL from strangers on a SQLite file that they cannot change.

Three walls, each enough for its danger: the file is opened read-only, an authorizer lets only reading through (no
ATTACH, no PRAGMA, no extensions), and rows, time and sizes are bounded.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

ROW_LIMIT = 200
TIME_LIMIT = 2.0  # seconds
SIZE_LIMIT = 1_000_000  # bytes of one value and of the SQL text
STEPS_BETWEEN_LOOKS = 10_000  # of SQLite's machine, between two looks at the clock
READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}


class Table(TypedDict):
    """An answer; `truncated` where there were more rows than the limit."""

    columns: list[str]
    rows: list[list[Any]]
    truncated: bool


def query(file: Path, sql: str, values: tuple[object, ...] = (), limit: int = ROW_LIMIT) -> Table:
    """Run one reading statement.

    Raises:
        sqlite3.Error: it is not SQL, not reading, too large or took longer than `TIME_LIMIT`.
    """
    with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as database:
        _wall_in(database)
        cursor = database.execute(sql, values)
        columns = [column[0] for column in cursor.description or ()]
        rows = [[_plain(value) for value in row] for row in cursor.fetchmany(limit + 1)]
    return {"columns": columns, "rows": rows[:limit], "truncated": len(rows) > limit}


def _wall_in(database: sqlite3.Connection) -> None:
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, SIZE_LIMIT)
    database.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    until = time.monotonic() + TIME_LIMIT
    database.set_progress_handler(lambda: time.monotonic() > until, STEPS_BETWEEN_LOOKS)
    database.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in READING else sqlite3.SQLITE_DENY)


def _plain(value: object) -> object:
    """A blob has no form in JSON: its hex digits."""
    return value.hex() if isinstance(value, bytes) else value
