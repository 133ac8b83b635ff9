"""Header fields: repeated ones, media types, Accept."""

from __future__ import annotations

import pytest

from fastgw.protocol.headers import accepts, index, media_type


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
