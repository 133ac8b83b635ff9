"""What one worker holds of the store's buckets: tokens paid for in advance, calls it may run, and what it heard last.

Knows: what can be granted without asking, what a question carries and what its answer changes. Refuses to know:
connections, deadlines, clocks (`now` is CLOCK_MONOTONIC microseconds).

A *lease* is tokens that were taken from the bucket before anybody asked for them; so a limit is never exceeded. The
other side: a call may be refused while another worker still holds some. That bound is kept small: a hundredth of the
bucket, only for buckets in use, given back when idle, none at all near the end of a bucket (`ROOM` in the script) or
where the limit is `exact`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from fastgw.policy.bucket import MICROS, Figures, Lack, now_lacking
from fastgw.policy.limits import Subject, is_of, shown
from fastgw.policy.verdict import Bucket, Charge, Standing, Verdict
from fastgw.stores.script import Keys, Row

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


class Holding:
    """What this worker has of one bucket.

    Attributes:
        charge: the last one that counted here: the figures in force.
        held: tokens, or further calls, that can be granted without asking, until `until`.
        questions: calls under decision that are about it; it must not be forgotten meanwhile.
        pending: tokens of `held` that these have taken already.
        running: calls that run here, where calls at the same time are counted.
        lack: of the bucket as last heard, by our clock; `left`: tokens in it then.
        asked, used: when a question or a call last was about it.
        returning: what is held goes back with the next question.
    """

    __slots__ = (
        "key", "charge", "held", "until", "questions", "pending", "running", "lack", "left", "asked", "used",
        "returning",
    )  # fmt: skip

    def __init__(self, key: str, charge: Charge) -> None:
        self.key = key
        self.charge = charge
        self.held = 0
        self.until = 0
        self.questions = 0
        self.pending = 0
        self.running = 0
        self.lack: Lack = (0, 0, 0)
        self.left = 0
        self.asked = -BUSY
        self.used = 0
        self.returning = False

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

    def row(self, now: int) -> Row:
        """What a question says of it, and asks for in advance."""
        charge, figures = self.charge, self.charge.figures
        if figures is None:
            # What is free of the calls allotted here is given up until the answer: nobody starts one uncounted.
            self.held = 0
            ahead = 0 if self.returning else _ahead(charge.most, charge)
            self.returning = False
            return Row(self.key, None, charge.most, self.running + self.pending, 0, ahead)
        if self.held > 0:
            self.expire(now)
        back = self.held if self.returning else 0
        self.held -= back
        wanted = 0
        if now - self.asked < BUSY and not (self.returning or charge.limit.exact):
            ahead = _ahead(figures.burst, charge)
            wanted = ahead if self.held < ahead // 2 else 0
        self.asked, self.returning = now, False
        return Row(self.key, figures, 0, self.held + self.pending, back, wanted)

    def expire(self, now: int) -> None:
        """What was held for too long is lost: the store counts it as spent, or allots it to others."""
        if self.until <= now:
            self.held = 0

    def told(self, row: Row, held: int, sent: int) -> None:
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


def _ahead(whole: int, charge: Charge) -> int:
    if charge.limit.exact:
        return 0
    ahead = min(whole // SHARE, LARGEST)
    return ahead if ahead >= LEAST else 0


class Holdings:
    """All that one worker holds."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._tables: dict[str, dict[Subject, Holding]] = {}
        self._round: Iterator[Holding] = iter(())
        self._lent: set[Holding] = set()
        self._running: set[Holding] = set()

    def __len__(self) -> int:
        return sum(map(len, self._tables.values()))

    def __iter__(self) -> Iterator[Holding]:
        for table in list(self._tables.values()):
            yield from list(table.values())

    def find(self, charge: Charge) -> Holding:
        """The holding of a charge's bucket; its figures are in force from now on. What was held by others is not."""
        name, subject = charge.bucket
        table = self._tables.get(name)
        if table is None:
            table = self._tables[name] = {}
        holding = table.get(subject)
        if holding is None:
            holding = table[subject] = Holding(self._keys.bucket(name, subject), charge)
        elif holding.charge.figures != charge.figures or holding.charge.most != charge.most:
            holding.held = 0
        holding.charge = charge
        return holding

    def of_limit(self, limit: str) -> Iterator[Holding]:
        """All that belong to one limit, and to its overrides."""
        for name, table in list(self._tables.items()):
            if is_of(name, limit):
                yield from list(table.values())

    def running_in(self, bucket: Bucket) -> int:
        """Calls that run here and are counted in this bucket."""
        holding = self._tables.get(bucket[0], {}).get(bucket[1])
        return holding.running if holding is not None else 0

    def grant(self, charges: Sequence[Charge], now: int) -> Verdict | None:
        """The verdict where all is held that the call takes; else None, and nothing was taken."""
        tables = self._tables
        found: list[tuple[Charge, Holding]] = []
        for charge in charges:
            name, subject = charge.bucket
            table = tables.get(name)
            holding = table.get(subject) if table is not None else None
            if holding is None or holding.held < charge.cost or holding.until <= now:
                return None
            before = holding.charge
            if before.figures is not charge.figures or before.most != charge.most:
                if before.figures != charge.figures or before.most != charge.most:
                    return None  # what is held was taken by other figures than those in force
                holding.charge = charge
            found.append((charge, holding))
        verdict = Verdict(how="lease")
        least = _MOST
        for charge, holding in found:
            held = holding.held = holding.held - charge.cost
            holding.used = now
            if charge.most:
                self.begin(holding, verdict)
            elif (left := holding.left + held) < least and not charge.limit.shadow:
                least = left
                verdict.tightest, verdict.left, verdict.lacking = charge, left, holding.lack[0]
        return verdict

    def begin(self, holding: Holding, verdict: Verdict) -> None:
        """A call runs that is counted here; the verdict says so."""
        holding.running += 1
        self._running.add(holding)
        verdict.permits += (holding.charge,)

    def told(self, holding: Holding, row: Row, held: int, sent: int) -> None:
        """See `Holding.told`."""
        holding.told(row, held, sent)
        if holding.held > 0:
            self._lent.add(holding)

    def release(self, permits: Iterable[Charge]) -> list[Holding]:
        """These calls are over; the holdings of which the store must hear."""
        told = []
        for charge in permits:
            holding = self.find(charge)
            holding.running -= 1
            holding.held += 1
            if not holding.running:
                self._running.discard(holding)
            if holding.held > _ahead(charge.most, charge):
                told.append(holding)
        return told

    # -- now and then ----------------------------------------------------------------------------------------------

    @property
    def running(self) -> set[Holding]:
        """Those with calls that run: the store must hear of them while they do."""
        return self._running

    def idle(self, now: int) -> list[Holding]:
        """Those whose leases lie idle: they are to go back."""
        found = []
        for holding in list(self._lent):
            holding.expire(now)
            if holding.held <= 0:
                self._lent.discard(holding)
            elif now - holding.used > IDLE:
                holding.returning = True
                found.append(holding)
        return found

    def forget_idle(self, now: int) -> None:
        """Forget some of those that hold nothing of a full bucket; called often, it goes round them all."""
        looked_at = 0
        for holding in islice(self._round, SWEEP):
            looked_at += 1
            holding.expire(now)
            if not (holding.held > 0 or holding.questions or holding.running or holding.lacking(now)):
                self._forget(holding)
        if looked_at < SWEEP:
            self._round = iter(self)

    def _forget(self, holding: Holding) -> None:
        name, subject = holding.charge.bucket
        table = self._tables[name]
        if table.get(subject) is holding:
            del table[subject]

    def drop(self) -> None:
        """Nothing that is held can be spent any more."""
        for holding in self._lent:
            holding.held = 0
        self._lent.clear()

    def held(self) -> dict[str, int]:
        """Tokens and calls held in advance, by limit."""
        found: dict[str, int] = {}
        for holding in self._lent:
            name = holding.charge.limit.name
            found[name] = found.get(name, 0) + max(0, holding.held)
        return found

    def standings(self, now: int) -> Iterator[Standing]:
        """How full the buckets are, as far as this worker has heard."""
        for holding in self:
            charge, subject = holding.charge, shown(holding.charge.bucket[1])
            figures = charge.figures
            if figures is None:
                left = max(0, charge.most - holding.running)
                used = holding.running / charge.most
                yield Standing(charge.limit.name, subject, used, left, charge.most, at_once=True)
            else:
                units = holding.lacking(now)
                left = (figures.cap - units) // figures.price
                yield Standing(charge.limit.name, subject, units / figures.cap, left, figures.burst)


def share_of(charge: Charge, count: int) -> Charge:
    """What one of `count` workers grants of a bucket by itself."""
    if charge.figures is None:
        return charge._replace(most=max(1, charge.most // count))
    figures: Figures = charge.figures.among(count)
    return charge._replace(figures=figures, cost=min(charge.cost, figures.burst))


def micros(seconds: float) -> int:
    """Seconds as whole microseconds."""
    return int(seconds * MICROS)
