"""The log: one line per record, to stderr.

Knows: time, level, which process. Refuses to know: files, rotation, and what is logged.
"""

from __future__ import annotations

import json
import logging
import sys
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
    # What a server said may stand in a message: nobody writes a second line into the log.
    return text.replace("\r", "\\r").replace("\n", " | ")


def configure(role: str, level: str = "info", form: str = "text") -> None:
    """Send the log of this process to stderr.

    Args:
        role: which process: `launcher`, `keeper`, `worker-1`.
        level: debug, info, warning or error.
        form: `text` or `json`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json(role) if form == "json" else _Plain(role))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.raiseExceptions = False
