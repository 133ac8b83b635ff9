"""A gateway between an agent at its ASGI door and a server behind its `Wire`; a test is both of them.

Knows: ASGI's messages, one endpoint with one tool. Refuses to know: sockets.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from fastgw.catalog.elements import DIALECTS
from fastgw.catalog.route import Arm, Deadlines, Route, Target
from fastgw.gateway.admission import Limiter
from fastgw.gateway.gateway import Gateway
from fastgw.gateway.pipeline import serve
from fastgw.limits.memory_buckets import MemoryBuckets
from fastgw.processes.plan import Lifecycle
from fastgw.protocol import names
from fastgw.snapshot.model import Address, Backend, Endpoint, Grant, Listing, Snapshot, View
from fastgw.telemetry.counters import Counters
from fastgw.upstream.call_context import BackgroundTasks
from tests.upstream.fakes import FakeAnswer, FakeKeeper, FakeWire, Sent, settle

META = {names.META_VERSION: names.MODERN_VERSION, names.META_CAPABILITIES: {}}
DISCONNECT = {"type": "http.disconnect"}
Message = dict[str, Any]


class FakeAgent:
    """One request at the ASGI door. `may_read` cleared: it reads nothing, so nothing can be sent to it."""

    def __init__(self, body: bytes | None = None) -> None:
        self.inbox: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: list[Message] = []
        self.may_read = asyncio.Event()
        self.may_read.set()
        if body is not None:
            self.says(body)

    def says(self, body: bytes, *, more: bool = False) -> None:
        """A piece of the body."""
        self.inbox.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def leaves(self) -> None:
        """The connection is closed."""
        self.inbox.put_nowait(DISCONNECT)

    async def receive(self) -> Message:
        return await self.inbox.get()

    async def send(self, message: Message) -> None:
        await self.may_read.wait()
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def is_done(self) -> bool:
        return bool(self.sent) and not self.sent[-1].get("more_body", "headers" in self.sent[-1])

    def json(self) -> Any:
        """The answer, or the last event of a stream."""
        if self.headers.get(b"content-type") == b"text/event-stream":
            return self.events()[-1]
        return json.loads(self.body)

    def events(self) -> list[Any]:
        """The messages of a stream, comments left out."""
        lines = self.body.decode().splitlines()
        return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


@dataclass
class Listening(FakeKeeper):
    """A controller that remembers what it was told."""

    events: list[Message] = field(default_factory=list)
    cancels: list[tuple[str, bytes]] = field(default_factory=list)

    def cancel(self, session: str, request: bytes) -> None:
        self.cancels.append((session, request))

    def take_event(self, event: bytes) -> None:
        self.events.append(json.loads(event))


@dataclass
class Stage:
    """A gateway with one tool, `buy`, of a server that `handler` plays."""

    gateway: Gateway
    wire: FakeWire
    controller: Listening
    life: Lifecycle
    tasks: BackgroundTasks

    def ask(self, agent: FakeAgent, fields: dict[str, str] | None = None, verb: str = "POST") -> asyncio.Task[None]:
        """Let the request in; its task is done when the gateway is done with it."""
        usual = {"host": "localhost", "content-type": "application/json", **(fields or {})}
        scope = {
            "type": "http", "method": verb, "path": "/mcp",
            "headers": [(name.lower().encode(), value.encode()) for name, value in usual.items()],
        }  # fmt: skip
        return self.tasks.spawn(serve(self.gateway, self.life, scope, agent.receive, agent.send), "a request")

    async def initialize(self, version: str = "2025-11-25") -> dict[str, str]:
        """The headers of a new session."""
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        agent = FakeAgent(request("initialize", params))
        await self.ask(agent)
        return {"mcp-session-id": agent.headers[b"mcp-session-id"].decode(), "mcp-protocol-version": version}


def request(method: str, params: Message | None = None, identity: Any = 1) -> bytes:
    """A message of a session; without an id it is a notification."""
    message: Message = {"jsonrpc": "2.0", "method": method, "params": params or {}}
    return json.dumps(message if identity is None else {**message, "id": identity}).encode()


MODERN = {"mcp-protocol-version": names.MODERN_VERSION, "mcp-method": "tools/call", "mcp-name": "buy"}
BUY: Message = {"name": "buy", "arguments": {"n": 1}}
MODERN_BUY = request("tools/call", {**BUY, "_meta": {**META, "progressToken": "mine"}})


@asynccontextmanager
async def staged(
    monkeypatch: pytest.MonkeyPatch, handler: Callable[[Sent], Any], era: str = "modern"
) -> AsyncIterator[Stage]:
    """A stage, and nothing left running when it is over."""
    wire, controller, tasks, life = FakeWire(handler), Listening(era=era), BackgroundTasks(), Lifecycle()
    monkeypatch.setattr("fastgw.upstream.instances.HttpPool", lambda *_, **__: wire)
    monkeypatch.setattr("fastgw.gateway.gateway.OBSERVED_TOGETHER", 1)
    counters = Counters()
    limiter = Limiter(MemoryBuckets(), counters)
    gateway = Gateway(controller, counters, tasks, limiter)
    gateway.write_event = controller.take_event
    gateway.load(_snapshot(era))
    gateway.activate(1)
    try:
        yield Stage(gateway, wire, controller, life, tasks)
        await settle()
        assert gateway.in_flight == 0, "a call was not settled"
    finally:
        await gateway.close()


def _snapshot(era: str) -> Snapshot:
    arms = (Arm(None, (Target("shop", "buy", b'"buy"'),), Deadlines(5, 5, 5, 5)),)
    route = Route("buy", arms, ("buy",), ())
    listing = Listing(((b'{"name":"buy"}',) * len(DIALECTS),), 7)
    view = View({"buy": Grant(True, (), route, arms)}, lists={names.TOOLS_LIST: listing})
    endpoint = Endpoint("/mcp", {"buy": route}, (view,), {"anonymous": 0}, True, 0.0, ("shop",), "")
    version = "2026-07-28" if era == "modern" else "2025-11-25"
    instance = Address("shop|http://a/mcp", "shop", "http://a/mcp", era, version)
    shop = Backend("shop", (instance,), b"", (None, None, None), False, 600.0, 1000, None)
    return Snapshot(
        1, {"/mcp": endpoint}, {"shop": shop}, {}, frozenset((b"localhost",)), frozenset(), 1000, 1 << 20,
        (b"secret",), "fastgw", "0", "gw",
    )  # fmt: skip


def bought(sent: Sent) -> bytes:
    """The server's answer to a call."""
    result = {"resultType": "complete", "content": [{"type": "text", "text": "bought"}]}
    return json.dumps({"jsonrpc": "2.0", "id": sent.json["id"], "result": result}).encode()


def event(message: bytes) -> bytes:
    return b"data: " + message + b"\n\n"


def progress(sent: Sent, step: int) -> bytes:
    """The server's progress on a call."""
    token = sent.json["params"]["_meta"]["progressToken"]
    params = {"progressToken": token, "progress": step}
    return event(json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}).encode())


class Server:
    """A server that streams what a test tells it to, when it tells it to."""

    def __init__(self) -> None:
        self.asked: list[Sent] = []
        self.answers: list[FakeAnswer] = []
        self.stopped = 0

    def streams(self, sent: Sent) -> FakeAnswer:
        """Begin a stream."""
        self.asked.append(sent)
        self.answers.append(FakeAnswer(headers={"content-type": "text/event-stream"}, body=None))
        return self.answers[-1]

    async def ponders(self, sent: Sent) -> FakeAnswer:
        """Never answer."""
        if "id" not in sent.json:
            return FakeAnswer(202)
        self.asked.append(sent)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.stopped += 1
        raise AssertionError
