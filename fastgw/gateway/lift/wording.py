"""Answers as JSON text: the parts that faces put together.

Knows: what an error tells beside its message (docs/errors.md), and JSON-RPC's envelope. Refuses to know: who hears it.
"""

from __future__ import annotations

from typing import Any

import orjson

from fastgw.faults import Fault


def about(fault: Fault, request_id: str) -> dict[str, Any]:
    """What is told of a fault beside code and message."""
    data: dict[str, Any] = {"requestId": request_id, "mayHaveRun": fault.may_have_run}
    if fault.retry_after is not None:
        data["retryAfter"] = max(1, fault.retry_after)
    data.update(fault.data)
    return data


def error(fault: Fault, code: int, request_id: str) -> bytes:
    """The JSON-RPC `error` object of a fault."""
    return orjson.dumps({"code": code, "message": fault.message, "data": about(fault, request_id)})


def message(reply_to: bytes, payload: bytes, member: bytes = b"result") -> bytes:
    """A JSON-RPC answer: `member` is `result` or `error`, `payload` its JSON text."""
    return b'{"jsonrpc":"2.0","id":%s,"%s":%s}' % (reply_to, member, payload)
