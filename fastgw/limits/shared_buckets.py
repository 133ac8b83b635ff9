"""Buckets in a store that several workers share.

A call is decided from what this worker holds; else by the store; and while the store is away as its limits say:
`local` (a share of each bucket, from a full one), `allow`, or `deny`. What was spent meanwhile is told the store when
it is back; where it lost its buckets, it also hears how full they were when last heard of.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from time import monotonic

from fastgw.limits.batch import AwaitedAdmission, BatchRows
from fastgw.limits.batcher import Batcher, StoreAway
from fastgw.limits.leases import Lease, Leases, micros, share_of
from fastgw.limits.memory_buckets import MemoryBuckets, refused
from fastgw.limits.script import AT_LEAST, FILL, TAKE, ScriptReply, ScriptRequest, StoreKeys
from fastgw.policy.verdict import Bucket, BucketCharge, BucketState, LimitVerdict

log = logging.getLogger("fastgw")

MOST_ROWS = 256
"""Buckets that are spoken of in one flight besides those that calls ask for."""
MOST_OWED = 100_000
"""Buckets whose spending is remembered while the store is away; of further ones it is lost."""


_Order = tuple[BucketCharge, int, int]
"""What the store must do with a bucket whatever it lacks: how much, and the mode."""


class SharedBuckets:
    """The buckets of one worker with a store.

    Args:
        count: counts one of a metric: name and labels.
        workers: on this machine; those seen at the store are counted where they are more.
    """

    def __init__(
        self, keys: StoreKeys, batcher: Batcher[AwaitedAdmission], count: Callable[..., None], workers: int
    ) -> None:
        self._batcher = batcher
        self._count = count
        self._least = workers
        self._seen = 0
        self._leases = Leases(keys)
        self._alone = MemoryBuckets("local")
        self._owed: dict[Bucket, tuple[BucketCharge, int]] = {}
        self._rows: list[Lease] = []
        self._first = 0
        self._lost: dict[Lease, None] = {}
        self._telling: dict[Lease, None] = {}
        self._told: dict[Lease, None] = {}
        self._orders: deque[Iterator[_Order]] = deque()
        self._epoch = ""
        self._beat_due = False
        self._unsaid_resets: list[str] = []
        self._under_way: ScriptRequest = ScriptRequest()
        self._carried: list[_Order] = []
        self.heard: Callable[[list[str]], None] = lambda _: None
        """Hears the resets that operators have ordered lately, the whole deployment over."""
        batcher.handler = self

    @property
    def up(self) -> bool:
        """Whether the store is in use."""
        return not self._batcher.away

    @property
    def state(self) -> str:
        """What operators read of the store."""
        return "up" if self.up else "away"

    @property
    def workers(self) -> int:
        """How many share the buckets, as far as is known."""
        return max(self._least, self._seen)

    def decide(self, charges: Sequence[BucketCharge], now: int) -> LimitVerdict | None:
        """The verdict where it needs no waiting; else None, and nothing was taken."""
        verdict = self._leases.grant(charges, now)
        if verdict is None and self._batcher.away:
            return self._by_itself(charges, now)
        return verdict

    def ask(self, admission: AwaitedAdmission) -> None:
        """Ask the store; `admission.decided` hears the verdict."""
        admission.taken, admission.answered = [], False
        now = micros(monotonic())
        # Those in shadow first: the script tells of them by bits, of which a number of Lua's has 53.
        for charge in sorted(admission.charges, key=lambda charge: not charge.limit.shadow):
            lease = self._leases.find(charge)
            admission.taken.append((charge, lease, lease.take(charge.cost, now)))
        self._batcher.ask(admission)

    def release(self, permits: Iterable[BucketCharge]) -> None:
        """These calls are over."""
        self._told.update(dict.fromkeys(self._leases.release(permits)))
        if self._told:
            self._batcher.fly()

    # -- a flight (`batcher.BatchHandler`)
    # ---------------------------------------------------------------------------------

    def unsaid(self) -> bool:
        return bool(self._beat_due or self._told or self._orders or self._lost)

    def compose(self, waiting: list[AwaitedAdmission]) -> ScriptRequest:
        """First what the store must know, then the questions."""
        request = ScriptRequest(beat=self._beat_due, known=self._epoch, resets=self._unsaid_resets)
        self._beat_due, self._unsaid_resets = False, []
        rows = BatchRows(micros(monotonic()))
        about = [lease for question in waiting for _, lease, _ in question.taken] if self._lost else ()
        for lease in chain(about, list(islice(self._lost, MOST_ROWS))):
            if self._lost.pop(lease, self) is None and (units := lease.lacking(rows.now)):
                self._telling[lease] = None
                request.checks.append([rows.place(lease), units, AT_LEAST])
        self._carried = self._next_orders()
        for charge, amount, mode in self._carried:
            request.checks.append([rows.place(self._leases.find(charge)), amount, mode])
        self._first = len(request.checks)
        for question in waiting:
            request.checks.append(rows.check(question))
        for lease in list(islice(self._told, MOST_ROWS)):
            del self._told[lease]
            rows.place(lease)
        request.rows, self._rows, self._under_way = rows.rows, rows.leases, request
        return request

    def landed(self, waiting: list[AwaitedAdmission], request: ScriptRequest, reply: ScriptReply, sent: float) -> None:
        when, now = micros(sent), micros(monotonic())
        lost, self._epoch = bool(self._epoch) and reply.epoch != self._epoch, reply.epoch
        if request.beat:
            self._seen = reply.workers
        leases, self._rows, self._carried, self._under_way, self._telling = self._rows, [], [], ScriptRequest(), {}
        for question, answer in zip(waiting, reply.checks[self._first :], strict=False):
            self._answered(question, answer, now)
        for row, lease, held in zip(request.rows, leases, reply.held, strict=False):
            self._leases.told(lease, row, held, when)
        if lost:  # a probe has found it so
            self._know_nothing()
        elif reply.resets:
            try:
                self.heard(reply.resets)
            except Exception:  # what operators order must not cost calls the store
                log.exception("resets of operators could not be taken")

    def _next_orders(self) -> list[_Order]:
        """As many as one flight carries."""
        taken: list[_Order] = []
        while self._orders and len(taken) < MOST_ROWS:
            some = list(islice(self._orders[0], MOST_ROWS - len(taken)))
            taken += some
            if not some:
                self._orders.popleft()
        return taken

    def _answered(self, question: AwaitedAdmission, answer: list[int], now: int) -> None:
        place, pause, shadows, *units = answer
        question.answered = True
        verdict = LimitVerdict(how="store")
        for at, ((charge, lease, use), lacking) in enumerate(zip(question.taken, units, strict=True)):
            lease.settle(use, use if place or shadows >> at & 1 else 0)
            lease.lacks(lacking, now)
            if shadows >> at & 1:
                verdict.shadowed += (charge.limit,)
            elif not place:
                self._counted(verdict, charge, lease)
        if place:
            charge, lease, _ = question.taken[place - 1]
            verdict = refused(verdict, [(pause, lease.lack[0], charge)])
        if not question.decided(verdict):
            self.release(verdict.permits)

    def _counted(self, verdict: LimitVerdict, charge: BucketCharge, lease: Lease) -> None:
        """The call counts in this bucket."""
        if charge.most:
            self._leases.begin(lease, verdict)
            return
        left = lease.left + lease.held
        if not charge.limit.shadow and (verdict.tightest is None or left < verdict.left):
            verdict.tightest, verdict.left, verdict.lacking = charge, left, lease.lack[0]

    def emptied(self, epoch: str) -> None:
        self._epoch = epoch
        self._take_back()
        self._know_nothing()

    def lost(self, waiting: list[AwaitedAdmission], why: StoreAway) -> None:
        self._count("fastgw_store_errors_total", why.kind)
        self._take_back()
        now = micros(monotonic())
        for question in waiting:
            if question.answered:  # its flight failed after it was answered
                continue
            for _, lease, use in question.taken:
                lease.settle(use, use)
            verdict = self._by_itself(question.charges, now)
            if not question.decided(verdict):
                self.release(verdict.permits)

    def _take_back(self) -> None:
        """What was to be told, and may not have been heard, is told again: rather twice than not at all."""
        self._lost |= self._telling
        if self._carried:
            self._orders.appendleft(iter(self._carried))
        self._unsaid_resets = [*self._under_way.resets, *self._unsaid_resets]
        self._beat_due = self._beat_due or self._under_way.beat
        self._rows, self._carried, self._under_way, self._telling = [], [], ScriptRequest(), {}

    def _know_nothing(self) -> None:
        """The store has lost its buckets: it is told what each lacked, before it decides about it again."""
        self._lost = dict.fromkeys(self._leases)
        self._hold_nothing()
        self._batcher.fly()

    # -- without the store -------------------------------------------------------------------------------------------

    def _by_itself(self, charges: Sequence[BucketCharge], now: int) -> LimitVerdict:
        """The verdict while the store is away."""
        must = next((one for one in charges if one.limit.on_failure == "deny" and not one.limit.shadow), None)
        if must is not None:
            return LimitVerdict(refused=must, how="deny")
        local = [share_of(one, self.workers) for one in charges if one.limit.on_failure == "local"]
        crowded = [one for one in local if one.most and self._leases.running_in(one.bucket) >= one.most]
        if enforced := [one for one in crowded if not one.limit.shadow]:
            return refused(LimitVerdict(how="local"), [(0, 0, enforced[0])])
        verdict = self._alone.decide([one for one in local if not one.most], now)
        if verdict.refused is not None:
            return verdict
        verdict.how = "local" if local else "allow"
        shadowed = {one.bucket for one in crowded} | {one.bucket for one in charges if one.limit in verdict.shadowed}
        for charge in charges:
            if charge.bucket not in shadowed:
                self._spent(charge, verdict, now)
        return verdict

    def _spent(self, charge: BucketCharge, verdict: LimitVerdict, now: int) -> None:
        lease = self._leases.find(charge)
        lease.used = now
        if charge.most:
            self._leases.begin(lease, verdict)
            lease.held -= 1
            return
        if charge.limit.on_failure == "allow":
            self._count("fastgw_limit_fail_open_total", charge.limit.name)
        _, tokens = self._owed.get(charge.bucket, (charge, 0))
        if tokens or len(self._owed) < MOST_OWED:
            self._owed[charge.bucket] = charge, tokens + charge.cost

    def returned(self) -> None:
        """What was spent meanwhile is told.

        What each worker granted by itself is not forgotten: a store that comes and goes must not bring a full share
        each time.
        """
        owed, self._owed = self._owed, {}
        self._orders.append((charge, tokens, TAKE) for charge, tokens in owed.values())
        self._hold_nothing()

    def _hold_nothing(self) -> None:
        """What was held before may have run out; calls that run must be told of."""
        self._leases.drop()
        self._told.update(dict.fromkeys(self._leases.running))

    # -- now and then ----------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Find the store, however long that takes."""
        await self._batcher.find()

    def beat(self, now: int) -> None:
        """One sign of life, twice a second: the store waits ten times as long, and eight for calls that run."""
        self._leases.forget_idle(now)
        self._alone.beat(now)
        if not self.up:
            return
        self._beat_due = True
        for lease in (*self._leases.running, *self._leases.idle(now)):
            self._told[lease] = None
        self._batcher.fly()

    # -- operators -------------------------------------------------------------------------------------------------

    def standings(self, now: int) -> Iterator[BucketState]:
        """How full the buckets are, as far as this worker has heard."""
        return self._leases.standings(now)

    def held(self) -> dict[str, int]:
        """Tokens and calls held in advance, by limit."""
        return self._leases.held()

    def reset(self, charges: Iterable[BucketCharge], order: int) -> None:
        """Make these buckets full, here and at the store; calls that run go on.

        Args:
            order: that demands it, as a number: the store heeds each once, whoever repeats it.
        """
        self._orders.append(self._reset(charges, order))
        self._batcher.fly()

    def _reset(self, charges: Iterable[BucketCharge], order: int) -> Iterator[_Order]:
        for charge in charges:
            lease = self._leases.find(charge)
            lease.held, lease.lack = 0, (0, 0, 0)
            lease.left = charge.figures.burst if charge.figures is not None else 0
            self._owed.pop(charge.bucket, None)
            self._alone.reset((charge,), order)
            yield charge, order, FILL

    def reset_all(self, limit: str, order: int) -> None:
        """The same for all buckets of a limit that this worker has heard of."""
        charges = (lease.charge for lease in self._leases.of_limit(limit) if lease.charge.figures is not None)
        self.reset(charges, order)

    def repeat(self, reset: str) -> None:
        """Let the whole deployment know of a reset."""
        self._unsaid_resets.append(reset)
        self._beat_due = True
        self._batcher.fly()
