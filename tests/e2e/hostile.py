"""A gateway that one file of tests shares, its servers in a loop of their own; and what must hold after every test.

    place = next(shared(folder, boxes))       # in a module's fixture
    with place.unharmed(): ...                # around every test

Knows: processes, ledgers, docs/errors.md's form of a refusal. Refuses to know: what a test does.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.gateway import KEY, Gateway, fingerprint, running, until
from tests.e2e.http import Asked, Reply, exchange, modern
from tests.e2e.servers import Handler, Toolbox, scripted

OTHER_KEY = "fgw_test_somebody_else"


@dataclass
class Place:
    """A gateway, the servers behind it by name, and its processes as they were when it was ready."""

    gateway: Gateway
    boxes: dict[str, Toolbox]
    pids: list[int]

    def ask(self, asked: Asked, path: str = "/mcp") -> Reply:
        """One request on a connection of its own."""
        return asyncio.run(exchange(self.gateway.root + path, asked))

    def reached(self) -> int:
        """How many calls have reached a server."""
        return sum(len(box.ledger) for box in self.boxes.values())

    @contextmanager
    def unharmed(self) -> Iterator[None]:
        """No process has died, and nobody has met what he did not expect."""
        yield
        assert self.gateway.children() == self.pids, self.gateway.log()
        assert "Traceback" not in self.gateway.log(), self.gateway.log()


@contextmanager
def shared(
    folder: Path,
    boxes: dict[str, Toolbox],
    more: dict[str, Any] | None = None,
    environment: dict[str, str] | None = None,
    **servers: dict[str, Any],
) -> Iterator[Place]:
    """Toolboxes on a thread of their own, and a gateway before them that two agents may use; `servers` are further
    settings of each, by name.
    """
    handlers = {name: box.handle for name, box in boxes.items()}
    agents = {"tester": {"key": fingerprint(KEY)}, "other": {"key": fingerprint(OTHER_KEY)}}
    with beside(handlers) as urls:
        settings = {
            "servers": {name: {"url": url, **servers.get(name, {})} for name, url in urls.items()},
            "agents": agents,
            **(more or {}),
        }
        with running(settings, folder, environment) as gateway:
            asyncio.run(until(lambda: all_listed(gateway, {tool for box in boxes.values() for tool in box.tools})))
            yield Place(gateway, boxes, gateway.children())


async def all_listed(gateway: Gateway, tools: set[str]) -> bool:
    """Whether these are the tools that are listed: a list is answered from what every worker serves."""
    reply = await exchange(gateway.url, modern("tools/list", {}, key=KEY))
    return {tool["name"] for tool in reply.json()["result"]["tools"]} == tools


@contextmanager
def beside(handlers: dict[str, Handler]) -> Iterator[dict[str, str]]:
    """Socket servers in a loop on a thread of their own; their URLs by name."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    stack = AsyncExitStack()

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(20)

    try:
        yield {name: run(stack.enter_async_context(scripted(handler))).url for name, handler in handlers.items()}
    finally:
        run(stack.aclose())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


def refusal(reply: Reply) -> dict[str, Any]:
    """The error of an answer that has the form every refusal has (docs/errors.md)."""
    assert reply.header("content-type") == "application/json", reply
    found: dict[str, Any] = json.loads(reply.body)
    assert set(found) == {"jsonrpc", "id", "error"}, found
    assert found["jsonrpc"] == "2.0"
    error: dict[str, Any] = found["error"]
    assert set(error) == {"code", "message", "data"}, error
    assert error["message"]
    assert error["data"]["requestId"] == reply.header("x-request-id")
    return error


def is_refused(reply: Reply, status: int, code: int, identity: Any = None, **data: Any) -> None:
    """Check a refusal that no server has heard of: status, code, the id with its type, and all of `data`."""
    error = refusal(reply)
    told = (reply.status, error["code"])
    assert told == (status, code), f"{told}: {error['message']}"
    found = json.loads(reply.body)["id"]
    assert (found, type(found)) == (identity, type(identity))
    assert {**error["data"], "requestId": ""} == {"requestId": "", "mayHaveRun": False, **data}
