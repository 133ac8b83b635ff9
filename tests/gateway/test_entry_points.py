"""Which endpoint and which way in a path means: encoded slashes, dots, endpoints below endpoints."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fastgw.gateway import entry_points
from fastgw.gateway.dialects import rest
from fastgw.gateway.entry_points import MESSAGES, MessageEntryPoint
from tests.gateway.asking import ask, endpoints, load, newest, sells
from tests.gateway.fakes import staged
from tests.upstream.fakes import run


@pytest.mark.parametrize(
    ("path", "endpoint", "name"),
    [
        ("/mcp/tools/a/invoke", "/mcp", "a"),
        ("/mcp/ops/tools/a/invoke", "/mcp/ops", "a"),
        ("/mcp/tools/a%2Fb/invoke", "/mcp", "a/b"),
        ("/mcp/tools/a/b/invoke", "/mcp", "a/b"),
        ("/mcp/tools/a.b/invoke", "/mcp", "a.b"),
        ("/mcp/tools/%C3%A9/invoke", "/mcp", "é"),
        ("/mcp/tools/%2541/invoke", "/mcp", "%41"),
        ("/mcp/tools/%25/invoke", "/mcp", "%"),
        ("/mcp/tools/100%/invoke", "/mcp", "100%"),
        ("/mcp/tools/a+b/invoke", "/mcp", "a+b"),
        ("/mcp/tools/invoke/invoke", "/mcp", "invoke"),
        ("/mcp/tools/tools/invoke", "/mcp", "tools"),
        ("/%6dcp/tools/a/invoke", "/mcp", "a"),
        ("/mcp%2Fops/tools/a/invoke", None, ""),
        ("/mcp/ops%2Ftools/a/invoke", None, ""),
        ("/mcp/tools/..%2F..%2Fmcp%2Fops%2Ftools%2Fa/invoke", "/mcp", "../../mcp/ops/tools/a"),
        ("/mcp/tools/../ops/tools/a/invoke", "/mcp", "../ops/tools/a"),
        ("/mcp/tools/a%2Finvoke", None, ""),
        ("/mcp/tools/a/invoke/", None, ""),
        ("/mcp/tools/invoke", None, ""),
        ("/mcp/tools%2Fa/invoke", None, ""),
        ("//mcp/tools/a/invoke", None, ""),
        ("/mcp//tools/a/invoke", None, ""),
        ("/MCP/tools/a/invoke", None, ""),
        ("/tools/a/invoke", None, ""),
        ("/mcpx/tools/a/invoke", None, ""),
        ("/mcp/tools/a", None, ""),
        ("/mcp/tools/", None, ""),
        ("/mcp//", None, ""),
        ("*", None, ""),
        ("", None, ""),
    ],
)
def test_paths_of_tools(path: str, endpoint: str | None, name: str) -> None:
    found, entry_point = entry_points.find(endpoints("/mcp", "/mcp/ops"), {"raw_path": path.encode()})
    assert (found.path if found else None) == endpoint
    if endpoint is None:
        assert entry_point is MESSAGES
    else:
        assert isinstance(entry_point, rest.InvokeEntryPoint)
        assert entry_point._name.decode() == name


@pytest.mark.parametrize(
    ("path", "endpoint", "kind"),
    [
        ("/mcp", "/mcp", MessageEntryPoint),
        ("/%6Dcp", "/mcp", MessageEntryPoint),
        ("/mcp/", "/mcp", MessageEntryPoint),
        ("/%6Dcp/", "/mcp", MessageEntryPoint),
        ("/mcp/tools/", "/mcp/tools", MessageEntryPoint),
        ("/mcp%2F", None, MessageEntryPoint),
        ("/mcp//", None, MessageEntryPoint),
        ("//mcp/", None, MessageEntryPoint),
        ("/mcp/tools", "/mcp/tools", MessageEntryPoint),
        ("/mcp%2Ftools", None, MessageEntryPoint),
        ("/mcp/tools/tools", "/mcp/tools", rest.ToolsEntryPoint),
        ("/mcp/tools/x/invoke", "/mcp", rest.InvokeEntryPoint),
        ("/mcp/tools/tools/x/invoke", "/mcp/tools", rest.InvokeEntryPoint),
        ("/mcp/openapi.json", "/mcp", rest.OpenApiEntryPoint),
        ("/mcp/tools/openapi.json", "/mcp/tools", rest.OpenApiEntryPoint),
    ],
)
def test_an_endpoint_s_own_path_wins(path: str, endpoint: str | None, kind: type) -> None:
    for own in (("/mcp", "/mcp/tools"), ("/mcp/tools", "/mcp")):
        found, entry_point = entry_points.find(endpoints(*own), {"raw_path": path.encode()})
        assert (found.path if found else None, type(entry_point)) == (endpoint, kind)


@pytest.mark.parametrize("path", ["/mcp%2Fops", "/mcp/x", "/mcp/tools/", "/mcp/tools/buy", "/mcp/openapi.json/"])
def test_unknown_paths_are_told_as_ever(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    async def story() -> None:
        async with staged(monkeypatch, sells) as stage:
            snapshot = newest(stage)
            more = {"/mcp/ops": replace(snapshot.endpoints["/mcp"], path="/mcp/ops")}
            load(stage, replace(snapshot, endpoints={**snapshot.endpoints, **more}))
            agent = await ask(stage, path, b"{}")
            assert (agent.status, agent.json()["jsonrpc"], agent.json()["id"]) == (404, "2.0", None)

    run(story())
