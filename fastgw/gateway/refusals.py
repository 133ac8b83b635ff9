"""A fault as whoever asked hears it: status, code, body, headers.

Knows: that all but the headers is the asker's face's to say (docs/errors.md). Refuses to know: what led to it.
"""

from __future__ import annotations

import logging

from fastgw.faults import Fault
from fastgw.gateway.exchange import Exchange
from fastgw.gateway.lift import wording

log = logging.getLogger("fastgw")

_SERVERS_FAULT = 500
"""The lowest `statusCode` that is not the agent's doing."""
_SHOWN = 200
"""Characters of a name that the log shows."""
_LONGEST_WAIT = 3600
"""Seconds beyond which `Retry-After` is left out: callers obey it to the letter."""


def note(exchange: Exchange, fault: Fault) -> None:
    """Write down in the exchange how it has ended, and in the log what only operators may read of it."""
    told = fault.told
    exchange.outcome, exchange.status = told.outcome, told.rest
    exchange.error_code = code(fault, exchange)
    if fault.detail:
        # What agents do wrong is theirs to mend; it must not fill the log that tells of servers.
        level = logging.WARNING if told.rest >= _SERVERS_FAULT else logging.DEBUG
        name = exchange.call.name if exchange.call is not None else None
        log.log(level, "%s %s %s: %s", exchange.request_id, exchange.method, (name or "")[:_SHOWN], fault)


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
