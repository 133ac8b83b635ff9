"""Which era a request speaks, settled once, here.

Knows: the order of evidence. Refuses to know: what follows from it.
"""

from __future__ import annotations

from fastgw.faults import Fault, Kind
from fastgw.gateway.exchange import Exchange
from fastgw.gateway.lift import legacy, modern, reading
from fastgw.gateway.lift.door import Door
from fastgw.gateway.lift.face import Face, Recognised, Refused
from fastgw.gateway.lift.reading import Opened
from fastgw.mcp import headers, names

_LEGACY = frozenset(version.encode() for version in names.LEGACY_VERSIONS)


class AtEndpoint:
    """The endpoint's own path: JSON-RPC messages of every revision."""

    verb = "POST"
    face: Face = modern.FACE

    def verbs(self, exchange: Exchange) -> tuple[str, ...]:
        """See `Entrance.verbs`; sessions are ended by DELETE."""
        return ("POST", "DELETE") if speaks_sessions(exchange) else ("POST",)

    def brings_body(self, exchange: Exchange) -> bool:
        """See `Entrance.brings_body`."""
        found = exchange.headers
        kind = headers.media_type(found.get(b"content-type", b""))
        if b"content-type" in exchange.twice or kind != b"application/json":
            raise Fault(Kind.BAD_MEDIA_TYPE)
        if not headers.accepts(found.get(b"accept"), b"application/json"):
            raise Fault(Kind.NOT_ACCEPTABLE)
        return True

    def lift(self, exchange: Exchange, body: bytes, door: Door) -> Recognised | list[Recognised | Refused]:
        """See `Entrance.lift`."""
        return lift(exchange, body, door)


MESSAGES = AtEndpoint()


def lift(exchange: Exchange, body: bytes, door: Door) -> Recognised | list[Recognised | Refused]:
    """What the body asks for: one message, or a batch as a list, each of its messages understood or refused by itself.

    Raises:
        Fault: the body as a whole is refused; `exchange.reply_to` is the id to answer.
    """
    if reading.is_batch(body):
        return _batch(exchange, body, door)
    exchange.face = legacy.face_of(exchange) if speaks_sessions(exchange) else modern.FACE
    opened = _opened(exchange, body)
    if names.META_VERSION in opened.meta:
        wants_session = speaks_sessions(exchange) and not exchange.bare
    else:
        # What is asked for in `initialize` counts, not what header goes along with it.
        wants_session = opened.message.method == names.INITIALIZE or speaks_sessions(exchange)
    if wants_session:
        return legacy.lift(exchange, opened, door)
    exchange.face = modern.FACE
    return modern.lift(exchange, opened)


def speaks_sessions(exchange: Exchange) -> bool:
    """Whether the headers are those of a revision that has sessions: it is named, or none is (before 2025-06-18).

    Two that are named are none of them: the ladder of 2026-07-28 refuses a routing header that came twice.
    """
    return exchange.bare or (headers.VERSION not in exchange.twice and exchange.headers[headers.VERSION] in _LEGACY)


def _opened(exchange: Exchange, body: bytes) -> Opened:
    message = reading.message(body)
    exchange.reply_to = reading.request_id(message) or b"null"
    exchange.method = message.method or ""
    return reading.opened(message)


def _batch(exchange: Exchange, body: bytes, door: Door) -> list[Recognised | Refused]:
    items = reading.elements(body)
    if not legacy.takes_batches(exchange, door):
        modern.refuse_unknown(exchange)
        raise Fault(Kind.NOT_ONE_MESSAGE, "Batches are not part of this protocol revision.")
    return [_element(exchange, item, door) for item in items]


def _element(exchange: Exchange, item: bytes, door: Door) -> Recognised | Refused:
    exchange.reply_to, exchange.method = b"null", ""
    try:
        opened = _opened(exchange, item)
        if opened.message.method == names.INITIALIZE:
            raise Fault(Kind.INVALID_REQUEST, "initialize must not be part of a batch.")
        found = legacy.lift(exchange, opened, door)
    except Fault as fault:
        return Refused(exchange.reply_to, fault, exchange.method, len(item))
    found.size = len(item)
    return found
