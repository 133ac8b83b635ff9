"""Server-Sent Events, sans-io: bytes of a stream to events and back."""

from __future__ import annotations

from dataclasses import dataclass

KEEP_ALIVE = b":\n\n"
"""A comment: readers skip it, middle boxes see traffic."""

_BOM = b"\xef\xbb\xbf"
_RETRY_DIGITS = 12
"""More digits than this are no waiting time; int() of very long ones would be slow."""


class EventTooLong(ValueError):
    """One event exceeds the bound of its parser; the stream cannot be read on."""


@dataclass(slots=True)
class SseEvent:
    """One event.

    Args:
        data: the `data` lines joined by a line feed; b"" for an event that only sets `id` or `retry`.
        id: the `id` this very event carries, None where it has none (an earlier one is not repeated).
        kind: the `event` field, `message` where it is missing or empty.
        retry: milliseconds to wait before a reconnect, None where it has none.
    """

    data: bytes
    id: str | None
    kind: str
    retry: int | None


class EventParser:
    """Feeds on pieces split anywhere, gives whole events.

    A line ends by CR LF, LF or CR. A block is an event when it has `data`, `id` or `retry`: a priming event (an `id`
    and empty data; MCP 2025-11-25 transports, "Sending Messages to the Server") comes out with `data=b""`.

    Args:
        limit: most bytes of one event (its field lines with their ends), and of one comment line.
    """

    __slots__ = ("_after_cr", "_broken", "_data", "_fresh", "_id", "_kind", "_limit", "_line", "_retry", "_size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._line = bytearray()
        self._fresh = True
        self._after_cr = False
        self._broken = False
        self._size = 0
        self._data: list[bytes] | None = None
        self._id: str | None = None
        self._kind = ""
        self._retry: int | None = None

    def feed(self, data: bytes) -> list[SseEvent]:
        """The events that end in this piece.

        Raises:
            EventTooLong: an event exceeds the limit. Events that ended before it come out first; then this call or,
                where there were such events, the next call raises.
        """
        if self._broken:
            raise EventTooLong(f"an event is longer than {self._limit} bytes")
        lines = self._normalised(data).split(b"\n")
        events: list[SseEvent] = []
        for rest in lines[:-1]:
            if self._line:
                self._line += rest
                self._take(bytes(self._line), events)
                self._line.clear()
            else:
                self._take(rest, events)
            if self._size > self._limit:
                return self._break(events)
        self._line += lines[-1]
        if self._size + len(self._line) > self._limit:
            return self._break(events)
        return events

    def end(self) -> None:
        """The stream has ended: an unfinished event is dropped, as the standard demands.

        Raises:
            EventTooLong: an event exceeded the limit, and no call of `feed` has said so yet.
        """
        if self._broken:
            raise EventTooLong(f"an event is longer than {self._limit} bytes")
        self._line.clear()
        self._forget()

    def _normalised(self, data: bytes) -> bytes:
        """The piece with LF as its only line end; a CR LF split between two pieces counts once."""
        if not data:
            return data
        if self._after_cr and data[0] == 0x0A:
            data = data[1:]
        self._after_cr = data.endswith(b"\r") if data else False
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data

    def _take(self, line: bytes, events: list[SseEvent]) -> None:
        if self._fresh:
            self._fresh = False
            line = line.removeprefix(_BOM)
        if not line:
            if self._data is not None or self._id is not None or self._retry is not None:
                events.append(SseEvent(b"\n".join(self._data or ()), self._id, self._kind or "message", self._retry))
            self._forget()
            return
        if line[0] == 0x3A:
            self._size += len(line) if len(line) > self._limit else 0
            return
        self._size += len(line) + 1
        if self._size <= self._limit:
            self._field(line)

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if name == b"data":
            if self._data is None:
                self._data = []
            self._data.append(value)
        elif name == b"event":
            self._kind = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) <= _RETRY_DIGITS:
            self._retry = int(value)

    def _forget(self) -> None:
        self._size = 0
        self._data = self._id = self._retry = None
        self._kind = ""

    def _break(self, events: list[SseEvent]) -> list[SseEvent]:
        self._broken = True
        self._line.clear()
        self._forget()
        if events:
            return events
        raise EventTooLong(f"an event is longer than {self._limit} bytes")


def encode(data: bytes) -> bytes:
    """One `message` event.

    The format has no line break but its own: every CR LF, CR and LF of `data` arrives as one LF. JSON text means the
    same after that, because a bare line break stands only between its tokens (RFC 8259, section 2).
    """
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"\n" in data:
        data = data.replace(b"\n", b"\ndata: ")
    return b"event: message\ndata: " + data + b"\n\n"
