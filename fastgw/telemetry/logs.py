"""The log: one line per record, to stderr.

Law: in a child nothing waits for whoever reads the log; what finds no room is counted, and the count is logged.
"""

from __future__ import annotations

import json
import logging
import queue
import re
import sys
import threading
import time


class _Plain(logging.Formatter):
    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        stamp = _stamp(record.created)
        text = _one_line(self, record)
        return f"{stamp} {record.levelname.lower()} {self._role}: {text}"


class _Json(logging.Formatter):
    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _stamp(record.created),
            "level": record.levelname.lower(),
            "process": self._role,
            "message": _one_line(self, record),
        }
        return json.dumps(fields, ensure_ascii=False)


def _stamp(created: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created)) + f".{int(created * 1000) % 1000:03d}Z"


def _one_line(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.exc_info:
        text += " | " + formatter.formatException(record.exc_info)
    # What a server said may stand in a message: nobody writes a second line into the log, nor orders a terminal about.
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text.replace("\r", "\\r").replace("\n", " | "))


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


ROOM = 10_000
"""Lines that may wait for a reader of stderr."""
FLUSH_WITHIN = 0.5
"""Seconds that the end of a process waits for its last lines to be read."""


class Unhurried(logging.Handler):
    """Writes from a thread of its own: a pipe that nobody reads stops that thread, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self._stream = sys.stderr
        self._lines: queue.Queue[str] = queue.Queue(ROOM)
        self._lost = 0
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record; never waits."""
        try:
            self._lines.put_nowait(self.format(record) + "\n")
        except queue.Full:
            self._lost += 1

    def flush(self) -> None:
        """Wait a little for what has been taken to be written."""
        end = time.monotonic() + FLUSH_WITHIN
        while self._lines.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.005)

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            lost, self._lost = self._lost, 0
            try:
                if lost:
                    self._stream.write(f"{_stamp(time.time())} warning: {lost} lines of the log found no reader\n")
                self._stream.write(line)
                self._stream.flush()
            except (OSError, ValueError):
                pass  # nobody is there to read it, nor to be told
            finally:
                self._lines.task_done()


def configure(role: str, level: str = "info", form: str = "text", handler: logging.Handler | None = None) -> None:
    """Send the log of this process to stderr.

    Args:
        role: which process: `supervisor`, `controller`, `worker-1`.
        level: debug, info, warning or error.
        form: `text` or `json`.
        handler: `Unhurried()` in a child; without one lines are written at once, for a process that must not have
            threads when it forks.
    """
    handler = handler or logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json(role) if form == "json" else _Plain(role))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.raiseExceptions = False
