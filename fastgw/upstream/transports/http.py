"""The lean exchange: one HTTP/1.1 request and its answer on a pooled aiohttp connection, without aiohttp's client.

Measured against `ClientSession` on the same connections: a third to a quarter of the CPU per exchange.

The laws:

- A connection goes back to the pool after exactly one whole keep-alive answer, and only if its request left entirely
and its reader took the answer: one that nobody looks at may have been another's.
- A cancel, an error, a 101, an oversized body, a byte after the answer or while idle closes it.
- 1xx answers are skipped. A body may end by close where nothing else ends it; cut short anywhere else it is LOST.
- Nothing is ever sent twice: what happens after the write may have happened to a call that ran. Only a redirect to
the same origin (307, 308: not done here, ask there) is followed, once, and remembered.
- One timer per exchange, re-armed where it fires early; no task.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urljoin

from aiohttp import ClientError, ClientRequest, ClientTimeout, TCPConnector
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from yarl import URL

from fastgw.config.instance_urls import redacted
from fastgw.errors import Fault, Kind
from fastgw.ports import Deadlines
from fastgw.upstream.call_context import remaining
from fastgw.upstream.failures import busy, down, lost
from fastgw.upstream.transports.head import HEAD_LIMIT, ends_by_close, read_head
from fastgw.upstream.transports.http_exchange import HttpAnswer

IDLE_SECONDS = 4.0
"""A pooled connection is used again within this time only: uvicorn and node close theirs after 5 s, and a call that
crosses the close on the wire is LOST."""

_ONE_WRITE = 32 * 1024
_DAY = 86_400.0
_NO_TRACES: list[Any] = []


class _UnexpectedBytes(Exception):
    """Bytes that no request asked for; makes the parser stop."""


class HttpProtocol(ResponseHandler):
    """One connection: feeds the parser and carries one exchange at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
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
        self.exchange = None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()

    def drop(self) -> None:
        """Close the connection, now, and give its slot back."""
        self.exchange = None
        self.abort()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; its call-backs below run inside."""
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
            self._finish(exchange, wrong is None and self._keep)
        elif wrong is not None:
            cause = wrong.__context__
            self._fail(exchange, cause if isinstance(cause, Fault) else lost(f"malformed answer: {wrong}"))
        elif self._silent > HEAD_LIMIT:
            # Neither the head nor, in a chunked body, extensions and trailers may go on for ever.
            self._fail(exchange, lost("head or trailer too large"))

    def on_message_begin(self) -> None:
        """Parser: an answer starts."""
        if self._whole:
            raise _UnexpectedBytes

    def on_header(self, name: bytes, value: bytes | None) -> None:
        """Parser: one header line, or a line of the trailer, which nobody reads."""
        if not self._headed:
            self._lines.append((name, value or b""))

    def on_headers_complete(self) -> None:
        """Parser: a head is whole."""
        lines, self._lines = self._lines, []
        status = self._http.get_status_code()
        if 100 <= status < 200 and status != 101:
            return
        exchange = cast(HttpAnswer, self.exchange)
        exchange.begun(status, read_head(status, lines))
        self._headed = True

    def on_body(self, piece: bytes) -> None:
        """Parser: bytes of the body."""
        self._silent = 0
        cast(HttpAnswer, self.exchange).take(piece)

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
        if exc is None and self._headed and ends_by_close(exchange.status, exchange.headers):
            exchange.ended()
        else:
            exchange.failed(lost(f"connection lost: {exc!r}" if exc else "connection closed before the answer's end"))

    def _finish(self, exchange: HttpAnswer, keep: bool) -> None:  # noqa: FBT001 - what the parser said
        transport = self.transport
        # A server that answers before it has the whole request leaves its rest behind on the connection.
        open_still = transport is not None and not transport.is_closing() and not transport.get_write_buffer_size()
        if not keep or not open_still:
            self.drop()
        exchange.ended()

    def _fail(self, exchange: HttpAnswer, fault: Fault) -> None:
        self.drop()
        exchange.failed(fault)


class _Target(ClientRequest):
    """A request never sent: the connector asks it where to connect, and how."""

    # aiohttp computes it anew at each look; here once (1.5 us per exchange).
    connection_key = cast(ConnectionKey, None)


class HttpConnector(TCPConnector):
    """aiohttp's pool, whose connections speak `HttpProtocol`."""

    def __init__(self, context: ssl.SSLContext | None, limit: int) -> None:
        super().__init__(limit=limit, keepalive_timeout=IDLE_SECONDS, ssl=True if context is None else context)
        # partial is invariant; ours makes the narrower class.
        self._factory = functools.partial(HttpProtocol, loop=self._loop)  # type: ignore[assignment]
        self.queued: set[asyncio.Task[Any] | None] = set()
        """Tasks that wait for a slot, or were cut short while they waited."""

    async def _wait_for_available_connection(self, key: ConnectionKey, traces: list[Any]) -> None:
        task = asyncio.current_task()
        self.queued.add(task)
        try:
            await super()._wait_for_available_connection(key, traces)
        except asyncio.CancelledError:
            # Cut short after it was woken: the slot it was woken for belongs to the next in the queue.
            self._release_waiter()
            raise
        self.queued.discard(task)

    def has_room(self, key: ConnectionKey) -> bool:
        """Whether one more connection may be taken without a wait."""
        return self._available_connections(key) > 0


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a wire leads.

    Args:
        url: http or https.
        context: for https.
        host: value of `Host`; None: the URL's.
        server_name: the name that the certificate must carry; None: the URL's host.
        shown: the URL as it may be shown.
    """

    url: URL
    context: ssl.SSLContext | None = None
    host: str | None = None
    server_name: str | None = None
    shown: str = ""


_REDIRECTS = (307, 308)
_MOST_NOTES = 20
_GONE = (404, 410)


class HttpTransport:
    """`ports.Wire`: pooled connections to one instance of a server."""

    def __init__(self, there: Destination, max_reply: int, max_connections: int) -> None:
        self._loop = asyncio.get_running_loop()
        context = there.context
        self._connector = HttpConnector(context, max_connections)
        self._max_reply = max_reply
        self._timeouts: dict[float, ClientTimeout] = {}
        bare = there.url.with_user(None)
        secure = True if context is None else context
        self._target = _Target(
            "POST", bare, loop=self._loop, session=cast(Any, None), ssl=secure, server_hostname=there.server_name
        )
        key = cast(property, ClientRequest.connection_key).fget
        self._target.connection_key = cast(Any, key)(self._target)
        self._there = there
        self._url = self._now = bare
        self._starts = self._lines(bare)
        self.notes: set[str] = set()

    async def request(self, verb: str, headers: bytes, body: bytes, deadlines: Deadlines) -> HttpAnswer:
        started, asked = self._loop.time(), self._now
        answer = await self._exchange(verb, headers, body, deadlines)
        if 300 <= answer.status < 304 and "location" in answer.headers:
            raise lost(f"status {answer.status}: it redirects to {self._shown(answer)}, which is not followed")
        if answer.status in _REDIRECTS:
            self._move(answer, asked)
            answer = await self._exchange(verb, headers, body, remaining(deadlines, started))
            if answer.status in _REDIRECTS:
                raise self._refused(answer)
        if answer.status in _GONE:
            self._go_to(self._url)  # what was remembered may be no more: the next request asks anew
        if answer.headers.get("content-encoding", "identity").lower() != "identity":
            self._note("compresses its answers although identity is asked for: they are decoded")
        return answer

    def _lines(self, url: URL) -> dict[str, bytes]:
        host = self._there.host or self._url.host_port_subcomponent
        rest = f" {url.raw_path_qs} HTTP/1.1\r\nHost: {host}\r\n".encode("latin-1")
        return {verb: verb.encode() + rest for verb in ("POST", "GET", "DELETE")}

    def _go_to(self, url: URL) -> None:
        if url is not self._now:
            self._now, self._starts = url, self._lines(url)

    def _note(self, text: str) -> None:
        if len(self.notes) < _MOST_NOTES:
            self.notes.add(text)

    def _move(self, answer: HttpAnswer, asked: URL) -> None:
        """Follow a redirect of a request to `asked`, from now on for every request.

        Raises:
            Fault: NO_SERVER where it leads elsewhere.
        """
        target = self._leads_to(answer, asked)
        if target is None or target == asked:
            raise self._refused(answer)
        self._go_to(target)
        self._note(f"redirects to {self._shown(answer)}: write that address as `url`")

    def _leads_to(self, answer: HttpAnswer, asked: URL) -> URL | None:
        """Where a redirect of a request to `asked` leads; None for another origin, however it is written."""
        try:
            target = URL(urljoin(str(asked), answer.headers.get("location", "")), encoded=True).with_fragment(None)
            is_ours = _origin(target) == _origin(self._url)
            told = (self._there.host or "").lower()
            # Who is told another `Host` writes its addresses by that.
            if is_ours or (told and (target.host_port_subcomponent or "").lower() == told):
                return self._url.join(URL(target.raw_path_qs, encoded=True))
        except ValueError:
            pass
        return None

    def _shown(self, answer: HttpAnswer) -> str:
        return redacted(answer.headers.get("location", ""), str(self._url), self._there.shown)

    def _refused(self, answer: HttpAnswer) -> Fault:
        self._go_to(self._url)
        words = f"status {answer.status}: it redirects to {self._shown(answer)}, which is not followed"
        return Fault(Kind.NO_SERVER, detail=words, data={"reason": "down"}, retry_after=1)

    async def _exchange(self, verb: str, headers: bytes, body: bytes, deadlines: Deadlines) -> HttpAnswer:
        started = self._loop.time()
        start = self._starts[verb]
        connection = await self._connect(deadlines)
        transport = connection.transport
        if transport is None or transport.is_closing():
            connection.close()
            raise down("the connection closed as it was opened")
        protocol = cast(HttpProtocol, connection.protocol)
        answer = HttpAnswer(protocol, started, deadlines, self._max_reply)
        protocol.begin(answer, connection)
        length = b"Content-Length: %d\r\n\r\n" % len(body) if body or verb == "POST" else b"\r\n"
        try:
            if len(body) < _ONE_WRITE:
                transport.write(start + headers + length + body)
            else:
                transport.writelines((start + headers + length, body))
        except BaseException as wrong:
            answer.close()
            raise lost(f"write failed: {wrong!r}") from wrong
        await answer.until_woken()
        return answer

    async def warm(self, count: int, seconds: float = 5.0) -> int:
        """Open up to `count` connections ahead, each within `seconds`; how many are open. Never raises a Fault."""
        opened: list[Connection] = []
        try:
            while len(opened) < count and self._connector.has_room(self._target.connection_key):
                opened.append(await self._connect(Deadlines(connect=seconds)))
        except Fault:
            pass
        finally:
            for connection in opened:
                connection.release()
        return len(opened)

    async def close(self) -> None:
        """See `ports.Wire.close`. Exchanges under way are LOST."""
        for protocol in list(self._connector._acquired):
            # Placeholders of connections being opened stand there, too.
            if isinstance(protocol, HttpProtocol) and (exchange := protocol.exchange) is not None:
                protocol.drop()
                exchange.failed(lost("the gateway closed the connection"))
        await self._connector.close()

    async def _connect(self, deadlines: Deadlines) -> Connection:
        connector = self._connector
        seconds = min(deadlines.connect, deadlines.total)
        task = asyncio.current_task()
        if self._gone():
            raise down("the gateway closes")
        try:
            return await connector.connect(self._target, _NO_TRACES, self._timeout(seconds))
        except TimeoutError as wrong:
            if task in connector.queued:
                raise busy(f"no free connection within {seconds} s") from wrong
            raise down(f"no connection within {seconds} s") from wrong
        except (ClientError, OSError, ValueError) as wrong:
            raise down(f"cannot connect: {wrong}") from wrong
        except asyncio.CancelledError as wrong:
            # Closing the connector cancels who waits for it; our own task was not cancelled then.
            if self._gone() and not (task is not None and task.cancelling()):
                raise down("the gateway closes") from wrong
            raise
        finally:
            connector.queued.discard(task)

    def _gone(self) -> bool:
        return self._connector.closed

    def _timeout(self, seconds: float) -> ClientTimeout:
        made = self._timeouts.get(seconds)
        if made is None:
            # The threshold keeps aiohttp from rounding the deadline up to a whole second.
            made = ClientTimeout(total=None, connect=max(seconds, 0.001), ceil_threshold=_DAY)
            if len(self._timeouts) < 64:
                self._timeouts[seconds] = made
        return made


def _origin(url: URL) -> tuple[str, str, int | None]:
    """Scheme, host and port (RFC 6454, section 4)."""
    return url.scheme, (url.raw_host or "").lower(), url.port
