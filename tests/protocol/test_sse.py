"""The event stream format: whole, split at every byte, byte by byte."""

from __future__ import annotations

import json
import time

import pytest

from fastgw.protocol.sse import KEEP_ALIVE, EventParser, EventTooLong, SseEvent, encode

M = "message"
STREAMS: list[tuple[str, bytes, list[SseEvent]]] = [
    ("lf", b"data: a\n\ndata: b\n\n", [SseEvent(b"a", None, M, None), SseEvent(b"b", None, M, None)]),
    (
        "crlf",
        b"event: x\r\ndata: a\r\n\r\ndata: b\r\n\r\n",
        [SseEvent(b"a", None, "x", None), SseEvent(b"b", None, M, None)],
    ),
    ("cr", b"data: a\r\rdata: b\r\r", [SseEvent(b"a", None, M, None), SseEvent(b"b", None, M, None)]),
    ("mixed ends", b"data: a\r\ndata: b\rdata: c\n\r\n", [SseEvent(b"a\nb\nc", None, M, None)]),
    (
        "cr then lf is one end",
        b"data: a\r\n\ndata: b\r\n\r",
        [SseEvent(b"a", None, M, None), SseEvent(b"b", None, M, None)],
    ),
    ("bom", b"\xef\xbb\xbfdata: a\n\n", [SseEvent(b"a", None, M, None)]),
    ("bom only at the start", b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [SseEvent(b"a", None, M, None)]),
    ("comments", b":\n\n: hello\ndata: a\n:data: no\n\n:\n\n", [SseEvent(b"a", None, M, None)]),
    ("several data lines", b'data: {"a":\ndata:\ndata:  1}\n\n', [SseEvent(b'{"a":\n\n 1}', None, M, None)]),
    ("priming", b"id: 7\nretry: 500\ndata: \n\n", [SseEvent(b"", "7", M, 500)]),
    ("priming without data", b"id: 7\n\n", [SseEvent(b"", "7", M, None)]),
    ("retry alone", b"retry: 10\n\n", [SseEvent(b"", None, M, 10)]),
    ("bad retry", b"retry: 1e3\nretry: -1\ndata: a\n\n", [SseEvent(b"a", None, M, None)]),
    ("endless retry", b"retry: " + b"9" * 5000 + b"\ndata: a\n\n", [SseEvent(b"a", None, M, None)]),
    ("id with nul is ignored", b"id: a\0b\ndata: x\n\n", [SseEvent(b"x", None, M, None)]),
    (
        "id does not stick",
        b"id: 1\ndata: x\n\ndata: y\n\n",
        [SseEvent(b"x", "1", M, None), SseEvent(b"y", None, M, None)],
    ),
    ("field without colon", b"data\n\n", [SseEvent(b"", None, M, None)]),
    ("no event without data", b"event: ping\n\ndata: a\n\n", [SseEvent(b"a", None, M, None)]),
    ("unknown fields", b"foo: bar\nDATA: no\ndata: a\n\n", [SseEvent(b"a", None, M, None)]),
    (
        "one blank is taken off",
        b"data:a\n\ndata:  b\n\n",
        [SseEvent(b"a", None, M, None), SseEvent(b" b", None, M, None)],
    ),
    ("colons", b"data: a:b: c\n\n", [SseEvent(b"a:b: c", None, M, None)]),
    ("utf-8", "id: é\nevent: ü\ndata: 𝄞 日本\n\n".encode(), [SseEvent("𝄞 日本".encode(), "é", "ü", None)]),
    ("bytes stay", b"data: \xff\xfe\x85\xe2\x80\xa8\n\n", [SseEvent(b"\xff\xfe\x85\xe2\x80\xa8", None, M, None)]),
    ("unfinished", b"data: a\n\ndata: b\n", [SseEvent(b"a", None, M, None)]),
    ("empty", b"", []),
]


def parsed(pieces: list[bytes], limit: int = 6000) -> list[SseEvent]:
    parser = EventParser(limit)
    events = [event for piece in pieces for event in parser.feed(piece)]
    parser.end()
    return events


@pytest.mark.parametrize(("stream", "events"), [row[1:] for row in STREAMS], ids=[row[0] for row in STREAMS])
def test_an_event_is_the_same_wherever_the_stream_is_split(stream: bytes, events: list[SseEvent]) -> None:
    assert parsed([stream]) == events
    assert parsed([stream[i : i + 1] for i in range(len(stream))]) == events
    for cut in range(min(len(stream), 300) + 1):
        assert parsed([stream[:cut], b"", stream[cut:]]) == events, cut


def test_an_event_comes_out_with_its_last_byte() -> None:
    for end in (b"\n", b"\r", b"\r\n"):
        parser = EventParser(100)
        assert parser.feed(b"data: a" + end) == []
        assert parser.feed(end[:1]) == [SseEvent(b"a", None, M, None)]


def too_long(pieces: list[bytes], limit: int) -> list[SseEvent]:
    parser = EventParser(limit)
    events: list[SseEvent] = []
    with pytest.raises(EventTooLong):
        for piece in pieces:
            events += parser.feed(piece)
        parser.end()
    with pytest.raises(EventTooLong):
        parser.feed(b"data: x\n\n")
    return events


@pytest.mark.parametrize(
    "stream",
    [
        b"data: " + b"x" * 30,
        b"data: " + b"x" * 30 + b"\n\n",
        b"data:\n" * 6 + b"\n",
        b": " + b"x" * 40 + b"\n\n",
        b"id: 123456789\nevent: 123456789\ndata: x\n\n",
        b"event: 1\n" * 9,
    ],
)
def test_an_event_is_bounded_wherever_it_is_split(stream: bytes) -> None:
    before = b"data: ok\n\n"
    for cut in range(len(before + stream) + 1):
        whole = before + stream
        assert too_long([whole[:cut], whole[cut:]], 32) == [SseEvent(b"ok", None, M, None)], cut
    assert too_long([bytes([byte]) for byte in before + stream], 32) == [SseEvent(b"ok", None, M, None)]


def test_the_bound_is_of_one_event_not_of_the_stream() -> None:
    assert len(parsed([b": comment\ndata: 0123456789\n\n" * 1000], limit=17)) == 1000
    assert parsed([b": 123456789\n" * 1000 + b"data: a\n\n"], limit=12) == [SseEvent(b"a", None, M, None)]


def test_one_byte_at_a_time_costs_a_fixed_time_per_byte() -> None:
    def seconds(size: int) -> float:
        parser = EventParser(10_000_000)
        start = time.process_time()
        for _ in range(size):
            parser.feed(b"x")
        return time.process_time() - start

    seconds(1000)
    assert seconds(200_000) < 60 * seconds(10_000), "quadratic: 20 times the bytes would cost 400 times as much"


@pytest.mark.parametrize("text", [b"{}", b'{"a": "\\n\\r"}', b'{\n"a":\r\n1,\r"b" :\n\n2}', b"", b" x ", b"\n", b"a\n"])
def test_what_is_encoded_is_read_back(text: bytes) -> None:
    sent = encode(text)
    assert b"\r" not in sent
    (event,) = parsed([KEEP_ALIVE + sent + KEEP_ALIVE])
    assert event == SseEvent(text.replace(b"\r\n", b"\n").replace(b"\r", b"\n"), None, M, None)
    if text.strip().startswith(b"{"):
        assert json.loads(event.data) == json.loads(text)


def test_the_encoded_form_is_fixed() -> None:
    assert encode(b'{"a":\n1}') == b'event: message\ndata: {"a":\ndata: 1}\n\n'
    assert parsed([KEEP_ALIVE]) == []
