"""The filters before the servers, as a gateway's probe and the SDK's client meet them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from mcp import Client, MCPError

from fastgw.demo.serving import Era
from tests.demo.sdk import server
from tests.e2e.http import Asked, Reply, exchange, initialize, legacy, modern, open_session


@pytest.fixture(scope="module")
def only_legacy() -> Iterator[str]:
    with server("data", "legacy") as url:
        yield url


@pytest.fixture(scope="module")
def only_modern() -> Iterator[str]:
    with server("data", "modern") as url:
        yield url


def ask(url: str, asked: Asked) -> Reply:
    return asyncio.run(exchange(url, asked))


def test_a_legacy_server_refuses_a_modern_request(only_legacy: str) -> None:
    reply = ask(only_legacy, modern("server/discover"))
    assert reply.status == 400
    assert reply.json()["error"]["code"] == -32600
    assert "2026-07-28" in reply.json()["error"]["message"]


def test_a_legacy_server_knows_no_discover_in_a_session(only_legacy: str) -> None:
    async def story() -> Reply:
        session = await open_session(only_legacy)
        return await exchange(only_legacy, legacy("server/discover", {}, session=session))

    assert asyncio.run(story()).json()["error"]["code"] == -32601


def test_a_modern_server_names_its_revisions_to_an_initialize(only_modern: str) -> None:
    reply = ask(only_modern, initialize())
    error = reply.json()["error"]
    assert (reply.status, error["code"], error["data"]["supported"]) == (400, -32022, ["2026-07-28"])


def test_a_modern_server_serves_a_modern_request(only_modern: str) -> None:
    reply = ask(only_modern, modern("tools/list"))
    assert reply.status == 200
    assert [tool["name"] for tool in reply.json()["result"]["tools"]] == ["db-query"]


@pytest.mark.parametrize(("era", "mode"), [("legacy", "2026-07-28"), ("modern", "legacy")])
def test_a_client_of_the_other_era_is_refused(era: Era, mode: str) -> None:
    async def attempt(url: str) -> None:
        async with Client(url, mode=mode) as client:
            await client.list_tools()

    with server("knowledge", era) as url, pytest.raises((MCPError, ExceptionGroup)):
        asyncio.run(attempt(url))


@pytest.mark.parametrize("era", ["legacy", "modern", "both"])
def test_a_client_of_both_eras_finds_the_servers(era: Era) -> None:
    async def tools(url: str) -> tuple[list[str], str | None]:
        async with Client(url) as client:
            listed = await client.list_tools()
            return [tool.name for tool in listed.tools], client.protocol_version

    with server("knowledge", era) as url:
        names, version = asyncio.run(tools(url))
    assert names == ["search-docs", "create-ticket"]
    assert version == ("2025-11-25" if era == "legacy" else "2026-07-28")
