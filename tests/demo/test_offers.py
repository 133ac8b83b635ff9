"""What the three servers offer beside tools, each in the era the demo serves it in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp_types import (
    EmbeddedResource,
    PromptReference,
    ResourceTemplateReference,
    TextContent,
    TextResourceContents,
)

from fastgw.demo import deployment
from fastgw.demo.pages import pages
from tests.demo.sdk import server

Story = Callable[[Client], Awaitable[Any]]
ERAS = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
SECTION = ResourceTemplateReference(type="ref/resource", uri="docs://{page}/{section}")
SUMMARY = PromptReference(type="ref/prompt", name="summarise-page")


@pytest.fixture(scope="module")
def knowledge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server("knowledge", "both", tmp_path_factory.mktemp("knowledge")) as url:
        yield url


def told(url: str, mode: str, story: Story) -> Any:
    async def within() -> Any:
        async with Client(url, mode=mode) as client:
            return await story(client)

    return asyncio.run(within())


async def text(client: Client, uri: str) -> str:
    [content] = (await client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    assert content.uri == uri
    return content.text


async def error(asked: Awaitable[Any]) -> tuple[int, Any]:
    with pytest.raises(MCPError) as wrong:
        await asked
    return wrong.value.error.code, wrong.value.error.data


@ERAS
def test_each_page_is_a_resource(knowledge: str, mode: str) -> None:
    async def story(client: Client) -> None:
        listed = {one.uri: one for one in (await client.list_resources()).resources}
        assert list(listed) == [f"docs://{key}" for key in pages()]
        for key, page in pages().items():
            one = listed[f"docs://{key}"]
            assert (one.title, one.description, one.mime_type) == (page.title, page.description, "text/markdown")
            assert one.size == len(page.text.encode())
            assert await text(client, one.uri) == page.text

    told(knowledge, mode, story)


@ERAS
def test_a_section_is_read_by_the_template_and_an_unknown_one_is_not_found(knowledge: str, mode: str) -> None:
    async def story(client: Client) -> None:
        [template] = (await client.list_resource_templates()).resource_templates
        assert (template.uri_template, template.mime_type) == (SECTION.uri, "text/markdown")
        assert await text(client, "docs://readme/two-commands") == pages()["readme"].sections["two-commands"]
        for uri in ("docs://readme/nothing", "docs://nothing/two-commands", "docs://nothing"):
            assert await error(client.read_resource(uri)) == (-32602, {"uri": uri})

    told(knowledge, mode, story)


@ERAS
def test_the_prompt_hands_the_page_over(knowledge: str, mode: str) -> None:
    async def story(client: Client) -> None:
        got = await client.get_prompt("summarise-page", {"page": "errors", "audience": "operators"})
        words, page = (message.content for message in got.messages)
        assert isinstance(words, TextContent)
        assert "for operators" in words.text
        assert isinstance(page, EmbeddedResource)
        assert page.resource == TextResourceContents(
            uri="docs://errors", mime_type="text/markdown", text=pages()["errors"].text
        )
        assert (await error(client.get_prompt("summarise-page", {"page": "nothing"})))[0] == -32602
        assert (await error(client.get_prompt("summarise-page", {})))[0] == -32602
        assert await error(client.get_prompt("nothing", {})) == (-32602, {"name": "nothing"})

    told(knowledge, mode, story)


@ERAS
def test_pages_audiences_and_sections_are_completed(knowledge: str, mode: str) -> None:
    async def story(client: Client) -> list[list[str]]:
        asked: list[tuple[Any, str, str, dict[str, str] | None]] = [
            (SUMMARY, "page", "readm", None),
            (SUMMARY, "audience", "", None),
            (SECTION, "page", "usage-e", None),
            (SECTION, "section", "two", {"page": "readme"}),
            (SECTION, "section", "two", None),
            (SUMMARY, "nothing", "", None),
        ]
        return [
            (await client.complete(ref, {"name": name, "value": value}, others)).completion.values
            for ref, name, value, others in asked
        ]

    found = told(knowledge, mode, story)
    assert found == [["readme"], ["developers", "managers", "operators"], ["usage-events"], ["two-commands"], [], []]


def test_deployments_are_read_reported_and_completed_as_of_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployment, "STEP_TIME", 0.01)

    async def story(client: Client) -> None:
        assert json.loads(await text(client, "staging://history")) == []
        for service in ("cart", "checkout", "search"):
            await client.call_tool("deploy-to-staging", {"service": service, "version": "1"})
        assert [row["service"] for row in json.loads(await text(client, "staging://history"))] == [
            "search",
            "checkout",
            "cart",
        ]
        assert [row["version"] for row in json.loads(await text(client, "staging://cart/history"))] == ["1"]
        assert (await error(client.read_resource("staging://nobody/history")))[0] == -32602
        [message] = (await client.get_prompt("incident-report", {"service": "cart"})).messages
        assert isinstance(message.content, TextContent)
        assert '"service": "cart"' in message.content.text
        for ref in (
            PromptReference(type="ref/prompt", name="incident-report"),
            ResourceTemplateReference(type="ref/resource", uri="staging://{service}/history"),
        ):
            found = await client.complete(ref, {"name": "service", "value": "c"})
            assert found.completion.values == ["cart", "checkout"]

    with server("deployment", "legacy", tmp_path) as url:
        told(url, "legacy", story)


def test_what_an_export_embeds_can_be_read_again(tmp_path: Path) -> None:
    async def story(client: Client) -> None:
        for name in ("customers", "orders"):
            sheet = (await client.call_tool("export-data", {"table": name})).content[1]
            assert isinstance(sheet, EmbeddedResource)
            assert isinstance(sheet.resource, TextResourceContents)
            assert await text(client, sheet.resource.uri) == sheet.resource.text
        listed = (await client.list_resources()).resources
        assert [(one.uri, one.mime_type) for one in listed] == [
            ("shop://customers.csv", "text/csv"),
            ("shop://orders.csv", "text/csv"),
        ]

    with server("data", "modern", tmp_path) as url:
        told(url, "2026-07-28", story)
