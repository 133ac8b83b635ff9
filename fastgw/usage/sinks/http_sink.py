"""Usage events posted to an HTTP server: lines of JSON to any (Vector, Fluent Bit), and what other sinks need.

One connection, kept open, opened again where the server has closed it. Proxies of the environment are not asked.
"""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, urlsplit

from fastgw.config.schema.settings import SinkSettings
from fastgw.usage.sinks.network import NetworkSink, Part, Refused, TooLarge
from fastgw.usage.sinks.sink import SinkDown

TIMEOUT = 5.0
"""Seconds for connecting, and for each wait of an exchange."""
ANSWER_WITHIN = 15.0
"""Seconds for the whole of an answer: one that comes byte by byte would never be late."""
MOST_EVENTS = 5_000
PART = 256 * 1024
"""Bytes of lines in one request: what becomes of them stays under the 1 MiB that a usual proxy lets through."""
MOST_OF_ANSWER = 64 * 1024
_SHOWN = ("Authorization", "X-ClickHouse-Key")
WORDS = 300
"""Letters of an answer that are worth a line in a log."""
LONGEST_WAIT = 300
"""Seconds; a `Retry-After` that asks for more is cut to it."""


class Receiver:
    """Where requests go.

    Args:
        place: the URL; its host and port count.
        port: where the URL names none.
        headers: sent with every request.
        tls: whether to speak HTTPS; the certificate is verified against the system's authorities.
    """

    def __init__(self, place: SplitResult, port: int, headers: Mapping[str, str], *, tls: bool) -> None:
        host, port = place.hostname or "", place.port or port
        self._headers = {name: value.encode() for name, value in headers.items()}
        self._connection: http.client.HTTPConnection
        if tls:
            context = ssl.create_default_context()
            self._connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=context)
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
        self._not_before = 0.0

    def post(self, path: str, body: bytes) -> bytes:
        """Send one request; the answer's body, where it was 2xx.

        Raises:
            Refused: 400 or 422. TooLarge: 413.
            SinkDown: any other answer, or none; also, without asking, until the end of a `Retry-After`.
        """
        if (wait := self._not_before - time.monotonic()) > 0:
            raise SinkDown(f"it asked to be left alone, for {wait:.0f} s from now")
        try:
            answer, text = self._exchange(path, body)
        except (OSError, http.client.HTTPException, ValueError) as wrong:
            self.close()
            raise SinkDown(_in_words(wrong)) from None
        if 200 <= answer.status < 300:
            return text
        self.close()
        words = f"it answered {answer.status} {_one_line(self._without_secrets(text))}".rstrip()
        if answer.status in (400, 413, 422):
            raise (TooLarge if answer.status == 413 else Refused)(words)
        self._not_before = time.monotonic() + _pause(answer.getheader("Retry-After", ""))
        raise SinkDown(words)

    def close(self) -> None:
        """Close the connection; the next request opens one."""
        self._connection.close()

    def _without_secrets(self, text: bytes) -> bytes:
        """Less what a receiver repeats of the password that it was shown."""
        for name in _SHOWN:
            kind, _, value = self._headers.get(name, b"").rpartition(b" ")
            hidden = [value, *([base64.b64decode(value).partition(b":")[2]] if kind == b"Basic" else [])]
            for one in filter(None, hidden):
                text = text.replace(one, b"***")
        return text

    def _exchange(self, path: str, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        kept = self._connection.sock is not None
        try:
            return self._ask(path, body)
        except ConnectionError:  # a connection that lay idle may have been closed: that is no failure
            if not kept:
                raise
            self.close()
            return self._ask(path, body)

    def _ask(self, path: str, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        self._connection.request("POST", path, body, self._headers)
        late = threading.Timer(ANSWER_WITHIN, _break_off, (self._connection.sock,))
        late.daemon = True
        late.start()
        try:
            answer = self._connection.getresponse()
            text = answer.read(MOST_OF_ANSWER)
        finally:
            late.cancel()
        if not answer.isclosed():  # more than anybody reads: nothing else may follow on this connection
            self.close()
        return answer, text


class NdjsonSink(NetworkSink):
    """`http://host/path` or `https://...`: any 2xx takes a request's events, 400 and 422 refuse them for good."""

    def __init__(self, settings: SinkSettings) -> None:
        super().__init__(settings, most_events=MOST_EVENTS, most_bytes=PART)
        place = urlsplit(settings.url)
        self._path = (place.path or "/") + (f"?{place.query}" if place.query else "")
        tls = place.scheme == "https"
        headers = {"Content-Type": "application/x-ndjson", **credential(settings)}
        self._receiver = Receiver(place, 443 if tls else 80, headers, tls=tls)

    def send(self, part: Part) -> None:
        """See `NetworkSink`."""
        self._receiver.post(self._path, b"".join(event.line + b"\n" for event in part))

    def close(self) -> None:
        """See `Sink`."""
        self._receiver.close()


def credential(settings: SinkSettings) -> dict[str, str]:
    """`Authorization`: Basic for a user with a password, Bearer for a password alone; nothing without one."""
    if settings.password is None:
        return {}
    if settings.username is None:
        return {"Authorization": f"Bearer {settings.password}"}
    both = base64.b64encode(f"{settings.username}:{settings.password}".encode())
    return {"Authorization": f"Basic {both.decode()}"}


def _break_off(connection: socket.socket) -> None:
    """Under TLS too, whose own farewell another thread may not say."""
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _pause(asked: str) -> float:
    """Seconds that a `Retry-After` asks for (RFC 9110, 10.2.3): so many, or until a date; 0 where it is neither."""
    try:
        seconds = int(asked[:9]) if asked.isdecimal() else parsedate_to_datetime(asked).timestamp() - time.time()
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
    return min(max(0.0, seconds), LONGEST_WAIT)


def _in_words(wrong: Exception) -> str:
    """Fit for a log: an error about letters would quote a path, or a password. One about a certificate is one of values
    as well as of the network.
    """
    if isinstance(wrong, http.client.InvalidURL) or not isinstance(wrong, OSError | http.client.HTTPException):
        return "its URL, username or password has a letter that HTTP does not allow there"
    return f"{type(wrong).__name__}: {wrong}"[:WORDS]


def _one_line(text: bytes) -> str:
    words = " ".join(text[: 4 * WORDS].decode("utf-8", "replace").split())
    return "".join(letter if letter.isprintable() else "?" for letter in words)[:WORDS]
