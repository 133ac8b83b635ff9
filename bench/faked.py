"""The gateway in one process with agent and server faked: between question and answer nothing runs but its ten steps.

Knows: a configuration with one server that has a tool, a prompt and a resource; questions as clients write them;
answers at once. Refuses to know: sockets, and what is measured.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from bench.catalogues import NAMES, Lists
from bench.compile import catalogue
from fastgw.catalog.route import Deadlines
from fastgw.config.schema.settings import Settings
from fastgw.gateway.admission import Limiter
from fastgw.gateway.gateway import Gateway
from fastgw.gateway.pipeline import serve
from fastgw.limits.memory_buckets import MemoryBuckets
from fastgw.processes.plan import Lifecycle
from fastgw.protocol import names, sse
from fastgw.snapshot.compiler import Learned, compile_snapshot
from fastgw.telemetry.counters import Counters
from fastgw.upstream import instances
from fastgw.upstream.call_context import BackgroundTasks
from fastgw.upstream.controller import UpstreamSession

MODERN, LEGACY, BATCHING = names.MODERN_VERSION, names.NEWEST_LEGACY, "2025-03-26"
KEY, TOOL, PROMPT, RESOURCE = "fgw_" + "k" * 40, "buy", "draft", "shop+docs://terms"
META = {names.META_VERSION: MODERN, names.META_CLIENT: {"name": "c", "version": "1"}, names.META_CAPABILITIES: {}}
CALL = {"name": TOOL, "arguments": {"service": "checkout", "version": "1.2.3", "dry_run": True}}
TEXT = b'{"type":"text","text":"the quick brown fox jumps over the lazy dog"}'
RESULTS = {
    names.TOOLS_CALL: b'"content":[%b],"isError":false' % TEXT,
    names.PROMPTS_GET: b'"messages":[{"role":"user","content":%b}]' % TEXT,
    names.RESOURCES_READ: b'"contents":[{"uri":"docs://terms","text":"the quick brown fox"}]',
}
PROGRESS = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"error","data":"half"}}'
_SCHEMA = {"type": "object", "properties": {name: {} for name in CALL["arguments"]}}
TOOLS: Lists = {
    "tools/list": [{"name": TOOL, "description": "Buys.", "inputSchema": _SCHEMA}],
    "prompts/list": [],
    "resources/list": [],
}
LISTS: Lists = {
    **TOOLS,
    "prompts/list": [{"name": PROMPT, "description": "Drafts."}],
    "resources/list": [{"uri": "docs://terms", "name": "terms"}],
}
EVERYTHING = {"name": "everything", "allow": ["*", "prompt:*", "resource:*"]}
_RATE = {"rate": "1000/second", "burst": 1_000_000}
LIMITS = ({"name": "agents", "by": "agent", **_RATE}, {"name": "tools", "by": ["agent", "tool"], **_RATE})

Application = Callable[[Any, Any, Any], Awaitable[None]]


class FakeReply:
    """An HTTP answer; with `pieces` an event stream."""

    def __init__(self, body: bytes | None, pieces: tuple[bytes, ...] = ()) -> None:
        self.body, self.status = body, 200
        self.headers = {"content-type": "text/event-stream" if pieces else "application/json"}
        self._pieces = iter(pieces)

    async def read(self) -> bytes:
        """The next piece of the stream."""
        return next(self._pieces, b"")

    def close(self) -> None:
        """Nothing is held."""


class FakeServer:
    """Stands in for the pooled connections: answers a call at once, by JSON or events."""

    def __init__(self, era: str, streams: str) -> None:
        self.notes: set[str] = set()
        self._start = b'{"resultType":"complete",' if era == MODERN else b"{"
        self._streams = streams == "events"

    async def request(self, verb: str, headers: bytes, body: bytes, deadlines: Deadlines) -> FakeReply:
        """As `HttpPool.request`."""
        id = body[22 : body.index(b",", 22)]
        result = next(result for method, result in RESULTS.items() if b'"method":"%b"' % method.encode() in body)
        text = b'{"jsonrpc":"2.0","id":%b,"result":%b%b}}' % (id, self._start, result)
        return FakeReply(None, (sse.encode(PROGRESS), sse.encode(text))) if self._streams else FakeReply(text)

    async def close(self) -> None:
        """Nothing is open."""


class FakeController:
    """The controller, as far as a call needs it: sessions, and events that are counted."""

    def __init__(self) -> None:
        self.events = 0

    async def open_session(self, *_: Any) -> UpstreamSession:
        """A session at the server."""
        return UpstreamSession("s1", LEGACY, 0.0)

    def touch(self, *_: Any) -> None:
        """A session is in use."""

    def alert(self, *_: Any) -> None:
        """A warning for operators."""

    def take_event(self, event: bytes) -> None:
        """A usage event."""
        self.events += 1


@dataclass(frozen=True, slots=True)
class Scene:
    """What stands around the gateway.

    Args:
        server: the revision that its server speaks; how that `answers`: by `json` or by `events`.
        lists: what it lists. With resources, links in results are looked for.
        limits, policies, quotas, tools: of the configuration.
        before: usual calls that are made first.
    """

    server: str = MODERN
    answers: str = "json"
    lists: Lists = field(default_factory=lambda: TOOLS)
    limits: tuple[dict[str, Any], ...] = LIMITS
    policies: tuple[dict[str, Any], ...] = (EVERYTHING,)
    quotas: tuple[dict[str, Any], ...] = ()
    tools: dict[str, Any] = field(default_factory=dict)
    before: int = 0

    def gateway(self) -> Gateway:
        """One worker's; to be made in a running loop."""
        instances.HttpPool = lambda *_, **__: FakeServer(self.server, self.answers)  # type: ignore[assignment, misc]
        agent = {"key": "sha256:" + hashlib.sha256(KEY.encode()).hexdigest(), "claims": {"team": "platform"}}
        era = "modern" if self.server == MODERN else "legacy"
        settings = Settings.model_validate({
            "servers": {"shop": {"url": "http://127.0.0.1:9/mcp", "era": era}},
            "agents": {"build-bot": agent},
            "policies": self.policies,
            "limits": self.limits,
            "quotas": self.quotas,
            "tools": self.tools,
        })  # fmt: skip
        declared = frozenset(NAMES[method] for method, items in self.lists.items() if items)
        offered = replace(catalogue("shop", self.lists), capabilities=declared)
        credentials = {"shop": b"authorization: Bearer s3cret\r\n"}
        learned = Learned({"shop": offered}, credentials=credentials, seal_keys=(bytes(32),))
        counters = Counters()
        limiter = Limiter(MemoryBuckets(), counters)
        controller = FakeController()
        gateway = Gateway(controller, counters, BackgroundTasks(), limiter)  # type: ignore[arg-type]
        gateway.write_event = controller.take_event
        gateway.load(compile_snapshot(settings, learned, 1)[0])
        gateway.activate(1)
        return gateway


@dataclass(frozen=True, slots=True)
class Question:
    """What an agent asks.

    Args:
        era: the revision it speaks; `rest`: none.
        method: of JSON-RPC, with its `params`; both twice in one array where `count` is 2.
        wanted: stands in the answer.
    """

    era: str = MODERN
    method: str = names.TOOLS_CALL
    params: dict[str, Any] = field(default_factory=lambda: CALL)
    wanted: bytes = TEXT
    count: int = 1

    @property
    def body(self) -> bytes:
        """As clients write it."""
        if self.era == "rest":
            return _json(self.params["arguments"])
        params = {**self.params, "_meta": META} if self.era == MODERN else self.params
        message = {"jsonrpc": "2.0", "id": 1, "method": self.method, "params": params}
        return _json(message if self.count == 1 else [{**message, "id": at} for at in range(self.count)])

    def scope(self, session: bytes = b"") -> dict[str, Any]:
        """Of ASGI; in this session."""
        path = f"/mcp/tools/{TOOL}/invoke" if self.era == "rest" else "/mcp"
        found = {"host": "localhost:8080", "content-type": "application/json"}
        found |= {"accept": "application/json, text/event-stream", "content-length": str(len(self.body))}
        found["authorization"] = f"Bearer {KEY}"
        if self.era != "rest":
            found["mcp-protocol-version"] = self.era
        if self.era == MODERN:
            found["mcp-method"] = self.method
            if name := self.params.get("name", self.params.get("uri")):
                found["mcp-name"] = name
        lines = [(name.encode(), value.encode()) for name, value in found.items()]
        if session:
            lines.append((b"mcp-session-id", session))
        return {"type": "http", "method": "POST", "path": path, "headers": lines, "query_string": b""}


def opening(era: str) -> Question:
    """The `initialize` of a session of this revision."""
    params = {"protocolVersion": era, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    return Question(era, names.INITIALIZE, params, b'"serverInfo"')


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class Driver:
    """One agent that asks the same again and again, and looks at each answer."""

    def __init__(self, app: Application, question: Question, session: bytes = b"") -> None:
        self._app, self._wanted = app, question.wanted
        self.scope = question.scope(session)
        self._message = {"type": "http.request", "body": question.body, "more_body": False}
        self.sent: list[dict[str, Any]] = []

    async def _receive(self) -> dict[str, Any]:
        return self._message

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    async def call(self) -> None:
        """One call. Raises AssertionError for a wrong answer."""
        self.sent.clear()
        await self._app(self.scope, self._receive, self._send)
        assert any(self._wanted in message.get("body", b"") for message in self.sent), self.sent


class GatewayDriver(Driver):
    """The same in front of a gateway of its own."""

    def __init__(self, gateway: Gateway, question: Question, session: bytes = b"") -> None:
        super().__init__(partial(serve, gateway, Lifecycle()), question, session)
        self._gateway = gateway

    async def observed(self) -> None:
        """One call, until everybody has heard of it; see `call`."""
        await self.call()
        self._gateway.flush()


async def driver(question: Question, scene: Scene) -> GatewayDriver:
    """An agent in front of the gateway; of an older revision, in a session it has opened."""
    gateway = scene.gateway()
    for _ in range(scene.before):
        await GatewayDriver(gateway, Question()).call()
    if question.era in (MODERN, "rest") or question.method == names.INITIALIZE:
        return GatewayDriver(gateway, question)
    first = GatewayDriver(gateway, opening(question.era))
    await first.call()
    return GatewayDriver(gateway, question, dict(first.sent[0]["headers"])[b"mcp-session-id"])
