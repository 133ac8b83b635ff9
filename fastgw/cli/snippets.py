"""What each client takes to reach an endpoint: an entry of its file, a command, or a few lines of a program."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

URL = "http://127.0.0.1:8080/mcp"
"""Where a gateway is unless said."""
KEY_ENV = "FASTGW_KEY"
"""Where clients and commands find the key."""
Made = Callable[[str, str], str]
"""URL and key to the text."""
_MODERN = "2026-07-28"


def snippet(client: str, url: str, key: str) -> str:
    """What to write where, for a client of `CLIENTS`; ends without a line break."""
    where, make = CLIENTS[client]
    by_variable = [f"#   {_export(key)}"] if client in BY_VARIABLE else []
    return "\n".join([*(f"# {line}" for line in where.split("\n")), *by_variable, make(url, key)])


def entry(url: str, key: str) -> dict[str, Any]:
    """An entry of an `mcpServers` file."""
    return {"type": "http", "url": url, "headers": {"Authorization": f"Bearer {key}"}}


def curl(url: str, key: str, method: str, params: Mapping[str, Any]) -> str:
    """A request as it is pasted into a shell.

    Args:
        key: `$NAME` for the variable of that name.
    """
    envelope = {
        "io.modelcontextprotocol/protocolVersion": _MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "curl", "version": "8"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": envelope}}
    headers = {
        "Authorization": f"Bearer {key}",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": _MODERN,
        "Mcp-Method": method,
        **({"Mcp-Name": params["name"]} if "name" in params else {}),
    }
    lines = [f"curl -sS {shlex.quote(url)}", *(f"  -H {_word(f'{name}: {value}')}" for name, value in headers.items())]
    return " \\\n".join([*lines, f"  -d '{json.dumps(body)}'"])


def _word(text: str) -> str:
    """A word for a shell, which fills in variables."""
    return f'"{text}"' if "$" in text else f"'{text}'"


def _export(key: str) -> str:
    return f"export {KEY_ENV}={key}"


def _file(**content: Any) -> str:
    return json.dumps(content, indent=2)


def _claude_code(url: str, _: str) -> str:
    return _file(mcpServers={"fastgw": entry(url, f"${{{KEY_ENV}}}")})


def _claude_desktop(url: str, key: str) -> str:
    # It splits a word of `args` at spaces on some systems, so that the one in the header comes by a variable.
    args = ["-y", "mcp-remote", url, "--transport", "http-only", "--header", "Authorization:${AUTH_HEADER}"]
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1"):
        args.append("--allow-http")
    server = {"command": "npx", "args": args, "env": {"AUTH_HEADER": f"Bearer {key}"}}
    return _file(mcpServers={"fastgw": server})


def _cursor(url: str, _: str) -> str:
    headers = {"Authorization": f"Bearer ${{env:{KEY_ENV}}}"}
    return _file(mcpServers={"fastgw": {"url": url, "headers": headers}})


def _vscode(url: str, _: str) -> str:
    asked = {"type": "promptString", "id": "fastgw-key", "description": "Key for fastgw", "password": True}
    return _file(inputs=[asked], servers={"fastgw": entry(url, "${input:fastgw-key}")})


def _inspector(url: str, key: str) -> str:
    ask = f'--transport http --header "Authorization: Bearer ${KEY_ENV}" --method tools/list'
    return f"{_export(key)}\nnpx -y @modelcontextprotocol/inspector --cli {shlex.quote(url)} {ask}"


def _python(url: str, _: str) -> str:
    return f"""\
import asyncio
import os

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

HEADERS = {{"Authorization": f"Bearer {{os.environ['{KEY_ENV}']}}"}}


async def main() -> None:
    http = httpx2.AsyncClient(headers=HEADERS, timeout=60)
    async with http, Client(streamable_http_client({json.dumps(url)}, http_client=http)) as client:
        print([tool.name for tool in (await client.list_tools()).tools])


asyncio.run(main())"""


def _typescript(url: str, _: str) -> str:
    return f"""\
import {{ Client, StreamableHTTPClientTransport }} from "@modelcontextprotocol/client";

const headers = {{ Authorization: `Bearer ${{process.env.{KEY_ENV}}}` }};
const client = new Client({{ name: "my-agent", version: "1.0.0" }});
await client.connect(new StreamableHTTPClientTransport(new URL({json.dumps(url)}), {{ requestInit: {{ headers }} }}));
console.log((await client.listTools()).tools.map((tool) => tool.name));
await client.close();"""


def _curl(url: str, key: str) -> str:
    return f"{_export(key)}\n{curl(url, f'${KEY_ENV}', 'tools/list', {})}"


CLIENTS: dict[str, tuple[str, Made]] = {
    "claude-code": ("Claude Code: .mcp.json of a project. Before `claude` starts:", _claude_code),
    "claude-desktop": (
        """\
Claude Desktop: claude_desktop_config.json (Settings, Developer, Edit Config). It fills in no variables, so the key
stands in the file. mcp-remote needs Node.js 18 or newer.""",
        _claude_desktop,
    ),
    "cursor": ("Cursor: ~/.cursor/mcp.json, or .cursor/mcp.json of a project. Before Cursor starts:", _cursor),
    "vscode": ("VS Code: .vscode/mcp.json of a project. VS Code asks for the key once, and keeps it.", _vscode),
    "inspector": ("The MCP Inspector, on the command line:", _inspector),
    "python": ("Python, with the SDK 2.x (pip install 'mcp>=2'). Before it runs:", _python),
    "typescript": (
        "A JavaScript or TypeScript module (npm install @modelcontextprotocol/client). Before:",
        _typescript,
    ),
    "curl": ("A shell, without any client:", _curl),
}
"""By name: where the text belongs, and the text."""
BY_VARIABLE = ("claude-code", "cursor", "python", "typescript")
"""Those that find the key in their environment."""
