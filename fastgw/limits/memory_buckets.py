"""Buckets of one process: `store: memory`, and what each worker goes by while the store is away.

`now` is CLOCK_MONOTONIC microseconds, which never go back. A bucket is one whole number (what it lacks, when, of how
much: see `policy.bucket.Lack`), 52 bytes where three numbers and their tuple take 150. One that is full again is
forgotten: whoever is not kept is full.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from fastgw.policy.bucket import MICROS, now_lacking, wait
from fastgw.policy.limits import Bucket, BucketCharge, BucketState, LimitVerdict, Subject, bucket_state, is_of

_STAMP, _UNITS = 64, 128
_MASK = (1 << _STAMP) - 1
_MOST = 1 << 62
SWEEP = 2000
"""Buckets looked at in one step of forgetting: about 1 ms."""

Refusal = tuple[int, int, BucketCharge]
"""Microseconds to wait, units that are lacking, and the charge that does not fit."""


@dataclass(slots=True)
class _Table:
    """The buckets of one limit, or of an override, and the charge that counted last in one of them: its rate is in
    force for all.
    """

    charge: BucketCharge
    buckets: dict[Subject, int] = field(default_factory=dict)

    def lacking(self, number: int, now: int) -> int:
        """Units that a bucket lacks which is kept as this number."""
        assert self.charge.rate is not None
        return now_lacking((number >> _UNITS, number >> _STAMP & _MASK, number & _MASK), self.charge.rate, now)


class MemoryBuckets:
    """The buckets of one process.

    Args:
        how: what verdicts say of who decided.
    """

    state = "memory"
    """What operators read of where buckets are."""

    def __init__(self, how: str = "memory") -> None:
        self._how = how
        self._tables: dict[str, _Table] = {}
        self._running: dict[Bucket, int] = {}
        self._rows: dict[str, BucketCharge] = {}
        self._round: Iterator[tuple[_Table, Subject]] = iter(())

    def __len__(self) -> int:
        """Buckets that are kept."""
        return sum(len(table.buckets) for table in self._tables.values()) + len(self._running)

    def decide(self, charges: Sequence[BucketCharge], now: int) -> LimitVerdict:
        """Take what every charge takes, or nothing."""
        verdict = LimitVerdict(how=self._how)
        kept: list[tuple[dict[Subject, int], Subject, int]] = []
        permits: list[BucketCharge] = []
        refusals: list[Refusal] = []
        least = _MOST
        for charge in charges:
            limit, (name, subject), rate, cost, most = charge
            if rate is None:
                if self._running.get(charge.bucket, 0) < most:
                    permits.append(charge)
                else:
                    refusals.append((0, 0, charge))
                continue
            if name not in self._tables:
                self._tables[name] = _Table(charge)
            table = self._tables[name]
            number = table.buckets.get(subject, 0)
            _, price, cap, tick = rate
            # Tuples and functions for what a number is made of cost 1.6 us more a bucket.
            after = now_lacking((number >> _UNITS, number >> _STAMP & _MASK, number & _MASK), rate, now) + cost * price
            if after > cap:
                refusals.append((wait(after - cap, rate, now), after - cost * price, charge))
                continue
            table.charge = charge
            kept.append((table.buckets, subject, after << _UNITS | now - now % tick << _STAMP | cap))
            left = (cap - after) // price
            if left < least and not limit.shadow:
                least = left
                verdict.tightest, verdict.left, verdict.lacking = charge, left, after
        if refusals:
            verdict.shadowed = tuple([charge.limit for _, _, charge in refusals if charge.limit.shadow])
            if len(verdict.shadowed) < len(refusals):
                return refused(verdict, [refusal for refusal in refusals if not refusal[2].limit.shadow])
        for buckets, subject, number in kept:
            buckets[subject] = number
        for charge in permits:
            self._running[charge.bucket] = self._running.get(charge.bucket, 0) + 1
            self._rows[charge.bucket[0]] = charge
        verdict.permits = tuple(permits)
        return verdict

    def release(self, permits: Iterable[BucketCharge]) -> None:
        """These calls are over."""
        for charge in permits:
            left = self._running.pop(charge.bucket, 0) - 1
            if left > 0:
                self._running[charge.bucket] = left

    def heartbeat(self, now: int) -> None:
        """Forget some buckets that are full again; called often, it goes round them all."""
        some = list(islice(self._round, SWEEP))
        for table, subject in some:
            number = table.buckets.get(subject, 0)
            if number and not table.lacking(number, now):
                del table.buckets[subject]
        if len(some) < SWEEP:
            self._round = self._all()

    def _all(self) -> Iterator[tuple[_Table, Subject]]:
        for table in list(self._tables.values()):
            for subject in list(table.buckets):
                yield table, subject

    # -- what operators do ---------------------------------------------------------------------------------------

    def reset(self, charges: Iterable[BucketCharge], order: int) -> None:
        """Make these buckets full."""
        for charge in charges:
            name, subject = charge.bucket
            if name in self._tables:
                self._tables[name].buckets.pop(subject, None)

    def reset_all(self, limit: str, order: int) -> None:
        """Make all buckets of a limit full."""
        for name, table in self._tables.items():
            if is_of(name, limit):
                table.buckets = {}

    def bucket_states(self, now: int) -> Iterator[BucketState]:
        """How full each bucket is."""
        for table, subject in self._all():
            if number := table.buckets.get(subject, 0):
                yield bucket_state(table.charge, subject, table.lacking(number, now))
        for (name, subject), running in list(self._running.items()):
            yield bucket_state(self._rows[name], subject, running)

    # -- what there is to do for a store only ------------------------------------------------------------------------

    async def begin(self) -> None:
        """It is ready."""

    def held(self) -> dict[str, int]:
        """Nothing is held in advance."""
        return {}

    def ask(self, admission: object) -> None:
        """Nobody is asked: `decide` always knows."""

    def repeat(self, reset: str) -> None:
        """Nobody else has these buckets."""


def refused(verdict: LimitVerdict, refusals: Sequence[Refusal]) -> LimitVerdict:
    """The verdict of a refusal: it charges nobody, and tells of the bucket that gives way last."""
    pause, units, charge = max(refusals, key=lambda refusal: refusal[0])
    verdict.refused, verdict.wait = charge, pause / MICROS
    verdict.tightest, verdict.left, verdict.lacking = (charge if charge.rate is not None else None), 0, units
    return verdict
