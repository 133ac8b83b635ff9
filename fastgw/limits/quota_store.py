"""Accounts of quotas in a store that workers share: one question at a time, each in time or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from itertools import count
from typing import Protocol

from fastgw.limits.batcher import DEADLINE, MOST_GRACE, StoreAway
from fastgw.limits.quota_script import (
    QUOTA_DIGEST,
    QUOTA_SOURCE,
    AccountRow,
    LedgerReply,
    QuotaKeys,
    decode_reply,
    encode_question,
)
from fastgw.limits.script import BadReply

GRACE = 0.05
"""Seconds more in which an answer that is here already is read; up to `MOST_GRACE` more where our own loop was late."""

CONNECT_WITHIN = 0.7
"""Seconds for the first answer on a new connection, with its greeting."""


class ScriptRunner(Protocol):
    """What a ledger needs of a store (`redis_connection.RedisConnection`)."""

    async def close(self) -> None:
        """End all connections, and forget what was learned of servers."""

    def run(self, script: tuple[str, str], keys: list[str], argument: bytes) -> Awaitable[object]:
        """Run a script, given as (digest, source), once. Raises StoreAway."""


class StoreLedger:
    """A `quota_script.QuotaLedger` in the store.

    Args:
        worker: letters and digits that no other worker has, nor this one in another life.
    """

    def __init__(self, connection: ScriptRunner, keys: QuotaKeys, worker: str) -> None:
        self._connection, self._keys, self._worker = connection, keys, worker
        self._numbers = count(1)
        self._connected = False

    async def ask(self, rows: list[AccountRow], index: str = "", most: int = 0) -> LedgerReply:
        keys = [self._keys.epoch, *([index] if index else [name for row in rows for name in (row.key, row.index)])]
        argument = encode_question(rows, self._worker, f"{self._worker}-{next(self._numbers)}", most)
        script = QUOTA_DIGEST, QUOTA_SOURCE
        try:
            seconds = DEADLINE if self._connected else CONNECT_WITHIN
            reply = decode_reply(await _within(seconds, self._connection.run(script, keys, argument)), len(rows))
        except (TimeoutError, BadReply, StoreAway) as wrong:
            self._connected = False
            await self._connection.close()  # what it knows of servers may be wrong
            raise _away(wrong) from None
        self._connected = True
        return reply


async def _within(seconds: float, asked: Awaitable[object]) -> object:
    """The answer, if it comes in time; a loop that was late itself reads first what came meanwhile.

    Raises:
        TimeoutError: it does not.
    """
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds
    async with asyncio.timeout(None) as limit:
        timer = loop.call_at(due, lambda: limit.reschedule(loop.time() + GRACE + min(MOST_GRACE, loop.time() - due)))
        try:
            return await asked
        finally:
            timer.cancel()


def _away(wrong: Exception) -> StoreAway:
    if isinstance(wrong, StoreAway):
        return wrong
    if isinstance(wrong, BadReply):
        return StoreAway("reply", str(wrong))
    return StoreAway("timeout", "no answer in time")
