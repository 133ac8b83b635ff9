"""Messages between the controller and a worker, both ways over one Unix socket, and answers to questions among them.

A frame is four bytes of length (big endian), then a pickled (name, number, arguments); the number is 0 where no answer
is wanted. Pickle is fit for this alone: the socket lies in a folder of ours (0700) and the peer's user is checked.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from itertools import count
from typing import Any

from fastgw.errors import Fault, Kind
from fastgw.upstream.call_context import BackgroundTasks

log = logging.getLogger("fastgw")

MOST = 256 * 1024 * 1024
"""Bytes of one frame."""
MOST_UNSENT = 128 * 1024 * 1024
"""Bytes that may wait for a peer besides a snapshot, which is as large as it is. One that does not read loses its
link, and gets what it lacks when it is back.
"""

Message = tuple[str, int, tuple[Any, ...]]
Handler = Callable[..., Any]


class BadMessage(Exception):
    """The peer does not speak this protocol; the connection is of no use any more."""


class LinkLost(Exception):
    """The link ended before the answer came."""


def pack(name: str, *args: Any, number: int = 0) -> bytes:
    """The frame of a message.

    Raises:
        BadMessage: it is larger than the bound.
    """
    body = pickle.dumps((name, number, args), pickle.HIGHEST_PROTOCOL)
    if len(body) > MOST:
        raise BadMessage(f"a frame of {len(body)} bytes")
    return len(body).to_bytes(4, "big") + body


async def read(reader: asyncio.StreamReader) -> Message | None:
    """The next message; None at the end of the stream, also one in the middle of a frame.

    Raises:
        BadMessage: over the bound, or not a pickled message.
    """
    try:
        length = int.from_bytes(await reader.readexactly(4), "big")
        if length > MOST:
            raise BadMessage(f"a frame of {length} bytes")
        body = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    try:
        name, number, args = pickle.loads(body)
    except Exception as wrong:
        raise BadMessage(repr(wrong)) from wrong
    return name, number, args


class Channel:
    """One end of a connection.

    Each message's handler is called with its arguments, in the order in which messages come; what it returns is the
    answer to a question. Coroutines answer questions beside what follows; of other messages they hold up what follows.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        handlers: Mapping[str, Handler],
        tasks: BackgroundTasks,
    ) -> None:
        self.room = MOST_UNSENT
        self._reader = reader
        self._writer = writer
        self._handlers = handlers
        self._tasks = tasks
        self._numbers = count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}

    @property
    def unsent(self) -> int:
        """Bytes that wait for the peer to read."""
        return self._writer.transport.get_write_buffer_size()

    @property
    def is_closing(self) -> bool:
        """Whether nothing that is sent now would arrive."""
        return self._writer.is_closing()

    def send(self, name: str, *args: Any, number: int = 0) -> None:
        """Send a message; cuts the link of a peer that has stopped reading."""
        if self.is_closing:
            return
        if self.unsent > self.room:
            log.warning("a process does not read; its link is cut")
            self._writer.transport.abort()
            return
        self._writer.write(pack(name, *args, number=number))

    def ask(self, name: str, *args: Any) -> asyncio.Future[Any]:
        """Send a question; its answer, a `Fault`, or `LinkLost`. Whoever does not want it any more cancels it."""
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda done: self._asked.pop(number, None) or done.cancelled() or done.exception())
        if self.is_closing:
            answer.set_exception(LinkLost())
        else:
            self._asked[number] = answer
            self.send(name, *args, number=number)
        return answer

    async def run(self) -> None:
        """Hear the peer until the connection ends.

        Raises:
            BadMessage: it does not speak this protocol.
        """
        try:
            while (message := await read(self._reader)) is not None:
                await self._dispatch(*message)
        finally:
            self.close()

    def close(self) -> None:
        """End the connection; nobody waits for an answer any more."""
        self._writer.close()
        for answer in list(self._asked.values()):
            if not answer.done():
                answer.set_exception(LinkLost())

    async def drained(self) -> None:
        """End the connection when everything sent has left."""
        self._writer.close()
        await self._writer.wait_closed()

    async def _dispatch(self, name: str, number: int, args: tuple[Any, ...]) -> None:
        if name == "answer":
            self._answered(number, *args)
            return
        try:
            found = self._handlers[name](*args)
        except Exception as wrong:  # noqa: BLE001 - a link that ends for one message would be deaf to all that follow
            self._refuse(name, number, wrong)
            return
        if isawaitable(found) and number:
            self._tasks.spawn(self._finish(name, number, found), f"answer {name}")
        elif isawaitable(found):
            await self._finish(name, number, found)
        elif number:
            self.send("answer", found, None, number=number)

    async def _finish(self, name: str, number: int, work: Awaitable[Any]) -> None:
        try:
            found = await work
            if number:
                self.send("answer", found, None, number=number)
        except Exception as wrong:  # noqa: BLE001 - as above
            self._refuse(name, number, wrong)

    def _refuse(self, name: str, number: int, wrong: Exception) -> None:
        if not isinstance(wrong, Fault):
            # Whoever asked must not wait out its deadline for a defect of ours.
            log.error("the message %s could not be taken", name, exc_info=wrong)
            wrong = Fault(Kind.INTERNAL, detail=repr(wrong))
        if number:
            fault = wrong.kind, wrong.message, wrong.detail, wrong.retry_after, wrong.data, wrong.failure
            self.send("answer", None, fault, number=number)

    def _answered(self, number: int, value: Any, fault: tuple[Any, ...] | None) -> None:
        answer = self._asked.get(number)
        if answer is None or answer.done():
            return
        if fault is None:
            answer.set_result(value)
        else:
            kind, message, detail, retry, data, failure = fault
            found = Fault(kind, message, detail=detail, retry_after=retry, data=data, failure=failure)
            answer.set_exception(found)
