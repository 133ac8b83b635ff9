"""A wire and a controller that do what a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastgw.catalog.route import Deadlines, Target
from fastgw.errors import Fault, Kind
from fastgw.policy.match import Principal
from fastgw.protocol.call import Call
from fastgw.protocol.envelope import Message
from fastgw.protocol.quick import QuickResult
from fastgw.snapshot.model import Address, Backend
from fastgw.telemetry.counters import Counters
from fastgw.upstream.attempts import UpstreamCaller
from fastgw.upstream.call_context import Attempt, BackgroundTasks
from fastgw.upstream.controller import UpstreamSession
from fastgw.upstream.instances import Instance, Instances
from fastgw.upstream.reply import UpstreamReply
from fastgw.upstream.rpc import RpcClient
from fastgw.upstream.transports.streamable_http import StreamableHttp

OURS = b'{"name":"fastgw","version":"1"}'
PATIENT = Deadlines(5, 5, 5, 5)
JSON = {"content-type": "application/json"}
SSE = {"content-type": "text/event-stream"}


def run(work: Awaitable[Any]) -> Any:
    """Run a test's coroutine, for 10 s at most."""

    async def bounded() -> Any:
        async with asyncio.timeout(10):
            return await work

    return asyncio.run(bounded())


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(30):
        await asyncio.sleep(0)


class FakeAnswer:
    """An answer whose pieces are given, or come one by one through `more`."""

    def __init__(self, status: int = 200, headers: dict[str, str] | None = None, body: bytes | None = b"", pieces=()):
        self.status = status
        self.headers = JSON if headers is None else headers
        self.body = body
        self.closed = False
        self.distrusted = False
        self.extended: list[tuple[float, float]] = []
        self.more: asyncio.Queue[bytes | Fault] = asyncio.Queue()
        for piece in pieces:
            self.more.put_nowait(piece)

    async def read(self) -> bytes:
        if self.closed:
            raise Fault(Kind.LOST, detail="closed", sent=True)
        piece = await self.more.get()
        if isinstance(piece, Fault):
            raise piece
        return piece

    def extend(self, due: float, seconds: float) -> None:
        self.extended.append((due, seconds))

    def close(self) -> None:
        self.closed = True

    def poison(self) -> None:
        self.distrusted = True


@dataclass
class Sent:
    """One request as the server saw it."""

    verb: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else {}

    @property
    def method(self) -> str:
        return str(self.json.get("method", self.verb))


def head(lines: bytes) -> dict[str, str]:
    """Header lines as a dictionary; none may come twice."""
    assert lines.endswith(b"\r\n")
    pairs = [context.split(": ", 1) for context in lines.decode("latin-1").split("\r\n")[:-1]]
    found = {name.lower(): value for name, value in pairs}
    assert len(found) == len(pairs), lines
    return found


Handler = Callable[[Sent], Any]


class FakeWire:
    """Hands every request to `handler`, which gives an answer, a Fault, or an awaitable of these."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.sent: list[Sent] = []
        self.notes: set[str] = set()

    async def request(self, verb: str, headers: bytes, body: bytes, deadlines: Deadlines) -> FakeAnswer:
        request = Sent(verb, head(headers), body)
        self.sent.append(request)
        found = self.handler(request)
        if isinstance(found, Coroutine):
            found = await found
        await asyncio.sleep(0)
        if isinstance(found, Fault):
            raise found
        return found

    async def close(self) -> None:
        pass

    def methods(self) -> list[str]:
        return [sent.method for sent in self.sent]

    def count(self, method: str) -> int:
        return self.methods().count(method)


def result(request: Sent, value: Any, **more: Any) -> FakeAnswer:
    """A JSON answer with a result to this request."""
    body = json.dumps({"jsonrpc": "2.0", "id": request.json["id"], "result": value}).encode()
    return FakeAnswer(body=body, headers={**JSON, **more})


def error(request: Sent | None, code: int, status: int = 200, message: str = "no", data: Any = None) -> FakeAnswer:
    """A JSON answer with an error; to no request: with a null id."""
    wrong: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        wrong["data"] = data
    ident = request.json["id"] if request is not None else None
    return FakeAnswer(status, body=json.dumps({"jsonrpc": "2.0", "id": ident, "error": wrong}).encode())


def event(message: Any, more: str = "") -> bytes:
    """One event."""
    text = message if isinstance(message, str) else json.dumps(message)
    return f"{more}data: {text}\n\n".encode()


def backend(url: str = "http://a/mcp", **changes: Any) -> Backend:
    """A server with one instance, `shop|<url>`."""
    values: dict[str, Any] = {
        "name": "shop",
        "instances": (Address(f"shop|{url}", "shop", url, None, ""),),
        "headers": b"authorization: Bearer s3cret\r\n",
        "tls": (None, None, None),
        "shared_session": False,
        "session_idle": 600.0,
        "max_sessions": 1000,
        "maintenance": None,
    }
    return Backend(**{**values, **changes})


def instance(era: str | None, url: str = "http://a/mcp") -> Address:
    return Address(f"shop|{url}", "shop", url, era, "")


TARGET = Target("shop", "buy", b'"buy"')


def call(**changes: Any) -> Call:
    values: dict[str, Any] = {"id": b"7", "method": "tools/call", "version": "2026-07-28", "name": "shop__buy"}
    return Call(**{**values, "params": {"arguments": b'{"n":1}'}, **changes})


@dataclass
class FakeKeeper:
    """Sessions `s1`, `s2`, ...; eras and headers as told."""

    era: str = "legacy"
    version: str = "2025-11-25"
    ids: bool = True
    fresh: bool = False
    """Whether every session is opened when it is asked for; else only one in place of a dead one is, and the others are
    from long before any call.
    """
    opened: list[tuple[str, str, UpstreamSession | None]] = field(default_factory=list)
    doubts: list[tuple[str, str]] = field(default_factory=list)
    refreshed: list[tuple[str, str]] = field(default_factory=list)
    touched: list[tuple[str, str]] = field(default_factory=list)
    suspected: list[tuple[str, str]] = field(default_factory=list)
    kept: list[tuple[str, str, UpstreamSession, UpstreamSession]] = field(default_factory=list)
    workers: list[UpstreamCaller] = field(default_factory=list)
    """Who hears of suspect sessions."""
    headers: tuple[Any, ...] = ()
    news: list[tuple[str, Any]] = field(default_factory=list)
    fail: Fault | None = None

    async def open_session(
        self, instance: str, identity: str, dead: UpstreamSession | None = None, headers: bytes | None = None
    ) -> UpstreamSession:
        self.opened.append((instance, identity, dead))
        await asyncio.sleep(0)
        if self.fail:
            raise self.fail
        now = asyncio.get_running_loop().time() if self.fresh or dead is not None else 0.0
        return UpstreamSession(f"s{len(self.opened)}" if self.ids else "", self.version, now)

    async def keep_session(
        self, instance: str, identity: str, session: UpstreamSession, instead: UpstreamSession
    ) -> UpstreamSession:
        self.kept.append((instance, identity, session, instead))
        return session

    async def suspect_session(self, key: tuple[str, str], session: str) -> None:
        self.suspected.append(key)
        for worker in self.workers:
            worker.suspect(key, session)

    def touch(self, instance: str, identity: str) -> None:
        self.touched.append((instance, identity))

    async def doubt_era(self, instance: str, believed: str) -> str:
        self.doubts.append((instance, believed))
        if self.fail:
            raise self.fail
        return self.era

    async def refresh(self, server: str, tool: str) -> tuple[Any, ...]:
        self.refreshed.append((server, tool))
        if self.fail:
            raise self.fail
        return self.headers

    async def end_session(self, session: str, seconds: float) -> None: ...

    def cancel(self, session: str, request: bytes) -> None: ...

    def breaker(self, instance: str, news: Any) -> None:
        self.news.append((instance, news))

    def alert(self, kind: str, text: str, details: dict[str, Any]) -> None: ...


class OneInstance(Instances):
    """One instance, `shop|http://a/mcp`, that is reached over a wire which a test plays."""

    def __init__(self, wire: Any, spawn: Any) -> None:
        super().__init__(spawn)
        of = backend()
        self.only = self._live[of.instances[0].key] = Instance(of, of.instances[0])
        self.only.http, self.only.transport = wire, StreamableHttp(wire, spawn, OURS, 1 << 20)


def caller_of(controller: Any, wire: Any, spawn: Any) -> UpstreamCaller:
    """One worker's caller of that instance."""
    return UpstreamCaller(controller, OneInstance(wire, spawn), spawn, Counters())


def only(caller: UpstreamCaller) -> Instance:
    """The instance of such a caller."""
    return caller.instances.only


async def given(
    caller: UpstreamCaller, call: Call, target: Target, backend: Backend, address: Address, identity: str,
    deadlines: Deadlines = PATIENT,
) -> UpstreamReply:  # fmt: skip
    """One attempt at one instance; a result in the usual shape as a call in flight has it."""
    begun = asyncio.get_running_loop().time()
    one = caller.instances.find(address.key)
    one.backend, one.address = backend, address
    attempt = Attempt(call, target, backend, address, identity, deadlines, begun, credential=backend.headers)
    return played(await caller.call(attempt, one, Principal("a")))


class Played:
    """A result in the usual shape, read as the messages of a call."""

    streams = False
    may_ask = True

    def __init__(self, found: QuickResult) -> None:
        self._text: bytes | None = found.text

    async def next(self) -> Message:
        if self._text is None:
            raise Fault(Kind.LOST, detail="the call is over", sent=True)
        text, self._text = self._text, None
        return Message(None, None, None, text, None)

    def close(self) -> None: ...


def played(reply: Any) -> Any:
    return Played(reply) if isinstance(reply, QuickResult) else reply


@asynccontextmanager
async def registry():
    """Background work, ended with the test."""
    found = BackgroundTasks()
    try:
        yield found
    finally:
        await found.close()


def client(transport: Any, spawn: Any, of: Backend | None = None) -> RpcClient:
    return RpcClient(transport, of or backend(), spawn, PATIENT)
