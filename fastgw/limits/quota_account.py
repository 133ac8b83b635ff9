"""One account of a quota as one worker has it: what it was granted, and what of that is not used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fastgw.policy.limits import Subject, shown
from fastgw.policy.quotas import NOTHING, Amounts, Quota, QuotaState, forecast, share


@dataclass(slots=True, eq=False)
class Register:
    """What this worker was granted of one slot (`start`, Unix ms), and whether the ledger must hear of it."""

    start: int
    granted: list[int] = field(default_factory=lambda: [0] * 5)
    dirty: bool = False


@dataclass(slots=True, eq=False)
class QuotaAccount:
    """One subject's account of a quota.

    Args:
        life: tells it from one of the same subject that was forgotten here: that one's spending stays as it is.
        pool: units granted and not used; until: CLOCK_MONOTONIC seconds to which they may be.
        current: the register that they are of.
        used_at: when a call was last about it.
        taken: by all calls; before: of that, until `since`, for leases; over: of that, by calls that are over.
        refused: what was last refused, of each kind; until `refused_until`; free: when it would not be, Unix ms.
        used, raised: of all workers, as last heard; ends: of the slot, Unix ms.
        ended: it was forgotten here, of which the ledger must still hear.
    """

    quota: Quota
    subject: Subject
    key: str
    kinds: tuple[int, ...]
    life: str = ""
    pool: list[int] = field(default_factory=lambda: [0] * 5)
    until: float = 0.0
    current: Register | None = None
    registers: dict[int, Register] = field(default_factory=dict)
    seq: int = 0
    used_at: float = 0.0
    since: float = 0.0
    taken: list[int] = field(default_factory=lambda: [0] * 5)
    before: list[int] = field(default_factory=lambda: [0] * 5)
    over: list[int] = field(default_factory=lambda: [0] * 5)
    refused: Amounts = NOTHING
    refused_until: float = 0.0
    free: int = 0
    used: Amounts = NOTHING
    raised: Amounts = NOTHING
    ends: int = 0
    in_flight: int = 0
    bounds: tuple[int, ...] = ()
    ended: bool = False

    def suffices(self, amounts: Amounts, now: float) -> bool:
        """Whether the pool has these."""
        if self.until <= now:
            return False
        pool = self.pool
        for kind in self.kinds:  # noqa: SIM110 - a generator costs three times as much
            if pool[kind] < amounts[kind]:
                return False
        return True

    def exceeded_by(self, amounts: Amounts, workers: int = 1) -> bool:
        """Whether, as far as was last heard, these are more than one worker's part of what is left."""
        most, used, raised = self.quota.amounts, self.used, self.raised
        return any((most[at] + raised[at] - used[at]) // max(1, workers) < amounts[at] for at in self.kinds)

    def take(self, amounts: Amounts, now: float) -> Reservation:
        """These are reserved for a call, whatever the pool has."""
        self.used_at = now
        self.in_flight += 1
        pool, taken = self.pool, self.taken
        for kind in self.kinds:
            amount = amounts[kind]
            pool[kind] -= amount
            taken[kind] += amount
        return self, amounts, self.current

    def overdrawn(self) -> bool:
        """What is missing in the pool is granted to ourselves; whether anything was."""
        found = False
        for kind in self.kinds:
            if self.pool[kind] < 0 and self.current is not None:
                self.current.granted[kind] -= self.pool[kind]
                self.pool[kind] = 0
                self.current.dirty = found = True
        return found

    def give_back(self) -> bool:
        """What the pool has goes back with the next question; whether there is anything."""
        current = self.current
        if current is None or not any(self.pool):
            return False
        for kind in self.kinds:
            current.granted[kind] = max(0, current.granted[kind] - self.pool[kind])
            self.pool[kind] = 0
        current.dirty = True
        return True

    def period(self, now: int) -> tuple[int, ...]:
        """As the script takes it, by boundaries that hold `now` (Unix ms)."""
        period = self.quota.period
        if period.rolling:
            return (1, period.width, period.rolling)
        if not self.bounds or not self.bounds[1] <= now < self.bounds[2]:
            self.bounds = period.boundaries(now)
        return (0, *self.bounds)


Reservation = tuple[QuotaAccount, Amounts, Register | None]
"""What a call has taken of one account, of which slot. No NamedTuple: making one costs as much as all the rest."""


def added(some: Amounts, more: Amounts) -> Amounts:
    """The sum of each kind."""
    return five([a + b for a, b in zip(some, more, strict=True)])


def five(values: Sequence[int]) -> Amounts:
    """Amounts of so many values."""
    a, b, c, d, e = values
    return a, b, c, d, e


def state_of(account: QuotaAccount, now: int) -> QuotaState:
    """How an account stands at `now` (Unix ms), as far as was last heard."""
    quota = account.quota
    start = now - quota.period.rolling if quota.period.rolling else account.period(now)[2]
    end = now + quota.period.rolling if quota.period.rolling else account.period(now)[3]
    is_over = not quota.period.rolling and account.ends <= now
    used, raised = (NOTHING, NOTHING) if is_over else (account.used, account.raised)
    most = five([(a + b if a >= 0 else 0) for a, b in zip(quota.amounts, raised, strict=True)])
    reserved = five([taken - over for taken, over in zip(account.taken, account.over, strict=True)])
    ends = [at for kind in account.kinds if (at := forecast(used[kind], most[kind], start, end, now)) is not None]
    reserved = five([taken - over for taken, over in zip(account.taken, account.over, strict=True)])
    return QuotaState(
        quota, shown(account.subject), start, end, most, raised, used, five(account.pool), reserved,
        account.in_flight, share(used, most), min(ends, default=None),
    )  # fmt: skip
