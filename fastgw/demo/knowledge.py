"""The *knowledge* server: search-docs over this project's own pages, the pages themselves, create-ticket."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations
from pydantic import Field
from typing_extensions import TypedDict

from fastgw.demo.pages import Found, build, search
from fastgw.demo.reading import offer_pages
from fastgw.demo.server import DemoServer
from fastgw.demo.serving import serve

TABLE = """create table if not exists tickets (
    id integer primary key, title text not null, body text not null, priority text not null)"""


class Results(TypedDict):
    """Sections that fit, the best first."""

    results: list[Found]


class Ticket(TypedDict):
    """A ticket as it was filed."""

    id: str
    title: str
    priority: str


def file_ticket(tickets: Path, title: str, body: str, priority: str) -> str:
    """Append a ticket and return its id."""
    with closing(sqlite3.connect(tickets, timeout=5)) as table, table:
        table.execute(TABLE)
        order = "insert into tickets (title, body, priority) values (?, ?, ?)"
        return f"T-{table.execute(order, (title, body, priority)).lastrowid}"


def knowledge(state: Path) -> MCPServer:
    """The server, its index and its tickets under `state`."""
    server = DemoServer("knowledge", "fastgw's own documentation, and tickets about it.")
    offer_pages(server)
    index = build(state / "pages.sqlite")
    tickets = state / "tickets.sqlite"

    @server.tool("search-docs", annotations=ToolAnnotations(read_only_hint=True))
    def search_docs(
        query: Annotated[str, Field(min_length=1, max_length=400)], limit: Annotated[int, Field(ge=1, le=20)] = 5
    ) -> Results:
        """Search fastgw's documentation."""
        return {"results": search(index, query, limit)}

    @server.tool("create-ticket", annotations=ToolAnnotations(destructive_hint=False, idempotent_hint=False))
    def create_ticket(
        title: Annotated[str, Field(min_length=1, max_length=200)],
        body: Annotated[str, Field(max_length=20_000)] = "",
        priority: Literal["low", "normal", "high"] = "normal",
    ) -> Ticket:
        """File a ticket for people to look at."""
        return {"id": file_ticket(tickets, title, body, priority), "title": title, "priority": priority}

    return server


if __name__ == "__main__":
    serve(knowledge)
