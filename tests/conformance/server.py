"""What both eras of the fixture server share: what it offers, who is told when that changes, how a request is answered.

Knows: handlers by method. Refuses to know: HTTP, headers, sessions, eras.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from tests.conformance import catalogue, decoy, tools
from tests.conformance.turn import InputNeededError, Json, RpcError, Turn

Handler = Callable[[Turn], Awaitable[Json]]


class Server:
    """One server.

    Args:
        era: `legacy`, `modern` or `dual`; only its name depends on it.
        offer: `suite` for everything the conformance suite looks for, `decoy` for a few things of other names.
    """

    def __init__(self, era: str, offer: str) -> None:
        self.info = {"name": f"conformance-{offer}-{era}", "version": "1.0.0"}
        self.whole = offer == "suite"
        self.changes: dict[str, int] = {}
        self.told: list[Callable[[str], None]] = []
        """Called with `notifications/.../list_changed` after each change, by each era in its own way."""
        self._tasks: set[asyncio.Task[None]] = set()
        self.handlers = self._suite() if self.whole else decoy.handlers()
        self.capabilities: Json = {"tools": {"listChanged": self.whole}}
        if self.whole:
            self.capabilities |= {"prompts": {"listChanged": True}, "resources": {"subscribe": True}}
            self.capabilities |= {"completions": {}, "logging": {}}
        else:
            self.capabilities |= {"prompts": {}, "resources": {}}

    def _suite(self) -> dict[str, Handler]:
        async def listed(key: str, items: list[Json]) -> Json:
            return {key: items}

        return {
            "tools/list": lambda turn: listed("tools", catalogue.tools(self.changes.get("tools", 0))),
            "tools/call": tools.call,
            "prompts/list": lambda turn: listed("prompts", catalogue.prompts(self.changes.get("prompts", 0))),
            "prompts/get": tools.prompt,
            "resources/list": lambda turn: listed("resources", catalogue.RESOURCES),
            "resources/templates/list": lambda turn: listed("resourceTemplates", catalogue.TEMPLATES),
            "resources/read": tools.read,
            "completion/complete": tools.complete,
        }

    def announce(self, method: str) -> None:
        for tell in self.told:
            tell(method)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that is kept until it is done."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def answer(self, turn: Turn) -> Json:
        """`{"result": ...}` or `{"error": ...}` of one request."""
        try:
            handler = self.handlers.get(turn.method)
            if handler is None:
                raise RpcError(-32601, f"Method not found: {turn.method}")
            return {"result": await handler(turn)}
        except InputNeededError as needed:
            return {"result": needed.result}
        except RpcError as error:
            return {"error": error.error}
