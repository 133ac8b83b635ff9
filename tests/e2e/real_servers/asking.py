"""The same questions of a server itself and of an endpoint of the gateway, and what may differ between the answers.

direct = await opened(server.url, "legacy")
assert await lists(direct) == await lists(await opened(gateway.url, "legacy", KEY))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.e2e.asking import LISTS
from tests.e2e.http import META, Reply, exchange, initialize, legacy, modern

# What the agents behind the gateway could bring: servers list more tools to those who declare it.
CAPABILITIES: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}
HINTS = ("resultType", "ttlMs", "cacheScope")  # of 2026-07-28, where every result has the first
METHOD_NOT_FOUND = -32601


@dataclass(frozen=True)
class Asker:
    """Asks as an agent of one era. `session` is empty where the server gives none."""

    url: str
    era: str
    key: str | None = None
    session: str | None = None

    async def ask(self, method: str, params: dict[str, Any] | None = None, token: str | None = None) -> Reply:
        """One request; with `token` it asks for progress."""
        meta = {"progressToken": token} if token else {}
        if self.era == "modern":
            return await exchange(self.url, modern(method, params, key=self.key, meta=meta))
        filled = {**(params or {}), "_meta": meta} if meta else params
        return await exchange(self.url, legacy(method, filled, key=self.key, session=self.session))


async def opened(url: str, era: str, key: str | None = None) -> Asker:
    """An agent that has done what its era demands before the first request."""
    if era == "modern":
        return Asker(url, era, key)
    reply = await exchange(url, initialize(key=key, capabilities=CAPABILITIES))
    assert reply.status == 200, reply
    asker = Asker(url, era, key, reply.header("mcp-session-id"))
    note = legacy("notifications/initialized", key=key, id=None, session=asker.session)
    assert (await exchange(url, note)).status == 202
    return asker


async def speaks_modern(url: str) -> bool:
    """Whether a server itself answers `server/discover` with a result."""
    reply = await exchange(url, modern("server/discover"))
    return reply.status == 200 and "result" in reply.json()


async def lists(asker: Asker) -> dict[str, list[dict[str, Any]]]:
    """Every definition of every kind, all pages. A server without a kind says that it has no such method."""
    return {kind: await listed(asker, method, kind) for method, kind in LISTS.items()}


async def listed(asker: Asker, method: str, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        told = (await asker.ask(method, {"cursor": cursor} if cursor else {})).json()
        if told.get("error", {}).get("code") == METHOD_NOT_FOUND:
            return []
        found += told["result"][kind]
        if not (cursor := told["result"].get("nextCursor")):
            return found


async def answer(asker: Asker, method: str, params: dict[str, Any]) -> dict[str, Any]:
    """What a question brought: progress, and the result less what one era alone has, or the error's code and words."""
    reply = await asker.ask(method, params, token="t1")
    messages = [event.json() for event in reply.events() if event.data] if reply.is_stream else [reply.json()]
    progress = [one["params"] for one in messages if one.get("method") == "notifications/progress"]
    found: dict[str, Any] = {"progress": progress}
    last = messages[-1]
    if "error" in last:
        return found | {"error": (last["error"]["code"], last["error"]["message"])}
    return found | {"result": plain(last["result"])}


def plain(result: dict[str, Any]) -> dict[str, Any]:
    """A result without the members of the newer revision's envelope."""
    meta = {key: value for key, value in result.get("_meta", {}).items() if key != f"{META}serverInfo"}
    kept = {key: value for key, value in result.items() if key not in (*HINTS, "_meta")}
    return kept | ({"_meta": meta} if meta else {})
