"""Spans of requests on their way from a worker to the usage process, which exports them.

    worker --datagrams on a Unix socket--> usage process: `span_export.py` --OTLP--> wherever `traces` says

A worker never waits for that: what finds no room in the socket waits in a list that has an end; beyond it spans are
lost, and counted.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

Attributes = dict[str, str | int | bool]
SERVER, CLIENT = "server", "client"
MOST_TOGETHER = 64
"""Spans of one datagram: about 30 KB."""
SEND_ROOM = 1024 * 1024
"""Bytes that may be under way; the kernel allows less where `net.core.wmem_max` says so."""
LARGEST = 256 * 1024
"""Bytes of a datagram. Agents and servers choose some of what stands in a span: names, `tracestate`."""
MOST_WAITING = 2048
"""Spans that wait in a worker."""
_SHORT_ARRAY: Final = 9


class SpanEvent(msgspec.Struct, array_like=True, gc=False):
    """What happened in the middle of a span, at `time` (Unix nanoseconds)."""

    name: str
    time: int
    attributes: Attributes


class SpanRecord(msgspec.Struct, array_like=True):
    """One span that is over.

    Args:
        trace_id, span_id, parent_id: hex digits; `parent_id` is empty where the trace begins with it.
        state: `tracestate` of its trace.
        kind: `server`, whose parent is the agent's span, or `client`, whose parent is one of ours.
        start, end: Unix nanoseconds.
        error: `error.type`; empty where it ended well.
    """

    trace_id: str
    span_id: str
    parent_id: str
    state: str
    kind: str
    name: str
    start: int
    end: int
    attributes: Attributes
    error: str = ""
    events: list[SpanEvent] = []


_encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(list[SpanRecord]).decode
"""The spans of a datagram. Raises msgspec.MsgspecError: they are none."""


class SpanSender:
    """A worker's end; `path` is that of the socket."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_ROOM)
        self._waiting: list[SpanRecord] = []
        self._lost = 0

    def send(self, spans: Sequence[SpanRecord]) -> None:
        """Send them as far as there is room, the others later; never waits."""
        self._waiting.extend(spans)
        done = 0
        while part := self._waiting[done : done + MOST_TOGETHER]:
            try:
                self._send(part)
            except (BlockingIOError, ConnectionRefusedError, FileNotFoundError):  # it reads too slowly, or not yet
                break
            done += len(part)
        del self._waiting[:done]
        if (excess := len(self._waiting) - MOST_WAITING) > 0:
            del self._waiting[:excess]
            self._lost += excess

    def _send(self, part: list[SpanRecord]) -> None:
        """Send them together, or one by one where that cannot be: one that never goes must not take others with it.

        Raises:
            BlockingIOError, ConnectionRefusedError, FileNotFoundError: not now; none of them is sent twice.
        """
        try:
            datagram = _encode(part)
            if len(datagram) <= LARGEST:
                self._socket.sendto(datagram, self._path)
                return
        except (BlockingIOError, ConnectionRefusedError, FileNotFoundError):
            raise
        except (OSError, ValueError):  # too large for the kernel, or with text that is none
            pass
        if len(part) == 1:
            self._lost += 1
            return
        for number, one in enumerate(part):
            try:
                self._send([one])
            except (BlockingIOError, ConnectionRefusedError, FileNotFoundError):
                self._lost += len(part) - number
                return

    def counted(self) -> Iterator[tuple[tuple[str, ...], int]]:
        """Try again with what waits; then what has been lost since the last time: metric with its labels, how many."""
        if self._waiting:
            self.send(())
        lost, self._lost = self._lost, 0
        yield ("fastgw_spans_total", "lost"), lost

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def spans_socket(link: str) -> str:
    """Where the usage process listens for spans: beside the controller's socket at `link`."""
    return str(Path(link).with_name("spans"))


def count_in(datagram: bytes) -> int:
    """How many spans a datagram says that it holds (MessagePack, the head of an array); they are not looked at."""
    head = datagram[0]
    return head & 15 if head >> 4 == _SHORT_ARRAY else int.from_bytes(datagram[1:3], "big")
