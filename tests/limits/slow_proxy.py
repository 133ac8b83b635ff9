"""A TCP proxy in a thread of its own, whose answers a test rules while connections are open.

    with SlowProxy(server.port) as proxy:
        client = redis.Redis.from_url(proxy.url)
        proxy.hold()         # what is asked now is done by the server, and nobody hears of it
        proxy.pass_on()      # the answers held back come now

Each of these returns when it holds, for open connections and for new ones. Requests are always passed on as they are.
Knows connections, chunks and moments; refuses to know what the bytes mean.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Self

from tests.e2e.aside import aside

HOST, PIECE = "127.0.0.1", 1 << 16
Answers = asyncio.Queue[
    tuple[float, bytes]
]  # when it was read by the loop's clock, and the chunk; an empty one ends it


@dataclass(frozen=True)
class Manner:
    """Seconds that answers are held back, the bytes that stand for each chunk, whether connections are closed."""

    delay: float = 0.0
    instead: bytes | None = None
    refuses: bool = False


class SlowProxy:
    """Listens on a free port of 127.0.0.1 from the beginning, passing on to `port`; with a context it speaks TLS."""

    SCHEME = "redis"

    def __init__(self, port: int, *, context: ssl.SSLContext | None = None) -> None:
        self._target, self._context = port, context
        self._manner, self._changed = Manner(), asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        with ExitStack() as stack:
            self._loop = stack.enter_context(aside())
            self.port = self._loop.enter(self._listening())
            self._stack = stack.pop_all()

    @property
    def url(self) -> str:
        """Where clients of the server go instead."""
        return f"{self.SCHEME}://{HOST}:{self.port}/0"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the listener and every connection, end the thread."""
        self._stack.close()

    def pass_on(self) -> None:
        """Answers go back at once, also those held back until now."""
        self._become(Manner())

    def delay(self, seconds: float) -> None:
        """Each chunk of answers goes back so long after it came, in order; one does not wait for another's delay."""
        self._become(Manner(delay=seconds))

    def hold(self) -> None:
        """Connections are accepted, requests passed on, and nothing goes back."""
        self._become(Manner(delay=math.inf))

    def refuse(self) -> None:
        """Open connections are closed, new ones as soon as they are accepted."""
        self._become(Manner(refuses=True))

    def garble(self, instead: bytes) -> None:
        """These bytes go back in the place of every chunk of answers."""
        self._become(Manner(instead=instead))

    def _become(self, manner: Manner) -> None:
        self._loop.run(self._switch(manner))

    async def _switch(self, manner: Manner) -> None:
        self._manner = manner
        if manner.refuses:
            await self._drop()  # before what was held back hears of it, and goes out
        self._changed.set()
        self._changed = asyncio.Event()

    async def _drop(self) -> None:
        dropped = list(self._connections)
        for connection in dropped:
            connection.cancel()
        await asyncio.gather(*dropped, return_exceptions=True)

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._connection, HOST, 0, ssl=self._context)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            await self._switch(Manner(refuses=True))

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if not self._manner.refuses:
                await self._conversation(reader, writer)
                writer.close()  # after what is still to be sent
        except* (OSError, asyncio.CancelledError):
            pass  # one of the sides has left, or it was dropped
        finally:
            if not writer.is_closing():
                writer.transport.abort()
            self._connections.discard(task)

    async def _conversation(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until the client leaves, or the server has and its last answer is out."""
        upstream, onward = await asyncio.open_connection(HOST, self._target)
        answers: Answers = asyncio.Queue()
        async with asyncio.TaskGroup() as tasks:
            collecting = tasks.create_task(_collect(upstream, answers))
            asking = tasks.create_task(_ask(reader, onward))
            answering = tasks.create_task(self._answer(answers, writer))
            try:
                await asyncio.wait([asking, answering], return_when=asyncio.FIRST_COMPLETED)
            finally:
                onward.transport.abort()
                for task in (collecting, asking, answering):
                    task.cancel()

    async def _answer(self, answers: Answers, writer: asyncio.StreamWriter) -> None:
        while True:
            came, chunk = await answers.get()
            await self._due(came)
            if not chunk:
                return
            writer.write(chunk if self._manner.instead is None else self._manner.instead)
            await writer.drain()

    async def _due(self, came: float) -> None:
        """Return when what came then may go back; a change of manner counts at once."""
        clock = asyncio.get_running_loop().time
        while (left := came + self._manner.delay - clock()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(None if left == math.inf else left):
                    await self._changed.wait()


async def _ask(reader: asyncio.StreamReader, onward: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(PIECE):
        onward.write(chunk)
        await onward.drain()


async def _collect(upstream: asyncio.StreamReader, answers: Answers) -> None:
    clock = asyncio.get_running_loop().time
    try:
        while chunk := await upstream.read(PIECE):
            answers.put_nowait((clock(), chunk))
    finally:
        answers.put_nowait((clock(), b""))
