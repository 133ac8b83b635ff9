"""The *data* server: a small shop's tables to read with SQL."""

from __future__ import annotations

import sqlite3
import sys
import time
from contextlib import closing
from typing import Annotated, Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resources import TextResource
from mcp_types import ToolAnnotations
from pydantic import Field

from fastgw.demo.serving import serve

ROW_LIMIT = 200
TIME_LIMIT = 2.0  # seconds
READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
SHOP = """
create table customers (id integer primary key, name text not null, country text not null);
create table orders (id integer primary key, customer integer not null references customers, item text, amount real);
insert into customers values (1, 'Ada Byron', 'GB'), (2, 'Emil Berg', 'SE'), (3, 'Ana Navarro', 'ES'),
    (4, 'Jun Watanabe', 'JP'), (5, 'Zoë Müller', 'DE');
insert into orders values (1, 1, 'lamp', 49.90), (2, 1, 'desk', 320.00), (3, 2, 'chair', 119.50),
    (4, 3, 'shelf', 85.00), (5, 4, 'desk', 320.00), (6, 5, 'rug', 210.00), (7, 5, 'lamp', 49.90);
"""

server = MCPServer("data", log_level="WARNING", instructions="A shop's customers and orders, to read.")
server.add_resource(TextResource(uri="shop://tables.sql", name="tables", text=SHOP, mime_type="application/sql"))


@server.tool("db-query", annotations=ToolAnnotations(read_only_hint=True))
def db_query(sql: Annotated[str, Field(description="One SELECT, in SQLite's dialect")]) -> list[dict[str, Any]]:
    """Read the shop with SQL, at most 200 rows: customers(id, name, country), orders(id, customer, item, amount)."""
    until = time.monotonic() + TIME_LIMIT
    # SQL comes from strangers: a database for each query, in which only reading is let through (no ATTACH, no PRAGMA)
    with closing(sqlite3.connect(":memory:")) as shop:
        shop.executescript(SHOP)
        shop.row_factory = sqlite3.Row
        shop.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000_000)  # bytes of one value, and of the SQL
        shop.set_progress_handler(lambda: time.monotonic() > until, 10_000)
        shop.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in READING else sqlite3.SQLITE_DENY)
        try:
            return [dict(row) for row in shop.execute(sql).fetchmany(ROW_LIMIT)]
        except (sqlite3.Error, sqlite3.Warning) as wrong:
            raise ToolError(f"The query was refused: {wrong}") from wrong


if __name__ == "__main__":
    serve("modern", server, int(sys.argv[1]) if sys.argv[1:] else 0)
