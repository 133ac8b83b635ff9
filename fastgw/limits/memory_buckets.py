"""Buckets of one process: `store: memory`, and what each worker goes by while the store is away.

`now` is CLOCK_MONOTONIC microseconds, which never go back. A bucket is one whole number (what it lacks, when, of how
much: see `policy.bucket.Lack`), 52 bytes where three numbers and their tuple take 150. One that is full again is
forgotten: whoever is not kept is full.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from fastgw.policy.bucket import MICROS, BucketRate, now_lacking, wait
from fastgw.policy.limits import Subject, is_of, shown
from fastgw.policy.verdict import Bucket, BucketCharge, BucketState, LimitVerdict

_STAMP, _UNITS = 64, 128
_MASK = (1 << _STAMP) - 1
_MOST = 1 << 62
SWEEP = 2000
"""Buckets looked at in one step of forgetting: about 1 ms."""

Refusal = tuple[int, int, BucketCharge]
"""Microseconds to wait, units that are lacking, and the charge that does not fit."""


@dataclass(slots=True)
class _Table:
    """The buckets of one limit, or of an override.

    Attributes:
        charges: by the size of a bucket, the slowest that counted with it. After a reload a table has buckets of
            several sizes; each is forgotten by its own figures.
    """

    buckets: dict[Subject, int] = field(default_factory=dict)
    charges: dict[int, BucketCharge] = field(default_factory=dict)

    def know(self, charge: BucketCharge, figures: BucketRate, known: BucketCharge | None) -> None:
        """Buckets of that size are counted with these figures, too."""
        slowest = known.figures if known is not None else None
        if slowest is None or figures.gain * slowest.tick < slowest.gain * figures.tick:
            self.charges[figures.cap] = charge

    def lacking(self, number: int, now: int) -> tuple[BucketCharge, BucketRate, int]:
        """A charge of a bucket that is kept, its figures, and the units that it lacks."""
        charge = self.charges[number & _MASK]
        assert charge.figures is not None
        lack = number >> _UNITS, number >> _STAMP & _MASK, number & _MASK
        return charge, charge.figures, now_lacking(lack, charge.figures, now)


class MemoryBuckets:
    """The buckets of one process.

    Args:
        how: what verdicts say of who decided.
    """

    def __init__(self, how: str = "memory") -> None:
        self._how = how
        self._tables: dict[str, _Table] = {}
        self._running: dict[Bucket, int] = {}
        self._rows: dict[str, BucketCharge] = {}
        self._round: Iterator[tuple[_Table, Subject]] = iter(())

    state = "memory"
    """What operators read of where buckets are."""

    def __len__(self) -> int:
        """Buckets that are kept."""
        return sum(len(table.buckets) for table in self._tables.values()) + len(self._running)

    def decide(self, charges: Sequence[BucketCharge], now: int) -> LimitVerdict:
        """Take what every charge takes, or nothing.

        The arithmetic is written out: as functions of `policy.bucket` and tuples it costs 3.4 us a bucket, so 1.8.
        """
        verdict = LimitVerdict(how=self._how)
        kept: list[tuple[dict[Subject, int], Subject, int]] = []
        permits: list[BucketCharge] = []
        refusals: list[Refusal] = []
        least = _MOST
        for charge in charges:
            limit, (name, subject), figures, cost, most = charge
            if figures is None:
                if self._running.get(charge.bucket, 0) < most:
                    permits.append(charge)
                else:
                    _refuse(verdict, refusals, (0, 0, charge))
                continue
            table = self._tables.get(name)
            if table is None:
                table = self._tables[name] = _Table()
            number = table.buckets.get(subject, 0)
            _, price, cap, tick = figures
            after = (
                now_lacking((number >> _UNITS, number >> _STAMP & _MASK, number & _MASK), figures, now) + cost * price
            )
            if after > cap:
                _refuse(verdict, refusals, (wait(after - cap, figures, now), after - cost * price, charge))
                continue
            known = table.charges.get(cap)
            if known is None or known.figures is not figures:
                table.know(charge, figures, known)
            kept.append((table.buckets, subject, after << _UNITS | now - now % tick << _STAMP | cap))
            left = (cap - after) // price
            if left < least and not limit.shadow:
                least = left
                verdict.tightest, verdict.left, verdict.lacking = charge, left, after
        if refusals:
            return refused(verdict, refusals)
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
            left = self._running.get(charge.bucket, 0) - 1
            if left > 0:
                self._running[charge.bucket] = left
            else:
                self._running.pop(charge.bucket, None)

    # -- what operators do ---------------------------------------------------------------------------------------

    def reset(self, charges: Iterable[BucketCharge], order: int) -> None:
        """Make these buckets full."""
        for charge in charges:
            name, subject = charge.bucket
            if name in self._tables:
                self._tables[name].buckets.pop(subject, None)

    def reset_all(self, limit: str, order: int) -> None:
        """Make all buckets of a limit full."""
        for name in [name for name in self._tables if is_of(name, limit)]:
            self._tables[name].buckets = {}

    def standings(self, now: int) -> Iterator[BucketState]:
        """How full each bucket is."""
        for table, subject in self._all():
            number = table.buckets.get(subject, 0)
            if not number:
                continue
            charge, figures, units = table.lacking(number, now)
            left = (figures.cap - units) // figures.price
            yield BucketState(charge.limit.name, shown(subject), units / figures.cap, left, figures.burst)
        for (name, subject), running in list(self._running.items()):
            row = self._rows[name]
            yield BucketState(
                row.limit.name, shown(subject), running / row.most, row.most - running, row.most, at_once=True
            )

    async def begin(self) -> None:
        """It is ready."""

    def held(self) -> dict[str, int]:
        """Nothing is held in advance."""
        return {}

    def ask(self, admission: object) -> None:
        """Nobody is asked: `decide` always knows."""

    def repeat(self, reset: str) -> None:
        """Nobody else has these buckets."""

    # -- forgetting ----------------------------------------------------------------------------------------------

    def beat(self, now: int) -> None:
        """Forget some buckets that are full again; called often, it goes round them all."""
        looked_at = 0
        for table, subject in islice(self._round, SWEEP):
            looked_at += 1
            number = table.buckets.get(subject, 0)
            if number and not table.lacking(number, now)[2]:
                del table.buckets[subject]
        if looked_at < SWEEP:
            self._round = self._all()

    def _all(self) -> Iterator[tuple[_Table, Subject]]:
        for table in list(self._tables.values()):
            for subject in list(table.buckets):
                yield table, subject


def _refuse(verdict: LimitVerdict, refusals: list[Refusal], refusal: Refusal) -> None:
    limit = refusal[2].limit
    if limit.shadow:
        verdict.shadowed += (limit,)
    else:
        refusals.append(refusal)


def refused(verdict: LimitVerdict, refusals: Sequence[Refusal]) -> LimitVerdict:
    """The verdict of a refusal: it charges nobody, and tells of the bucket that gives way last."""
    pause, units, charge = max(refusals, key=lambda refusal: refusal[0])
    verdict.refused, verdict.wait = charge, pause / MICROS
    verdict.tightest, verdict.left, verdict.lacking = (charge if charge.figures is not None else None), 0, units
    return verdict
