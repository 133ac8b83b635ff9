"""One call's way through the limits: what it asks for, what was decided, what it must give back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fastgw.policy.verdict import BucketCharge, LimitVerdict


class Admission:
    """Stands in the exchange before anything is waited for, so that whoever settles the call finds it.

    Args:
        charges: the buckets that the call counts in.
    """

    __slots__ = ("charges", "verdict", "_over", "_woken")

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
