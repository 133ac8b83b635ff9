"""Every tool of the three servers, each server in the era the demo serves it in."""

from __future__ import annotations

import asyncio
import csv
import io
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp_types import CallToolResult, EmbeddedResource, TextContent, TextResourceContents

from fastgw.demo import deployment
from tests.demo.sdk import process, server


async def call(url: str, tool: str, arguments: dict[str, Any], mode: str, **more: Any) -> CallToolResult:
    async with Client(url, mode=mode) as client:
        result = await client.call_tool(tool, arguments, **more)
    assert isinstance(result, CallToolResult)
    return result


def said(result: CallToolResult) -> str:
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


def test_a_deployment_tells_its_progress_and_a_rollback_goes_one_version_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment, "STEP_TIME", 0.01)
    told: list[tuple[float, float | None, str | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))

    async def story(url: str) -> list[Any]:
        deploy = "deploy-to-staging"
        first = await call(url, deploy, {"service": "cart", "version": "1"}, "legacy", progress_callback=note)
        await call(url, deploy, {"service": "cart", "version": "2"}, "legacy")
        back = await call(url, "rollback", {"service": "cart"}, "legacy")
        history = await call(url, "list-deployments", {}, "legacy")
        lost = await call(url, "rollback", {"service": "nobody"}, "legacy")
        return [first, back, history, lost]

    with server("deployment", "legacy", tmp_path) as url:
        first, back, history, lost = asyncio.run(story(url))
    assert first.structured_content["version"] == "1"
    assert [step[0] for step in told] == [0, 1, 2, 3, 4, 5]
    assert told[-1][1] == 5
    assert (back.structured_content["version"], back.structured_content["kind"]) == ("1", "rollback")
    assert [row["version"] for row in history.structured_content["deployments"]] == ["1", "2", "1"]
    assert lost.is_error


def test_the_history_outlives_the_server(tmp_path: Path) -> None:
    with process("deployment", "both", tmp_path) as url:
        asyncio.run(call(url, "deploy-to-staging", {"service": "cart", "version": "7"}, "auto"))
    with process("deployment", "both", tmp_path) as url:
        history = asyncio.run(call(url, "list-deployments", {"service": "cart"}, "auto"))
    assert history.structured_content is not None
    assert history.structured_content["deployments"][0]["version"] == "7"


def test_a_query_reads_and_an_export_is_csv(tmp_path: Path) -> None:
    async def story(url: str) -> tuple[CallToolResult, CallToolResult]:
        sql = (
            "select c.country, sum(o.amount) from orders o join customers c on c.id = o.customer group by 1 order by 1"
        )
        return (
            await call(url, "db-query", {"sql": sql}, "2026-07-28"),
            await call(url, "export-data", {"table": "orders"}, "2026-07-28"),
        )

    with server("data", "modern", tmp_path) as url:
        query, export = asyncio.run(story(url))
    assert query.structured_content is not None
    assert query.structured_content["rows"][0] == ["DE", 259.9]
    assert isinstance(export.content[1], EmbeddedResource)
    sheet = export.content[1].resource
    assert isinstance(sheet, TextResourceContents)
    assert sheet.mime_type == "text/csv"
    rows = list(csv.reader(io.StringIO(sheet.text)))
    assert rows[0] == ["id", "customer", "item", "amount", "ordered"]
    assert ["8", "5", "rug, red", "210.0", "2025-04-01"] in rows


def test_the_documentation_is_found_and_tickets_are_numbered(tmp_path: Path) -> None:
    async def story(url: str) -> list[CallToolResult]:
        return [
            await call(url, "search-docs", {"query": "mayHaveRun retryAfter"}, "auto"),
            await call(url, "search-docs", {"query": '"zzqxv* ('}, "auto"),
            await call(url, "create-ticket", {"title": "It is slow"}, "legacy"),
            await call(url, "create-ticket", {"title": "It is not", "priority": "low"}, "auto"),
        ]

    with server("knowledge", "both", tmp_path) as url:
        found, nothing, first, second = asyncio.run(story(url))
    assert found.structured_content is not None
    assert found.structured_content["results"][0]["page"] == "errors.md"
    assert nothing.structured_content == {"results": []}
    assert first.structured_content is not None
    assert first.structured_content["id"] == "T-1"
    assert second.structured_content == {"id": "T-2", "title": "It is not", "priority": "low"}


@pytest.mark.parametrize(("era", "mode"), [("legacy", "2026-07-28"), ("modern", "legacy")])
def test_a_client_of_the_other_era_is_refused(tmp_path: Path, era: str, mode: str) -> None:
    async def attempt(url: str) -> None:
        async with Client(url, mode=mode) as client:
            await client.list_tools()

    with server("knowledge", era, tmp_path) as url, pytest.raises((MCPError, ExceptionGroup)):
        asyncio.run(attempt(url))


@pytest.mark.parametrize("era", ["legacy", "modern", "both"])
def test_a_client_of_both_eras_finds_the_servers(tmp_path: Path, era: str) -> None:
    async def tools(url: str) -> tuple[list[str], str | None]:
        async with Client(url) as client:
            listed = await client.list_tools()
            return [tool.name for tool in listed.tools], client.protocol_version

    with server("knowledge", era, tmp_path) as url:
        names, version = asyncio.run(tools(url))
    assert names == ["search-docs", "create-ticket"]
    assert version == ("2025-11-25" if era == "legacy" else "2026-07-28")
