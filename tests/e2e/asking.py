"""What agents of both eras ask, in one line each: a list, a call. A fresh connection for every request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.e2e.gateway import KEY, Gateway, until
from tests.e2e.http import LEGACY, NAMED, Reply, exchange, in_base64, legacy, modern, open_session

ERAS = ("legacy", "modern")
LISTS = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}


@dataclass(frozen=True)
class Agent:
    """One agent. `session` is empty for one of the modern era."""

    url: str
    key: str = KEY
    session: str = ""
    version: str = LEGACY

    async def ask(self, method: str, params: dict[str, Any] | None = None) -> Reply:
        """Any request."""
        if self.session:
            asked = legacy(method, params, key=self.key, session=self.session, version=self.version)
        else:
            asked = modern(method, params, key=self.key)
            name = (params or {}).get(NAMED.get(method, ""))
            if isinstance(name, str) and not (name.isprintable() and name.isascii() and name.strip() == name):
                asked = asked.having("Mcp-Name", in_base64(name))
        return await exchange(self.url, asked)

    async def call(self, tool: str, arguments: dict[str, Any] | None = None) -> Reply:
        """A tool's call."""
        return await self.ask("tools/call", {"name": tool, "arguments": arguments or {}})

    async def get(self, prompt: str, arguments: dict[str, Any] | None = None) -> Reply:
        """A prompt."""
        return await self.ask("prompts/get", {"name": prompt, "arguments": arguments or {}})

    async def read(self, uri: str) -> Reply:
        """A resource."""
        return await self.ask("resources/read", {"uri": uri})

    async def complete(self, kind: str, key: str, value: str = "") -> Reply:
        """Completion for what `ref/prompt` or `ref/resource` names."""
        ref = {"type": kind, "name" if kind == "ref/prompt" else "uri": key}
        return await self.ask("completion/complete", {"ref": ref, "argument": {"name": "word", "value": value}})

    async def items(self, method: str) -> list[dict[str, Any]]:
        """Everything that a list method lists, all pages."""
        found: list[dict[str, Any]] = []
        params: dict[str, Any] = {}
        while True:
            reply = await self.ask(method, params)
            assert reply.status == 200, reply
            result = reply.json()["result"]
            found += result[LISTS[method]]
            if "nextCursor" not in result:
                return found
            params = {"cursor": result["nextCursor"]}

    async def page(self, cursor: str | None = None) -> dict[str, Any]:
        """The result of one page of the list."""
        reply = await self.ask("tools/list", {"cursor": cursor} if cursor else {})
        assert reply.status == 200, reply
        found: dict[str, Any] = reply.json()["result"]
        return found

    async def tools(self) -> list[dict[str, Any]]:
        """Every tool, all pages."""
        page = await self.page()
        found = list(page["tools"])
        while cursor := page.get("nextCursor"):
            page = await self.page(cursor)
            found += page["tools"]
        return found

    async def names(self) -> list[str]:
        """The names of every tool, in their order."""
        return [tool["name"] for tool in await self.tools()]


async def agent(era: str, url: str, key: str = KEY, version: str = LEGACY) -> Agent:
    """An agent that has done what its era demands before the first call."""
    if era == "modern":
        return Agent(url, key)
    return Agent(url, key, await open_session(url, key=key, version=version), version)


async def listed(gateway: Gateway, *tools: str, key: str = KEY) -> None:
    """Wait until a list names these tools: then every worker takes their calls."""

    async def all_there() -> bool:
        return set(tools) <= set(await Agent(gateway.url, key).names())

    await until(all_there)
