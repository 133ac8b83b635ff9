"""The trace that a request is part of, as `_meta` and HTTP headers carry it (W3C Trace Context, level 1 and 2).

In `_meta` the members are called as the headers are: `traceparent`, `tracestate`, `baggage` (2026-07-28, Base Protocol,
`_meta`). What is not exactly of the specification's form counts as not there: it is neither refused nor handed on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set

import msgspec

from fastgw.protocol.envelope import NotAMessage, quote, string

PARENT, STATE, BAGGAGE = "traceparent", "tracestate", "baggage"
PARENT_HEADER, STATE_HEADER = PARENT.encode(), STATE.encode()
SAMPLED = 1
"""The flag of a trace whose spans are recorded."""
_KNOWN_FLAGS = 3
"""Of versions after 00: sampled, and that the trace id is random."""
_MOST_STATE, _MOST_BAGGAGE = 512, 4096
"""Letters that go into a header; more is dropped. The first has to (W3C Trace Context, section 3.3.1.5); of the second
servers would refuse what they are asked with, which must not be the agents' to bring about.
"""
_FORM = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
_VISIBLE = re.compile(r"[!-~](?:[\t -~]*[!-~])?")
_NOBODY, _NO_TRACE = b"0" * 16, b"0" * 32


class TraceContext(msgspec.Struct):
    """One trace, and where in it a request stands.

    Args:
        trace_id: 32 hex digits.
        parent_id: 16 hex digits, the agent's span; empty where the trace begins here.
        flags: 2 hex digits.
        state: `tracestate`, empty for none.
        baggage: of `_meta`; what stands in a header is for whoever is at the other end of that connection.
        span_id: our own span, 16 hex digits; empty where the request is not recorded.
    """

    trace_id: str
    parent_id: str = ""
    flags: str = "01"
    state: str = ""
    baggage: str = ""
    span_id: str = ""

    @property
    def sampled(self) -> bool:
        """Whether whoever began the trace records it."""
        return int(self.flags, 16) & SAMPLED == SAMPLED

    def members(self, parent: str) -> dict[str, str]:
        """What goes along with a request below the span `parent`: all of it visible ASCII."""
        found = {PARENT: f"00-{self.trace_id}-{parent}-{self.flags}"}
        if self.state:
            found[STATE] = self.state
        if self.baggage:
            found[BAGGAGE] = self.baggage
        return found


def read(meta: Mapping[str, bytes], headers: Mapping[bytes, bytes], twice: Set[bytes]) -> TraceContext | None:
    """The trace of a request: of `_meta` (name to JSON text), else of its headers; None where neither names one.

    `twice` are the names of headers that came more than once.
    """
    found = None
    if (text := meta.get(PARENT)) is not None and (found := _parsed(text[1:-1])) is not None:
        found.state = _visible(meta.get(STATE), _MOST_STATE)
    elif PARENT_HEADER in headers and PARENT_HEADER not in twice:
        found = _parsed(headers[PARENT_HEADER])
        if found is not None and STATE_HEADER in headers and STATE_HEADER not in twice:
            found.state = _visible(quote(headers[STATE_HEADER].decode("latin-1")), _MOST_STATE)
    if found is not None:
        found.baggage = baggage(meta)
    return found


def baggage(meta: Mapping[str, bytes]) -> str:
    """The `baggage` in `_meta`, if a header could hold it, else nothing."""
    return _visible(meta[BAGGAGE], _MOST_BAGGAGE) if BAGGAGE in meta else ""


def _parsed(value: bytes) -> TraceContext | None:
    """What a `traceparent` says (W3C Trace Context, section 3.2); of a later version, what 00 has of it."""
    found = _FORM.fullmatch(value)
    if found is None:
        return None
    version, trace, parent, flags, more = found.groups()
    if version == b"ff" or trace == _NO_TRACE or parent == _NOBODY or (more is not None and version == b"00"):
        return None
    if version != b"00":
        flags = b"%02x" % (int(flags, 16) & _KNOWN_FLAGS)
    return TraceContext(trace.decode(), parent.decode(), flags.decode())


def _visible(text: bytes | None, most: int) -> str:
    """The string of this JSON text, if it is visible ASCII and has no more than `most` letters; else nothing."""
    if text is None or len(text) > 2 * most:
        return ""
    try:
        found = string(text, "a member")
    except NotAMessage:
        return ""
    return found if len(found) <= most and _VISIBLE.fullmatch(found) is not None else ""
