"""The pages to read: each a resource, each section by a template, a prompt that hands a page over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError
from mcp.server.mcpserver.prompts.base import Message, UserMessage
from mcp.server.mcpserver.resources import TextResource
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, EmbeddedResource, TextResourceContents
from pydantic import Field

from fastgw.demo.completing import complete_from
from fastgw.demo.pages import Page, pages

MARKDOWN = "text/markdown"
SECTION = "docs://{page}/{section}"
SUMMARY = "summarise-page"
AUDIENCES = ("developers", "managers", "operators")


def offer_pages(server: MCPServer) -> None:
    """Give the server resources, template, prompt and completion."""
    shelf = pages()
    for page in shelf.values():
        server.add_resource(
            TextResource(
                uri=f"docs://{page.key}",
                name=page.key,
                title=page.title,
                description=page.description,
                mime_type=MARKDOWN,
                text=page.text,
            )
        )
    _offer_sections(server, shelf)
    _offer_summary(server, shelf)
    _offer_completion(server, shelf)


def _offer_sections(server: MCPServer, shelf: dict[str, Page]) -> None:
    @server.resource(SECTION, name="section", title="A section of a page", mime_type=MARKDOWN)
    def section(page: str, section: str) -> str:
        """One section: the page's name, and the heading in small letters with hyphens."""
        found = shelf[page].sections.get(section) if page in shelf else None
        if found is None:
            raise ResourceNotFoundError(f"Unknown resource: docs://{page}/{section}")
        return found


def _offer_summary(server: MCPServer, shelf: dict[str, Page]) -> None:
    @server.prompt(SUMMARY, title="Summarise a page")
    def summarise_page(
        page: Annotated[str, Field(description="The page's name, like errors")],
        audience: Annotated[str, Field(description="Whom the summary is for")] = AUDIENCES[0],
    ) -> list[Message]:
        """Summarise a page of fastgw's documentation for somebody."""
        if page not in shelf:
            raise MCPError(code=INVALID_PARAMS, message=f"No page is called {page}", data={"pages": sorted(shelf)})
        text = TextResourceContents(uri=f"docs://{page}", mime_type=MARKDOWN, text=shelf[page].text)
        return [
            UserMessage(f'Summarise the page "{shelf[page].title}" for {audience}, in ten lines at most.'),
            UserMessage(EmbeddedResource(type="resource", resource=text)),
        ]


def _offer_completion(server: MCPServer, shelf: dict[str, Page]) -> None:
    def propose(asked: str, argument: str, others: dict[str, str]) -> Iterable[str]:
        if argument == "page" and asked in (SUMMARY, SECTION):
            return sorted(shelf)
        if (asked, argument) == (SUMMARY, "audience"):
            return AUDIENCES
        if (asked, argument) == (SECTION, "section") and (page := shelf.get(others.get("page", ""))):
            return page.sections
        return ()

    complete_from(server, propose)
