"""What one worker holds of the store's buckets: tokens paid for in advance, calls it may run, and what it heard last.

`now` is CLOCK_MONOTONIC microseconds. A *lease* is tokens that were taken from the bucket before anybody asked for
them; so a limit is never exceeded. The other side: a call may be refused while another worker still holds some. That
bound is kept small: a hundredth of the bucket, only for buckets in use, given back when idle, none at all near the end
of a bucket (`ROOM` in the script) or where the limit is `exact`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from fastgw.limits.script import ScriptRow, StoreKeys
from fastgw.policy.bucket import MICROS, BucketRate, Lack, now_lacking
from fastgw.policy.limits import Subject, is_of, shown
from fastgw.policy.verdict import Bucket, BucketCharge, BucketState, LimitVerdict

SHARE = 100
"""Of a bucket, one part in so many is a lease."""
LEAST, LARGEST = 2, 10_000
"""Tokens: a lease of one would be used up by the call that asks for it, and none needs to last longer."""
BUSY = 250_000
"""Microseconds since the last question, within which a bucket counts as busy."""
IDLE = 500_000
"""Microseconds without a call after which what is held goes back."""
HELD_FOR, ALLOTTED_FOR = 1_600_000, 3_600_000
"""Microseconds for which a lease may be spent, and calls begun that were allotted: less than the store waits (`LEASE`,
`PERMIT`), by what an answer may take."""
SWEEP = 1000
"""Holdings looked at in one step: about 1 ms."""
_MOST = 1 << 62


@dataclass(slots=True, eq=False)
class Lease:
    """What this worker has of one bucket.

    Args:
        key: of the bucket in the store.
        charge: the last one that counted here: the figures in force.
        held: tokens, or further calls, that can be granted without asking, until `until`.
        questions: calls under decision that are about it; it must not be forgotten meanwhile.
        pending: tokens of `held` that these have taken already.
        running: calls that run here, where calls at the same time are counted.
        lack: of the bucket as last heard, by our clock; `left`: tokens in it then.
        asked, used: when a question or a call last was about it.
        returning: what is held goes back with the next question.
    """

    key: str
    charge: BucketCharge
    held: int = 0
    until: int = 0
    questions: int = 0
    pending: int = 0
    running: int = 0
    lack: Lack = (0, 0, 0)
    left: int = 0
    asked: int = -BUSY
    used: int = 0
    returning: bool = False

    def take(self, cost: int, now: int) -> int:
        """A question begins: what of the cost is held is taken for it."""
        use = 0
        if self.held > 0:
            self.expire(now)
            use = min(self.held, cost)
            self.held -= use
            self.pending += use
        self.questions += 1
        self.used = now
        return use

    def settle(self, use: int, back: int) -> None:
        """The question is over; `back` of what it took was not needed."""
        self.questions -= 1
        self.pending -= use
        self.held += back

    def row(self, now: int) -> ScriptRow:
        """What a question says of it, and asks for in advance."""
        charge, figures = self.charge, self.charge.figures
        if figures is None:
            # What is free of the calls allotted here is given up until the answer: nobody starts one uncounted.
            self.held = 0
            ahead = 0 if self.returning else _ahead(charge.most, charge)
            self.returning = False
            return ScriptRow(self.key, None, charge.most, self.running + self.pending, 0, ahead)
        if self.held > 0:
            self.expire(now)
        back = self.held if self.returning else 0
        self.held -= back
        wanted = 0
        if now - self.asked < BUSY and not (self.returning or charge.limit.exact):
            ahead = _ahead(figures.burst, charge)
            wanted = ahead if self.held < ahead // 2 else 0
        self.asked, self.returning = now, False
        return ScriptRow(self.key, figures, 0, self.held + self.pending, back, wanted)

    def expire(self, now: int) -> None:
        """What was held for too long is lost: the store counts it as spent, or allots it to others."""
        if self.until <= now:
            self.held = 0

    def told(self, row: ScriptRow, held: int, sent: int) -> None:
        """The store's word on what this worker holds.

        Args:
            row: what it was asked.
            held: its answer.
            sent: when it was asked.
        """
        if self.charge.figures is None:
            self.held = held - self.running - self.pending
            self.until = sent + ALLOTTED_FOR
            return
        # what was spent since the question is missing in what we have already
        here = self.held + held - row.held
        self.held = here if here > 0 else 0
        self.until = sent + HELD_FOR
        lent = held - row.held
        if lent > 0:  # taken in advance after the bucket was looked at
            units, stamp, cap = self.lack
            self.lack, self.left = (min(cap, units + lent * self.charge.figures.price), stamp, cap), self.left - lent

    def lacks(self, units: int, now: int) -> None:
        """How the bucket stood when the store decided."""
        figures = self.charge.figures
        if figures is not None:
            _, price, cap, tick = figures
            self.lack = units, now - now % tick, cap
            self.left = (cap - units) // price

    def lacking(self, now: int) -> int:
        """Units it lacks at `now`, as far as this worker knows."""
        figures = self.charge.figures
        return now_lacking(self.lack, figures, now) if figures is not None else 0


def _ahead(whole: int, charge: BucketCharge) -> int:
    if charge.limit.exact:
        return 0
    ahead = min(whole // SHARE, LARGEST)
    return ahead if ahead >= LEAST else 0


class Leases:
    """All that one worker holds."""

    def __init__(self, keys: StoreKeys) -> None:
        self._keys = keys
        self._tables: dict[str, dict[Subject, Lease]] = {}
        self._round: Iterator[Lease] = iter(())
        self._lent: set[Lease] = set()
        self.running: set[Lease] = set()
        """Those with calls that run: the store must hear of them while they do."""

    def __len__(self) -> int:
        return sum(map(len, self._tables.values()))

    def __iter__(self) -> Iterator[Lease]:
        for table in list(self._tables.values()):
            yield from list(table.values())

    def find(self, charge: BucketCharge) -> Lease:
        """The holding of a charge's bucket; its figures are in force from now on. What was held by others is not."""
        name, subject = charge.bucket
        table = self._tables.get(name)
        if table is None:
            table = self._tables[name] = {}
        lease = table.get(subject)
        if lease is None:
            lease = table[subject] = Lease(self._keys.bucket(name, subject), charge)
        elif lease.charge.figures != charge.figures or lease.charge.most != charge.most:
            lease.held = 0
        lease.charge = charge
        return lease

    def of_limit(self, limit: str) -> Iterator[Lease]:
        """All that belong to one limit, and to its overrides."""
        for name, table in list(self._tables.items()):
            if is_of(name, limit):
                yield from list(table.values())

    def running_in(self, bucket: Bucket) -> int:
        """Calls that run here and are counted in this bucket."""
        lease = self._tables.get(bucket[0], {}).get(bucket[1])
        return lease.running if lease is not None else 0

    def grant(self, charges: Sequence[BucketCharge], now: int) -> LimitVerdict | None:
        """The verdict where all is held that the call takes; else None, and nothing was taken."""
        tables = self._tables
        found: list[tuple[BucketCharge, Lease]] = []
        for charge in charges:
            name, subject = charge.bucket
            table = tables.get(name)
            lease = table.get(subject) if table is not None else None
            if lease is None or lease.held < charge.cost or lease.until <= now:
                return None
            before = lease.charge
            if before.figures is not charge.figures or before.most != charge.most:
                if before.figures != charge.figures or before.most != charge.most:
                    return None  # what is held was taken by other figures than those in force
                lease.charge = charge
            found.append((charge, lease))
        verdict = LimitVerdict(how="lease")
        least = _MOST
        for charge, lease in found:
            held = lease.held = lease.held - charge.cost
            lease.used = now
            if charge.most:
                self.begin(lease, verdict)
            elif (left := lease.left + held) < least and not charge.limit.shadow:
                least = left
                verdict.tightest, verdict.left, verdict.lacking = charge, left, lease.lack[0]
        return verdict

    def begin(self, lease: Lease, verdict: LimitVerdict) -> None:
        """A call runs that is counted here; the verdict says so."""
        lease.running += 1
        self.running.add(lease)
        verdict.permits += (lease.charge,)

    def told(self, lease: Lease, row: ScriptRow, held: int, sent: int) -> None:
        lease.told(row, held, sent)
        if lease.held > 0:
            self._lent.add(lease)

    def release(self, permits: Iterable[BucketCharge]) -> list[Lease]:
        """These calls are over; the holdings of which the store must hear."""
        told = []
        for charge in permits:
            lease = self.find(charge)
            lease.running -= 1
            lease.held += 1
            if not lease.running:
                self.running.discard(lease)
            if lease.held > _ahead(charge.most, charge):
                told.append(lease)
        return told

    # -- now and then ----------------------------------------------------------------------------------------------

    def idle(self, now: int) -> list[Lease]:
        """Those whose leases lie idle: they are to go back."""
        found = []
        for lease in list(self._lent):
            lease.expire(now)
            if lease.held <= 0:
                self._lent.discard(lease)
            elif now - lease.used > IDLE:
                lease.returning = True
                found.append(lease)
        return found

    def forget_idle(self, now: int) -> None:
        """Forget some of those that hold nothing of a full bucket; called often, it goes round them all."""
        looked_at = 0
        for lease in islice(self._round, SWEEP):
            looked_at += 1
            lease.expire(now)
            if not (lease.held > 0 or lease.questions or lease.running or lease.lacking(now)):
                name, subject = lease.charge.bucket
                if self._tables[name].get(subject) is lease:
                    del self._tables[name][subject]
        if looked_at < SWEEP:
            self._round = iter(self)

    def drop(self) -> None:
        """Nothing that is held can be spent any more."""
        for lease in self._lent:
            lease.held = 0
        self._lent.clear()

    def held(self) -> dict[str, int]:
        """Tokens and calls held in advance, by limit."""
        found: dict[str, int] = {}
        for lease in self._lent:
            name = lease.charge.limit.name
            found[name] = found.get(name, 0) + max(0, lease.held)
        return found

    def standings(self, now: int) -> Iterator[BucketState]:
        """How full the buckets are, as far as this worker has heard."""
        for lease in self:
            charge, subject = lease.charge, shown(lease.charge.bucket[1])
            figures = charge.figures
            if figures is None:
                left = max(0, charge.most - lease.running)
                used = lease.running / charge.most
                yield BucketState(charge.limit.name, subject, used, left, charge.most, at_once=True)
            else:
                units = lease.lacking(now)
                left = (figures.cap - units) // figures.price
                yield BucketState(charge.limit.name, subject, units / figures.cap, left, figures.burst)


def share_of(charge: BucketCharge, count: int) -> BucketCharge:
    """What one of `count` workers grants of a bucket by itself."""
    if charge.figures is None:
        return charge._replace(most=max(1, charge.most // count))
    figures: BucketRate = charge.figures.among(count)
    return charge._replace(figures=figures, cost=min(charge.cost, figures.burst))


def micros(seconds: float) -> int:
    """Seconds as whole microseconds."""
    return int(seconds * MICROS)
