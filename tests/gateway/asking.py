"""Requests at any path, as a server hands them on, and stages whose endpoint /mcp is another than usual."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from fastgw.catalog.elements import DIALECTS
from fastgw.gateway.pipeline import serve
from fastgw.protocol import names
from fastgw.snapshot.model import Endpoint, Grant, Listing, Snapshot, View
from tests.gateway.fakes import FakeAgent, Stage, bought
from tests.upstream.fakes import FakeAnswer, Sent

INVOKE = "/mcp/tools/buy/invoke"


async def ask(
    stage: Stage, path: str, body: bytes = b"", fields: dict[str, str] | None = None, verb: str = "POST"
) -> FakeAgent:
    """A request as a server hands it on, `path` as it was sent."""
    agent = FakeAgent(body)
    await begin(stage, agent, path, fields, verb)
    return agent


def begin(
    stage: Stage, agent: FakeAgent, path: str, fields: dict[str, str] | None = None, verb: str = "POST"
) -> asyncio.Task[None]:
    """The same, for an agent that has not said all."""
    target, _, query = path.partition("?")
    usual = {
        "host": "localhost",
        **({"content-type": "application/json", "content-length": "9"} if verb == "POST" else {}),
    }
    found = {name: value for name, value in {**usual, **(fields or {})}.items() if value}
    scope = {
        "type": "http",
        "method": verb,
        "path": unquote(target, errors="replace"),
        "raw_path": target.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in found.items() if name != "content-length"],
    }
    if "content-length" in found:
        length = fields.get("content-length") if fields else None
        scope["headers"].append(
            (b"transfer-encoding", b"chunked") if length is None else (b"content-length", length.encode())
        )
    return stage.tasks.spawn(serve(stage.gateway, stage.life, scope, agent.receive, agent.send), "a request")


def sells(sent: Sent) -> FakeAnswer:
    """A server whose one tool works."""
    return FakeAnswer(body=bought(sent)) if sent.method == "tools/call" else FakeAnswer(202)


def answers(**members: Any) -> Any:
    """A server that answers every call with this."""

    def answer(sent: Sent) -> FakeAnswer:
        return FakeAnswer(body=json.dumps({"jsonrpc": "2.0", "id": sent.json["id"], **members}).encode())

    return answer


def changed(stage: Stage, **members: Any) -> None:
    """Load a snapshot whose endpoint /mcp differs in this."""
    snapshot = newest(stage)
    endpoint = replace(snapshot.endpoints["/mcp"], **members)
    load(stage, replace(snapshot, endpoints={**snapshot.endpoints, "/mcp": endpoint}))


def newest(stage: Stage) -> Snapshot:
    """The snapshot that calls are served from."""
    return stage.gateway.begin({"headers": []}).snapshot


def load(stage: Stage, snapshot: Snapshot) -> None:
    """Serve and list from this one."""
    stage.gateway.load(replace(snapshot, generation=snapshot.generation + 1))
    stage.gateway.activate(snapshot.generation + 1)


def view_of(*tools: dict[str, Any], grants: dict[str, Grant] | None = None) -> View:
    """A view that lists these tools."""
    entries = tuple([(json.dumps(tool).encode(),) * len(DIALECTS) for tool in tools])
    return View(grants or {}, lists={names.TOOLS_LIST: Listing(entries, 7)})


def endpoints(*own: str) -> dict[str, Endpoint]:
    """Endpoints at these paths, with nothing behind them."""
    return {path: Endpoint(path, {}, (View(),), {}, True, 0.0, (), "") for path in own}
