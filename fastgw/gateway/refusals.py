"""A fault as the agent hears it.

Knows: the body of an error and the headers of a refusal (docs/errors.md). Refuses to know: what led to it.
"""

from __future__ import annotations

from typing import Any

import orjson

from fastgw.faults import Fault
from fastgw.gateway.exchange import Exchange

_LONGEST_WAIT = 3600
"""Seconds beyond which `Retry-After` is left out: callers obey it to the letter."""


def error(fault: Fault, request_id: str) -> bytes:
    """The JSON-RPC `error` object of a fault, as JSON text."""
    data: dict[str, Any] = {"requestId": request_id, "mayHaveRun": fault.may_have_run}
    if fault.retry_after is not None:
        data["retryAfter"] = max(1, fault.retry_after)
    data.update(fault.data)
    return orjson.dumps({"code": fault.told.code, "message": fault.message, "data": data})


def body(fault: Fault, exchange: Exchange) -> bytes:
    """The whole JSON-RPC answer of a refusal."""
    return reply(exchange.reply_to, error(fault, exchange.request_id), b"error")


def reply(call_id: bytes, payload: bytes, member: bytes = b"result") -> bytes:
    """A JSON-RPC answer: `member` is `result` or `error`, `payload` its JSON text."""
    return b'{"jsonrpc":"2.0","id":%s,"%s":%s}' % (call_id, member, payload)


def status(fault: Fault, exchange: Exchange) -> int:
    """The HTTP status of a refusal, by who asks."""
    return exchange.face.status(fault) if exchange.face is not None else fault.told.modern


def headers(fault: Fault, http_status: int) -> list[tuple[bytes, bytes]]:
    """The headers a refusal carries beside those of every answer."""
    found = list(fault.headers)
    if http_status in (429, 503) and fault.retry_after is not None and fault.retry_after <= _LONGEST_WAIT:
        found.append((b"retry-after", b"%d" % max(1, fault.retry_after)))
    return found
