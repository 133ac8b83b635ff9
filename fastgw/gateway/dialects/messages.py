"""Answers as JSON text: the parts that faces put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from fastgw.errors import Fault


@dataclass(frozen=True, slots=True)
class ShownPage:
    """One page of a list as it is told.

    Args:
        member: what holds the items: `tools`, `prompts`, ...
        items: the JSON array.
        cursor: of the next page; None after the last.
        ttl_ms: milliseconds it stays fresh.
    """

    member: str
    items: bytes
    cursor: str | None
    ttl_ms: int


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


def message(reply_to: bytes, payload: bytes | tuple[bytes, ...], member: bytes = b"result") -> bytes:
    """A JSON-RPC answer: `member` is `result` or `error`, `payload` its JSON text, or the pieces of it.

    Joined, not formatted: `%` grows its text as it goes along, which for a megabyte takes thirty times as long.
    """
    pieces = payload if isinstance(payload, tuple) else (payload,)
    return b"".join((b'{"jsonrpc":"2.0","id":', reply_to, b',"', member, b'":', *pieces, b"}"))


def page(shown: ShownPage, rest: bytes = b"") -> tuple[bytes, ...]:
    """A page of a list as a JSON object in pieces, which are joined once; `rest` stands behind items and cursor."""
    following = b',"nextCursor":"%s"' % shown.cursor.encode() if shown.cursor else b""
    return b'{"', shown.member.encode(), b'":', shown.items, following, rest, b"}"
