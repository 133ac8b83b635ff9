"""Any HTTP server as a sink: what it may answer, however it means it, and for how long."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from pathlib import Path
from threading import Thread

import pytest

from fastgw.config.schema.settings import SinkSettings
from fastgw.usage.sinks import SinkDown, http_sink, make_sink
from fastgw.usage.sinks.http_sink import LONGEST_WAIT
from tests.usage.sinks.receivers import HttpReceiver, event

LONG = 10.0
"""Seconds for which a server goes on."""


@contextmanager
def answering(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """The URL of a server that reads a request and then does so, on each connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    connection.recv(65536)
                    answer(connection)

        Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        listener.shutdown(socket.SHUT_RDWR)


def deliver(url: str) -> None:
    sink = make_sink(SinkSettings(url=url), Path())
    try:
        sink.deliver([event(1)])
    finally:
        sink.close()
    assert sink.lost == 0


def drip(first: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(first)
        end = time.monotonic() + LONG
        while time.monotonic() < end:
            connection.sendall(b"x")
            time.sleep(0.01)

    return answer


def floods(first: bytes, again: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(first)
        end = time.monotonic() + LONG
        while time.monotonic() < end:
            connection.sendall(again)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"),
        drip(b"HTTP/1.1 503 Busy\r\nContent-Length: 1000000\r\n\r\n"),
        drip(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"),
        drip(b"HTTP/1.1 503 Busy\r\nServer: "),
        floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["body", "refusal", "body to the end", "header", "continue"],
)
def test_an_answer_that_never_ends_is_not_waited_for(
    answer: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_sink, "ANSWER_WITHIN", 0.3)
    begun = time.monotonic()
    with answering(answer) as url, suppress(SinkDown):
        deliver(url)
    assert time.monotonic() - begun < LONG


ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"x" * 65536
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 1000


@pytest.mark.parametrize("taken", [floods(*ENDLESS), floods(*CHUNKS)], ids=["long", "chunks"])
def test_of_a_good_answer_nobody_reads_more_than_a_part(taken: Callable[[socket.socket], None]) -> None:
    with answering(taken) as url:
        deliver(url)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\0\xff\x1b[2J\r\n\r\n",
        b"HTTP/1.1 99999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
    ],
)
def test_what_is_no_good_answer_is_waited_for(text: bytes) -> None:
    with answering(lambda connection: connection.sendall(text)) as url, pytest.raises(SinkDown):
        deliver(url)


def test_nobody_is_followed_elsewhere(tmp_path: Path) -> None:
    """Least of all to an address that only we can reach."""
    with HttpReceiver(tmp_path, "inner") as inner, HttpReceiver(tmp_path, "outer") as outer:
        for status in (301, 302, 303, 307, 308):
            outer.answer(status, {"Location": f"http://{inner.place}/secret"})
            with pytest.raises(SinkDown, match=f"answered {status}"):
                deliver(f"http://{outer.place}/")
        assert (inner.requests(), outer.requests()) == ([], [])


NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("7", 7),
        ("999999999999999999999999", LONGEST_WAIT),
        (formatdate(NOW + 42, usegmt=True), 42),
        (formatdate(NOW + 86400, usegmt=True), LONGEST_WAIT),
        (formatdate(NOW - 5, usegmt=True), 0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0),
        ("-7", 0),
        ("soon", 0),
        ("", 0),
        ("Fri, 31 Dec 99999 23:59:59 GMT", 0),
    ],
)
def test_a_pause_is_asked_for_in_seconds_or_until_a_date(
    asked: str, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastgw.usage.sinks.http_sink.time.time", lambda: NOW)
    monkeypatch.setattr("fastgw.usage.sinks.http_sink.time.monotonic", lambda: 100.0)
    with HttpReceiver(tmp_path) as receiver:
        receiver.answer(429, {"Retry-After": asked})
        sink = make_sink(SinkSettings(url=f"http://{receiver.place}/"), Path())
        with pytest.raises(SinkDown, match="answered 429"):
            sink.deliver([event(1)])
        try:
            sink.deliver([event(1)])
            left = "0"
        except SinkDown as wrong:
            left = str(wrong)
        sink.close()
    assert re.findall(r"[0-9]+", left) == [str(seconds)]
