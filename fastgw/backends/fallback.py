"""The same port on aiohttp's `ClientSession`, for the day the lean exchange does not fit.

Knows: aiohttp's public client. Refuses to know: its connector's internals, JSON, events, retries.

It opens a connection for every call: aiohttp would take bytes that arrive on an idle connection for the answer to the
next request. That, and the client's own work, makes it several times dearer than the lean exchange. aiohttp's parser
is also more forgiving: a body that only the connection's end ends counts as whole even where a reset ended it.
"""

from __future__ import annotations

import asyncio
import ssl
from types import SimpleNamespace
from typing import Any

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    InvalidURL,
    TCPConnector,
    TraceConfig,
)
from yarl import URL

from fastgw.backends.head import HEAD_LIMIT, check_length, is_stream, read_head
from fastgw.backends.outcome import busy, down, late, lost
from fastgw.faults import Fault
from fastgw.ports import Deadlines

_PIECE = 64 * 1024
_OWN_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class _Progress:
    """How far a request has come; from the connection on, the first byte's deadline runs."""

    __slots__ = ("_limit", "_seconds", "connected", "queued")

    def __init__(self, limit: asyncio.Timeout, seconds: float) -> None:
        self.queued = False
        self.connected = False
        self._limit = limit
        self._seconds = seconds

    def connect(self) -> None:
        """The connection is there: what follows may reach the server."""
        self.connected = True
        self._limit.reschedule(asyncio.get_running_loop().time() + self._seconds)


def _traces() -> TraceConfig:
    """Tells a `_Progress` where its request stands."""

    async def queued(_session: ClientSession, context: SimpleNamespace, _params: Any) -> None:
        context.trace_request_ctx.queued = True

    async def dequeued(_session: ClientSession, context: SimpleNamespace, _params: Any) -> None:
        context.trace_request_ctx.queued = False

    async def connected(_session: ClientSession, context: SimpleNamespace, _params: Any) -> None:
        context.trace_request_ctx.connect()

    config: TraceConfig = TraceConfig()
    config.on_connection_queued_start.append(queued)
    config.on_connection_queued_end.append(dequeued)
    config.on_connection_create_end.append(connected)
    return config


class SessionAnswer:
    """`ports.Answer` on a `ClientResponse`."""

    __slots__ = ("_deadlines", "_fault", "_response", "_started", "body", "headers", "status")

    def __init__(self, response: ClientResponse, started: float, deadlines: Deadlines) -> None:
        self.status = response.status
        self.headers = read_head(response.status, response.raw_headers)
        self.body: bytes | None = None
        self._response = response
        self._started = started
        self._deadlines = deadlines
        self._fault: Fault | None = None

    async def collect(self, limit: int) -> None:
        """Read the whole body, at most `limit` bytes, into `body`.

        Raises:
            Fault: LOST (cut short, too large).
        """
        check_length(self.headers, limit)
        parts: list[bytes] = []
        size = 0
        try:
            async for part in self._response.content.iter_any():
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise lost("body too large")
        except (ClientError, OSError) as wrong:
            raise lost(f"answer cut short: {type(wrong).__name__}") from None
        self.body = b"".join(parts)

    async def read(self) -> bytes:
        """See `ports.Answer.read`."""
        if self._fault is not None:
            raise self._fault
        now = asyncio.get_running_loop().time()
        total = self._started + self._deadlines.total
        idle = now + self._deadlines.idle
        try:
            async with asyncio.timeout_at(min(idle, total)):
                return await self._response.content.readany()
        except TimeoutError:
            self._fault = late(self._deadlines.whole, "total") if total <= idle else late(self._deadlines.idle, "idle")
        except (ClientError, OSError) as wrong:
            self._fault = lost(f"answer cut short: {type(wrong).__name__}")
        except BaseException:
            self.close()
            raise
        self._response.close()
        raise self._fault

    def close(self) -> None:
        """See `ports.Answer.close`."""
        if self._fault is None and not self._response.content.at_eof():
            self._fault = lost("the answer was given up")
        self._response.close()

    def distrust(self) -> None:
        """This answer was another's. Nothing is to be done: no connection serves two requests here."""
        self.close()


class SessionWire:
    """`ports.Wire` on a `ClientSession`."""

    def __init__(self, url: URL, context: ssl.SSLContext | None, max_reply: int, max_connections: int) -> None:
        self._url = url.with_user(None)
        self._max_reply = max_reply
        connector = TCPConnector(limit=max_connections, force_close=True, ssl=True if context is None else context)
        self._session = ClientSession(
            connector=connector,
            cookie_jar=DummyCookieJar(),
            skip_auto_headers=_OWN_HEADERS,
            auto_decompress=False,
            read_bufsize=_PIECE // 2,
            max_field_size=HEAD_LIMIT,
            trace_configs=[_traces()],
        )
        # It repeats a GET or DELETE whose connection died; here nothing is sent twice.
        self._session._retry_connection = False

    async def request(self, verb: str, headers: bytes, body: bytes, deadlines: Deadlines) -> SessionAnswer:
        """See `ports.Wire.request`."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        response: ClientResponse | None = None
        try:
            async with asyncio.timeout_at(started + deadlines.total):
                response = await self._open(verb, headers, body, deadlines)
                answer = SessionAnswer(response, started, deadlines)
                if is_stream(answer.status, answer.headers):
                    return answer
                await answer.collect(self._max_reply)
                return answer
        except TimeoutError as wrong:
            if response is not None:
                response.close()
            raise late(deadlines.whole, "total") from wrong
        except BaseException:
            if response is not None:
                response.close()
            raise

    async def close(self) -> None:
        """See `ports.Wire.close`."""
        await self._session.close()

    def _gone(self) -> bool:
        return self._session.closed

    async def _open(self, verb: str, headers: bytes, body: bytes, deadlines: Deadlines) -> ClientResponse:
        limit = asyncio.timeout(None)
        progress = _Progress(limit, deadlines.first_byte)
        seconds = min(deadlines.connect, deadlines.total)
        task = asyncio.current_task()
        if self._gone():
            raise down("the gateway closes")
        try:
            async with limit:
                return await self._session.request(
                    verb,
                    self._url,
                    headers=_pairs(headers),
                    data=body if body or verb == "POST" else None,
                    allow_redirects=False,
                    timeout=ClientTimeout(total=None, connect=seconds, ceil_threshold=86_400.0),
                    trace_request_ctx=progress,
                )
        except ConnectionTimeoutError as wrong:
            raise (busy if progress.queued else down)(f"no connection within {seconds} s") from wrong
        except TimeoutError as wrong:
            raise late(deadlines.first_byte, "first byte") from wrong
        except (ClientError, OSError, ValueError) as wrong:
            if not progress.connected and isinstance(wrong, (ClientConnectorError, InvalidURL, OSError, ValueError)):
                raise down(f"cannot connect: {wrong}" if isinstance(wrong, OSError) else "cannot connect") from wrong
            # aiohttp's errors show the request's headers, so neither they nor their text may reach a log.
            raise lost(f"no sound answer: {type(wrong).__name__}") from None
        except asyncio.CancelledError as wrong:
            # Closing the session cancels who waits for a connection; our own task was not cancelled then.
            if self._gone() and not (task is not None and task.cancelling()):
                raise down("the gateway closes") from wrong
            raise


def _pairs(lines: bytes) -> list[tuple[str, str]]:
    """Header lines as aiohttp wants them."""
    pairs = (line.partition(":") for line in lines.decode("latin-1").split("\r\n") if line)
    return [(name, value.strip(" \t")) for name, _, value in pairs]
