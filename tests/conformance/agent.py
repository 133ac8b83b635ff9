"""The command that the suite's client scenarios run: an agent that lists and calls every tool through the gateway.

Knows: the suite's environment variables, an SDK client. The agent speaks the legacy era, in which clients mirror no
headers and drop no tools: whatever of that the suite sees is the gateway's own doing. Refuses to know: what is judged.

    python -m tests.conformance.agent URL
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mcp import Client, MCPError

from tests.conformance.cell import gateway

EVERY_POST = ("request-metadata", "http-standard-headers")
"""Scenarios that judge every request by 2026-07-28. Left to itself the gateway asks a server of that revision for a
session, too, as older agents may need one there; told the era, it does not."""
SAMPLES: dict[str, Any] = {"string": "x", "number": 2, "integer": 2, "boolean": True, "array": [], "object": {}}


def sample(schema: dict[str, Any], schemas: list[dict[str, Any]]) -> dict[str, Any]:
    """Arguments that fit: one value for each required property; for one called `schema` the richest schema listed."""
    properties = schema.get("properties") or {}
    arguments = {name: SAMPLES[properties.get(name, {}).get("type", "string")] for name in schema.get("required") or []}
    if "schema" in arguments:
        arguments["schema"] = max(schemas, key=len)
    return arguments


async def use_everything(url: str, wanted: list[dict[str, Any]]) -> None:
    """Calls the tools in `wanted` (`name`, `arguments`), or where there are none each listed tool once.

    A tool that is not listed is not called; one that fails is the suite's business.
    """
    async with Client(url, mode="legacy") as client:
        listed = {one.name: one.input_schema for one in (await client.list_tools()).tools}
        print(f"listed: {', '.join(listed)}")
        calls = wanted or [{"name": n, "arguments": sample(s, list(listed.values()))} for n, s in listed.items()]
        for call in calls:
            if call["name"] not in listed:
                continue
            try:
                print(call["name"], await client.call_tool(call["name"], call.get("arguments")))
            except MCPError as error:
                print(call["name"], error)


def credential(url: str, context: dict[str, str]) -> str:
    """What the gateway's configuration says of the client that the suite knows; nothing where it names none.

    Where tokens are had is the operator's to write: here it is looked up as one would (RFC 9728, RFC 8414).
    """
    if "client_id" not in context:
        return ""
    place = urlsplit(url)
    resource = fetched(f"{place.scheme}://{place.netloc}/.well-known/oauth-protected-resource{place.path}")
    server = fetched(f"{resource['authorization_servers'][0].rstrip('/')}/.well-known/oauth-authorization-server")
    found = {"token_url": server["token_endpoint"], "client_id": context["client_id"], "resource": resource["resource"]}
    kind = "client_secret" if "client_secret" in context else "private_key"
    os.environ["SUITE_SECRET"] = context.get("client_secret") or context["private_key_pem"]
    more = {} if kind == "client_secret" else {"assertion_audience": server["issuer"]}
    return f", credential: {json.dumps({'oauth': {**found, **more, kind: '${env:SUITE_SECRET}'}})}"  # JSON is YAML


def fetched(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def main() -> None:
    context, url = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}"), sys.argv[1]
    more = credential(url, context)
    if os.environ.get("MCP_CONFORMANCE_SCENARIO") in EVERY_POST:
        more += ", era: modern"
    with tempfile.TemporaryDirectory(prefix="agent-") as name, gateway({"suite": url}, Path(name), more) as listen:
        asyncio.run(use_everything(f"http://localhost:{listen}/mcp", context.get("toolCalls") or []))


if __name__ == "__main__":
    main()
