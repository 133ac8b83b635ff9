"""A refusal: what is written down of it, and the headers of its answer."""

from __future__ import annotations

import logging

from fastgw.errors import Fault
from fastgw.gateway.context import RequestContext

log = logging.getLogger("fastgw")

_SERVERS_FAULT = 500
"""The lowest `statusCode` that is not the agent's doing."""
_SHOWN = 200
"""Characters of a name that the log shows."""
_LONGEST_WAIT = 3600
"""Seconds beyond which `Retry-After` is left out: callers obey it to the letter."""


def note(context: RequestContext, fault: Fault) -> None:
    """Write down in the context how it has ended, and in the log what only operators may read of it."""
    kind = fault.kind
    context.outcome, context.status = kind.outcome, kind.rest
    context.error_code = context.dialect.code(fault)
    if fault.detail:
        # What agents do wrong is theirs to mend; it must not fill the log that tells of servers.
        level = logging.WARNING if kind.rest >= _SERVERS_FAULT else logging.DEBUG
        name = context.call.name if context.call is not None else None
        log.log(level, "%s %s %s: %s", context.request_id, context.method, (name or "")[:_SHOWN], fault)


def headers(fault: Fault, http_status: int) -> list[tuple[bytes, bytes]]:
    """The headers a refusal carries beside those of every answer."""
    found = list(fault.headers)
    if http_status in (429, 503) and fault.retry_after is not None and fault.retry_after <= _LONGEST_WAIT:
        found.append((b"retry-after", b"%d" % max(1, fault.retry_after)))
    return found
