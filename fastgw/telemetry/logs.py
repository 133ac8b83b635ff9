"""The log: one line per record, to stderr.

In a child nothing waits for whoever reads the log; what finds no room is counted, and the count is logged.
"""

from __future__ import annotations

import json
import logging
import queue
import re
import sys
import time
from logging.handlers import QueueHandler, QueueListener

ROOM = 10_000
"""Lines that may wait for a reader of stderr."""
FLUSH_WITHIN = 0.5
"""Seconds that the end of a process waits for its last lines to be read."""
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class LineFormatter(logging.Formatter):
    """One line per record; `form` is `text` or `json`."""

    def __init__(self, role: str, form: str) -> None:
        super().__init__()
        self._role, self.form = role, form

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end. A message may carry what a server said: nobody writes a second line, nor orders a
        terminal about.
        """
        text = super().format(record).replace("\r", "\\r").replace("\n", " | ")
        fields = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "process": self._role,
            "message": _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text),
        }
        if self.form == "json":
            return json.dumps(fields, ensure_ascii=False)
        return "{time} {level} {process}: {message}".format(**fields)


class NonBlockingHandler(QueueHandler):
    """Writes from a thread of its own: a pipe that nobody reads stops that thread, and nothing else."""

    queue: queue.Queue[logging.LogRecord]

    def __init__(self) -> None:
        super().__init__(queue.Queue(ROOM))
        self._lost = 0
        QueueListener(self.queue, logging.StreamHandler(sys.stderr)).start()

    def enqueue(self, record: logging.LogRecord) -> None:
        """Take one record; never waits."""
        try:
            if self._lost:
                text = f"{self._lost} lines of the log found no reader"
                self.queue.put_nowait(self.prepare(logging.makeLogRecord({"levelname": "WARNING", "msg": text})))
                self._lost = 0
            self.queue.put_nowait(record)
        except queue.Full:
            self._lost += 1

    def flush(self) -> None:
        """Wait a little for what has been taken to be written."""
        end = time.monotonic() + FLUSH_WITHIN
        while self.queue.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.005)


def configure(role: str, level: str = "info", form: str = "text", handler: logging.Handler | None = None) -> None:
    """Send the log of this process to stderr.

    Args:
        role: which process: `supervisor`, `controller`, `worker-1`.
        handler: `NonBlockingHandler()` in a child; without one lines are written at once, for a process that must not
            have threads when it forks.
    """
    handler = handler or logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(role, form))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.raiseExceptions = False


def change(level: str, form: str) -> None:
    """Go on with another level and form, as `configure` takes them."""
    root = logging.getLogger()
    root.setLevel(level.upper())
    for handler in root.handlers:
        if isinstance(handler.formatter, LineFormatter):
            handler.formatter.form = form
