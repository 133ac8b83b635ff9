"""A record is one line, whatever stands in it."""

from __future__ import annotations

import json
import logging

from fastgw.telemetry import logs


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("fastgw", logging.ERROR, "file", 1, text, (), None)


def test_a_servers_words_cannot_write_a_second_line() -> None:
    for formatter in (logs._Plain("keeper"), logs._Json("keeper")):
        assert "\n" not in formatter.format(record("bad\r\n2026-01-01 info keeper: forged"))


def test_json_says_time_level_and_process() -> None:
    said = json.loads(logs._Json("worker-2").format(record("é")))
    assert (said["level"], said["process"], said["message"]) == ("error", "worker-2", "é")
    assert said["time"].endswith("Z")
