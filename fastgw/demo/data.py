"""The *data* server: a small shop's tables to query, export and read, in a database made afresh at every start.

SQL comes from strangers, behind three walls: the file is opened read-only, an authorizer lets only reading through (no
ATTACH, no PRAGMA, no extensions), and rows, time and sizes are bounded.
"""

from __future__ import annotations

import csv
import io
import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resources import FunctionResource
from mcp_types import CallToolResult, EmbeddedResource, TextContent, TextResourceContents, ToolAnnotations
from pydantic import Field
from typing_extensions import TypedDict

from fastgw.demo.serving import DemoServer, serve

ROW_LIMIT, EXPORT_LIMIT = 200, 10_000
TIME_LIMIT = 2.0  # seconds
SIZE_LIMIT = 1_000_000  # bytes of one value and of the SQL text
STEPS_BETWEEN_LOOKS = 10_000  # of SQLite's machine, between two looks at the clock
READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
TABLES = ("customers", "orders")
TABLE_URI, CSV = "shop://{}.csv", "text/csv"
READ_ONLY = ToolAnnotations(read_only_hint=True)
SHOP = """
create table customers (id integer primary key, name text not null, country text not null, since text not null);
create table orders (id integer primary key, customer integer not null references customers, item text not null,
                     amount real not null, ordered text not null);
insert into customers values
    (1, 'Ada Byron', 'GB', '2021-03-01'), (2, 'Emil Berg', 'SE', '2021-07-19'), (3, 'Ana Navarro', 'ES', '2022-01-30'),
    (4, 'Jun Watanabe', 'JP', '2022-11-05'), (5, 'Zoë Müller', 'DE', '2023-05-12');
insert into orders values
    (1, 1, 'lamp', 49.90, '2025-01-03'), (2, 1, 'desk', 320.00, '2025-01-09'), (3, 2, 'chair', 119.50, '2025-02-14'),
    (4, 3, 'lamp', 49.90, '2025-02-20'), (5, 3, 'shelf', 85.00, '2025-03-02'), (6, 4, 'desk', 320.00, '2025-03-15'),
    (7, 4, 'chair', 119.50, '2025-03-15'), (8, 5, 'rug, red', 210.00, '2025-04-01'),
    (9, 5, 'lamp', 49.90, '2025-04-18');
"""


class Table(TypedDict):
    """An answer; `truncated` where there were more rows than the limit."""

    columns: list[str]
    rows: list[list[Any]]
    truncated: bool


def query(file: Path, sql: str, limit: int = ROW_LIMIT) -> Table:
    """Run one reading statement; blobs, which have no form in JSON, become hex digits.

    Raises:
        sqlite3.Error: it is not SQL, not reading, too large or took longer than `TIME_LIMIT`.
    """
    with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as database:
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, SIZE_LIMIT)
        database.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        until = time.monotonic() + TIME_LIMIT
        database.set_progress_handler(lambda: time.monotonic() > until, STEPS_BETWEEN_LOOKS)
        database.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in READING else sqlite3.SQLITE_DENY)
        cursor = database.execute(sql)
        rows = [
            [value.hex() if isinstance(value, bytes) else value for value in row] for row in cursor.fetchmany(limit + 1)
        ]
        columns = [column[0] for column in cursor.description or ()]
    return {"columns": columns, "rows": rows[:limit], "truncated": len(rows) > limit}


def open_shop(file: Path) -> Path:
    """Write the database afresh and return its path."""
    file.unlink(missing_ok=True)
    with closing(sqlite3.connect(file)) as database, database:
        database.executescript(SHOP)
    return file


def as_csv(shop: Path, name: str) -> str:
    """A table of ours as CSV (RFC 4180) with a header line."""
    table, text = query(shop, f"select * from {name}", limit=EXPORT_LIMIT), io.StringIO()  # noqa: S608 - one of TABLES
    csv.writer(text).writerows([table["columns"], *table["rows"]])
    return text.getvalue()


def data(state: Path) -> MCPServer:
    """The server, its database under `state`."""
    server = DemoServer("data", "A shop's customers and orders, to read.")
    shop = open_shop(state / "shop.sqlite")
    for name in TABLES:  # as resources, under the URIs that export-data hands out
        about: dict[str, Any] = {
            "title": f"The shop's {name}",
            "description": "A whole table as CSV, with a header line.",
        }
        fn, uri = partial(as_csv, shop, name), TABLE_URI.format(name)
        server.add_resource(FunctionResource(uri=uri, name=name, mime_type=CSV, fn=fn, **about))

    @server.tool("db-query", annotations=READ_ONLY)
    def db_query(
        sql: Annotated[
            str, Field(max_length=20_000, description="One SELECT on customers and orders, SQLite's dialect")
        ],
    ) -> Table:
        """Read the shop with SQL: customers(id, name, country, since), orders(id, customer, item, amount, ordered)."""
        try:
            return query(shop, sql)
        except (sqlite3.Error, sqlite3.Warning) as wrong:
            raise ToolError(f"The query was refused: {wrong}") from wrong

    @server.tool("export-data", annotations=READ_ONLY)
    def export_data(table: Literal["customers", "orders"]) -> CallToolResult:
        """A whole table as CSV, in an embedded resource."""
        text = as_csv(shop, table)
        csv_text = TextResourceContents(uri=TABLE_URI.format(table), mime_type=CSV, text=text)
        words = TextContent(type="text", text=f"{len(text.splitlines()) - 1} rows of {table}")
        return CallToolResult(content=[words, EmbeddedResource(type="resource", resource=csv_text)])

    return server


if __name__ == "__main__":
    serve(data)
