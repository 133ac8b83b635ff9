"""Calls that wait for the store, and what one worker asks of it for them in one batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from fastgw.limits.leases import Lease
from fastgw.limits.script import ENFORCE, SHADOW, ScriptRequest
from fastgw.policy.limits import BucketCharge, LimitVerdict


class AwaitedAdmission:
    """What one call asks of the limits, and their verdict. It is there before anything is waited for, so that whoever
    settles the call, at any moment, finds it.

    Attributes:
        taken: of a call that the store is asked about, until it answers: charge, lease, and what of the cost was taken
            from that.
    """

    __slots__ = ("charges", "verdict", "taken", "_over", "_woken")
    taken: list[tuple[BucketCharge, Lease, int]]

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


Order = tuple[BucketCharge, int, int]
"""What the store must do with a bucket whatever it lacks: how much, and the mode."""


@dataclass(slots=True)
class Batch:
    """What is asked in one go, each bucket once.

    Args:
        request: what the store is sent.
        now: CLOCK_MONOTONIC microseconds.
        leases: those of the request's rows.
        reported: leases of which the store is told what their buckets lacked.
        orders: those it carries.
        first: place of the first check that a call waits for.
    """

    request: ScriptRequest = field(default_factory=ScriptRequest)
    now: int = 0
    leases: list[Lease] = field(default_factory=list)
    reported: dict[Lease, None] = field(default_factory=dict)
    orders: list[Order] = field(default_factory=list)
    first: int = 0
    _places: dict[str, int] = field(default_factory=dict)

    def place(self, lease: Lease) -> int:
        """Where its row is, counted from 1."""
        if lease.key not in self._places:
            self.request.rows.append(lease.row(self.now))
            self.leases.append(lease)
            self._places[lease.key] = len(self.leases)
        return self._places[lease.key]

    def order(self, lease: Lease, amount: int, mode: int) -> None:
        """Something that the store is to do with a bucket before calls are decided."""
        self.request.checks.append([self.place(lease), amount, mode])
        self.first += 1

    def check(self, admission: AwaitedAdmission) -> None:
        """What a call asks of its buckets: what is not leased of the cost."""
        found: list[int] = []
        for charge, lease, use in admission.taken:
            found += self.place(lease), charge.cost - use, SHADOW if charge.limit.shadow else ENFORCE
        self.request.checks.append(found)
