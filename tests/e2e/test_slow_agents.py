"""Agents that take their time over a head or a body, or never read: what each costs a worker, and that others go on.

Connections are opened by hand: nothing here reads what nobody asked it to read.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.asking import listed
from tests.e2e.gateway import KEY, Gateway, running_beside, until
from tests.e2e.http import PATIENCE, modern
from tests.e2e.load import many, tool, words
from tests.e2e.memory import ALLOWED, each, memory
from tests.e2e.servers import STREAM, Call, Toolbox, chunk, serving

pytestmark = pytest.mark.usefixtures("many_files")
SLOWEST = 2.0
"""Seconds for one call beside them, on a busy machine too."""
SPARE = 8 * 1024 * 1024
"""Bytes by which two workers may grow for what is not these agents: calls beside them, an allocator that rounds up."""
UNREAD = 2 * ALLOWED
"""Bytes that one may cost who never reads: uvloop reads up to 256 KiB at a time. With a hundred of them what workers
keep of freed memory counts, too (`processes/worker.py: FREED_KEPT`).
"""
SIZE = 4096
"""Bytes of an event."""


@dataclass
class Flood:
    """A tool that sends progress for as long as somebody takes it; `sent` are the events, by call."""

    sent: dict[str, int] = field(default_factory=dict)

    async def flood(self, call: Call) -> None:
        nonce = call.arguments["nonce"]
        params = {"progressToken": call.params["_meta"]["progressToken"], "progress": 1, "message": "x" * SIZE}
        said = json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}).encode()
        piece = chunk(b"data: " + said + b"\n\n")
        await call.send(STREAM)
        while not call.has_left():
            await call.send(piece)
            self.sent[nonce] = self.sent.get(nonce, 0) + 1
            await asyncio.sleep(0)

    async def echo(self, call: Call) -> None:
        await call.text(str(call.arguments.get("nonce")))

    async def stuck(self, calls: int) -> None:
        """Return when so many have begun, and nobody takes anything any more."""
        before: dict[str, int] = {}

        async def still() -> bool:
            nonlocal before
            await asyncio.sleep(0.3)
            before, last = dict(self.sent), before
            return len(before) == calls and before == last

        await until(still, 60)


Opened = list[socket.socket]


def head(gateway: Gateway, body: bytes, length: int, nonce: str = "") -> bytes:
    asked = modern("tools/call", {"name": "flood", "arguments": {"nonce": nonce}}, key=KEY, meta={"progressToken": 1})
    asked.body = body
    return asked.having("Content-Length", str(length)).having("Connection", "keep-alive").on_wire(gateway.url)


async def slow_heads(gateway: Gateway, flood: Flood, opened: Opened) -> None:
    """A line and a half, then a byte now and then."""
    for one in opened:
        one.sendall(b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
    await trickle(opened)


async def slow_bodies(gateway: Gateway, flood: Flood, opened: Opened) -> None:
    """A head by an agent who is known, the beginning of a body, then a byte now and then."""
    text = head(gateway, b"{" + b" " * 1023, 1024 * 1024)
    for one in opened:
        one.sendall(text)
    await trickle(opened)


async def trickle(opened: Opened) -> None:
    for _ in range(5):
        await asyncio.sleep(0.1)
        for one in opened:
            one.send(b" ")


async def readers_that_never_read(gateway: Gateway, flood: Flood, opened: Opened) -> None:
    """A call that is answered by more than any buffer holds."""
    for number, one in enumerate(opened):
        params = {"name": "flood", "arguments": {"nonce": f"r{number}"}}
        asked = modern("tools/call", params, key=KEY, meta={"progressToken": 1})
        one.sendall(asked.on_wire(gateway.url))
        if number % 20 == 19:
            await asyncio.sleep(0.01)
    await flood.stuck(len(opened))


Agents = Callable[[Gateway, Flood, Opened], Awaitable[None]]
FEW = [(slow_heads, 300), (slow_bodies, 300), (readers_that_never_read, 100)]
MANY = [(slow_heads, 5000), (slow_bodies, 5000), (readers_that_never_read, 1000)]


@pytest.mark.parametrize(
    ("agents", "count"), [*FEW, *[pytest.param(*one, marks=pytest.mark.soak) for one in MANY]],
    ids=lambda value: getattr(value, "__name__", str(value)),
)  # fmt: skip
def test_each_costs_little_and_the_others_go_on(tmp_path: Path, agents: Agents, count: int) -> None:
    flood = Flood()

    async def story() -> None:
        async with (
            serving(Toolbox("modern", {"flood": flood.flood, "unsafe": flood.echo})) as server,
            running_beside({"servers": {"box": {"url": server.url}}, "drain": "1s"}, tmp_path) as gateway,
        ):
            await listed(gateway, "unsafe")
            await others(gateway)
            before = memory(gateway)
            port = int(gateway.root.rpartition(":")[2])
            with ExitStack() as stack:
                opened = []
                for number in range(count):
                    opened.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE)))
                    if number % 50 == 49:
                        await asyncio.sleep(0)
                await agents(gateway, flood, opened)
                assert await alive(opened) > count * 0.9, "so many are still there when memory is looked at"
                allowed = UNREAD if agents is readers_that_never_read else ALLOWED
                print(f"{count} {agents.__name__}: {each(gateway, before, count)} bytes each")
                assert memory(gateway) - before < count * allowed + SPARE, each(gateway, before, count)
                await others(gateway)
            assert gateway.metric("fastgw_worker_restarts_total") == 0
            await others(gateway)

    asyncio.run(story())


async def alive(opened: Opened) -> int:
    """How many have not been closed by the gateway."""
    count = 0
    for one in opened:
        one.setblocking(False)
        try:
            count += one.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            count += 1
        except ConnectionError:
            pass
        one.setblocking(True)
    return count


async def others(gateway: Gateway) -> None:
    """Calls of somebody in a hurry."""
    outcomes = await many(gateway.url, tool("unsafe"), map(str, range(40)), lanes=2)
    assert all(one.is_right for one in outcomes), words(outcomes)
    assert max(one.seconds for one in outcomes) < SLOWEST
