"""HTTP/1.1 towards servers on pooled aiohttp connections, without aiohttp's client.

Measured against `ClientSession` on the same connections: a third to a quarter of the CPU per exchange. Nothing is ever
sent twice: what happens after the write may have happened to a call that ran. Only a redirect to the same origin (307,
308: not done here, ask there) is followed, once, and remembered.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import ssl
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast
from urllib.parse import urljoin

from aiohttp import ClientConnectorError, ClientError, ClientRequest, ClientTimeout, TCPConnector
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from yarl import URL

from fastgw.catalog.route import Deadlines
from fastgw.config.instance_urls import redacted
from fastgw.errors import Fault, Kind
from fastgw.upstream.transports import down, lost
from fastgw.upstream.transports.http_exchange import HttpAnswer, HttpProtocol

IDLE_SECONDS = 4.0
"""A pooled connection is used again within this time only: uvicorn and node close theirs after 5 s, and a call that
crosses the close on its way is LOST."""

_ONE_WRITE = 32 * 1024
_DAY = 86_400.0
_NO_TRACES: list[Any] = []


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """All that makes the connections to one address of a server different from others.

    Args:
        url: http or https URL; user information in it is not sent.
        max_reply: most bytes of an answer's body, decoded; of an event stream only what waits to be read is bounded.
        tls: (ca, cert, key) paths, each None where not given; unused for http. `tls_contents`: which contents of these.
        server_name: the name that the server's certificate must carry; None: the URL's host.
        host: value of `Host`; None: the URL's host and port.
        shown: the URL as it may be shown.
    """

    url: str
    max_reply: int
    tls: tuple[str | None, str | None, str | None] = (None, None, None)
    server_name: str | None = None
    host: str | None = None
    shown: str = ""
    tls_contents: str = ""


class _Target(ClientRequest):
    """A request never sent: the connector asks it where to connect, and how."""

    # aiohttp computes it anew at each look; here once (1.5 us per exchange).
    connection_key = cast(ConnectionKey, None)


class HttpConnector(TCPConnector):
    """aiohttp's pool, whose connections speak `HttpProtocol`."""

    def __init__(self, context: ssl.SSLContext | None, limit: int) -> None:
        super().__init__(limit=limit, keepalive_timeout=IDLE_SECONDS, ssl=True if context is None else context)
        # partial is invariant; ours makes the narrower class.
        self._factory = functools.partial(HttpProtocol, loop=self._loop, streams=self.streams)  # type: ignore[assignment]

    def streams(self, more: int) -> None:
        """So many event streams more have begun, or less. One may stay open for hours, silent: it counts in no bound,
        or a few hundred of them would keep every other call from the server.
        """
        self._limit += more
        self._release_waiter()

    async def _wait_for_available_connection(self, key: ConnectionKey, traces: list[Any]) -> None:
        try:
            await super()._wait_for_available_connection(key, traces)
        except asyncio.CancelledError:
            # Cut short after it was woken: the slot it was woken for belongs to the next in the queue.
            self._release_waiter()
            raise


_REDIRECTS = (307, 308)
_MOST_NOTES = 20
_GONE = (404, 410)


class HttpPool:
    """Pooled connections to one address; `notes` says what of its answers was forgiven. Make it in a running event
    loop; it opens no connection yet.

    A request beyond `max_connections` at a time, those that are answered by an event stream not counted, waits for its
    connect deadline. Raises ValueError for an unusable URL or TLS files.
    """

    def __init__(self, settings: TransportSettings, max_connections: int = 512) -> None:
        url = URL(settings.url)
        if url.scheme not in ("http", "https") or not url.raw_host:
            raise ValueError("a server needs an http or https URL with a host")
        context = tls_context(*settings.tls) if url.scheme == "https" else None
        self._loop = asyncio.get_running_loop()
        self._connector = HttpConnector(context, max_connections)
        bare = url.with_user(None)
        self._target = _Target(
            "POST", bare, loop=self._loop, session=cast(Any, None), ssl=True if context is None else context,
            server_hostname=settings.server_name,
        )  # fmt: skip
        key = cast(property, ClientRequest.connection_key).fget
        self._target.connection_key = cast(Any, key)(self._target)
        self._settings = settings
        self._url = self._now = bare
        self._starts = self._lines(bare)
        self.notes: set[str] = set()

    async def request(self, verb: str, headers: bytes, body: bytes, deadlines: Deadlines) -> HttpAnswer:
        """Send one request and wait for the head of its answer (for anything but a stream: the body too).

        Header lines are each ended by CRLF; `Host` and `Content-Length` are added here. GET and DELETE have no body.

        Raises:
            Fault: NO_SERVER with `sent=False` (refused, TLS, no free connection, connect deadline, a redirect to
                elsewhere); LOST with `sent=True` (reset, cut short, malformed, oversized answer);
                TIMEOUT with `sent=True`.
        """
        started, asked = self._loop.time(), self._now
        answer = await self._exchange(verb, headers, body, deadlines)
        if 300 <= answer.status < 304 and "location" in answer.headers:
            raise lost(f"status {answer.status}: it redirects to {self._shown(answer)}, which is not followed")
        if answer.status in _REDIRECTS:
            self._move(answer, asked)
            answer = await self._exchange(verb, headers, body, deadlines.left(self._loop.time() - started))
            if answer.status in _REDIRECTS:
                raise self._refused(answer)
        if answer.status in _GONE:
            self._go_to(self._url)  # what was remembered may be no more: the next request asks anew
        if answer.headers.get("content-encoding", "identity").lower() != "identity":
            self._note("compresses its answers although identity is asked for: they are decoded")
        return answer

    def _lines(self, url: URL) -> dict[str, bytes]:
        host = self._settings.host or self._url.host_port_subcomponent
        rest = f" {url.raw_path_qs} HTTP/1.1\r\nHost: {host}\r\n".encode("latin-1")
        return {verb: verb.encode() + rest for verb in ("POST", "GET", "DELETE")}

    def _go_to(self, url: URL) -> None:
        if url is not self._now:
            self._now, self._starts = url, self._lines(url)

    def _note(self, text: str) -> None:
        if len(self.notes) < _MOST_NOTES:
            self.notes.add(text)

    def _move(self, answer: HttpAnswer, asked: URL) -> None:
        """Follow a redirect of a request to `asked`, from now on for every request. Raises Fault NO_SERVER where it
        leads to another origin, however it is written, or nowhere else.
        """
        try:
            there = URL(urljoin(str(asked), answer.headers.get("location", "")), encoded=True).with_fragment(None)
            host = (self._settings.host or "").lower()
            # Who is told another `Host` writes its addresses by that.
            is_ours = bool(host) and (there.host_port_subcomponent or "").lower() == host
            if not is_ours and _origin(there) != _origin(self._url):
                raise self._refused(answer)
            target = self._url.join(URL(there.raw_path_qs, encoded=True))
        except ValueError:
            raise self._refused(answer) from None
        if target == asked:
            raise self._refused(answer)
        self._go_to(target)
        self._note(f"redirects to {self._shown(answer)}: write that address as `url`")

    def _shown(self, answer: HttpAnswer) -> str:
        return redacted(answer.headers.get("location", ""), str(self._url), self._settings.shown)

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
        protocol: Any = connection.protocol
        answer = HttpAnswer(protocol, self._loop, started, deadlines, self._settings.max_reply)
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

    def usage(self) -> tuple[int, int, int, int]:
        """Connections in use, kept for the next request, and at most; requests that wait for one."""
        connector = self._connector
        idle, waiting = (sum(map(len, lists.values())) for lists in (connector._conns, connector._waiters))
        return len(connector._acquired), idle, connector._limit, waiting

    async def close(self) -> None:
        """Close every connection; exchanges under way are LOST."""
        for protocol in list(self._connector._acquired):
            # Placeholders of connections being opened stand there, too.
            if isinstance(protocol, HttpProtocol) and (exchange := protocol.exchange) is not None:
                exchange.fail(lost("the gateway closed the connection"))
        await self._connector.close()

    async def _connect(self, deadlines: Deadlines) -> Connection:
        connector = self._connector
        seconds = min(deadlines.connect, deadlines.total)
        if connector.closed:
            raise down("the gateway closes")
        try:
            return await connector.connect(self._target, _NO_TRACES, _timeout(seconds))
        except TimeoutError as wrong:
            # Who had a slot and could not connect has given it back.
            if connector._available_connections(self._target.connection_key) < 1:
                raise down(f"no free connection within {seconds} s", "busy") from wrong
            raise down(f"no connection within {seconds} s") from wrong
        except (ClientError, OSError, ValueError) as wrong:
            raise down(_cannot_connect(wrong)) from wrong
        except asyncio.CancelledError as wrong:
            # Closing the connector cancels who waits for it; our own task was not cancelled then.
            task = asyncio.current_task(self._loop)
            if self._connector.closed and not (task is not None and task.cancelling()):
                raise down("the gateway closes") from wrong
            raise


def _cannot_connect(wrong: Exception) -> str:
    """Whereto, and what the system says of it; without the client library's words around that."""
    if isinstance(wrong, ClientConnectorError) and not isinstance(wrong.os_error, ssl.SSLError):
        number = wrong.os_error.errno or 0
        if number in errno.errorcode:
            return f"cannot connect to {wrong.host}:{wrong.port}: {os.strerror(number).lower()}"
    return f"cannot connect: {wrong}"


@lru_cache(maxsize=64)
def _timeout(seconds: float) -> ClientTimeout:
    # The threshold keeps aiohttp from rounding the deadline up to a whole second.
    return ClientTimeout(total=None, connect=max(seconds, 0.001), ceil_threshold=_DAY)


def _origin(url: URL) -> tuple[str, str, int | None]:
    """Scheme, host and port (RFC 6454, section 4)."""
    return url.scheme, (url.raw_host or "").lower(), url.port


@lru_cache(maxsize=256)
def tls_context(ca: str | None, cert: str | None, key: str | None) -> ssl.SSLContext:
    """The client context for these PEM files, the same object until `cache_clear`.

    `ca` signs the server's certificate, None trusts the system's; `cert` is our own chain for mutual TLS, its
    unencrypted private key is in `key`, or in it. Raises ValueError where a file cannot be read or does not hold what
    it should.
    """
    try:
        made = ssl.create_default_context(cafile=ca)
    except OSError as wrong:
        raise ValueError(f"tls: {ca} holds no usable CA certificate: {wrong.strerror}") from None
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    if cert is not None:
        try:
            # An empty password keeps OpenSSL from asking the terminal for one.
            made.load_cert_chain(cert, key, password="")
        except OSError as wrong:
            raise ValueError(
                f"tls: {cert} and {key or cert} are not a certificate with its key: {wrong.strerror}"
            ) from None
    return made
