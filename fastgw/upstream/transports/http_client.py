"""HTTP as the Streamable HTTP transport needs it."""

from __future__ import annotations

from typing import Protocol

from fastgw.catalog.route import Deadlines


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

        Raises:
            Fault: LOST (cut short, too large) or TIMEOUT (idle or total deadline), both `sent`.
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

        Args:
            verb: POST, GET or DELETE.
            headers: header lines, each ended by CRLF, less `Host` and `Content-Length`, which are added here.
            body: the whole body; empty for GET and DELETE.

        Raises:
            Fault: NO_SERVER with `sent=False` (refused, TLS, no free connection, connect deadline, a redirect to
                elsewhere); LOST with `sent=True` (reset, cut short, malformed, oversized answer);
                TIMEOUT with `sent=True`.
        """

    async def close(self) -> None:
        """Close every connection; exchanges under way are LOST."""
