"""`fastgw demo` as a newcomer meets it: both SDK clients call every tool, the printed call works, Ctrl-C ends all.

Each client keeps its own connections, as SDKs do; everything else here is on a fresh one.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.clients import modern as modern_client
from tests.e2e.http import Asked, exchange, modern

LEGACY_CLIENT = Path(__file__).parent / "clients" / "legacy_client.py"
LEGACY_PYTHON = os.environ.get("FASTGW_LEGACY_PYTHON")
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("deploy-to-staging", {"service": "cart", "version": "1.0"}),
    ("deploy-to-staging", {"service": "cart", "version": "1.1"}),
    ("rollback", {"service": "cart"}),
    ("list-deployments", {"service": "cart", "limit": 3}),
    ("db-query", {"sql": "select name from customers where id = 5"}),
    ("export-data", {"table": "customers"}),
    ("search-docs", {"query": "mayHaveRun"}),
    ("create-ticket", {"title": "A question", "priority": "high"}),
    ("db-query", {"sql": "drop table customers"}),
]
TOOLS = {tool for tool, _ in CALLS}
SUPPORT = {"search-docs", "create-ticket", "db-query"}
END_WITHIN = 40.0


@dataclass
class Demo:
    """A running demo and what it printed."""

    process: subprocess.Popen[str]
    words: str

    @property
    def endpoint(self) -> str:
        return self._found(r"^endpoint +(\S+)")

    def key(self, name: str) -> str:
        return self._found(rf"^  {name} +(fgw_\S+)")

    def curl(self) -> Asked:
        """The printed call, as curl would send it."""
        text = self.words[self.words.index("curl -sS") : self.words.index("for an MCP client")]
        words = shlex.split(text.replace("\\\n", " "))
        assert words[:3] == ["curl", "-sS", self.endpoint]
        options = list(zip(words[3::2], words[4::2], strict=True))
        headers = [(name, value) for option, text in options if option == "-H" for name, value in [text.split(": ", 1)]]
        return Asked(next(text for option, text in options if option == "-d").encode(), headers)

    def snippet(self) -> dict[str, Any]:
        begin = self.words.index("{\n", self.words.index("for an MCP client"))
        return dict(json.JSONDecoder().raw_decode(self.words[begin:])[0]["mcpServers"]["fastgw"])

    def _found(self, pattern: str) -> str:
        match = re.search(pattern, self.words, re.MULTILINE)
        assert match, f"{pattern} is not in:\n{self.words}"
        return match.group(1)


def start() -> Demo:
    order = [sys.executable, "-m", "fastgw", "demo"]
    process = subprocess.Popen(order, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Ctrl-C"):
            return Demo(process, "".join(lines))
    raise AssertionError(f"the demo ended with {process.wait()}:\n{''.join(lines)}")


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    running = start()
    try:
        yield running
    finally:
        running.process.send_signal(signal.SIGINT)
        running.process.communicate(timeout=END_WITHIN)


def by_legacy_client(demo: Demo, key: str, calls: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    if not LEGACY_PYTHON:
        pytest.skip("FASTGW_LEGACY_PYTHON names no Python with mcp 1.x; make test sets it")
    order = [LEGACY_PYTHON, str(LEGACY_CLIENT), demo.endpoint, key, json.dumps(calls)]
    done = subprocess.run(order, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def by_modern_client(demo: Demo, key: str, calls: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    return asyncio.run(modern_client.story(demo.endpoint, key, calls))


CLIENTS = pytest.mark.parametrize(
    ("client", "version"),
    [
        pytest.param(by_modern_client, "2026-07-28", id="mcp-2"),
        pytest.param(by_legacy_client, "2025-11-25", id="mcp-1", marks=pytest.mark.legacy_client),
    ],
)


@CLIENTS
def test_every_tool_is_listed_and_called(demo: Demo, client: Any, version: str) -> None:
    seen = client(demo, demo.key("engineering"), CALLS)
    assert seen["version"] == version
    assert set(seen["tools"]) == TOOLS
    first, _, back, history, query, export, found, ticket, refused = seen["results"]
    assert first["progress"] == [0, 1, 2, 3, 4, 5]
    assert (back["structured"]["version"], back["structured"]["kind"]) == ("1.0", "rollback")
    assert [row["version"] for row in history["structured"]["deployments"]] == ["1.0", "1.1", "1.0"]
    assert query["structured"]["rows"] == [["Zoë Müller"]]
    assert export["resources"][0].startswith("id,name,country,since\r\n1,Ada Byron,GB,2021-03-01\r\n")
    assert found["structured"]["results"][0]["page"] == "errors.md"
    assert ticket["structured"]["priority"] == "high"
    assert [result["isError"] for result in seen["results"]] == [False] * 8 + [True]
    assert "refused" in refused["text"][0]


@CLIENTS
def test_support_sees_its_own_tools_only(demo: Demo, client: Any, version: str) -> None:
    seen = client(demo, demo.key("support"), [("search-docs", {"query": "usage"})])
    assert set(seen["tools"]) == SUPPORT
    assert seen["results"][0]["isError"] is False


def test_a_tool_of_others_does_not_exist(demo: Demo) -> None:
    asked = modern("tools/call", {"name": "rollback", "arguments": {"service": "cart"}}, key=demo.key("support"))
    reply = asyncio.run(exchange(demo.endpoint, asked))
    assert (reply.status, reply.json()["error"]["code"]) == (400, -32602)


def test_the_printed_call_works_as_pasted(demo: Demo) -> None:
    reply = asyncio.run(exchange(demo.endpoint, demo.curl()))
    assert reply.status == 200
    assert reply.json()["result"]["structuredContent"]["results"]


def test_the_printed_snippet_names_the_endpoint_and_a_key(demo: Demo) -> None:
    snippet = demo.snippet()
    assert snippet["url"] == demo.endpoint
    asked = modern("tools/list").having("Authorization", snippet["headers"]["Authorization"])
    assert asyncio.run(exchange(demo.endpoint, asked)).status == 200


def test_a_foreign_key_is_refused(demo: Demo) -> None:
    assert asyncio.run(exchange(demo.endpoint, modern("tools/list", key="fgw_wrong"))).status == 401


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_all_that_it_started_and_exits_with_0(number: signal.Signals) -> None:
    running = start()
    family = descendants(running.process.pid)
    assert len(family) >= 3 + 1 + 1 + 2, "three servers, launcher, keeper, two workers"
    running.process.send_signal(number)
    running.process.communicate(timeout=END_WITHIN)
    assert running.process.returncode == 0
    assert [pid for pid in family if alive(pid)] == []


def test_a_server_that_is_killed_changes_nothing_for_the_others() -> None:
    running = start()
    try:
        key = running.key("engineering")
        [data] = [pid for pid in descendants(running.process.pid) if b"fastgw.demo.data" in order_of(pid)]
        os.kill(data, signal.SIGKILL)
        assert running.process.stdout is not None
        assert running.process.stdout.readline().startswith("data is gone")
        listed = asyncio.run(exchange(running.endpoint, modern("tools/list", key=key))).json()["result"]["tools"]
        assert {tool["name"] for tool in listed} == TOOLS
        gone = modern("tools/call", {"name": "db-query", "arguments": {"sql": "select 1"}}, key=key)
        error = asyncio.run(exchange(running.endpoint, gone)).json()["error"]
        assert (error["code"], error["data"]["reason"], error["data"]["mayHaveRun"]) == (-31001, "down", False)
        other = modern("tools/call", {"name": "list-deployments", "arguments": {}}, key=key)
        assert asyncio.run(exchange(running.endpoint, other)).status == 200
    finally:
        running.process.send_signal(signal.SIGINT)
        running.process.communicate(timeout=END_WITHIN)
    assert running.process.returncode == 0


def order_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def descendants(root: int) -> list[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, _, rest = stat.read_text().partition(" (")
        except OSError:
            continue
        parents[int(pid)] = int(rest.rpartition(") ")[2].split()[1])
    found, new = [], [root]
    while new:
        new = [pid for pid, parent in parents.items() if parent in new]
        found += new
    return found


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return False
    return state not in "ZX"
