"""Buckets of one process: `store: memory`, and what each worker goes by while the store is away.

Knows: buckets by limit and subject, calls that run, when a bucket can be forgotten. Refuses to know: clocks (`now` is
CLOCK_MONOTONIC microseconds: it never goes back), other processes.

A bucket is one whole number (what it lacks, when, of how much: see `policy.bucket.Lack`), 52 bytes where three numbers
and their tuple take 150. One that is full again is forgotten: whoever is not kept is full.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from fastgw.policy.bucket import MICROS, Figures, Lack, now_lacking, wait
from fastgw.policy.limits import Subject, shown
from fastgw.policy.verdict import Bucket, Charge, Standing, Verdict

_STAMP, _UNITS = 64, 128
_MASK = (1 << _STAMP) - 1
_MOST = 1 << 62
SWEEP = 2000
"""Buckets looked at in one step of forgetting: about 1 ms."""

Refusal = tuple[int, int, Charge]
"""Microseconds to wait, units that are lacking, and the charge that does not fit."""


class Memory:
    """The buckets of one process.

    Args:
        how: what verdicts say of who decided.
    """

    def __init__(self, how: str = "memory") -> None:
        self._how = how
        self._tables: dict[str, dict[Subject, int]] = {}
        self._running: dict[Bucket, int] = {}
        self._rows: dict[str, Charge] = {}
        self._round: Iterator[tuple[dict[Subject, int], Figures, Subject]] = iter(())

    @property
    def state(self) -> str:
        """What operators read of where buckets are."""
        return "memory"

    def __len__(self) -> int:
        """Buckets that are kept."""
        return sum(map(len, self._tables.values())) + len(self._running)

    def decide(self, charges: Sequence[Charge], now: int) -> Verdict:
        """Take what every charge takes, or nothing.

        The arithmetic is written out: as functions of `policy.bucket` and tuples it costs 3.4 us a bucket, so 1.8.
        """
        verdict = Verdict(how=self._how)
        kept: list[tuple[dict[Subject, int], Subject, int]] = []
        permits: list[Charge] = []
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
                table = self._table(name, charge)
            number = table.get(subject, 0)
            _, price, cap, tick = figures
            units = now_lacking((number >> _UNITS, number >> _STAMP & _MASK, number & _MASK), figures, now)
            after = units + cost * price
            if after > cap:
                _refuse(verdict, refusals, (wait(after - cap, figures, now), units, charge))
                continue
            kept.append((table, subject, after << _UNITS | now - now % tick << _STAMP | cap))
            left = (cap - after) // price
            if left < least and not limit.shadow:
                least = left
                verdict.tightest, verdict.left, verdict.lacking = charge, left, after
        if refusals:
            return refused(verdict, refusals)
        for table, subject, number in kept:
            table[subject] = number
        if permits:
            self._run(verdict, permits)
        return verdict

    def _table(self, name: str, charge: Charge) -> dict[Subject, int]:
        self._rows[name] = charge
        return self._tables.setdefault(name, {})

    def _run(self, verdict: Verdict, permits: list[Charge]) -> None:
        for charge in permits:
            self._running[charge.bucket] = self._running.get(charge.bucket, 0) + 1
            self._rows[charge.bucket[0]] = charge
        verdict.permits = tuple(permits)

    def release(self, permits: Iterable[Charge]) -> None:
        """These calls are over."""
        for charge in permits:
            left = self._running.get(charge.bucket, 0) - 1
            if left > 0:
                self._running[charge.bucket] = left
            else:
                self._running.pop(charge.bucket, None)

    # -- what operators do ---------------------------------------------------------------------------------------

    def reset(self, charges: Iterable[Charge]) -> None:
        """Make these buckets full."""
        for charge in charges:
            name, subject = charge.bucket
            self._tables.get(name, {}).pop(subject, None)

    def buckets_of(self, limit: str) -> list[Charge]:
        """The rates of a limit that are not full."""
        rows = [(name, row) for name, row in self._rows.items() if row.limit.name == limit and row.figures is not None]
        return [
            row._replace(bucket=(name, subject)) for name, row in rows for subject in list(self._tables.get(name, ()))
        ]

    def standings(self, now: int) -> Iterator[Standing]:
        """How full each bucket is."""
        for table, figures, subject, name in self._all():
            lack = unpacked(table.get(subject, 0))
            units = now_lacking(lack, figures, now)
            left = (figures.cap - units) // figures.price
            yield Standing(self._rows[name].limit.name, shown(subject), units / figures.cap, left, figures.burst)
        for (name, subject), running in self._running.items():
            row = self._rows[name]
            yield Standing(
                row.limit.name, shown(subject), running / row.most, row.most - running, row.most, at_once=True
            )

    async def begin(self) -> None:
        """It is ready."""

    def beat(self, now: int) -> None:
        """Forget some buckets."""
        self.forget_idle(now)

    def held(self) -> dict[str, int]:
        """Nothing is held in advance."""
        return {}

    def ask(self, admission: object) -> None:
        """Nobody is asked: `decide` always knows."""

    # -- forgetting ----------------------------------------------------------------------------------------------

    def forget_idle(self, now: int) -> None:
        """Forget some buckets that are full again; called often, it goes round them all."""
        looked_at = 0
        for table, figures, subject in islice(self._round, SWEEP):
            looked_at += 1
            number = table.get(subject)
            if number is not None and not now_lacking(unpacked(number), figures, now):
                del table[subject]
        if looked_at < SWEEP:
            self._round = ((table, figures, subject) for table, figures, subject, _ in self._all())

    def _all(self) -> Iterator[tuple[dict[Subject, int], Figures, Subject, str]]:
        for name, table in list(self._tables.items()):
            figures = self._rows[name].figures
            for subject in list(table) if figures is not None else ():
                yield table, figures, subject, name  # type: ignore[misc]

    def clear(self) -> None:
        """Forget all buckets; calls that run go on."""
        self._tables.clear()


def unpacked(number: int) -> Lack:
    """What is kept of a bucket."""
    return number >> _UNITS, number >> _STAMP & _MASK, number & _MASK


def _refuse(verdict: Verdict, refusals: list[Refusal], refusal: Refusal) -> None:
    limit = refusal[2].limit
    if limit.shadow:
        verdict.shadowed += (limit,)
    else:
        refusals.append(refusal)


def refused(verdict: Verdict, refusals: Sequence[Refusal]) -> Verdict:
    """The verdict of a refusal: it charges nobody, and tells of the bucket that gives way last."""
    pause, units, charge = max(refusals, key=lambda refusal: refusal[0])
    verdict.refused, verdict.wait = charge, pause / MICROS
    verdict.tightest, verdict.left, verdict.lacking = (charge if charge.figures is not None else None), 0, units
    return verdict
