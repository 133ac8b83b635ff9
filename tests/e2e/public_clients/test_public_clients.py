"""Ten public clients list and call through the demo's gateway, and show what docs/clients.md says for a wrong key.

The page's table is the expectation: versions, the revision each speaks, words for a wrong key.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.demo import Demo, running
from tests.e2e.gateway import until
from tests.e2e.tour import TOOLS, given

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PAGE = ROOT / "docs" / "clients.md"
PACKAGE_FILES = [HERE / "package.json", HERE.parent / "clients" / "package.json"]
PATIENCE = 60  # seconds
ORDERS = {  # interpreter in the folder of environments, program, the packages it is to use
    "FastMCP": "clients-python/bin/python fastmcp_client.py",
    "LangChain": "clients-langchain/bin/python langchain_client.py",
    "Pydantic AI": "clients-python/bin/python pydantic_ai_client.py",
    "OpenAI Agents": "clients-python/bin/python openai_agents_client.py",
    "LlamaIndex": "clients-python/bin/python llama_index_client.py",
    "Google ADK": "clients-adk/bin/python google_adk_client.py",
    "AI SDK": "clients-node/node ai_sdk.mjs clients-node",
    "mcp-remote": "dev/bin/python mcp_remote.py clients-node",
    "mcporter": "dev/bin/python mcporter.py clients-node",
    "MCP Inspector": "dev/bin/python inspector.py clients",
}
QUIET = {"NO_GCE_CHECK": "true"}  # else the ADK looks for Google's cloud around it


@dataclass(frozen=True)
class Row:
    """What the page says of one client; `shown` are the quotations of its last column."""

    package: str
    version: str
    revision: str
    shown: list[str]


def rows() -> dict[str, Row]:
    """The page's table."""
    found = {}
    for line in PAGE.read_text().splitlines():
        if line.startswith("| ["):
            client, package, version, revision, shown = (cell.strip() for cell in line.strip("|").split(" | "))
            name = client[1 : client.index("]")]
            found[name] = Row(package.strip("`"), version, revision, re.findall(r"`([^`]+)`", shown))
    return found


def locked() -> dict[str, str]:
    """Version of each package that the lists of the clients name."""
    lists = [file.read_text() for file in (ROOT / "requirements").glob("clients-*.txt")]
    versions = {name: version for text in lists for name, version in re.findall(r"(?m)^([\w.-]+)==(\S+)", text)}
    for file in PACKAGE_FILES:
        versions.update(json.loads(file.read_text())["dependencies"])
    return versions


def go(client: str, url: str, key: str) -> dict[str, Any]:
    """What a client's program prints."""
    place = Path(given("FASTGW_PUBLIC_CLIENTS", "folder with the environments of the public clients"))
    interpreter, program, *packages = ORDERS[client].split()
    order = [str(place / interpreter), str(HERE / program), *(str(place / name) for name in packages), url, key]
    around = {**os.environ, **QUIET}
    done = subprocess.run(order, env=around, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def events(demo: Demo) -> list[dict[str, Any]]:
    """What the gateway has written of calls."""
    file = Path(demo.usage)
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running() as it:
        yield it


@pytest.fixture(scope="module")
def page() -> dict[str, Row]:
    return rows()


def test_the_page_has_the_versions_that_are_tried(page: dict[str, Row]) -> None:
    assert set(page) == set(ORDERS)
    versions = locked()
    assert {row.package: row.version for row in page.values()} == {
        row.package: versions.get(row.package) for row in page.values()
    }


@pytest.mark.clients
@pytest.mark.parametrize("client", ORDERS)
def test_it_lists_and_calls(demo: Demo, page: dict[str, Row], client: str) -> None:
    before = len(events(demo))
    told = go(client, demo.endpoint, demo.key("engineering"))
    assert set(told["tools"]) == TOOLS
    assert "Zoë Müller" in json.dumps(told["result"], ensure_ascii=False)

    async def written() -> bool:
        return len(events(demo)) > before

    asyncio.run(until(written))
    [event] = events(demo)[before:]
    assert (event["tool"], event["outcome"]) == ("db-query", "ok")
    assert event["protocolVersion"] == page[client].revision


@pytest.mark.clients
@pytest.mark.parametrize("client", ORDERS)
def test_a_wrong_key_is_told_as_the_page_says(demo: Demo, page: dict[str, Row], client: str) -> None:
    told = go(client, demo.endpoint, "fgw_wrong")
    assert "error" in told, told
    shown = "\n".join([told["error"], *told["within"]])
    print(f"{client} shows:\n{shown}")
    assert page[client].shown
    assert [words for words in page[client].shown if words not in shown] == []
