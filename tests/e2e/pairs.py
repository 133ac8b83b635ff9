"""The four pairs of eras behind one gateway: an agent of either, a server of either.

async with world(folder, {"echo": echo}) as found:
    for pair in PAIRS:
        async with found.call(pair, "echo", {"word": "x"}) as stream: ...

Each server has the same tools; what an agent calls them begins with the server's era.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.e2e.gateway import KEY, Gateway, running_beside, until
from tests.e2e.http import META, Asked, Stream, exchange, legacy, modern, open_session, streaming
from tests.e2e.servers import Tool, Toolbox, serving


class Pair(NamedTuple):
    """Who speaks which revision."""

    agent: str
    server: str


PAIRS = [Pair(agent, server) for agent in ("modern", "legacy") for server in ("modern", "legacy")]


@dataclass
class World:
    """A gateway before a modern and a legacy server."""

    gateway: Gateway
    servers: dict[str, Toolbox]
    sessions: dict[str, str] = field(default_factory=dict)

    def asked(
        self,
        pair: Pair,
        tool: str,
        arguments: dict[str, Any] | None = None,
        *,
        id: int | str = 1,
        token: Any = None,
        level: str | None = None,
        key: str = KEY,
    ) -> Asked:
        """A call of `tool` at the pair's server, as the pair's agent sends it. `level` is for modern agents."""
        meta = {} if token is None else {"progressToken": token}
        params: dict[str, Any] = {"name": f"{pair.server}_{tool}", "arguments": arguments or {}}
        if pair.agent == "modern":
            envelope = meta | ({} if level is None else {f"{META}logLevel": level})
            return modern("tools/call", params, key=key, id=id, meta=envelope)
        if meta:
            params["_meta"] = meta
        return legacy("tools/call", params, key=key, id=id, session=self.sessions[key])

    async def open(self, key: str = KEY) -> str:
        """Open the session that this key's legacy calls belong to from now on."""
        self.sessions[key] = await open_session(self.gateway.url, key=key)
        return self.sessions[key]

    @asynccontextmanager
    async def call(self, pair: Pair, tool: str, arguments: Any = None, **more: Any) -> AsyncIterator[Stream]:
        """Call, and read the answer's head; leaving the block closes the connection."""
        async with streaming(self.gateway.url, self.asked(pair, tool, arguments, **more)) as stream:
            yield stream


@asynccontextmanager
async def world(folder: Path, tools: dict[str, Tool], /, **settings: Any) -> AsyncIterator[World]:
    """The servers, the gateway and an open session for `KEY`. `settings` go to the gateway."""
    boxes = {era: Toolbox(era, {f"{era}_{name}": tool for name, tool in tools.items()}) for era in ("modern", "legacy")}
    async with serving(boxes["modern"]) as new, serving(boxes["legacy"]) as old:
        servers = {name: {"url": url} for name, url in (("modern", new.url), ("legacy", old.url))}
        async with running_beside({"servers": servers, **settings}, folder) as gateway:
            found = World(gateway, boxes)
            await found.open()
            await whole(gateway, 2 * len(tools))
            yield found


async def whole(gateway: Gateway, tools: int, key: str = KEY) -> None:
    """Return when both workers list so many tools."""

    async def listed() -> bool:
        replies = [await exchange(gateway.url, modern("tools/list", key=key)) for _ in range(8)]
        return all(len(reply.json()["result"]["tools"]) == tools for reply in replies)

    await until(listed)
