"""The *knowledge* server: search-docs over this project's own pages, the pages themselves, create-ticket."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Literal

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError
from mcp.server.mcpserver.prompts.base import Message, UserMessage
from mcp.server.mcpserver.resources import TextResource
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, EmbeddedResource, TextResourceContents, ToolAnnotations
from pydantic import Field
from typing_extensions import TypedDict

from fastgw.demo.pages import Found, ProjectPage, build, pages, search
from fastgw.demo.serving import DemoServer, serve

MARKDOWN = "text/markdown"
SECTION = "docs://{page}/{section}"
SUMMARY = "summarise-page"
AUDIENCES = ("developers", "managers", "operators")
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


def knowledge(state: Path) -> MCPServer:
    """The server, its index and its tickets under `state`."""
    server = DemoServer("knowledge", "fastgw's own documentation, and tickets about it.")
    _offer_pages(server, pages())
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
        with closing(sqlite3.connect(tickets, timeout=5)) as table, table:
            table.execute(TABLE)
            order = "insert into tickets (title, body, priority) values (?, ?, ?)"
            number = table.execute(order, (title, body, priority)).lastrowid
        return {"id": f"T-{number}", "title": title, "priority": priority}

    return server


def _offer_pages(server: DemoServer, known: dict[str, ProjectPage]) -> None:
    for page in known.values():
        about: dict[str, Any] = {"title": page.title, "description": page.description, "mime_type": MARKDOWN}
        server.add_resource(TextResource(uri=f"docs://{page.key}", name=page.key, text=page.text, **about))

    @server.resource(SECTION, name="section", title="A section of a page", mime_type=MARKDOWN)
    def section(page: str, section: str) -> str:
        """One section: the page's name, and the heading in small letters with hyphens."""
        if page in known and section in known[page].sections:
            return known[page].sections[section]
        raise ResourceNotFoundError(f"Unknown resource: docs://{page}/{section}")

    @server.prompt(SUMMARY, title="Summarise a page")
    def summarise_page(
        page: Annotated[str, Field(description="The page's name, like errors")],
        audience: Annotated[str, Field(description="Whom the summary is for")] = AUDIENCES[0],
    ) -> list[Message]:
        """Summarise a page of fastgw's documentation for somebody."""
        if page not in known:
            raise MCPError(code=INVALID_PARAMS, message=f"No page is called {page}", data={"pages": sorted(known)})
        text = TextResourceContents(uri=f"docs://{page}", mime_type=MARKDOWN, text=known[page].text)
        return [
            UserMessage(f'Summarise the page "{known[page].title}" for {audience}, in ten lines at most.'),
            UserMessage(EmbeddedResource(type="resource", resource=text)),
        ]

    def propose(asked: str, argument: str, others: dict[str, str]) -> Iterable[str]:
        if argument == "page" and asked in (SUMMARY, SECTION):
            return sorted(known)
        if (asked, argument) == (SUMMARY, "audience"):
            return AUDIENCES
        if (asked, argument) == (SECTION, "section") and (page := known.get(others.get("page", ""))):
            return page.sections
        return ()

    server.complete_from(propose)


if __name__ == "__main__":
    serve(knowledge)
