"""Requests that were refused lately, for operators: who, what, by which rule, and why in words."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec

from fastgw.errors import Kind

MOST_REFUSALS = 200
"""The newest that are kept."""
MOST_STRANGERS = 40
"""Of these, whose agent is unknown: whoever knocks without a key must not hide all others."""

_WORDS: Final = {(kind.code, kind.rest): kind.message for kind in reversed(Kind)}
"""What agents hear, by JSON-RPC code and HTTP status; the words of a fault may repeat what an agent wrote."""
_RULES: Final = {
    "rate_limited": "limit {} is used up",
    "over_quota": "quota {} is used up",
    "denied": "policy {} does not allow these arguments",
    "overloaded": "{} could not be checked",
}
"""Where a rule has refused it, by outcome."""


class NotedRefusal(NamedTuple):
    """What a worker notes of a refused request; made without a function call.

    Args:
        timestamp: Unix seconds.
        agent: None where it is unknown.
        tool: as agents see it; only one that exists.
    """

    timestamp: float
    request_id: str
    endpoint: str
    agent: str | None
    tool: str | None
    method: str
    outcome: str
    status: int
    error_code: int | None
    refused_by: str | None


class Refusal(msgspec.Struct, frozen=True, rename="camel"):
    """One refused request, fit for JSON. Nothing in it is an agent's own text.

    Args:
        timestamp: RFC 3339, UTC, with milliseconds.
        method: of JSON-RPC; `other` for one the gateway does not know, `none` where there was none.
        outcome, error_code, refused_by: as in its usage event.
        reason: the same in words.
    """

    timestamp: str
    request_id: str
    endpoint: str
    agent: str | None
    tool: str | None
    method: str
    outcome: str
    error_code: int | None
    refused_by: str | None
    reason: str


class RecentRefusals:
    """The newest of all workers."""

    def __init__(self) -> None:
        self._known: deque[NotedRefusal] = deque(maxlen=MOST_REFUSALS - MOST_STRANGERS)
        self._strangers: deque[NotedRefusal] = deque(maxlen=MOST_STRANGERS)

    def merge(self, noted: Iterable[tuple[object, ...]]) -> None:
        """Add what a worker has noted."""
        for row in noted:
            one = NotedRefusal(*row)  # type: ignore[arg-type]
            (self._strangers if one.agent is None else self._known).append(one)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._known) + len(self._strangers)

    def __iter__(self) -> Iterator[Refusal]:
        """The newest first."""
        for one in sorted([*self._known, *self._strangers], reverse=True):
            at = datetime.fromtimestamp(one.timestamp, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            yield Refusal(
                at, one.request_id, one.endpoint, one.agent, one.tool, one.method, one.outcome, one.error_code,
                one.refused_by, reason(one),
            )  # fmt: skip


def reason(noted: NotedRefusal) -> str:
    """Why a request was refused."""
    words = _RULES.get(noted.outcome)
    if words is not None and noted.refused_by is not None:
        return words.format(noted.refused_by)
    return _WORDS.get((noted.error_code or 0, noted.status), noted.outcome)
