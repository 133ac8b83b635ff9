"""One keep-alive connection of an agent: sends a call when the desk (`bench.loop`) says so, and checks every byte of
meaning in the answer.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from functools import partial
from typing import Protocol

import httptools

from bench.messages import Expectation, ListExpectation, Target, Template, expectation, template


class Desk(Protocol):
    """Who hands out calls and hears how they went."""

    def done(self, connection: Connection, intended: float) -> None:
        """The call that should have been sent at `intended` (`loop.now`) was answered rightly."""
        ...

    def wrong(self, connection: Connection, what: str) -> None:
        """The call was answered wrongly or not at all; the connection is closed."""
        ...


class Numbers:
    """Ids and nonces, unlike in any other process: the first digits of both are random."""

    def __init__(self) -> None:
        self._ids = itertools.count(10**9 + secrets.randbelow(8 * 10**9))
        self._salt = secrets.token_hex(4)

    def take(self) -> tuple[int, str]:
        """A fresh id of 10 digits and a fresh nonce of 16."""
        id = next(self._ids)
        return id, f"{self._salt}{id & 0xFFFFFFFF:08x}"


class Connection(asyncio.Protocol):
    """See the module. One instance is one TCP connection; after a wrong answer it is not used again."""

    def __init__(
        self, desk: Desk, numbers: Numbers, request: Template, expected: Expectation | ListExpectation
    ) -> None:
        self.desk = desk
        self.numbers = numbers
        self.request = request
        self.expected = expected
        self.streams = False
        self.waiting = False
        self.over = False
        self.id, self.nonce, self.intended = 0, "", 0.0
        self.media = b""
        self.body = b""
        self.parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport

    def send(self, intended: float) -> None:
        """Send the next call; `intended` (`loop.now`) is when it should have left."""
        self.id, self.nonce = self.numbers.take()
        self.intended = intended
        self.waiting = True
        self.transport.write(self.request.fill(self.id, self.nonce))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if not self.waiting:
            self.fail(f"bytes that nobody asked for: {data[:200]!r}")
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self.fail(f"not HTTP: {exc}: {data[:200]!r}")

    def on_message_begin(self) -> None:
        self.media = b""
        self.body = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) == 12 and name.lower() == b"content-type":
            self.media = value

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        fault = self.fault() if self.waiting else "a second answer to one call"
        if fault is None:
            self.waiting = False
            self.desk.done(self, self.intended)
        else:
            self.fail(fault)

    def fault(self) -> str | None:
        """What is wrong with the answer that has just been read."""
        status = self.parser.get_status_code()
        if status != 200:
            return f"HTTP {status}: {self.body[:300]!r}"
        media = self.media.lower()
        if self.streams and media.startswith(b"text/event-stream"):
            # Others answer so: the one event's data is the message.
            self.body = self.body.rpartition(b"data:")[2].strip()
        elif not media.startswith(b"application/json"):
            return f"Content-Type {self.media!r}: {self.body[:300]!r}"
        if not self.parser.should_keep_alive():
            return "the peer ends the connection after this answer"
        return self.expected.fault(self.id, self.nonce, self.body)

    def fail(self, what: str) -> None:
        """Report, once, and be of no more use."""
        if self.over:
            return
        self.close()
        self.desk.wrong(self, what)

    def close(self) -> None:
        """Hang up; what comes or does not come from now on is nobody's fault."""
        self.over = True
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(f"connection lost {'in a call' if self.waiting else 'while idle'}: {exc}")


async def connect(desk: Desk, target: Target, count: int) -> list[Connection]:
    """As many connections, ready to send; legacy ones take the target's sessions in turn.

    Raises:
        OSError: the target does not listen.
    """
    loop = asyncio.get_running_loop()
    numbers, expected = Numbers(), expectation(target)
    sessions = itertools.cycle(target.sessions or ("",))
    made = []
    for session in itertools.islice(sessions, count):
        connection = Connection(desk, numbers, template(target, session), expected)
        await loop.create_connection(partial(_same, connection), "127.0.0.1", target.port)
        connection.streams = target.streams
        made.append(connection)
    return made


def _same(connection: Connection) -> Connection:
    return connection
