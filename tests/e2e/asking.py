"""What agents of both eras ask, in one line each: a list, a call. A fresh connection for every request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.e2e.gateway import KEY, Gateway, until
from tests.e2e.http import LEGACY, Reply, exchange, legacy, modern, open_session

ERAS = ("legacy", "modern")


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
        return await exchange(self.url, asked)

    async def call(self, tool: str, arguments: dict[str, Any] | None = None) -> Reply:
        """A tool's call."""
        return await self.ask("tools/call", {"name": tool, "arguments": arguments or {}})

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
