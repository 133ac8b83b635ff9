"""Spans on their way from workers to the exporter: nobody waits, what waits has an end, and what is lost is counted."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fastgw.telemetry import span_export
from fastgw.telemetry.span_export import SpanExport, readable
from fastgw.telemetry.spans import LARGEST, MOST_TOGETHER, MOST_WAITING, SpanRecord, SpanSender, count_in, decode

LOST = ("fastgw_spans_total", "lost")
WITHIN = 10.0


def span(number: int = 1, **members: object) -> SpanRecord:
    usual: dict[str, object] = {
        "trace_id": "a" * 32, "span_id": f"{number:016x}", "parent_id": "", "state": "", "kind": "server",
        "name": "tools/call x", "start": 1_000, "end": 2_000, "attributes": {"mcp.method.name": "tools/call"},
    }  # fmt: skip
    return SpanRecord(**{**usual, **members})  # type: ignore[arg-type]


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    path = str(tmp_path / "spans")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind(path)
        yield path, found


def received(listener: socket.socket) -> list[SpanRecord]:
    """All that has come, and is not read yet."""
    found: list[SpanRecord] = []
    listener.setblocking(False)
    while True:
        try:
            found += decode(listener.recv(LARGEST))
        except BlockingIOError:
            return found


def test_a_datagram_says_how_many_it_holds(listening: tuple[str, socket.socket]) -> None:
    path, listener = listening
    sender = SpanSender(path)
    for count in (1, 15, 16, MOST_TOGETHER):
        sender.send([span(number + 1) for number in range(count)])
        datagram = listener.recv(1 << 20)
        assert count_in(datagram) == len(decode(datagram)) == count
    sender.close()


def test_what_finds_no_room_waits_and_what_finds_none_there_is_lost(listening: tuple[str, socket.socket]) -> None:
    path, listener = listening
    sender, sent = SpanSender(path), 100 * MOST_TOGETHER
    for at in range(0, sent, 100):
        sender.send([span(at + number + 1) for number in range(100)])
    ((series, lost),) = sender.counted()
    assert (series, lost > 0) == (LOST, True)
    found = received(listener)
    while again := [*sender.counted(), *received(listener)][1:]:  # a report is another try
        found += again  # type: ignore[arg-type]
    assert len(found) == sent - lost
    assert len({one.span_id for one in found}) == len(found), "none comes twice"
    assert len(found) >= MOST_WAITING
    sender.close()


@pytest.mark.parametrize("name", ["\ud800", "x" * LARGEST, "x" * 4_000_000])
def test_what_can_never_go_takes_no_other_with_it(listening: tuple[str, socket.socket], name: str) -> None:
    path, listener = listening
    sender = SpanSender(path)
    sender.send([span(name=name), *map(span, range(2, 12))])
    assert [one.span_id for one in received(listener)] == [f"{number:016x}" for number in range(2, 12)]
    assert dict(sender.counted()) == {LOST: 1}
    sender.close()


def test_long_names_together_go_one_by_one(listening: tuple[str, socket.socket]) -> None:
    """Each could go; together they are more than the other end reads."""
    path, listener = listening
    sender = SpanSender(path)
    sender.send([span(number, name="x" * 30_000) for number in range(1, 11)])
    assert [one.span_id for one in received(listener)] == [f"{number:016x}" for number in range(1, 11)]
    assert dict(sender.counted()) == {LOST: 0}
    sender.close()


def test_nobody_listens(tmp_path: Path) -> None:
    sender = SpanSender(str(tmp_path / "nothing"))
    began = time.monotonic()
    for _ in range(100):
        sender.send([span()] * MOST_TOGETHER)
    assert time.monotonic() - began < WITHIN / 10
    assert dict(sender.counted()) == {LOST: 100 * MOST_TOGETHER - MOST_WAITING}
    assert dict(sender.counted()) == {LOST: 0}, "told once"
    sender.close()


def test_a_receiver_that_hangs_fills_a_room_that_has_an_end(
    listening: tuple[str, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(span_export, "ROOM", 50_000)
    monkeypatch.setattr(span_export, "WAIT", 0.01)
    path, listener = listening
    with socket.create_server(("127.0.0.1", 0)) as hung:  # takes connections, and never says a word
        export = SpanExport(f"http://127.0.0.1:{hung.getsockname()[1]}/base/", "gw", listener)
        export.start()
        sender, sent, until = SpanSender(path), 0, time.monotonic() + WITHIN
        while export.lost < 1000 and time.monotonic() < until:
            sender.send([span()] * MOST_TOGETHER)
            sent += MOST_TOGETHER
        assert export.lost >= 1000
        assert sum(map(len, export._waiting)) <= 50_000
        export.finish()
        began = time.monotonic()
        export.join(began + 0.2)
        assert time.monotonic() - began < 1.0, "whoever hangs does not hold up the end"
        sender.close()


def test_an_answer_without_an_end_is_not_read(
    listening: tuple[str, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(span_export, "WAIT", 0.01)
    path, listener = listening
    cut = threading.Event()

    class Endless(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(1024):  # a GB would be read otherwise
                    self.wfile.write(b"x" * (1 << 20))
            except OSError:
                cut.set()

        def log_message(self, *_: object) -> None:
            """Nothing of it is of interest."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        export = SpanExport(f"http://127.0.0.1:{server.server_address[1]}", "gw", listener)
        export.start()
        sender = SpanSender(path)
        sender.send([span()])
        assert cut.wait(WITHIN), "the answer was read on and on"
        sender.close()
        export.finish()
        export.join(time.monotonic() + WITHIN)
        assert (export.exported, export.lost) == (1, 0)
        server.shutdown()


def test_at_the_end_what_waits_is_sent(listening: tuple[str, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_export, "WAIT", 60.0)
    path, listener = listening
    with receiver() as (port, bodies):
        export = SpanExport(f"http://127.0.0.1:{port}/v1/traces", "gw", listener)
        export.start()
        sender = SpanSender(path)
        sender.send([span(number + 1) for number in range(3)])
        export.finish()
        export.join(time.monotonic() + WITHIN)
        assert (export.exported, export.lost) == (3, 0)
        assert dict(export.counts()) == {("fastgw_spans_total", "exported"): 3, LOST: 0}
        assert len(bodies) == 1
        sender.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(
    listening: tuple[str, socket.socket], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(span_export, "WAIT", 0.01)
    path, listener = listening
    asked: list[str] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            self.send_header("location", "/latest/meta-data")
            self.send_header("content-length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815 - as the base class finds it

        def log_message(self, *_: object) -> None:
            """Nothing of it is of interest."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        export = SpanExport(f"http://127.0.0.1:{server.server_address[1]}", "gw", listener)
        export.start()
        sender = SpanSender(path)
        sender.send([span()])
        export.finish()
        export.join(time.monotonic() + WITHIN)
        sender.close()
        server.shutdown()
    assert (set(asked), export.exported, export.lost) == ({"/v1/traces"}, 0, 1)


@contextmanager
def receiver() -> Iterator[tuple[int, list[bytes]]]:
    """Takes whatever is posted; its port, and the bodies."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing of it is of interest."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], bodies
        server.shutdown()


def test_a_span_as_the_sdk_has_it() -> None:
    found = readable(
        span(kind="client", parent_id="b" * 16, state="a=1,b=2", error="timeout", end=0), span_export.Resource({})
    )
    assert found.context.trace_state.to_header() == "a=1,b=2"
    assert found.parent is not None
    assert (found.parent.span_id, found.parent.is_remote) == (int("b" * 16, 16), False)
    assert (found.status.status_code.name, found.kind.name) == ("ERROR", "CLIENT")
    assert found.end_time == found.start_time, "no span ends before it begins"
