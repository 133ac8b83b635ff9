"""The *data* server: a small shop's tables to query, export and read, in a database made afresh at every start."""

from __future__ import annotations

import csv
import io
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resources import FunctionResource
from mcp_types import CallToolResult, EmbeddedResource, TextContent, TextResourceContents, ToolAnnotations
from pydantic import Field

from fastgw.demo.sandbox import Table, query
from fastgw.demo.serving import DemoServer, serve

EXPORT_LIMIT = 10_000  # rows
TABLES = ("customers", "orders")
SHEET, CSV = "shop://{}.csv", "text/csv"
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


def open_shop(file: Path) -> Path:
    """Write the database afresh and return its path."""
    file.unlink(missing_ok=True)
    with closing(sqlite3.connect(file)) as database, database:
        database.executescript(SHOP)
    return file


def sheet(shop: Path, name: str) -> str:
    """A table of ours as CSV (RFC 4180) with a header line."""
    table, text = query(shop, f"select * from {name}", limit=EXPORT_LIMIT), io.StringIO()  # noqa: S608 - one of TABLES
    csv.writer(text).writerows([table["columns"], *table["rows"]])
    return text.getvalue()


def data(state: Path) -> MCPServer:
    """The server, its database under `state`."""
    server = DemoServer("data", "A shop's customers and orders, to read.")
    shop = open_shop(state / "shop.sqlite")
    for name in TABLES:  # as resources, under the URIs that export-data hands out
        server.add_resource(
            FunctionResource(
                uri=SHEET.format(name),
                name=name,
                title=f"The shop's {name}",
                description="A whole table as CSV, with a header line.",
                mime_type=CSV,
                fn=partial(sheet, shop, name),
            )
        )

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
        text = sheet(shop, table)
        csv_text = TextResourceContents(uri=SHEET.format(table), mime_type=CSV, text=text)
        words = TextContent(type="text", text=f"{len(text.splitlines()) - 1} rows of {table}")
        return CallToolResult(content=[words, EmbeddedResource(type="resource", resource=csv_text)])

    return server


if __name__ == "__main__":
    serve(data)
