"""Header fields: repeated ones, media types, Accept."""

from __future__ import annotations

import pytest

from fastgw.protocol.headers import Unforwardable, accepts, forwarded, index, media_type


def test_what_came_twice_is_told() -> None:
    found, twice = index([(b"host", b"a"), (b"host", b"b"), (b"x", b"1")])
    assert (found, twice) == ({b"host": b"b", b"x": b"1"}, {b"host"})


def test_accept_in_two_lines_is_one_list() -> None:
    found, _ = index([(b"accept", b"application/json"), (b"accept", b"text/event-stream")])
    assert accepts(found[b"accept"], b"application/json") and accepts(found[b"accept"], b"text/event-stream")


@pytest.mark.parametrize(
    ("accept", "verdict"),
    [
        (None, True),
        (b"application/json, text/event-stream", True),
        (b"text/event-stream;q=0.5,APPLICATION/JSON ; q=0.9", True),
        (b"*/*", True),
        (b"application/*", True),
        (b"text/html", False),
        (b"", False),
        (b"*/*, application/json;q=0", False),
        (b"application/json;q=0, */*", False),
    ],
)
def test_accept(accept: bytes | None, verdict: bool) -> None:
    assert accepts(accept, b"application/json") is verdict


def test_media_type_ignores_case_and_parameters() -> None:
    assert media_type(b"Application/JSON; charset=utf-8") == b"application/json"


def test_what_is_handed_on_is_all_of_it_or_refused() -> None:
    wanted = [(b"x-tenant", b"X-Tenant: "), (b"x-word", b"X-Word: ")]
    found = {b"x-tenant": b"caf\xe9\ta", b"x-word": b"", b"x-other": b"o"}
    assert forwarded(found, wanted) == b"X-Tenant: caf\xe9\ta\r\nX-Word: \r\n"
    assert forwarded({}, wanted) == b""
    for byte in (*range(9), *range(10, 32), 127):
        with pytest.raises(Unforwardable, match="X-Tenant holds characters"):
            forwarded({b"x-tenant": b"a" + bytes([byte]) + b"b"}, wanted)
    for value in (b"a\r\n", b"a\r\nX-Evil: b", b"\r\n\r\nGET / HTTP/1.1"):
        with pytest.raises(Unforwardable, match="X-Tenant holds characters"):
            forwarded({b"x-tenant": value}, wanted)
    room = 8192 - len(b"X-Tenant: \r\nX-Word: \r\n")
    assert forwarded({b"x-tenant": b"x" * room, b"x-word": b""}, wanted)
    with pytest.raises(Unforwardable, match="more than 8192 bytes"):
        forwarded({b"x-tenant": b"x" * room, b"x-word": b"y"}, wanted)
