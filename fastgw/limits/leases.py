"""What one worker holds of the store's buckets: tokens paid for in advance, calls it may run, and what it heard last.

`now` is CLOCK_MONOTONIC microseconds. A *lease* is tokens that were taken from the bucket before anybody asked for
them; so a limit is never exceeded. The other side: a call may be refused while another worker still holds some. That
bound is kept small: a hundredth of the bucket, only for buckets in use, given back when idle, none at all near the end
of a bucket (`ROOM` in the script) or where the limit is `exact`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from fastgw.limits.script import ScriptRow, StoreKeys
from fastgw.policy.bucket import Lack, now_lacking
from fastgw.policy.limits import Bucket, BucketCharge, BucketState, LimitVerdict, bucket_state

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
"""Leases looked at in one step: about 1 ms."""
_MOST = 1 << 62


@dataclass(slots=True, eq=False)
class Lease:
    """What this worker has of one bucket.

    Args:
        key: of the bucket in the store.
        charge: the last one that counted here: the rate in force.
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
        self.expire(now)
        use = min(max(0, self.held), cost)
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
        charge, rate, returning, self.returning = self.charge, self.charge.rate, self.returning, False
        if rate is None:
            # What is free of the calls allotted here is given up until the answer: nobody starts one uncounted.
            self.held = 0
            ahead = 0 if returning else _ahead(charge.most, charge)
            return ScriptRow(self.key, None, charge.most, self.running + self.pending, 0, ahead)
        self.expire(now)
        back = self.held if returning else 0
        self.held -= back
        wanted = 0
        if now - self.asked < BUSY and not returning:
            ahead = _ahead(rate.burst, charge)
            wanted = ahead if self.held < ahead // 2 else 0
        self.asked = now
        return ScriptRow(self.key, rate, 0, self.held + self.pending, back, wanted)

    def expire(self, now: int) -> None:
        """What was held for too long is lost: the store counts it as spent, or allots it to others."""
        if self.held > 0 and self.until <= now:
            self.held = 0

    def lacks(self, units: int, now: int) -> None:
        """What the bucket lacked when the store decided."""
        if (rate := self.charge.rate) is not None:
            self.lack = units, now - now % rate.tick, rate.cap
            self.left = (rate.cap - units) // rate.price

    def lacking(self, now: int) -> int:
        """Units it lacks at `now`, as far as this worker knows."""
        rate = self.charge.rate
        return now_lacking(self.lack, rate, now) if rate is not None else 0

    def state(self, now: int) -> BucketState:
        """How full the bucket is, as far as this worker knows."""
        return bucket_state(self.charge, self.charge.bucket[1], self.lacking(now) if self.charge.rate else self.running)


def _ahead(whole: int, charge: BucketCharge) -> int:
    ahead = min(whole // SHARE, LARGEST)
    return 0 if charge.limit.exact or ahead < LEAST else ahead


class Leases:
    """All that one worker holds."""

    def __init__(self, keys: StoreKeys) -> None:
        self._keys = keys
        self._leases: dict[Bucket, Lease] = {}
        self._round: Iterator[Lease] = iter(())
        self._lent: set[Lease] = set()
        self.running: set[Lease] = set()
        """Those with calls that run: the store must hear of them while they do."""

    def __len__(self) -> int:
        return len(self._leases)

    def __iter__(self) -> Iterator[Lease]:
        return iter(list(self._leases.values()))

    def find(self, charge: BucketCharge) -> Lease:
        """The lease of a charge's bucket; its rate is in force from now on. What was held by another is not."""
        lease = self._leases.get(charge.bucket)
        if lease is None:
            lease = self._leases[charge.bucket] = Lease(self._keys.bucket(*charge.bucket), charge)
        elif lease.charge.rate != charge.rate or lease.charge.most != charge.most:
            lease.held = 0
        lease.charge = charge
        return lease

    def running_in(self, bucket: Bucket) -> int:
        """Calls that run here and are counted in this bucket."""
        lease = self._leases.get(bucket)
        return lease.running if lease is not None else 0

    def grant(self, charges: Sequence[BucketCharge], now: int) -> LimitVerdict | None:
        """The verdict where all is held that the call takes; else None, and nothing was taken."""
        leases = self._leases
        found: list[tuple[BucketCharge, Lease]] = []
        for charge in charges:
            lease = leases.get(charge.bucket)
            if lease is None or lease.held < charge.cost or lease.until <= now:
                return None
            before = lease.charge
            if before.rate is not charge.rate or before.most != charge.most:
                if before.rate != charge.rate or before.most != charge.most:
                    return None  # what is held was taken at another rate than that in force
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

    def update(self, lease: Lease, row: ScriptRow, held: int, sent: int) -> None:
        """What this worker holds, as the store answers to this row, which was sent then."""
        rate = lease.charge.rate
        if rate is None:
            lease.held = held - lease.running - lease.pending
            lease.until = sent + ALLOTTED_FOR
        else:
            lent = held - row.held
            lease.held = max(0, lease.held + lent)  # what was spent since the question is missing in what we have
            lease.until = sent + HELD_FOR
            if lent > 0:  # taken in advance after the bucket was looked at
                units, stamp, cap = lease.lack
                lease.lack, lease.left = (min(cap, units + lent * rate.price), stamp, cap), lease.left - lent
        if lease.held > 0:
            self._lent.add(lease)

    def release(self, permits: Iterable[BucketCharge]) -> list[Lease]:
        """These calls are over; the leases of which the store must hear."""
        found = []
        for charge in permits:
            lease = self.find(charge)
            lease.running -= 1
            lease.held += 1
            if not lease.running:
                self.running.discard(lease)
            if lease.held > _ahead(charge.most, charge):
                found.append(lease)
        return found

    def idle(self, now: int) -> list[Lease]:
        """Those that nobody has used lately: they are to go back."""
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
        some = list(islice(self._round, SWEEP))
        for lease in some:
            lease.expire(now)
            in_use = lease.held > 0 or lease.questions or lease.running or lease.lacking(now)
            if not in_use and self._leases.get(lease.charge.bucket) is lease:
                del self._leases[lease.charge.bucket]
        if len(some) < SWEEP:
            self._round = iter(self)

    def drop(self) -> None:
        """Nothing that is held can be spent any more."""
        for lease in self._lent:
            lease.held = 0
        self._lent.clear()

    def held(self) -> dict[str, int]:
        """Tokens and calls held in advance, by limit."""
        found = Counter[str]()
        for lease in self._lent:
            found[lease.charge.limit.name] += max(0, lease.held)
        return found
