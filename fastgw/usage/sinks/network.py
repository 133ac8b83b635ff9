"""What the sinks that reach over a network have in common: a batch goes out in parts, and goes on where it stopped.

sending -- taken --> the next part          sending -- refused for good --> lost, the next part
sending -- too large --> its halves         sending -- SinkDown --> the same part when the batch comes again
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from fastgw.config.schema.settings import SinkSettings
from fastgw.usage.sinks.sink import label_of

log = logging.getLogger("fastgw")

TELL_EVERY = 10.0
"""Seconds between two lines of the log about events that a receiver does not want."""


class EventFields(msgspec.Struct, rename="camel", gc=False):
    """The fields of an event that sinks tell receivers apart from the event itself."""

    request_id: str
    timestamp: str
    gateway: str = ""
    agent_id: str | None = None
    team: str | None = None
    project: str | None = None
    billing_account: str | None = None
    method: str | None = None
    tool: str | None = None
    mcp_server: str | None = None
    outcome: str | None = None
    status_code: int | None = None
    trace_id: str | None = None


class ReadLine(NamedTuple):
    """An event as it stands in the spool, and what was read of it."""

    line: bytes
    fields: EventFields


Part = Sequence[ReadLine]
_decode = msgspec.json.Decoder(EventFields).decode


class Refused(Exception):
    """The receiver finds fault with what was sent: it would do so again. Its words are fit for a log."""


class TooLarge(Refused):
    """Less at once might be taken."""


class NetworkSink:
    """A sink that sends parts of a batch; subclasses say how.

    Args:
        most_events, most_bytes: of one part; a single event may be larger.
    """

    def __init__(self, settings: SinkSettings, *, most_events: int, most_bytes: int) -> None:
        self.label = label_of(settings.url)
        self.lost = 0
        self._most_events, self._most_bytes = most_events, most_bytes
        self._parts: deque[Part] | None = None
        self._lines: Sequence[bytes] = ()
        self._untold = 0
        self._told = float("-inf")

    def send(self, part: Part) -> None:
        """Raises SinkDown; Refused: the part is lost."""
        raise NotImplementedError

    def close(self) -> None:
        """See `Sink`."""
        raise NotImplementedError

    def deliver(self, lines: Sequence[bytes]) -> None:
        """See `Sink`. Parts that were taken are not sent again when the same lines come again."""
        if self._parts is None or lines != self._lines:
            events = _read(lines)
            self._lines = lines
            self.lose(len(lines) - len(events), "lines that are no events")
            self._parts = deque(_in_parts(events, self._most_events, self._most_bytes))
        while self._parts:
            part = self._parts[0]
            halves: list[Part] = []
            try:
                self.send(part)
            except Refused as wrong:
                if isinstance(wrong, TooLarge) and len(part) > 1:
                    halves = [part[: len(part) // 2], part[len(part) // 2 :]]
                else:
                    self.lose(len(part), str(wrong))
            self._parts.popleft()
            self._parts.extendleft(reversed(halves))
        self._parts, self._lines = None, ()

    def lose(self, count: int, why: str) -> None:
        """Count events that this sink will never take; the log hears of it now and then."""
        self.lost += count
        self._untold += count
        if self._untold and time.monotonic() - self._told >= TELL_EVERY:
            log.error("%d usage events are lost for %s: %s", self._untold, self.label, why)
            self._untold, self._told = 0, time.monotonic()


def _read(lines: Sequence[bytes]) -> list[ReadLine]:
    """Those that are events: one that is not would be refused, and all others of its request with it."""
    found = []
    for line in lines:
        try:
            line.decode()  # msgspec does not look at members that it skips
            found.append(ReadLine(line, _decode(line)))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
    return found


def _in_parts(events: Sequence[ReadLine], most_events: int, most_bytes: int) -> Iterator[Part]:
    begin, size = 0, 0
    for number, event in enumerate(events):
        if number > begin and (number - begin >= most_events or size + len(event.line) > most_bytes):
            yield events[begin:number]
            begin, size = number, 0
        size += len(event.line)
    if begin < len(events):
        yield events[begin:]
