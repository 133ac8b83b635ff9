"""A tour through everything the demo offers, taken by other people's clients, and what each must have seen.

A client is a program (`clients/`): it reads the steps, methods of the protocol with their parameters, and prints what
came of each. So the same steps and the same expectations serve every client of every era.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fastgw.demo.data import SHOP
from fastgw.demo.knowledge import PAGES, sections

CLIENTS = Path(__file__).parent / "clients"
MODERN = "2026-07-28"
PATIENCE = 60  # seconds for a whole tour
TOOLS = {"deploy-to-staging", "list-deployments", "db-query", "search-docs", "create-ticket", "generate-code"}
PROMPTS = {"summarise-page", "incident-report"}
DOCS = {f"docs://{name}" for name in PAGES}
RESOURCES = {*DOCS, "shop://tables.sql"}
SECTION, HISTORY = "docs://{page}/{section}", "staging://{service}/history"
NO_SECTION = "docs://readme/no-such-section"
SUPPORT_TOOLS = {"search-docs", "create-ticket", "db-query"}

Step = tuple[str, dict[str, Any]]
Check = Callable[["Seen"], None]


@dataclass(frozen=True)
class Seen:
    """What a client saw.

    Args:
        version: the revision it spoke.
        outcomes: {"result"} or {"error"} of each step.
        no_resource: the code by which it tells of a resource that is not there.
    """

    version: str
    outcomes: dict[str, dict[str, Any]]
    no_resource: int

    def result(self, step: str) -> dict[str, Any]:
        assert "result" in self.outcomes[step], f"{step}: {self.outcomes[step]}"
        return dict(self.outcomes[step]["result"])

    def error(self, step: str) -> dict[str, Any]:
        assert "error" in self.outcomes[step], f"{step}: {self.outcomes[step]}"
        return dict(self.outcomes[step]["error"])


def lists() -> dict[str, Step]:
    return {
        "tools": ("tools/list", {}),
        "prompts": ("prompts/list", {}),
        "resources": ("resources/list", {}),
        "templates": ("resources/templates/list", {}),
    }


def call(tool: str, **arguments: Any) -> Step:
    return ("tools/call", {"name": tool, "arguments": arguments})


def read(uri: str) -> Step:
    return ("resources/read", {"uri": uri})


def get(prompt: str, **arguments: str) -> Step:
    return ("prompts/get", {"name": prompt, "arguments": arguments})


def complete(of: str, argument: str, begun: str, **others: str) -> Step:
    """A completion for a prompt, or for a template where `of` is one's text."""
    ref = {"type": "ref/resource", "uri": of} if "{" in of else {"type": "ref/prompt", "name": of}
    params = {"ref": ref, "argument": {"name": argument, "value": begun}}
    return ("completion/complete", {**params, "context": {"arguments": others}} if others else params)


def calls(service: str) -> dict[str, Step]:
    return {
        "deploy": call("deploy-to-staging", service=service, version="1.0"),
        "again": call("deploy-to-staging", service=service, version="1.1"),
        "deployments": call("list-deployments", service=service),
        "query": call("db-query", sql="select name from customers where id = 5"),
        "search": call("search-docs", query="mayHaveRun"),
        "ticket": call("create-ticket", title="A question"),
        "refused": call("db-query", sql="drop table customers"),
    }


def everything(service: str) -> dict[str, Step]:
    """The steps, by what they are called in the expectations; `service` is this client's own to deploy."""
    return {
        **lists(),
        **calls(service),
        **{uri: read(uri) for uri in sorted(RESOURCES)},
        "section": read("docs://readme/two-commands"),
        "history": read(f"staging://{service}/history"),
        "summary": get("summarise-page", page="errors", audience="operators"),
        "report": get("incident-report", service=service),
        "complete page": complete("summarise-page", "page", "readm"),
        "complete section": complete(SECTION, "section", "two", page="readme"),
        "no section": read(NO_SECTION),
        "no history": read("staging://nobody/history"),
        "no resource": read("nothing://here"),
        "no prompt": get("nothing"),
        "no page": get("summarise-page", page="nothing"),
        "no tool": call("nothing"),
        "no completion": complete("nothing", "page", "re"),
        "tools again": ("tools/list", {}),
    }


def of_support() -> dict[str, Step]:
    """What the lesser key may do, and what must look as if it were not there."""
    return {
        **lists(),
        "docs": read("docs://errors"),
        "section": read("docs://readme/two-commands"),
        "summary": get("summarise-page", page="errors"),
        "hidden resource": read("shop://tables.sql"),
        "no resource": read("nothing://here"),
        "hidden prompt": get("incident-report", service="cart"),
        "no prompt": get("nothing", service="cart"),
        "hidden completion": complete("incident-report", "service", "c"),
        "no completion": complete("nothing", "service", "c"),
        "hidden history": complete(HISTORY, "service", "c"),
        "tools again": ("tools/list", {}),
    }


def take(order: list[str], steps: dict[str, Step]) -> Seen:
    """Let the client that `order` starts take the steps."""
    asked = json.dumps(list(steps.values()))
    done = subprocess.run(order, input=asked, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    code = -32602 if told["version"] == MODERN else -32002  # server/resources, error handling, of each revision
    return Seen(told["version"], dict(zip(steps, told["outcomes"], strict=True)), code)


def given(variable: str, what: str) -> str:
    """A place that `make test` names. Without it a test is skipped, on a machine for checks it fails."""
    if place := os.environ.get(variable):
        return place
    words = f"{variable} names no {what}; make test sets it"
    if os.environ.get("CI"):
        pytest.fail(words)
    pytest.skip(words)


def lists_are_whole(seen: Seen) -> None:
    assert {one["name"] for one in seen.result("tools")["tools"]} == TOOLS
    assert {one["name"] for one in seen.result("prompts")["prompts"]} == PROMPTS
    resources = {one["uri"]: one for one in seen.result("resources")["resources"]}
    assert set(resources) == RESOURCES
    listed = resources["docs://errors"]
    assert (listed["name"], listed["mimeType"]) == ("errors", "text/markdown")
    templates = {one["uriTemplate"]: one for one in seen.result("templates")["resourceTemplates"]}
    assert set(templates) == {SECTION, HISTORY}
    section = templates[SECTION]
    assert (section["title"], section["mimeType"]) == ("A section of a page", "text/markdown")
    assert section["description"].startswith("One section: ")
    prompts = {one["name"]: one for one in seen.result("prompts")["prompts"]}
    assert [(one["name"], one["required"]) for one in prompts["summarise-page"]["arguments"]] == [
        ("page", True),
        ("audience", False),
    ]


def resources_are_read(seen: Seen) -> None:
    for uri in RESOURCES:
        [content] = seen.result(uri)["contents"]
        assert content["uri"] == uri
        assert content["text"]
    for name, page in PAGES.items():
        assert seen.result(f"docs://{name}")["contents"][0]["text"] == page
    [tables] = seen.result("shop://tables.sql")["contents"]
    assert (tables["mimeType"], tables["text"]) == ("application/sql", SHOP)


def templates_are_read(seen: Seen) -> None:
    [section] = seen.result("section")["contents"]
    assert section["uri"] == "docs://readme/two-commands"
    assert section["text"] == sections("readme")["two-commands"]
    [history] = seen.result("history")["contents"]
    assert [row["version"] for row in json.loads(history["text"])] == ["1.1", "1.0"]


def prompts_are_got(seen: Seen) -> None:
    words, page = (message["content"] for message in seen.result("summary")["messages"])
    assert "for operators" in words["text"]
    assert page["resource"] == {
        "uri": "docs://errors",
        "mimeType": "text/markdown",
        "text": PAGES["errors"],
    }
    [report] = seen.result("report")["messages"]
    assert '"1.1"' in report["content"]["text"]


def arguments_are_completed(seen: Seen) -> None:
    found = {step: seen.result(f"complete {step}")["completion"] for step in ("page", "section")}
    assert [found["page"]["values"], found["page"]["total"]] == [["readme"], 1]
    assert found["section"]["values"] == ["two-commands"]


def tools_are_called(seen: Seen) -> None:
    results = {step: seen.result(step) for step in calls("")}
    structured = {step: result.get("structuredContent") for step, result in results.items()}
    assert results["deploy"]["progress"] == [0, 1, 2, 3, 4, 5]
    assert [row["version"] for row in structured["deployments"]["result"]] == ["1.1", "1.0"]
    assert structured["query"]["result"] == [{"name": "Zoë Müller"}]
    assert next(iter(structured["search"])).startswith("docs://errors/")
    assert structured["ticket"]["result"].endswith(" (normal): A question"), "nobody to be asked"
    assert [step for step, result in results.items() if result.get("isError")] == ["refused"]


def the_unknown_is_refused(seen: Seen) -> None:
    refused = {"no section": NO_SECTION, "no history": "staging://nobody/history", "no resource": "nothing://here"}
    for step, uri in refused.items():
        error = seen.error(step)
        assert (error["code"], error.get("data", {}).get("uri")) == (seen.no_resource, uri), f"{step}: {error}"
    assert len({seen.error(step)["message"] for step in refused}) == 1, "whoever says it, the words are the same"
    assert (seen.error("no prompt")["code"], seen.error("no prompt")["data"]["name"]) == (-32602, "nothing")
    assert [seen.error(step)["code"] for step in ("no page", "no tool", "no completion")] == [-32602] * 3


def the_session_goes_on(seen: Seen) -> None:
    assert seen.result("tools again")["tools"] == seen.result("tools")["tools"]


CHECKS: list[Check] = [
    lists_are_whole,
    resources_are_read,
    templates_are_read,
    prompts_are_got,
    arguments_are_completed,
    tools_are_called,
    the_unknown_is_refused,
    the_session_goes_on,
]


def support_sees_its_own(seen: Seen) -> None:
    assert {one["name"] for one in seen.result("tools")["tools"]} == SUPPORT_TOOLS
    assert {one["name"] for one in seen.result("prompts")["prompts"]} == {"summarise-page"}
    assert {one["uri"] for one in seen.result("resources")["resources"]} == DOCS
    assert {one["uriTemplate"] for one in seen.result("templates")["resourceTemplates"]} == {SECTION}
    assert seen.result("docs")["contents"][0]["text"] == PAGES["errors"]
    assert seen.result("section")["contents"][0]["text"] == sections("readme")["two-commands"]
    assert seen.result("summary")["messages"]


def support_cannot_tell_hidden_from_missing(seen: Seen) -> None:
    pairs = [
        ("hidden resource", "shop://tables.sql", "no resource", "nothing://here"),
        ("hidden prompt", "incident-report", "no prompt", "nothing"),
        ("hidden completion", "incident-report", "no completion", "nothing"),
    ]
    for hidden, name, missing, nothing in pairs:
        asked, unknown = seen.error(hidden), seen.error(missing)
        for error in (asked, unknown):
            error["data"].pop("requestId", None)
        assert json.loads(json.dumps(asked).replace(name, nothing)) == unknown, hidden
    assert "error" in seen.outcomes["hidden history"]
    the_session_goes_on(seen)


SUPPORT_CHECKS: list[Check] = [support_sees_its_own, support_cannot_tell_hidden_from_missing]
