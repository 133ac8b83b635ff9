"""HTTP as the Streamable HTTP transport needs it, and how an exchange can fail."""

from __future__ import annotations

from typing import Protocol

from fastgw.catalog.route import Deadlines
from fastgw.errors import Fault, Kind


class Answer(Protocol):
    """One HTTP answer of a server, its head already read.

    `body` is the whole body unless the answer is an event stream; then it is None and `read` gives its pieces.
    `headers` have lower-case names; of repeated ones the first value, but for `content-type`, where two are a fault.
    """

    status: int
    headers: dict[str, str]
    body: bytes | None

    async def read(self) -> bytes:
        """The next piece of the stream as it arrived, b"" at its proper end.

        Raises Fault LOST (cut short, too large) or TIMEOUT (idle or total deadline), both `sent`.
        """

    def extend(self, due: float, seconds: float) -> None:
        """Let the whole take until `due` (loop time) instead; when that passes, agents are told `seconds`.

        For one task alone: the one that reads, between two reads.
        """

    def close(self) -> None:
        """Give the connection up. After the proper end it has gone back to the pool already and this does nothing."""

    def poison(self) -> None:
        """This answer was another's (its JSON-RPC id says so): close the connection it came by, whoever has it now.

        HTTP/1.1 cannot tell an unasked answer from the next one's once a request is out; every later answer on the
        connection would be off by one. An exchange that has it meanwhile is LOST.
        """


class HttpClient(Protocol):
    """Pooled connections to one address; `notes` says what of its answers was forgiven."""

    notes: set[str]

    async def request(self, verb: str, headers: bytes, body: bytes, deadlines: Deadlines) -> Answer:
        """Send one request and wait for the head of its answer (for anything but a stream: the body too).

        Header lines are each ended by CRLF; `Host` and `Content-Length` are added here. GET and DELETE have no body.

        Raises:
            Fault: NO_SERVER with `sent=False` (refused, TLS, no free connection, connect deadline, a redirect to
                elsewhere); LOST with `sent=True` (reset, cut short, malformed, oversized answer);
                TIMEOUT with `sent=True`.
        """

    async def close(self) -> None:
        """Close every connection; exchanges under way are LOST."""


def down(detail: str) -> Fault:
    """The server cannot be reached; nothing was sent."""
    return Fault(Kind.NO_SERVER, detail=detail, data={"reason": "down"}, repeatable=True, retry_after=1)


def busy(detail: str) -> Fault:
    """All connections to the server stayed in use until the connect deadline; nothing was sent."""
    return Fault(Kind.NO_SERVER, detail=detail, data={"reason": "busy"}, repeatable=True, retry_after=1)


def lost(detail: str) -> Fault:
    """The request was sent, or a part of it, and no whole and sound answer came back."""
    return Fault(Kind.LOST, detail=detail, sent=True)


def late(seconds: float, which: str) -> Fault:
    """The request was sent and the deadline `which`, `seconds` long, has passed."""
    return Fault(Kind.TIMEOUT, detail=f"{which} deadline", data={"timeoutMs": round(seconds * 1000)}, sent=True)
