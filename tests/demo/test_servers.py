"""What the servers offer, each in the era the demo serves it in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import (
    ElicitResult,
    EmbeddedResource,
    PromptReference,
    ResourceTemplateReference,
    TextContent,
    TextResourceContents,
)

from fastgw.demo import codegen, data, deployment
from fastgw.demo.knowledge import FILES, PAGES, sections
from tests.demo.sdk import server

Story = Callable[[Client], Awaitable[Any]]
ERAS = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
SECTION = ResourceTemplateReference(type="ref/resource", uri="docs://{page}/{section}")
SUMMARY = PromptReference(type="ref/prompt", name="summarise-page")


@pytest.fixture(scope="module")
def knowledge() -> Iterator[str]:
    with server("knowledge", "both") as url:
        yield url


def told(url: str, mode: str, story: Story, **more: Any) -> Any:
    async def within() -> Any:
        async with Client(url, mode=mode, **more) as client:
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


async def structured(client: Client, tool: str, **arguments: Any) -> Any:
    return (await client.call_tool(tool, arguments)).structured_content


@ERAS
def test_each_page_is_a_resource(knowledge: str, mode: str) -> None:
    async def story(client: Client) -> None:
        listed = {one.uri: one for one in (await client.list_resources()).resources}
        assert list(listed) == [f"docs://{file.stem.lower()}" for file in FILES]
        for name, page in PAGES.items():
            assert (listed[f"docs://{name}"].name, listed[f"docs://{name}"].mime_type) == (name, "text/markdown")
            assert await text(client, f"docs://{name}") == page

    told(knowledge, mode, story)


def test_the_sections_of_a_page_are_all_of_it() -> None:
    assert {"fastgw", "two-commands", "what-you-should-see"} <= set(sections("readme"))
    assert sections("readme")["two-commands"].startswith("## Two commands\n\nOn a machine with Python")
    for name, page in PAGES.items():
        lines = {line for section in sections(name).values() for line in section.splitlines()}
        assert set(page.splitlines()) <= lines


@ERAS
def test_a_section_is_read_by_the_template_and_an_unknown_one_is_not_found(knowledge: str, mode: str) -> None:
    async def story(client: Client) -> None:
        [template] = (await client.list_resource_templates()).resource_templates
        assert (template.uri_template, template.mime_type) == (SECTION.uri, "text/markdown")
        assert await text(client, "docs://readme/two-commands") == sections("readme")["two-commands"]
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
            uri="docs://errors", mime_type="text/markdown", text=PAGES["errors"]
        )
        assert (await error(client.get_prompt("summarise-page", {"page": "nothing"})))[0] == -32602

    told(knowledge, mode, story)


@ERAS
def test_pages_and_sections_are_completed(knowledge: str, mode: str) -> None:
    async def story(client: Client) -> list[list[str]]:
        asked: list[tuple[Any, str, str, dict[str, str] | None]] = [
            (SUMMARY, "page", "readm", None),
            (SECTION, "page", "usage-e", None),
            (SECTION, "section", "two", {"page": "readme"}),
            (SECTION, "section", "two", None),
            (SUMMARY, "nothing", "", None),
        ]
        return [
            (await client.complete(ref, {"name": name, "value": value}, others)).completion.values
            for ref, name, value, others in asked
        ]

    assert told(knowledge, mode, story) == [["readme"], ["usage-events"], ["two-commands"], [], []]


def test_the_documentation_is_found_where_it_can_be_read(knowledge: str) -> None:
    async def story(client: Client) -> None:
        found = await structured(client, "search-docs", query="mayHaveRun retryAfter", limit=3)
        assert len(found) == 3
        assert "docs://errors/" in next(iter(found))
        for uri, excerpt in found.items():
            assert excerpt.strip("… ").split("\n")[0] in await text(client, uri)
        assert await structured(client, "search-docs", query='"zzqxv* (') == {}
        assert await structured(client, "search-docs", query="*") == {}

    told(knowledge, "auto", story)


@ERAS
def test_who_files_a_ticket_is_asked_how_urgent_it_is(knowledge: str, mode: str) -> None:
    async def file(client: Client) -> str:
        return str((await structured(client, "create-ticket", title="It is slow"))["result"])

    async def ask(_: Any, params: Any) -> ElicitResult:
        assert params.message == "How urgent is it?"
        return ElicitResult(action="accept", content={"priority": "high"})

    assert told(knowledge, mode, file, elicitation_callback=ask).endswith(" (high): It is slow")
    assert told(knowledge, mode, file).endswith(" (normal): It is slow"), "nobody to be asked"


def test_two_models_write_code_and_one_is_overloaded_at_times() -> None:
    assert "by openai" in codegen.generate_code("sort a list").model_dump_json()
    told = codegen.write_code("sort a whole shop").model_dump(mode="json", by_alias=True)
    assert "by anthropic" in told["content"][0]["text"]
    assert told["_meta"]["usage"] == {"input_tokens": 4, "output_tokens": 10}
    with pytest.raises(ToolError, match="overloaded"):
        codegen.generate_code("a whole shop")


def test_deployments_are_told_of_and_are_read_as_of_now(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(deployment, "STEP_TIME", 0.01)
    monkeypatch.setattr(deployment, "remembered", tmp_path / "deployments")
    (tmp_path / "deployments").touch()
    steps: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        steps.append(progress)

    async def story(client: Client) -> None:
        for service in ("cart", "checkout"):
            order = {"service": service, "version": "1"}
            await client.call_tool("deploy-to-staging", order, progress_callback=note)
        assert steps == [0, 1, 2, 3, 4, 5] * 2
        listed = (await structured(client, "list-deployments"))["result"]
        assert [row["service"] for row in listed] == ["checkout", "cart"]
        assert [row["version"] for row in json.loads(await text(client, "staging://cart/history"))] == ["1"]
        assert (await error(client.read_resource("staging://nobody/history")))[0] == -32602
        [message] = (await client.get_prompt("incident-report", {"service": "cart"})).messages
        assert isinstance(message.content, TextContent)
        assert '"service": "cart"' in message.content.text

    with server("deployment", "legacy") as url:
        told(url, "legacy", story)


def test_a_query_reads_what_the_tables_say() -> None:
    async def story(client: Client) -> None:
        sql = (
            "select country, sum(amount) as sum from orders join customers on customers.id = customer "
            "group by 1 order by 1"
        )
        rows = (await structured(client, "db-query", sql=sql))["result"]
        assert rows[0] == {"country": "DE", "sum": 259.9}
        assert await text(client, "shop://tables.sql") == data.SHOP

    with server("data", "modern") as url:
        told(url, "2026-07-28", story)


@pytest.mark.parametrize(
    "sql",
    [
        "delete from orders",
        "insert into customers values (9, 'x', 'x')",
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
def test_all_but_reading_is_refused(sql: str) -> None:
    with pytest.raises(ToolError, match="refused"):
        data.db_query(sql)


def test_an_endless_query_ends_and_a_long_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = "with recursive n(i) as (select 1 union all select i + 1 from n) select {} from n"
    assert len(data.db_query(numbers.format("i"))) == data.ROW_LIMIT
    monkeypatch.setattr(data, "TIME_LIMIT", 0.05)
    with pytest.raises(ToolError, match="interrupted"):
        data.db_query(numbers.format("count(*)"))
