"""What each client takes to reach an endpoint: an entry of its file, a command, or a few lines of a program."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from fastgw.protocol import names

URL = "http://127.0.0.1:8080/mcp"
"""Where a gateway is unless said."""
KEY_ENV = "FASTGW_KEY"
"""Where clients and commands find the key."""
CLIENTS = {
    "claude-code": "Claude Code: .mcp.json of a project. Before `claude` starts:",
    "claude-desktop": """\
Claude Desktop: claude_desktop_config.json (Settings, Developer, Edit Config). It fills in no variables, so the key
stands in the file. mcp-remote needs Node.js 18 or newer.""",
    "cursor": "Cursor: ~/.cursor/mcp.json, or .cursor/mcp.json of a project. Before Cursor starts:",
    "vscode": "VS Code: .vscode/mcp.json of a project. VS Code asks for the key once, and keeps it.",
    "inspector": "The MCP Inspector, on the command line:",
    "python": "Python, with the SDK 2.x (pip install 'mcp>=2'). Before it runs:",
    "typescript": "A JavaScript or TypeScript module (npm install @modelcontextprotocol/client). Before:",
    "curl": "A shell, without any client:",
}
"""By name: where the text belongs."""
BY_VARIABLE = ("claude-code", "cursor", "python", "typescript")
"""Those that find the key in their environment."""
_PYTHON = """\
import asyncio
import os

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

HEADERS = {"Authorization": f"Bearer {os.environ['FASTGW_KEY']}"}


async def main() -> None:
    http = httpx2.AsyncClient(headers=HEADERS, timeout=60)
    async with http, Client(streamable_http_client("URL", http_client=http)) as client:
        print([tool.name for tool in (await client.list_tools()).tools])


asyncio.run(main())"""
_TYPESCRIPT = """\
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const headers = { Authorization: `Bearer ${process.env.FASTGW_KEY}` };
const client = new Client({ name: "my-agent", version: "1.0.0" });
await client.connect(new StreamableHTTPClientTransport(new URL("URL"), { requestInit: { headers } }));
console.log((await client.listTools()).tools.map((tool) => tool.name));
await client.close();"""


def snippet(client: str, url: str, key: str) -> str:
    """What to write where, for a client of `CLIENTS`; ends without a line break."""
    export = f"export {KEY_ENV}={key}"
    comments = [*CLIENTS[client].split("\n"), *([f"  {export}"] if client in BY_VARIABLE else [])]
    lines = [f"# {line}" for line in comments]
    if client == "inspector":
        ask = f'--transport http --header "Authorization: Bearer ${KEY_ENV}" --method tools/list'
        lines += [export, f"npx -y @modelcontextprotocol/inspector --cli {shlex.quote(url)} {ask}"]
    elif client == "curl":
        lines += [export, curl(url, f"${KEY_ENV}", "tools/list", {})]
    elif client in ("python", "typescript"):
        lines.append((_PYTHON if client == "python" else _TYPESCRIPT).replace('"URL"', json.dumps(url)))
    else:
        lines.append(json.dumps(_file(client, url, key), indent=2))
    return "\n".join(lines)


def _file(client: str, url: str, key: str) -> dict[str, Any]:
    """The whole of a client's file."""
    if client == "vscode":
        asked = {"type": "promptString", "id": "fastgw-key", "description": "Key for fastgw", "password": True}
        return {"inputs": [asked], "servers": {"fastgw": entry(url, "${input:fastgw-key}")}}
    server = entry(url, f"${{{KEY_ENV}}}")
    if client == "cursor":
        server = {"url": url, "headers": {"Authorization": f"Bearer ${{env:{KEY_ENV}}}"}}
    elif client == "claude-desktop":
        # It splits a word of `args` at spaces on some systems, so that the one in the header comes by a variable.
        args = ["-y", "mcp-remote", url, "--transport", "http-only", "--header", "Authorization:${AUTH_HEADER}"]
        parts = urlsplit(url)
        if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1"):
            args.append("--allow-http")
        server = {"command": "npx", "args": args, "env": {"AUTH_HEADER": f"Bearer {key}"}}
    return {"mcpServers": {"fastgw": server}}


def entry(url: str, key: str) -> dict[str, Any]:
    """An entry of an `mcpServers` file."""
    return {"type": "http", "url": url, "headers": {"Authorization": f"Bearer {key}"}}


def curl(url: str, key: str, method: str, params: Mapping[str, Any]) -> str:
    """A request as it is pasted into a shell, which fills in a `key` such as `$NAME`."""
    client = {"name": "curl", "version": "8"}
    envelope = {names.META_VERSION: names.MODERN_VERSION, names.META_CLIENT: client, names.META_CAPABILITIES: {}}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": envelope}}
    headers = {
        "Authorization": f"Bearer {key}",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": names.MODERN_VERSION,
        "Mcp-Method": method,
        **({"Mcp-Name": params["name"]} if "name" in params else {}),
    }
    lines = [f"curl -sS {shlex.quote(url)}", *(f'  -H "{name}: {value}"' for name, value in headers.items())]
    return " \\\n".join([*lines, f"  -d '{json.dumps(body)}'"])
