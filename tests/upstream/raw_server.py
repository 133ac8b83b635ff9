"""A server that speaks exactly the bytes a test tells it, and the loops to run both ends on."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import uvloop

from fastgw.catalog.route import Deadlines
from fastgw.upstream.transports.http import HttpPool, TransportSettings
from fastgw.upstream.transports.http_exchange import HttpAnswer

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def run(loop: str, work: Awaitable[Any]) -> Any:
    """Run a test's coroutine on this kind of loop, for 10 s at most; what the loop complains about fails it."""
    complaints: list[str] = []

    async def bounded() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(str(context)))
        async with asyncio.timeout(10):
            return await work

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        result = runner.run(bounded())
    assert not complaints, complaints
    return result


@dataclass
class Peer:
    """One connection as the server sees it."""

    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> tuple[bytes, bytes] | None:
        """The next request's head and body; None where the client is gone."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
            _, found, rest = head.lower().partition(b"content-length: ")
            body = await self.reader.readexactly(int(rest.split(b"\r\n")[0])) if found else b""
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return head, body

    async def say(self, *pieces: bytes) -> None:
        """Send the pieces, each on its own as far as the network allows."""
        for piece in pieces:
            self.writer.write(piece)
            with suppress(ConnectionError):
                await self.writer.drain()
            await asyncio.sleep(0)

    async def gone(self) -> None:
        """Wait until the client has closed."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    def hang_up(self) -> None:
        """Close in order."""
        self.writer.close()

    def reset(self) -> None:
        """Close with a RST."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


@dataclass
class RawServer:
    """What a test knows about its server."""

    url: str
    peers: list[Peer] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)


@asynccontextmanager
async def raw_server(script: Script, context: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    """Run `script` for each connection; close it when the script returns."""
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        peer = Peer(len(state.peers), reader, writer)
        state.peers.append(peer)
        try:
            await script(peer)
        except (ConnectionError, RuntimeError, asyncio.CancelledError):  # uvloop: the handler is closed
            pass
        finally:
            running.discard(task)
            state.ended.append(peer.number)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context, backlog=512)
    port = server.sockets[0].getsockname()[1]
    state = RawServer(f"{'https' if context else 'http'}://127.0.0.1:{port}/mcp?x=1")
    try:
        yield state
    finally:
        server.close()
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@asynccontextmanager
async def wire_to(server: RawServer | str, max_connections: int = 512, **settings: Any) -> AsyncIterator[Any]:
    """A wire to the server, closed at the end."""
    url = server if isinstance(server, str) else server.url
    transport = HttpPool(TransportSettings(url, **{"max_reply": 100_000, **settings}), max_connections)
    try:
        yield transport
    finally:
        await transport.close()


HEADERS = b"Accept: application/json, text/event-stream\r\nContent-Type: application/json\r\n"
PATIENT = Deadlines(5, 5, 5, 5)


async def post(transport: Any, body: bytes = b"{}", deadlines: Deadlines = PATIENT) -> HttpAnswer:
    """One POST."""
    answer: HttpAnswer = await transport.request("POST", HEADERS, body, deadlines)
    return answer


def ok(body: bytes, *lines: bytes, status: bytes = b"200 OK") -> bytes:
    """A JSON answer with its length."""
    head = b"".join(context + b"\r\n" for context in lines)
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s" % (
        status, head, len(body), body,
    )  # fmt: skip


def chunked(*pieces: bytes, kind: bytes = b"application/json") -> list[bytes]:
    """A chunked answer as pieces: head, chunks, end."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n" % kind
    return [head, *(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces), b"0\r\n\r\n"]


def slots(transport: Any) -> int:
    """Connections in use."""
    return len(transport._connector._acquired)
