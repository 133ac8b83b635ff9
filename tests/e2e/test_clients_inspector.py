"""The MCP Inspector's command line goes through what the demo offers, one process a step.

It has no completion; tool schemas are checked by its `--strict` (Inspector 2.x, exit code 6 where one is faulty).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fastgw.demo.knowledge import PAGES, sections
from tests.e2e.demo import Demo, running
from tests.e2e.tour import HISTORY, PROMPTS, RESOURCES, SECTION, TOOLS, calls, given

pytestmark = pytest.mark.node_client
PROGRAM = Path("node_modules", "@modelcontextprotocol", "inspector", "clients", "launcher", "build", "index.js")
PATIENCE = 30  # seconds
VERSIONS = {"legacy": "2025-11-25", "modern": "2026-07-28"}


@dataclass(frozen=True)
class Inspector:
    """The command line, pointed at one endpoint in one era."""

    packages: Path
    url: str
    key: str
    era: str
    home: Path

    def run(self, method: str, *words: str) -> tuple[int, dict[str, Any]]:
        """Exit code, and the JSON of its result or error."""
        order = [str(self.packages / "node"), str(self.packages / PROGRAM), "--cli", self.url, "--transport", "http"]
        order += ["--protocol-era", self.era, "--header", f"Authorization: Bearer {self.key}"]
        order += ["--format", "json", "--method", method, *words]
        around = {**os.environ, "HOME": str(self.home)}
        done = subprocess.run(order, env=around, capture_output=True, text=True, timeout=PATIENCE, check=False)
        said = done.stdout or done.stderr
        assert "{" in said, f"{method} {words}: exit code {done.returncode}: {done.stderr}"
        return done.returncode, json.JSONDecoder().raw_decode(said[said.index("{") :])[0]

    def result(self, method: str, *words: str) -> dict[str, Any]:
        code, told = self.run(method, *words)
        assert code == 0, f"{method} {words}: {told}"
        return dict(told["result"])

    def read(self, uri: str) -> dict[str, Any]:
        [content] = self.result("resources/read", "--uri", uri)["contents"]
        assert content["uri"] == uri
        return dict(content)

    def call(self, tool: str, arguments: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return self.run("tools/call", "--tool-name", tool, "--tool-args-json", json.dumps(arguments))


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running() as it:
        yield it


@pytest.fixture(scope="module", params=["legacy", "modern"])
def inspector(request: pytest.FixtureRequest, demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Inspector:
    packages = Path(given("FASTGW_NODE_CLIENTS", "folder with Node and the clients"))
    home = tmp_path_factory.mktemp("home")
    return Inspector(packages, demo.endpoint, demo.key("engineering"), request.param, home)


def test_the_revision_is_the_one_that_was_asked_for(inspector: Inspector) -> None:
    assert inspector.result("initialize")["protocolVersion"] == VERSIONS[inspector.era]


def test_every_tool_is_listed_and_sound(inspector: Inspector) -> None:
    listed = inspector.result("tools/list", "--strict")["tools"]
    assert {tool["name"] for tool in listed} == TOOLS


def test_prompts_resources_and_templates_are_listed(inspector: Inspector) -> None:
    assert {one["name"] for one in inspector.result("prompts/list")["prompts"]} == PROMPTS
    assert {one["uri"] for one in inspector.result("resources/list")["resources"]} == RESOURCES
    templates = inspector.result("resources/templates/list")["resourceTemplates"]
    assert {one["uriTemplate"] for one in templates} == {SECTION, HISTORY}


@pytest.mark.parametrize("uri", ["docs://errors", "shop://tables.sql"])
def test_a_resource_is_read(inspector: Inspector, uri: str) -> None:
    text = inspector.read(uri)["text"]
    assert text
    assert uri != "docs://errors" or text == PAGES["errors"]


def test_every_tool_is_called(inspector: Inspector) -> None:
    service = f"cart-{inspector.era}"
    for step, (_, params) in calls(service).items():
        code, told = inspector.call(params["name"], params["arguments"])
        assert (code != 0) == (step == "refused"), f"{step}: {told}"
    history = json.loads(inspector.read(f"staging://{service}/history")["text"])
    assert [row["version"] for row in history] == ["1.1", "1.0"]
    report = inspector.result("prompts/get", "--prompt-name", "incident-report", "--prompt-args", f"service={service}")
    assert '"1.1"' in report["messages"][0]["content"]["text"]


def test_a_section_is_read_and_a_prompt_got(inspector: Inspector) -> None:
    assert inspector.read("docs://readme/two-commands")["text"] == sections("readme")["two-commands"]
    words = ["--prompt-name", "summarise-page", "--prompt-args", "page=errors", "audience=operators"]
    messages = inspector.result("prompts/get", *words)["messages"]
    assert messages[1]["content"]["resource"]["text"] == PAGES["errors"]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("Resource not found", ["resources/read", "--uri", "nothing://here"]),
        ("Resource not found", ["resources/read", "--uri", "docs://readme/no-such-section"]),
        ("Unknown prompt: nothing", ["prompts/get", "--prompt-name", "nothing"]),
        ("nothing", ["tools/call", "--tool-name", "nothing"]),
    ],
)
def test_the_unknown_is_refused_in_words(inspector: Inspector, told: str, words: list[str]) -> None:
    code, said = inspector.run(*words)
    assert code != 0
    assert told in said["error"]["message"]
