"""Sinks of this machine: stdout, and files that grow until somebody moves them away (logrotate)."""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from fastgw.usage.sinks.sink import SinkDown

PATIENCE = 1.0
"""Seconds that a reader may take nothing before it is called down."""
ATOMIC = select.PIPE_BUF
"""Bytes that a pipe takes as a whole or not at all: a process that is killed leaves no part of a line."""


BEGINNING = b'{"schema":'
"""Of every event."""
TAIL = 1024 * 1024
"""Bytes in which a part of an event is looked for."""


class _Lines:
    """Writes lines to a descriptor; goes on where it stopped when the same lines come again."""

    def __init__(self) -> None:
        self._pieces: Iterator[bytes] | None = None
        self._rest = memoryview(b"")
        self._at_once = ATOMIC

    def write(self, fd: int, lines: Sequence[bytes]) -> None:
        """Raises SinkDown: not everything is written yet. OSError: nothing more can be written there."""
        if self._pieces is None:
            is_file = stat.S_ISREG(os.fstat(fd).st_mode)
            whole = b"\n".join(lines) + b"\n"
            self._pieces, self._at_once = (iter([whole]), len(whole)) if is_file else (_chunks(lines), ATOMIC)
        while True:
            while self._rest:
                self._rest = self._rest[_write_some(fd, self._rest[: self._at_once]) :]
            if (piece := next(self._pieces, None)) is None:
                break
            self._rest = memoryview(piece)
        self._pieces = None

    def forget(self) -> None:
        """The next lines are written from their beginning."""
        self._pieces, self._rest = None, memoryview(b"")


def _chunks(lines: Sequence[bytes]) -> Iterator[bytes]:
    chunk = b""
    for line in lines:
        if chunk and len(chunk) + len(line) >= ATOMIC:
            yield chunk
            chunk = b""
        chunk += line + b"\n"
    if chunk:
        yield chunk


def _write_some(fd: int, rest: memoryview) -> int:
    """Bytes written. A pipe is asked first: our stdout blocks, for others share it."""
    until = time.monotonic() + PATIENCE
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    while True:
        if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
            raise SinkDown(f"its reader has taken nothing for {PATIENCE:g} s")
        try:
            return os.write(fd, rest)
        except BlockingIOError:  # somebody else was quicker
            if time.monotonic() > until:
                raise SinkDown("its reader takes nothing") from None


class ShownCall(msgspec.Struct, rename="camel"):
    """What a line on a terminal says of an event."""

    timestamp: str
    agent_id: str
    method: str
    tool: str | None
    mcp_server: str | None
    outcome: str
    error_code: int | None
    latency_ms: float
    request_id: str
    trace_id: str | None = None

    def line(self) -> bytes:
        """Time (UTC), agent, what was asked for, server, how it ended, milliseconds, request id."""
        words = [
            self.timestamp[11:],
            self.agent_id,
            self.tool or self.method,
            f"-> {self.mcp_server or '-'}",
            self.outcome,
        ]
        words += [] if self.error_code is None else [str(self.error_code)]
        words += [f"{self.latency_ms:.1f} ms", self.request_id]
        words += [] if self.trace_id is None else [self.trace_id]
        # Names come from servers and identity providers: none of them may order the terminal about.
        shown = (word if word.isprintable() else word.encode("unicode_escape").decode() for word in words)
        return "  ".join(shown).encode("utf-8", "backslashreplace")


def for_people(line: bytes) -> bytes:
    """An event as a short line; what is none of ours stays as it is, in ASCII."""
    try:
        return _decode_shown(line).line()
    except ValueError:
        return ascii(line).encode()


_decode_shown = msgspec.json.Decoder(ShownCall).decode


class StdoutSink:
    """The gateway's stdout: nothing else is written there. On a terminal each call is a short line."""

    def __init__(self, fd: int = 1) -> None:
        self.lost = 0
        self._fd = fd
        self._lines = _Lines()
        self._is_terminal = os.isatty(fd)

    def deliver(self, lines: Sequence[bytes]) -> None:
        """Write them. Raises SinkDown."""
        if self._is_terminal:
            lines = list(map(for_people, lines))
        try:
            self._lines.write(self._fd, lines)
        except OSError as wrong:
            raise SinkDown(str(wrong)) from None

    def close(self) -> None:
        """It is not ours to close."""


class FileSink:
    """A file that is appended to, or a named pipe; opened anew when it was moved away."""

    def __init__(self, path: Path) -> None:
        self.lost = 0
        self._path = path
        self._fd = -1
        self._lines = _Lines()

    def deliver(self, lines: Sequence[bytes]) -> None:
        """Append them. Raises SinkDown."""
        try:
            if self._fd < 0 or self._was_moved():
                self.close()
                self._open()
            self._lines.write(self._fd, lines)
        except OSError as wrong:
            self.close()
            raise SinkDown(str(wrong)) from None

    def close(self) -> None:
        """Close the file; what was half written is written from its beginning elsewhere."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._lines.forget()

    def _was_moved(self) -> bool:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return True
        ours = os.fstat(self._fd)
        return (found.st_dev, found.st_ino) != (ours.st_dev, ours.st_ino)

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        is_pipe = self._path.exists() and stat.S_ISFIFO(self._path.stat().st_mode)
        # Opening a pipe that nobody reads would wait for ever; not waiting, it fails, and is tried again.
        flags = os.O_WRONLY | os.O_NONBLOCK if is_pipe else os.O_RDWR | os.O_CREAT
        self._fd = os.open(self._path, flags | os.O_APPEND | os.O_CLOEXEC, 0o640)
        if not is_pipe:
            self._mend()

    def _mend(self) -> None:
        """Cut off the part of an event that a full disk or a kill has left at the end; end a line of somebody else."""
        size = os.fstat(self._fd).st_size
        tail = os.pread(self._fd, TAIL, max(0, size - TAIL))
        part = tail[tail.rfind(b"\n") + 1 :]
        if part.startswith(BEGINNING) or (part and BEGINNING.startswith(part)):
            os.ftruncate(self._fd, size - len(part))
        elif part:
            os.write(self._fd, b"\n")
