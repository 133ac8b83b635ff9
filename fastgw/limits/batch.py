"""Calls on their way through the limits, and what one worker asks of the store for them in one flight."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fastgw.limits.leases import Lease
from fastgw.limits.script import ENFORCE, SHADOW, ScriptRow
from fastgw.policy.verdict import BucketCharge, LimitVerdict


class AwaitedAdmission:
    """What one call asks of the limits, the verdict, and what it must give back: once, since it may end at any moment.

    Stands in the exchange before anything is waited for, so that whoever settles the call finds it.

    Args:
        charges: the buckets that the call counts in.

    Attributes:
        taken: of a call that is asked about at the store: charge, holding, and what of the cost was held.
        answered: the store has answered.
    """

    __slots__ = ("charges", "verdict", "taken", "answered", "_over", "_woken")
    taken: list[tuple[BucketCharge, Lease, int]]
    answered: bool

    def __init__(self, charges: Sequence[BucketCharge]) -> None:
        self.charges = charges
        self.verdict: LimitVerdict | None = None
        self._over = False
        self._woken: asyncio.Future[None] | None = None

    def decided(self, verdict: LimitVerdict) -> bool:
        """Take the verdict; False where nobody waits for it any more, and what was taken must go back."""
        if self._over or self.verdict is not None:
            return False
        self.verdict = verdict
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)
        return True

    async def wait(self) -> LimitVerdict:
        """The verdict, as soon as there is one."""
        if self.verdict is None:
            self._woken = asyncio.get_running_loop().create_future()
            await self._woken
        assert self.verdict is not None
        return self.verdict

    def close(self) -> Sequence[BucketCharge]:
        """The call is over: the permits that it gives back, once."""
        if self._over:
            return ()
        self._over = True
        return self.verdict.permits if self.verdict is not None else ()


class BatchRows:
    """The buckets of one flight, each once."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.rows: list[ScriptRow] = []
        self.leases: list[Lease] = []
        self._places: dict[str, int] = {}

    def place(self, lease: Lease) -> int:
        """Where its row stands, counted from 1."""
        found = self._places.get(lease.key)
        if found is None:
            self.rows.append(lease.row(self.now))
            self.leases.append(lease)
            found = self._places[lease.key] = len(self.rows)
        return found

    def check(self, question: AwaitedAdmission) -> list[int]:
        """What a question asks of its buckets: what is not held of the cost."""
        found: list[int] = []
        for charge, lease, use in question.taken:
            found += self.place(lease), charge.cost - use, SHADOW if charge.limit.shadow else ENFORCE
        return found
