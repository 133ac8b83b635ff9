"""What a request says of its trace: `_meta` before headers, exactly in the specification's form or not at all."""

from __future__ import annotations

import json

import pytest

from fastgw.protocol import trace_context

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
OTHER = f"00-{'a' * 32}-{'b' * 16}-00"


def read(
    meta: dict[str, str] | None = None, headers: dict[str, str] | None = None, twice: tuple[bytes, ...] = ()
) -> trace_context.TraceContext | None:
    lines = {name.encode(): value.encode("latin-1") for name, value in (headers or {}).items()}
    return trace_context.read(
        {name: json.dumps(value).encode() for name, value in (meta or {}).items()}, lines, frozenset(twice)
    )


def test_meta_comes_before_headers() -> None:
    found = read({"traceparent": PARENT, "tracestate": "a=1"}, {"traceparent": OTHER, "tracestate": "b=2"})
    assert found is not None
    assert (found.trace_id, found.parent_id, found.sampled, found.state) == (TRACE, SPAN, True, "a=1")
    assert found.members(SPAN) == {"traceparent": PARENT, "tracestate": "a=1"}


def test_headers_count_where_meta_says_nothing_sound() -> None:
    for meta in ({}, {"traceparent": "00-1", "tracestate": "a=1"}, {"tracestate": "a=1"}):
        found = read(meta, {"traceparent": OTHER, "tracestate": "b=2"})
        assert found is not None
        assert (found.trace_id, found.sampled, found.state) == ("a" * 32, False, "b=2")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00-1",
        PARENT.upper(),
        PARENT[:-1],
        PARENT + "0",
        PARENT + "-more",  # of version 00 there is no more
        PARENT + "\n",
        " " + PARENT,
        "ff" + PARENT[2:],
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-0g",
        f"00_{TRACE}-{SPAN}-01",
        "00-<script>alert(1)</script>-aaaaaaaaaaaaaaaa-01",
        "00-" + "\u0660" * 32 + f"-{SPAN}-01",
        "x" * 100_000,
    ],
)
def test_what_is_not_of_the_form_is_not_there(value: str) -> None:
    assert read({"traceparent": value}) is None
    if value.isascii():
        assert read(headers={"traceparent": value}) is None


def test_other_json_than_a_string_is_not_there() -> None:
    for text in (b"null", b"1", b"[]", b"{}", b'["%s"]' % PARENT.encode()):
        assert trace_context.read({"traceparent": text}, {}, frozenset()) is None


def test_two_headers_are_none() -> None:
    assert read(headers={"traceparent": PARENT}, twice=(b"traceparent",)) is None
    found = read(headers={"traceparent": PARENT, "tracestate": "a=1"}, twice=(b"tracestate",))
    assert found is not None
    assert found.state == ""


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    """W3C Trace Context, section 3.2.4: what is handed on is of the version that we know."""
    found = read({"traceparent": f"cc-{TRACE}-{SPAN}-ff-what the future may bring".replace(" ", "_")})
    assert found is not None
    assert found.members(SPAN)["traceparent"] == f"00-{TRACE}-{SPAN}-03"
    found = read({"traceparent": f"01-{TRACE}-{SPAN}-04"})
    assert found is not None
    assert not found.sampled


def test_flags_of_this_version_stay_as_they_are() -> None:
    found = read({"traceparent": f"00-{TRACE}-{SPAN}-03"})
    assert found is not None
    assert found.sampled
    assert found.members("1" * 16)["traceparent"] == f"00-{TRACE}-{'1' * 16}-03"


@pytest.mark.parametrize("value", ["a=1\r\nx-evil: 1", "a=ü", "a=\x00", "a=1" * 171, "", " "])
def test_a_state_that_no_header_could_hold_is_dropped(value: str) -> None:
    found = read({"traceparent": PARENT, "tracestate": value, "baggage": value * 100})
    assert found is not None
    assert found.members(SPAN) == {"traceparent": PARENT}


def test_baggage_is_of_meta_alone() -> None:
    """In a header it is for whoever ends that connection; it may say what servers of others must not hear."""
    found = read({"baggage": "user=alice"}, {"traceparent": PARENT, "baggage": "user=bob"})
    assert found is not None
    assert found.members(SPAN)["baggage"] == "user=alice"
    found = read(headers={"traceparent": PARENT, "baggage": "user=bob"})
    assert found is not None
    assert found.baggage == ""
