"""A record is one line, whatever stands in it."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import time

import pytest

from fastgw.telemetry import logs


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("fastgw", logging.ERROR, "file", 1, text, (), None)


def test_a_servers_words_cannot_write_a_second_line() -> None:
    for formatter in (logs.LineFormatter("keeper", "text"), logs.LineFormatter("keeper", "json")):
        assert "\n" not in formatter.format(record("bad\r\n2026-01-01 info keeper: forged"))


def test_a_servers_words_cannot_order_a_terminal_about() -> None:
    said = logs.LineFormatter("keeper", "text").format(record("bad \x1b[2Jname \x9b1m\tand é"))
    assert said.endswith("bad \\x1b[2Jname \\x9b1m\tand é")


def test_json_says_time_level_and_process() -> None:
    said = json.loads(logs.LineFormatter("worker-2", "json").format(record("é")))
    assert (said["level"], said["process"], said["message"]) == ("error", "worker-2", "é")
    assert said["time"].endswith("Z")


def test_level_and_form_change_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    said, root = io.StringIO(), logging.getLogger()
    monkeypatch.setattr(logging, "raiseExceptions", logging.raiseExceptions)
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    logs.configure("worker-2", "error", "text", logging.StreamHandler(said))
    log = logging.getLogger("fastgw")
    log.info("unheard")
    logs.change("info", "json")
    log.info("heard")
    logs.change("warning", "text")
    log.info("unheard")
    log.warning("heard")
    first, second = said.getvalue().splitlines()
    assert (json.loads(first)["message"], json.loads(first)["process"]) == ("heard", "worker-2")
    assert second.endswith("warning worker-2: heard")
    log.manager._clear_cache()  # type: ignore[attr-defined] # what is heard is remembered


def test_a_reader_that_stops_delays_nobody_and_hears_what_it_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """stderr is a pipe that nobody reads until far more has been logged than it and the queue hold."""
    reading, writing = os.pipe()
    monkeypatch.setattr(logs, "ROOM", 50)
    monkeypatch.setattr(logging, "raiseExceptions", False)
    monkeypatch.setattr(sys, "stderr", os.fdopen(writing, "w"))
    handler = logs.NonBlockingHandler()
    handler.setFormatter(logs.LineFormatter("worker-1", "text"))
    begun = time.monotonic()
    for _ in range(2_000):
        handler.handle(record("x" * 200))
    assert time.monotonic() - begun < 5
    with os.fdopen(reading) as reader:
        lines = 0
        while "found no reader" not in reader.readline():
            lines += 1
            handler.handle(record("once more"))
        assert lines < 2_000
    handler.flush()


def test_the_end_of_a_process_waits_for_its_last_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    handler = logs.NonBlockingHandler()
    handler.setFormatter(logs.LineFormatter("worker-1", "text"))
    for number in range(100):
        handler.handle(record(f"line {number}"))
    handler.flush()
    assert said.getvalue().count("\n") == 100
