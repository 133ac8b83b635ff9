"""A fault as whoever asked hears it: status, code, body, headers.

Knows: that all but the headers is the asker's face's to say (docs/errors.md). Refuses to know: what led to it.
"""

from __future__ import annotations

from fastgw.faults import Fault
from fastgw.gateway.exchange import Exchange
from fastgw.gateway.lift import wording

_LONGEST_WAIT = 3600
"""Seconds beyond which `Retry-After` is left out: callers obey it to the letter."""


def body(fault: Fault, exchange: Exchange) -> bytes:
    """The whole answer of a refusal."""
    if exchange.face is None:
        return wording.message(exchange.reply_to, wording.error(fault, fault.told.code, exchange.request_id), b"error")
    return exchange.face.refusal(fault, exchange.reply_to, exchange.request_id)


def status(fault: Fault, exchange: Exchange) -> int:
    """The HTTP status of a refusal."""
    return exchange.face.status(fault) if exchange.face is not None else fault.told.modern


def code(fault: Fault, exchange: Exchange) -> int:
    """The error code of a refusal."""
    return exchange.face.code(fault) if exchange.face is not None else fault.told.code


def headers(fault: Fault, http_status: int) -> list[tuple[bytes, bytes]]:
    """The headers a refusal carries beside those of every answer."""
    found = list(fault.headers)
    if http_status in (429, 503) and fault.retry_after is not None and fault.retry_after <= _LONGEST_WAIT:
        found.append((b"retry-after", b"%d" % max(1, fault.retry_after)))
    return found
