"""The filters before the servers, as a gateway's probe meets them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.demo.sdk import server
from tests.e2e.http import Asked, Reply, exchange, initialize, legacy, modern, open_session


@pytest.fixture(scope="module")
def only_legacy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server("data", "legacy", tmp_path_factory.mktemp("legacy")) as url:
        yield url


@pytest.fixture(scope="module")
def only_modern(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server("data", "modern", tmp_path_factory.mktemp("modern")) as url:
        yield url


def ask(url: str, asked: Asked) -> Reply:
    return asyncio.run(exchange(url, asked))


def test_a_legacy_server_answers_a_modern_request_as_one_that_never_heard_of_it(only_legacy: str) -> None:
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
    assert reply.status == 400
    error = reply.json()["error"]
    assert error["code"] == -32022
    assert error["data"] == {"supported": ["2026-07-28"], "requested": "2025-11-25"}
    assert reply.json()["id"] == "open"


def test_a_modern_server_refuses_what_has_no_version(only_modern: str) -> None:
    reply = ask(only_modern, modern("tools/list", id=7).without("MCP-Protocol-Version"))
    assert (reply.status, reply.json()["error"]["code"], reply.json()["id"]) == (400, -32020, 7)


def test_a_modern_server_takes_nothing_but_post(only_modern: str) -> None:
    reply = ask(only_modern, Asked(verb="GET", headers=[("Accept", "text/event-stream")]))
    assert (reply.status, reply.header("allow")) == (405, "POST")


def test_a_modern_server_serves_a_modern_request(only_modern: str) -> None:
    reply = ask(only_modern, modern("tools/list"))
    assert reply.status == 200
    assert [tool["name"] for tool in reply.json()["result"]["tools"]] == ["db-query", "export-data"]
