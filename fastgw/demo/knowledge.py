"""The *knowledge* server: this project's own pages, to search, read and summarise, and tickets about them."""

from __future__ import annotations

import re
import sqlite3
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

import mcp_types as types
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError
from mcp.server.mcpserver.prompts.base import Message, UserMessage
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp.server.mcpserver.resources import TextResource
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel, Field

from fastgw.demo.serving import serve

PACKED = Path(__file__).parent / "pages"  # where an installed package keeps them
HOME = PACKED if PACKED.is_dir() else Path(__file__).resolve().parents[2]
FILES = (HOME / "README.md", *sorted((HOME / "docs").glob("*.md")))
PAGES = {file.stem.lower(): file.read_text(encoding="utf-8") for file in FILES}
MARKDOWN = "text/markdown"

server = MCPServer("knowledge", log_level="WARNING", instructions="fastgw's own documentation, and tickets about it.")
for name, text in PAGES.items():
    server.add_resource(TextResource(uri=f"docs://{name}", name=name, mime_type=MARKDOWN, text=text))
tickets: list[str] = []


class Urgency(BaseModel):
    """What whoever files a ticket is asked."""

    priority: Literal["low", "normal", "high"] = "normal"


def sections(page: str) -> dict[str, str]:
    """Each section of a page by its heading in small letters with hyphens (`two-commands`); none of no page."""
    found = re.findall(r"(?ms)^(#+ (.+?)\n.*?)(?=^#+ |\Z)", PAGES.get(page, ""))
    return {re.sub(r"\W+", "-", heading.lower()).strip("-"): text for text, heading in found}


@server.tool("search-docs", annotations=types.ToolAnnotations(read_only_hint=True))
def search_docs(query: str, limit: Annotated[int, Field(ge=1, le=20)] = 5) -> dict[str, str]:
    """Search fastgw's documentation: where it has any of the words, the best first, with what it says there."""
    words = " OR ".join(f'"{word}"' for word in re.findall(r"\w+", query)) or '""'
    found = "select uri, snippet(pages, 1, '', '', ' … ', 40) from pages where text match ? order by rank limit ?"
    with closing(sqlite3.connect(":memory:")) as index:
        index.execute("create virtual table pages using fts5(uri unindexed, text, tokenize='porter unicode61')")
        for page in PAGES:
            rows = [(f"docs://{page}/{key}", text) for key, text in sections(page).items()]
            index.executemany("insert into pages values (?, ?)", rows)
        return dict(index.execute(found, (words, limit)).fetchall())


def ask_urgency(context: Context) -> Urgency | Elicit[Urgency]:
    """Ask, where there is somebody to be asked."""
    can = context.client_capabilities
    return Elicit("How urgent is it?", Urgency) if can and can.elicitation else Urgency()


@server.tool("create-ticket", annotations=types.ToolAnnotations(destructive_hint=False, idempotent_hint=False))
def create_ticket(title: str, urgency: Annotated[Urgency, Resolve(ask_urgency)]) -> str:
    """File a ticket for people to look at; asks back how urgent it is."""
    tickets.append(title)
    return f"T-{len(tickets)} ({urgency.priority}): {title}"


@server.resource("docs://{page}/{section}", title="A section of a page", mime_type=MARKDOWN)
def read_section(page: str, section: str) -> str:
    """One section: the page's name, and the heading in small letters with hyphens."""
    if text := sections(page).get(section):
        return text
    raise ResourceNotFoundError(f"Unknown resource: docs://{page}/{section}")


@server.prompt("summarise-page", title="Summarise a page")
def summarise_page(page: str, audience: str = "developers") -> list[Message]:
    """Summarise a page of fastgw's documentation for somebody."""
    if page not in PAGES:
        raise MCPError(code=types.INVALID_PARAMS, message=f"No page is called {page}")
    text = types.TextResourceContents(uri=f"docs://{page}", mime_type=MARKDOWN, text=PAGES[page])
    return [
        UserMessage(f"Summarise this page for {audience}, in ten lines at most."),
        UserMessage(types.EmbeddedResource(type="resource", resource=text)),
    ]


@server.completion()  # type: ignore[no-untyped-call, untyped-decorator]  # the SDK gives it no types
async def complete(
    _: object, argument: types.CompletionArgument, context: types.CompletionContext | None
) -> types.Completion:
    """Names of pages, and of the sections of the page that was chosen."""
    known: Iterable[str] = PAGES if argument.name == "page" else ()
    if argument.name == "section" and context and context.arguments:
        known = sections(context.arguments.get("page", ""))
    found = [one for one in known if one.startswith(argument.value)]
    return types.Completion(values=found[:100], total=len(found))  # 100: server/utilities/completion


if __name__ == "__main__":
    serve("both", server, int(sys.argv[1]) if sys.argv[1:] else 0)
