"""What the gateway needs from the outside, as protocols: each has one real implementation and one fake."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long one exchange with a server may take, in seconds. `total` counts from the start of the exchange.

    `granted` is what the whole call had, of which `total` is left; 0.0 where that is the same. `longest` bounds the
    whole call, whose total starts anew with progress; 0.0 where it never does.
    """

    connect: float = 5.0
    first_byte: float = 55.0
    idle: float = 55.0
    total: float = 55.0
    granted: float = 0.0
    longest: float = 0.0

    @property
    def whole(self) -> float:
        """Seconds that agents are told of where the total has passed: the one the configuration grants."""
        return self.granted or self.total

    def renewed(self, started: float, now: float) -> tuple[float, float]:
        """When the total passes that starts anew at `now`, and which seconds have passed then: its own or `longest`.

        Args:
            started: when the exchange began that these are of, by the same clock.
        """
        last = started + self.total - self.whole + max(self.longest, self.whole)
        again = now + self.whole
        return (again, self.whole) if again < last else (last, max(self.longest, self.whole))


@dataclass(frozen=True, slots=True)
class UpstreamSession:
    """A session that a server gave the gateway.

    Args:
        id: value of `Mcp-Session-Id`; empty where the server issues none.
        version: the revision the server settled on in `initialize`.
        opened: CLOCK_MONOTONIC seconds when it was opened.
    """

    id: str
    version: str
    opened: float = 0.0


class Answer(Protocol):
    """One HTTP answer of a server, its head already read.

    `body` is the whole body unless the answer is an event stream; then it is None and `read` gives its pieces.
    """

    status: int
    headers: dict[str, str]
    """Names in lower case; of repeated headers the first value, but for `content-type`, where two are a fault."""
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
        """Close the connection for good, whoever has it now: this answer was another's, so the next will be, too."""


class Transport(Protocol):
    """Pooled connections to one instance of a server.

    `notes` says what of its answers was forgiven.
    """

    notes: set[str]

    async def request(self, verb: str, headers: bytes, body: bytes, deadlines: Deadlines) -> Answer:
        """Send one HTTP request and wait for the head of its answer (for anything but a stream: the body too).

        Args:
            verb: POST, GET or DELETE.
            headers: header lines, each ended by CRLF, less `Host` and `Content-Length`, which the wire adds.
            body: the whole body; empty for GET and DELETE.

        Raises:
            Fault: NO_SERVER with `sent=False` (refused, TLS, no free connection, connect deadline, a redirect to
                elsewhere); LOST with `sent=True` (reset, cut short, malformed, oversized answer);
                TIMEOUT with `sent=True`.
        """

    async def close(self) -> None:
        """Close every connection."""


class Controller(Protocol):
    """What a worker asks of the controller. Every wait is bounded; without a controller it goes on with what it
    knows.
    """

    async def open_session(self, instance: str, identity: str, dead: UpstreamSession | None = None) -> UpstreamSession:
        """The session of this identity at this instance, opened if there is none (one flight over all workers).

        Args:
            instance: key of the instance, `Instance.key`.
            identity: whose session; `*` where the server's sessions are shared.
            dead: the session that the server no longer knows; it is opened anew once, whoever asks first.

        Raises:
            Fault: NO_SERVER, TIMEOUT, FULL; never `sent`.
        """

    async def keep_session(
        self, instance: str, identity: str, session: UpstreamSession, instead: UpstreamSession
    ) -> UpstreamSession:
        """Go back to a session that was called dead and is not; the one opened `instead` of it is ended.

        Raises:
            Fault: as `open_session`.
        """

    async def suspect_session(self, key: tuple[str, str], session: str) -> None:
        """A server may have lost this session: every worker knows when this returns, and asks before the next call."""

    def touch(self, instance: str, identity: str) -> None:
        """Say that the session is in use (batched; ends idle ones only by what was said)."""

    async def doubt_era(self, instance: str, believed: str) -> str:
        """Probe the instance again because it answered unlike `believed`; what it speaks, as in `Instance.era`.

        Raises:
            Fault: NO_SERVER where it cannot be told.
        """

    async def refresh(self, server: str, tool: str) -> tuple[tuple[str, tuple[str, ...], str], ...]:
        """Fetch a server's catalogue anew, because it calls our headers wrong; what the tool wants now.

        Returns:
            (header, path, kind) of each header, as in `protocol.headers.ParamHeader`; empty for a tool that is gone.

        Raises:
            Fault: NO_SERVER where the catalogue cannot be had.
        """

    async def end_session(self, session: str, seconds: float) -> None:
        """An agent's session has ended, and with it those that servers opened for it.

        Every worker knows when this returns; it is remembered for `seconds`.
        """

    async def set_level(self, session: str, level: str) -> None:
        """An agent's session wants log messages from `level` on: every worker knows when this returns."""

    def cancel(self, session: str, request: bytes) -> None:
        """Cancel the call with this JSON-RPC id (its JSON text) of this agent's session, whichever worker has it."""

    def usage(self, event: bytes) -> None:
        """Hand over one usage event, encoded, without a line break. Never waits; the loss is counted."""
