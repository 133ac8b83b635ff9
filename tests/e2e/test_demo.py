"""`fastgw demo` as a newcomer meets it: the printed call works, servers may die, Ctrl-C ends all.

What its servers offer, seen by other people's clients, is in `test_clients_*.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.demo import END_WITHIN, Demo, running, start
from tests.e2e.gateway import until
from tests.e2e.http import META, Asked, Reply, exchange, modern
from tests.e2e.tour import TOOLS


@pytest.fixture(scope="module")
def demos() -> Iterator[list[Demo]]:
    """Two that have started at once; the tests at the end of this file end them."""
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda _: start(), range(2)))
    try:
        yield found
    finally:
        for one in found:
            one.process.send_signal(signal.SIGINT)
            one.process.communicate(timeout=END_WITHIN)


@pytest.fixture
def demo(demos: list[Demo]) -> Demo:
    return demos[0]


def test_a_tool_of_others_does_not_exist(demo: Demo) -> None:
    asked = modern("tools/call", {"name": "list-deployments", "arguments": {}}, key=demo.key("support"))
    reply = asyncio.run(exchange(demo.endpoint, asked))
    assert (reply.status, reply.json()["error"]["code"]) == (400, -32602)


def test_the_printed_call_works_as_pasted(demo: Demo) -> None:
    reply = asyncio.run(exchange(demo.endpoint, demo.curl()))
    assert reply.status == 200
    assert reply.json()["result"]["structuredContent"]


def test_a_ticket_asks_back_how_urgent_it_is(demo: Demo) -> None:
    def file(**answered: Any) -> dict[str, Any]:
        params = {"name": "create-ticket", "arguments": {"title": "It is slow"}, **answered}
        meta = {f"{META}clientCapabilities": {"elicitation": {}}}
        asked = modern("tools/call", params, key=demo.key("engineering"), meta=meta)
        return dict(asyncio.run(exchange(demo.endpoint, asked)).json()["result"])

    first = file()
    [(name, question)] = first["inputRequests"].items()
    assert (first["resultType"], question["params"]["message"]) == ("input_required", "How urgent is it?")
    answer = {"action": "accept", "content": {"priority": "high"}}
    done = file(inputResponses={name: answer}, requestState=first["requestState"])
    assert done["structuredContent"]["result"].endswith(" (high): It is slow")


def test_support_files_three_tickets_and_no_fourth(demo: Demo) -> None:
    filed = modern("tools/call", {"name": "create-ticket", "arguments": {"title": "x"}}, key=demo.key("support"))
    replies = [asyncio.run(exchange(demo.endpoint, filed)) for _ in range(4)]
    assert [reply.status for reply in replies] == [200, 200, 200, 429]
    assert replies[3].json()["error"]["data"]["limit"] == "tickets"


def test_the_readme_shows_what_is_printed(demo: Demo) -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    shown = readme.split("```text\n")[1].split("```")[0]
    pattern = ".*".join(map(re.escape, shown.replace("\n  …\n", "…").split("…")))
    told = demo.words.replace(demo.endpoint, "http://127.0.0.1:8080/mcp").replace(demo.admin, "http://127.0.0.1:8081")
    assert re.match(pattern, told.strip(), re.DOTALL), told


def test_the_printed_snippet_names_the_endpoint_and_a_key(demo: Demo) -> None:
    snippet = demo.snippet()
    assert snippet["url"] == demo.endpoint
    asked = modern("tools/list").having("Authorization", snippet["headers"]["Authorization"])
    assert asyncio.run(exchange(demo.endpoint, asked)).status == 200


def test_a_foreign_key_is_refused(demo: Demo) -> None:
    assert asyncio.run(exchange(demo.endpoint, modern("tools/list", key="fgw_wrong"))).status == 401


def test_demos_that_start_at_once_take_ports_of_their_own(demos: list[Demo]) -> None:
    places = {place for demo in demos for place in (demo.endpoint, demo.admin)}
    assert len({place.split(":")[2].split("/")[0] for place in places}) == 4
    for demo in demos:
        asked = modern("tools/list", key=demo.key("engineering"))
        assert asyncio.run(exchange(demo.endpoint, asked)).status == 200


def test_servers_die_and_come_back_as_the_readme_tells() -> None:
    """The lines of README's second block of commands, one after the other."""
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```sh\n(call\(\).*?)```", readme, re.DOTALL)
    shown = re.findall(r"^(.*?) +call (\S+) '(.*?)' +# (.*)$", block, re.MULTILINE)
    does = [(order.strip().rstrip(";"), tool, json.loads(arguments)) for order, tool, arguments, _ in shown]
    assert [order for order, _, _ in does] == ["kill -9 $DEPLOYMENT", "kill -9 $DEPLOYMENT_2", "$AGAIN &"]
    [model] = re.findall(r"^call (\S+) '(.*?)'", block, re.MULTILINE)
    again: subprocess.Popen[bytes] | None = None
    with running() as demo:
        key = demo.key("engineering")

        async def called(tool: str, arguments: Any) -> Reply:
            sent = [("X-API-Key", key), ("Content-Type", "application/json"), ("Content-Length", f"{len(arguments)}")]
            return await exchange(f"{demo.endpoint}/tools/{tool}/invoke", Asked(arguments, sent))

        def call(tool: str, arguments: Any) -> Reply:
            return asyncio.run(called(tool, json.dumps(arguments).encode()))

        async def lists_all() -> bool:
            reply = await exchange(demo.endpoint, modern("tools/list", key=key))
            return {tool["name"] for tool in reply.json()["result"]["tools"]} == TOOLS

        async def answers() -> bool:
            return (await called(does[2][1], b"{}")).status == 200

        asyncio.run(until(lists_all))  # on a busy machine a server may be late for the first look at it
        try:
            asyncio.run(until(answers))
            os.kill(demo.process_of("deployment"), signal.SIGKILL)
            assert demo.process.stdout is not None
            told = demo.process.stdout.readline()
            for _ in range(20):
                assert call(*does[0][1:]).status == 200, "nobody notices"
            os.kill(demo.process_of("deployment-2"), signal.SIGKILL)
            assert demo.process.stdout.readline().startswith("deployment-2 is gone")
            gone = call(*does[1][1:])
            error = gone.json()
            assert (gone.status, error["error"]) == (503, "All MCP backends unavailable")
            assert error["retryAfter"] >= 1
            assert error["mayHaveRun"] is False
            assert asyncio.run(lists_all())
            command = re.fullmatch(r"deployment is gone; to have it again: (.*)\n", told)
            assert command is not None
            again = subprocess.Popen(shlex.split(command.group(1)), stdout=subprocess.PIPE)
            assert again.stdout is not None
            assert again.stdout.readline().startswith(b"http://")
            assert call(*does[2][1:]).status == 200, "the next call finds it"
            assert "by anthropic" in str(call(model[0], json.loads(model[1])).json())
            assert "by openai" in str(call(model[0], {"prompt": "sort a list"}).json())
            os.kill(demo.process_of("openai"), signal.SIGKILL)
            assert demo.process.stdout.readline().startswith("openai is gone")
            assert "by anthropic" in str(call(model[0], {"prompt": "sort a list"}).json())
        finally:
            if again is not None:
                again.kill()
                again.wait()
    assert demo.process.returncode == 0


@pytest.mark.parametrize(("at", "number"), [(0, signal.SIGINT), (1, signal.SIGTERM)])
def test_it_ends_all_that_it_started_and_exits_with_0(demos: list[Demo], at: int, number: signal.Signals) -> None:
    process = demos[at].process
    family = descendants(process.pid)
    assert len(family) >= 6 + 1 + 1 + 2, "six servers, supervisor, controller, two workers"
    process.send_signal(number)
    process.communicate(timeout=END_WITHIN)
    assert process.returncode == 0
    assert [pid for pid in family if alive(pid)] == []


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
