"""A fault as whoever asked hears it: status, code, body, headers."""

from __future__ import annotations

import logging

from fastgw.errors import Fault
from fastgw.gateway.context import RequestContext
from fastgw.gateway.dialects import messages

log = logging.getLogger("fastgw")

_SERVERS_FAULT = 500
"""The lowest `statusCode` that is not the agent's doing."""
_SHOWN = 200
"""Characters of a name that the log shows."""
_LONGEST_WAIT = 3600
"""Seconds beyond which `Retry-After` is left out: callers obey it to the letter."""


def note(context: RequestContext, fault: Fault) -> None:
    """Write down in the exchange how it has ended, and in the log what only operators may read of it."""
    told = fault.told
    context.outcome, context.status = told.outcome, told.rest
    context.error_code = code(fault, context)
    if fault.detail:
        # What agents do wrong is theirs to mend; it must not fill the log that tells of servers.
        level = logging.WARNING if told.rest >= _SERVERS_FAULT else logging.DEBUG
        name = context.call.name if context.call is not None else None
        log.log(level, "%s %s %s: %s", context.request_id, context.method, (name or "")[:_SHOWN], fault)


def body(fault: Fault, context: RequestContext) -> bytes:
    """The whole answer of a refusal."""
    if context.dialect is None:
        return messages.message(context.reply_to, messages.error(fault, fault.told.code, context.request_id), b"error")
    return context.dialect.refusal(fault, context.reply_to, context.request_id)


def status(fault: Fault, context: RequestContext) -> int:
    """The HTTP status of a refusal."""
    return context.dialect.status(fault) if context.dialect is not None else fault.told.modern


def code(fault: Fault, context: RequestContext) -> int:
    """The error code of a refusal."""
    return context.dialect.code(fault) if context.dialect is not None else fault.told.code


def headers(fault: Fault, http_status: int) -> list[tuple[bytes, bytes]]:
    """The headers a refusal carries beside those of every answer."""
    found = list(fault.headers)
    if http_status in (429, 503) and fault.retry_after is not None and fault.retry_after <= _LONGEST_WAIT:
        found.append((b"retry-after", b"%d" % max(1, fault.retry_after)))
    return found
