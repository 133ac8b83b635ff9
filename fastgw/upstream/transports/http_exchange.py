"""One connection to a server and one exchange on it: its head, its body, its deadlines, its reader.

- A connection goes back to the pool after exactly one whole keep-alive answer, and only if its request left entirely
and its reader took the answer: one that nobody looks at may have been another's.
- A cancel, an error, a 101, an oversized body, a byte after the answer or while idle closes it.
- 1xx answers are skipped. A body may end by close where nothing else ends it; cut short anywhere else it is LOST.
- One timer per exchange, re-armed where it fires early; no task.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from typing import Any

from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from fastgw.catalog.route import Deadlines
from fastgw.errors import Fault
from fastgw.upstream.transports import late, lost
from fastgw.upstream.transports.decoding import Decoder, decoder_of

HIGH_WATER = 64 * 1024  # bytes of a stream that may wait for their reader before the socket is left alone

HEAD_LIMIT = 64 * 1024  # most bytes of an answer's head, of the 1xx answers before it, and of a chunked body's trailer

_SINGLE = frozenset(("content-type", "content-length", "transfer-encoding", "content-encoding"))
_STREAM = re.compile(r"\s*text/event-stream\s*(?:;|$)", re.IGNORECASE)
_USUAL = {
    spelt.encode(): name
    for name in (*_SINGLE, "connection", "date", "keep-alive", "server", "mcp-session-id", "cache-control", "vary")
    for spelt in (name, name.title())
}
_JOIN_AT = 512
_DAY = 86_400.0
_TICK = 0.001  # seconds to which loops round their timers


class _UnexpectedBytes(Exception):
    """Bytes that no request asked for; makes the parser stop."""


class HttpProtocol(ResponseHandler):
    """One connection: feeds the parser and carries one exchange at a time.

    Args:
        streams: is told how many event streams more there are, or less.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, streams: Callable[[int], None]) -> None:
        super().__init__(loop=loop)
        self._count_streams = streams
        self._streams = False
        self.exchange: HttpAnswer | None = None
        self._connection: Connection | None = None
        self._http = HttpResponseParser(self)
        self._lines: list[tuple[bytes, bytes]] = []
        self._headed = False
        self._whole = False
        self._keep = False
        self._silent = 0

    def begin(self, exchange: HttpAnswer, connection: Connection) -> None:
        """The next bytes are the answer of this exchange, which has the connection until it is released or dropped."""
        self.exchange = exchange
        self._connection = connection
        self._headed = self._whole = False
        self._silent = 0

    def release(self) -> None:
        """Give the connection back to the pool: the answer is whole and its reader has it."""
        self._leave()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()

    def drop(self) -> None:
        """Close the connection, now, and give its slot back."""
        self._leave()
        self.abort()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def stream(self) -> None:
        """The answer is an event stream."""
        self._streams = True
        self._count_streams(1)

    def _leave(self) -> None:
        self.exchange = None
        if self._streams:
            self._streams = False
            self._count_streams(-1)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None or exchange.body is not None:
            self.drop()
            return
        self._silent += len(data)
        wrong: Exception | None = None
        try:
            self._http.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            wrong = error
        if self._whole:
            transport = self.transport
            # A server that answers before it has the whole request leaves its rest behind on the connection.
            is_open = transport is not None and not transport.is_closing() and not transport.get_write_buffer_size()
            if wrong is not None or not self._keep or not is_open:
                self.drop()
            exchange.ended()
        elif wrong is not None:
            cause = wrong.__context__
            exchange.fail(cause if isinstance(cause, Fault) else lost(f"malformed answer: {wrong}"))
        elif self._silent > HEAD_LIMIT:
            # Neither the head nor, in a chunked body, extensions and trailers may go on for ever.
            exchange.fail(lost("head or trailer too large"))

    def on_message_begin(self) -> None:
        if self._whole:
            raise _UnexpectedBytes

    def on_header(self, name: bytes, value: bytes | None) -> None:
        """Parser: a header line, or a line of the trailer, which nobody reads."""
        if not self._headed:
            self._lines.append((name, value or b""))

    def on_headers_complete(self) -> None:
        lines, self._lines = self._lines, []
        status = self._http.get_status_code()
        if 100 <= status < 200 and status != 101:
            return
        exchange: Any = self.exchange
        exchange.begun(status, read_head(status, lines))
        self._headed = True

    def on_body(self, piece: bytes) -> None:
        self._silent = 0
        exchange: Any = self.exchange
        exchange.take(piece)

    def on_message_complete(self) -> None:
        """Parser: an answer is whole; an interim one (1xx) has no head that counts."""
        if self._headed:
            self._whole = True
            self._keep = self._http.should_keep_alive()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone: the proper end of some bodies, the loss of any other answer."""
        exchange = self.exchange
        super().connection_lost(exc)
        self.drop()
        if exchange is None or exchange.body is not None:
            return
        has_length = "content-length" in exchange.headers or "transfer-encoding" in exchange.headers
        if exc is None and self._headed and not has_length and exchange.status not in (204, 304):
            exchange.ended()  # only the end of the connection ends the body (RFC 9112, section 6.3, rule 8)
        else:
            exchange.settle(lost(f"connection lost: {exc!r}" if exc else "connection closed before the answer's end"))


class HttpAnswer:
    """One HTTP answer of a server, and the state of its exchange.

    `body` is the whole body unless the answer is an event stream; then it is None and `read` gives its pieces.
    `headers` have lower-case names; of repeated ones the first value.
    """

    __slots__ = (
        "_blocks", "_carrier", "_deadlines", "_decoder", "_fault", "_held", "_limit", "_loop", "_moved", "_over",
        "_paused", "_pieces", "_sent", "_stream", "_timer", "_total", "body", "headers", "status", "waiter",
    )  # fmt: skip

    def __init__(
        self, carrier: HttpProtocol, loop: asyncio.AbstractEventLoop, started: float, deadlines: Deadlines, limit: int
    ) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body: bytes | None = None
        self._carrier = carrier
        self._loop = loop
        self._deadlines = deadlines
        self._decoder: Decoder | None = None
        self._limit = limit
        self._total = started + deadlines.total, deadlines.whole, "total"
        self._sent = self._moved = now = loop.time()
        self._pieces: list[bytes] = []
        self._blocks: list[bytes] = []
        self._held = 0
        self._paused = self._stream = self._over = False
        self._fault: Fault | None = None
        self.waiter: asyncio.Future[None] | None = loop.create_future()
        self._timer: asyncio.TimerHandle | None = self._armed(self._due(now)[0], now)

    async def read(self) -> bytes:
        """The next piece of the stream as it arrived, b"" at its proper end. Raises Fault LOST (cut short, too large)
        or TIMEOUT (idle or total deadline), both `sent`.
        """
        if not self._pieces:
            if self._fault is not None:
                raise self._fault
            if self._over:
                return b""
            # Only who has nothing left wants more: with it the next piece would wait beside the one that is read.
            self._resume()
            self._moved = self._loop.time()
            self.waiter = self._loop.create_future()
            await self.until_woken()
        whole = b"".join(self._pieces)
        self._pieces.clear()
        self._held = 0
        return whole

    async def until_woken(self) -> None:
        """Wait for the head, or for the next piece; whoever is cancelled meanwhile closes the connection. Raises Fault:
        there is nothing more to come.
        """
        waiter = self.waiter
        assert waiter is not None
        try:
            await waiter
        except BaseException:
            self.close()
            raise
        finally:
            self.waiter = None
        if self._fault is not None and not (self._stream and self._pieces):
            raise self._fault
        if self._over:
            self._release()

    def close(self) -> None:
        """Give the connection up. After the proper end it has gone back to the pool already and this does nothing."""
        self.fail(lost("the answer was given up"))

    def fail(self, fault: Fault) -> None:
        """Close the connection: what is not whole yet ends with this fault."""
        if self._carrier.exchange is self:
            self._carrier.drop()
        if not self._over:
            self.settle(fault)

    def poison(self) -> None:
        """This answer was another's (its JSON-RPC id says so): close the connection it came by, whoever has it now.

        HTTP/1.1 cannot tell an unasked answer from the next one's once a request is out; every later answer on the
        connection would be off by one. An exchange that has it meanwhile is LOST.
        """
        other = self._carrier.exchange
        self._carrier.drop()
        if other is not None:
            other.settle(lost("the connection answered out of step"))

    def begun(self, status: int, headers: dict[str, str]) -> None:
        """The head is here. Raises Fault LOST for a body that announces too much, or has a coding not known here."""
        if "content-encoding" in headers:
            self._decoder = decoder_of(headers)
        self._stream = status == 200 and _STREAM.match(headers.get("content-type", "")) is not None
        if not self._stream:
            length = headers.get("content-length", "0")
            if not (length.isascii() and length.isdigit()) or len(length) > 19:
                raise lost("bad content-length")
            if int(length) > self._limit:
                raise lost("body too large")
        self.status = status
        self.headers = headers
        if self._stream:
            self._carrier.stream()
            # Only now becomes something due earlier than the timer is armed for: silence in the stream. All else comes
            # later than the timer, which looks again when it fires; so bytes need not touch it.
            self._moved = now = self._loop.time()
            when = self._due(now)[0]
            if self._timer is not None and when < self._timer.when() - _TICK:
                self._timer.cancel()
                self._timer = self._armed(when, now)
            self._wake()

    def take(self, piece: bytes) -> None:
        """Bytes of the body. Raises Fault LOST for one that is too large, or cannot be decoded."""
        if self._decoder is not None:
            piece = self._decoder.feed(piece, self._limit - self._held)
        if self._stream:
            self._moved = self._loop.time()
        if not piece:  # to whoever reads, nothing would be the end
            return
        self._pieces.append(piece)
        self._held += len(piece)
        if self._stream:
            if self._held > HIGH_WATER:
                self._pause()
            self._wake()
        elif self._held > self._limit:
            raise lost("body too large")
        elif len(self._pieces) == _JOIN_AT:
            # Chunks of one byte must not cost fifty times their size in list and objects.
            self._blocks.append(b"".join(self._pieces))
            self._pieces.clear()

    def ended(self) -> None:
        """The whole answer is here. Of a stream the connection is given back now, of others when it has been taken."""
        if self._decoder is not None and self._decoder.is_amid:
            self.fail(lost("encoded body cut short"))
            return
        if self._stream:
            self._resume()
            self._release()
        else:
            self.body = b"".join(self._blocks + self._pieces)
            self._blocks = self._pieces = []
        self.settle(None)

    def extend(self, due: float, seconds: float) -> None:
        """Let the whole take until `due` (loop time) instead; when that passes, agents are told `seconds`. For one task
        alone: the one that reads, between two reads.
        """
        self._total = due, seconds, "total"  # the timer stays as it is: it fires early, and looks again

    def _resume(self) -> None:
        transport = self._carrier.transport
        if self._paused and transport is not None and not transport.is_closing():
            transport.resume_reading()
        self._paused = False

    def _release(self) -> None:
        if self._carrier.exchange is self:
            self._carrier.release()

    def _pause(self) -> None:
        transport = self._carrier.transport
        if not self._paused and transport is not None and not transport.is_closing():
            self._paused = True
            transport.pause_reading()

    def settle(self, fault: Fault | None) -> None:
        """There will be no more of this answer: it is whole, or the fault says what went wrong."""
        self._over = True
        self._fault = fault
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake()

    def _wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def _due(self, now: float) -> tuple[float, float, str]:
        """When the nearest deadline passes (loop time), its seconds and name."""
        limits, total = self._deadlines, self._total
        if self._stream:
            # Silence counts against the server only while somebody waits for it.
            next_piece = (self._moved if self.waiter is not None and not self._pieces else now) + limits.idle
            return (next_piece, limits.idle, "idle") if next_piece < total[0] else total
        head = self._sent + limits.first_byte
        if self.status or total[0] <= head:
            return total
        return head, limits.first_byte, "first byte"

    def _armed(self, when: float, now: float) -> asyncio.TimerHandle:
        return self._loop.call_at(min(when, now + _DAY), self._expire)

    def _expire(self) -> None:
        now = self._loop.time()
        when, seconds, which = self._due(now)
        if when > now + _TICK:
            self._timer = self._armed(when, now)
            return
        fault = late(seconds, which)
        if self._stream and self.waiter is None:
            fault.failure = ""  # it is its reader who is slow
        self.fail(fault)


def read_head(status: int, lines: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Header names in lower case with their first values. Raises Fault LOST for a head that is too large, switches
    protocols, frames its body twice, or has two of a header that may be there once.
    """
    if status == 101:
        raise lost("the server switches protocols")
    headers: dict[str, str] = {}
    size = 0
    for raw_name, raw_value in lines:
        size += len(raw_name) + len(raw_value) + 4
        name = _USUAL.get(raw_name) or raw_name.decode("latin-1").lower()
        if name not in headers:
            headers[name] = raw_value.decode("latin-1").strip(" \t")
        elif name in _SINGLE:
            raise lost(f"two {name} headers")
    if size > HEAD_LIMIT:
        raise lost("head too large")
    if "transfer-encoding" in headers:
        if "content-length" in headers:
            raise lost("both content-length and transfer-encoding")
        if headers["transfer-encoding"].lower() != "chunked":
            raise lost("unknown transfer-encoding")
    return headers
