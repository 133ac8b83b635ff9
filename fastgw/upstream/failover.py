"""When a call that failed at one instance may go to another, and how often.

| what happened | to another instance | to the next target |
|---|---|---|
| nothing was sent | yes | with `unavailable` |
| turned away: 429, 503 with Retry-After | yes | with `throttled` |
| lost, a 5xx, or refused after it was sent | repeatable | repeatable, with `unavailable` |
| no answer in time | repeatable, with `timeout` | the same |
| an error whose text matches `tool_error` | no | repeatable, with `tool_error` |

A backup is another instance. Lists, reads, prompts and completions are repeatable, a tool where its operator says so.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from fastgw.catalog.route import Arm
from fastgw.protocol import names
from fastgw.protocol.call import Call
from fastgw.protocol.envelope import Message
from fastgw.protocol.quick import QuickResult

BUDGET = 0.2
"""Repeats of what was sent, of all calls: an outage must not become a multiple of itself."""
LEAST_AT_ONCE = 3
"""Repeats at the same time that are allowed in any case."""
MOST_SAVED = 1000
"""Repeats that may be saved up: as many as calls can be lost when an instance dies."""
TOOL_ERROR = "tool_error"
_INTERNAL_ERROR = -32603
_SEARCHED = 4096
"""Bytes of an error that are searched for `tool_error`: `a.*b` takes time in the square of them, and a server may be
hostile."""


class RetryBudget:
    """How many of a server's calls may be sent once more."""

    def __init__(self) -> None:
        self.running = 0
        self._left = 0.0
        self._seen = 0

    def left(self, calls: int) -> int:
        """How many more repeats there would be room for after so many calls."""
        return max(int(self._saved(calls)), LEAST_AT_ONCE - self.running)

    def _saved(self, calls: int) -> float:
        return min(MOST_SAVED, self._left + max(0, calls - self._seen) * BUDGET)

    def take(self, calls: int) -> bool:
        """Whether there is room for one more repeat after so many calls; give it back to `running`."""
        self._left = self._saved(calls)
        self._seen = calls
        if self._left < 1.0 and self.running >= LEAST_AT_ONCE:
            return False
        self._left = max(0.0, self._left - 1.0)
        self.running += 1
        return True


def may_follow(arm: Arm, call: Call, failure: str, *, sent: bool, elsewhere: bool) -> bool:
    """Whether a call that failed so may be tried again.

    Args:
        failure: as `Fault.failure`, or `tool_error`.
        sent: the server may have run it.
        elsewhere: at the next target, not at another instance.
    """
    if sent and not (failure and (arm.repeatable or call.method != names.TOOLS_CALL)):
        return False
    if failure == TOOL_ERROR:
        return elsewhere and TOOL_ERROR in arm.failover_on
    if failure == "timeout" and sent:
        return "timeout" in arm.failover_on
    needed = "throttled" if failure == "throttled" else "unavailable"
    return not elsewhere or needed in arm.failover_on


def says_tool_error(arm: Arm, found: QuickResult | Message) -> bool:
    """Whether it is an error that the operator has named as a reason to ask the next target."""
    if isinstance(found, QuickResult):
        text = bytes(found.content) if found.is_error else b""
    elif found.error is not None:
        text = found.error
    else:
        text = found.result if found.result and b'"isError"' in found.result and _is_error(found.result) else b""
    return bool(text) and _pattern(arm.tool_error or "").search(text[:_SEARCHED].decode("utf-8", "replace")) is not None


class _Outcome(msgspec.Struct, rename={"is_error": "isError"}):
    is_error: bool = False


def _is_error(result: bytes) -> bool:
    try:
        return msgspec.json.decode(result, type=_Outcome).is_error
    except msgspec.MsgspecError:
        return False


@lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text)


def is_server_error(message: Message) -> bool:
    """Whether the server says that it is its own fault (-32603)."""
    if message.error is None:
        return False
    try:
        return msgspec.json.decode(message.error, type=_Code).code == _INTERNAL_ERROR
    except msgspec.MsgspecError:
        return False


class _Code(msgspec.Struct):
    code: int | float = 0
