"""`python -m bench steps`: the ten steps of a call in one process, agent and server faked, beside the sketch.

CPU of the process per call, the two in turns; and the function calls of one request, Python's and C's
(`sys.setprofile`), which no noise moves.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

import uvloop

from bench.sketch import Sketch
from bench.versions import versions
from fastgw.catalog.route import Arm, Deadlines, Route, Target
from fastgw.gateway.admission import Limiter
from fastgw.gateway.gateway import Gateway
from fastgw.gateway.pipeline import serve
from fastgw.limits.memory_buckets import MemoryBuckets
from fastgw.policy.bucket import bucket_rate
from fastgw.policy.limits import Limit
from fastgw.policy.match import Principal
from fastgw.processes.plan import Lifecycle
from fastgw.protocol import names
from fastgw.snapshot.model import Address, Backend, Endpoint, Grant, KeyEntry, Snapshot, View
from fastgw.telemetry.counters import Counters
from fastgw.upstream import instances
from fastgw.upstream.call_context import BackgroundTasks
from fastgw.upstream.controller import UpstreamSession

JSON = {"content-type": "application/json"}
KEY, TOOL = "fgw_" + "k" * 40, "buy"
META = {names.META_VERSION: names.MODERN_VERSION, names.META_CLIENT: {"name": "c", "version": "1"},
        names.META_CAPABILITIES: {}}  # fmt: skip
ARGUMENTS = {"service": "checkout", "version": "1.2.3", "dry_run": True}
TEXT = b'"content":[{"type":"text","text":"the quick brown fox jumps over the lazy dog"}],"isError":false'
LIMITS = tuple(Limit(name, by, rate=bucket_rate(1_000_000, 1, 1_000_000)) for name, by in
               (("agents", ("agent",)), ("tools", ("agent", "tool"))))  # fmt: skip
ERAS = (names.MODERN_VERSION, names.NEWEST_LEGACY)

Application = Callable[[Any, Any, Any], Awaitable[None]]


class FakeReply:
    """A whole HTTP answer."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, body: bytes) -> None:
        self.body, self.status, self.headers = body, 200, JSON

    def close(self) -> None:
        """Nothing is held."""


class FakeServer:
    """Stands in for the pooled connections: answers a call at once, a session's `initialize` likewise."""

    def __init__(self, era: str) -> None:
        self.notes: set[str] = set()
        self._start = b'{"resultType":"complete",' if era == names.MODERN_VERSION else b"{"

    async def request(self, verb: str, headers: bytes, body: bytes, deadlines: Deadlines) -> FakeReply:
        return FakeReply(b'{"jsonrpc":"2.0","id":%b,"result":%b%b}}' % (_id_of(body), self._start, TEXT))

    async def close(self) -> None:
        """Nothing is open."""


def _id_of(body: bytes) -> bytes:
    return body[22 : body.index(b",", 22)]


def snapshot(era: str) -> Snapshot:
    """One key, one tool of one server, two limits."""
    arms = (Arm(None, (Target("shop", TOOL, b'"%s"' % TOOL.encode()),), Deadlines()),)
    route = Route(TOOL, arms, (TOOL,), ())
    principal = Principal("build-bot", {"team": "platform", "project": "x"}, "key:01234567")
    view = View({TOOL: Grant(route, arms, True, ())})
    endpoint = Endpoint("/mcp", {TOOL: route}, (view,), {principal.agent: 0}, False, 0.0, ("shop",), "")
    spoken = "modern" if era == names.MODERN_VERSION else "legacy"
    shop = Backend("shop", (Address("shop|http://a/mcp", "shop", "http://a/mcp", spoken, era),),
                   b"authorization: Bearer s3cret\r\n", (None, None, None), False, 600.0, 1000, None)  # fmt: skip
    keys = {hashlib.sha256(KEY.encode()).hexdigest(): KeyEntry(principal, None)}
    return Snapshot(
        1, {"/mcp": endpoint}, {"shop": shop}, keys, frozenset(("localhost",)), frozenset(), 1 << 20, 1 << 20,
        (b"secret",), "fastgw", "0", "gw", limits=LIMITS,
    )  # fmt: skip


class Keeps:
    """The controller, as far as a call needs it: sessions, and events that are counted."""

    def __init__(self) -> None:
        self.events = 0

    async def open_session(self, *_: Any) -> Any:
        return UpstreamSession("s1", names.NEWEST_LEGACY, 0.0)

    def touch(self, *_: Any) -> None:
        """A session is in use."""

    def usage(self, event: bytes) -> None:
        self.events += 1


def real(server_era: str) -> tuple[Application, Gateway]:
    """The gateway, one worker, everything on; its server of this era is faked."""
    instances.HttpPool = lambda *_, **__: FakeServer(server_era)  # type: ignore[assignment, misc]
    counters = Counters()
    gateway = Gateway(Keeps(), counters, BackgroundTasks(), Lifecycle(), Limiter(MemoryBuckets(), counters))  # type: ignore[arg-type]
    gateway.load(snapshot(server_era))
    gateway.activate(1)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await serve(gateway, scope, receive, send)

    return app, gateway


def request(agent_era: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of the call, as clients write it."""
    params: dict[str, Any] = {"name": TOOL, "arguments": ARGUMENTS}
    more = {"mcp-protocol-version": agent_era}
    if agent_era == names.MODERN_VERSION:
        params["_meta"] = META
        more |= {"mcp-method": "tools/call", "mcp-name": TOOL}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    body = json.dumps(message, separators=(",", ":")).encode()
    found = {"host": "localhost", "content-type": "application/json", "accept": "application/json, text/event-stream",
             "content-length": str(len(body)), "authorization": "Bearer " + KEY, **more}  # fmt: skip
    return [(name.encode(), value.encode()) for name, value in found.items()], body


class Driver:
    """One agent that asks the same again and again, and looks at each answer."""

    def __init__(self, app: Application, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self._app = app
        self.scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": headers, "query_string": b""}
        self._message = {"type": "http.request", "body": body, "more_body": False}
        self.sent: list[dict[str, Any]] = []

    async def _receive(self) -> dict[str, Any]:
        return self._message

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    async def call(self) -> None:
        """One call. Raises AssertionError for a wrong answer."""
        self.sent.clear()
        await self._app(self.scope, self._receive, self._send)
        head, end = self.sent
        assert head["status"] == 200 and TEXT in end["body"] and end["body"].startswith(b'{"jsonrpc":"2.0","id":1,'), (
            self.sent
        )

    async def cost(self, count: int) -> float:
        """CPU microseconds of one call, the mean of `count`."""
        begun = time.process_time()
        for number in range(count):
            await self.call()
            if number % 100 == 0:
                await asyncio.sleep(0)  # the loop's timers have their turn
        return (time.process_time() - begun) / count * 1e6

    async def calls(self) -> tuple[int, Counter[str]]:
        """Function calls of one request, Python's and C's, the driver's own left out; and Python's by file."""
        files: Counter[str] = Counter()
        total = [0]

        def profile(frame: FrameType, event: str, arg: Any) -> None:
            if event in ("call", "c_call"):
                total[0] += 1
            if event == "call" and "/fastgw/" in (name := frame.f_code.co_filename):
                files[name.rpartition("/fastgw/")[2]] += 1

        await self.call()
        sys.setprofile(profile)
        try:
            await self.call()
        finally:
            sys.setprofile(None)
        return total[0], files


async def driver(agent_era: str, server_era: str) -> Driver:
    """The gateway between an agent and a server of these eras."""
    app, _ = real(server_era)
    headers, body = request(agent_era)
    if agent_era != names.MODERN_VERSION:
        headers.append((b"mcp-session-id", await _session(app, headers)))
    return Driver(app, headers, body)


async def _session(app: Application, headers: list[tuple[bytes, bytes]]) -> bytes:
    params = {"protocolVersion": names.NEWEST_LEGACY, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    body = json.dumps({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}).encode()
    usual = [field for field in headers if field[0] != b"content-length"]
    first = Driver(app, usual, body)
    await app(first.scope, first._receive, first._send)
    return dict(first.sent[0]["headers"])[b"mcp-session-id"]


def sketch() -> Driver:
    """The sketch in front of the same fake server."""
    server = FakeServer(names.MODERN_VERSION)

    async def wire(head: bytes, body: bytes) -> bytes:
        return (await server.request("POST", head, body, Deadlines())).body

    return Driver(Sketch(KEY, TOOL, {b"localhost"}, wire), *request(names.MODERN_VERSION))


async def measure(rounds: int, count: int, shown: int) -> None:
    """Print a row per pair of eras, and so many of the files that a call enters."""
    gc.set_threshold(50_000, 20, 50)  # as in a worker
    beside = sketch()
    rows = {f"{agent[:4]} > {server[:4]}": await driver(agent, server) for agent in ERAS for server in ERAS}
    costs: dict[str, list[float]] = {name: [] for name in rows}
    basis: list[float] = []
    for turn in range(rounds + 1):
        for name, one in rows.items():
            low = await beside.cost(count)
            cost = await one.cost(count)
            if turn:
                basis.append(low)
                costs[name].append(cost / low)
    print(f"sketch       {statistics.median(basis):6.1f} us  {(await beside.calls())[0]:4d} function calls")
    for name, one in rows.items():
        ratios, (total, files) = costs[name], await one.calls()
        spread = f"{statistics.median(ratios):5.2f}x ({min(ratios):.2f}-{max(ratios):.2f})"
        print(f"{name}  {spread}  {total:4d} function calls in {len(files)} files")
        for file, times in files.most_common(shown):
            print(f"    {times:3d} {file}")


def main(argv: list[str]) -> int:
    """Measure and print; exit code 0."""
    parser = argparse.ArgumentParser(prog="python -m bench steps", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=2000, help="calls per round and row")
    parser.add_argument("--files", type=int, default=0, help="how many of the files that a call enters are named")
    args = parser.parse_args(argv)
    print(versions())
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(measure(args.rounds, args.calls, args.files))
    return 0
