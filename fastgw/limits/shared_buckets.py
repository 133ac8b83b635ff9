"""Buckets in a store that several workers share.

A call is decided from what this worker holds; else by the store; and while the store is away as its limits say:
`local` (a share of each bucket, from a full one), `allow`, or `deny`. What was spent meanwhile is reported to the store
when it is back; where it lost its buckets, also how full they were when last heard of.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from time import monotonic

from fastgw.limits.batch import AwaitedAdmission, Batch, Order
from fastgw.limits.batcher import Batcher, StoreAway
from fastgw.limits.leases import Lease, Leases
from fastgw.limits.memory_buckets import MemoryBuckets, refused
from fastgw.limits.script import AT_LEAST, FILL, TAKE, ScriptReply, ScriptRequest, StoreKeys
from fastgw.policy.bucket import MICROS
from fastgw.policy.limits import Bucket, BucketCharge, BucketState, LimitVerdict, is_of

log = logging.getLogger("fastgw")

MOST_ROWS = 256
"""Buckets that are spoken of in one batch besides those that calls ask for."""
MOST_UNREPORTED = 100_000
"""Buckets whose spending is remembered while the store is away; of further ones it is lost."""


class SharedBuckets:
    """The buckets of one worker with a store; it is the `batcher.BatchHandler`.

    Args:
        count: counts one of a metric: name and labels.
        workers: on this machine; those seen at the store count where they are more.
    """

    def __init__(self, keys: StoreKeys, batcher: Batcher, count: Callable[..., None], workers: int) -> None:
        self._batcher = batcher
        self._count = count
        self._on_machine = self.workers = workers
        self._leases = Leases(keys)
        self._local = MemoryBuckets("local")
        self._unreported: dict[Bucket, tuple[BucketCharge, int]] = {}
        self._batch = Batch()
        """What is under way; empty where nothing is."""
        self._epoch = ""
        # What the store must hear: that there is a worker, and resets; which buckets lacked something; what is held of
        # some; what it must do.
        self._heartbeat_due = False
        self._new_resets: list[str] = []
        self._lost: dict[Lease, None] = {}
        self._changed: dict[Lease, None] = {}
        self._orders: deque[Iterator[Order]] = deque()
        self.on_resets: Callable[[list[str]], None] = lambda _: None
        """Called with the resets that operators have ordered lately, the whole deployment over."""
        batcher.handler = self

    @property
    def state(self) -> str:
        """What operators read of the store: `up` or `away`."""
        return "away" if self._batcher.away else "up"

    def decide(self, charges: Sequence[BucketCharge], now: int) -> LimitVerdict | None:
        """The verdict where it needs no waiting; else None, and nothing was taken."""
        verdict = self._leases.grant(charges, now)
        if verdict is None and self._batcher.away:
            return self._decide_locally(charges, now)
        return verdict

    def ask(self, admission: AwaitedAdmission) -> None:
        """Ask the store; `admission.decided` hears the verdict."""
        admission.taken = []
        now = _micros(monotonic())
        # Those in shadow first: the script tells of them by bits, of which a number of Lua's has 53.
        for charge in sorted(admission.charges, key=lambda charge: not charge.limit.shadow):
            lease = self._leases.find(charge)
            admission.taken.append((charge, lease, lease.take(charge.cost, now)))
        self._batcher.ask(admission)

    def release(self, permits: Iterable[BucketCharge]) -> None:
        """These calls are over."""
        self._changed.update(dict.fromkeys(self._leases.release(permits)))
        if self._changed:
            self._batcher.send()

    # -- a batch -----------------------------------------------------------------------------------------------------

    def has_more(self) -> bool:
        return bool(self._heartbeat_due or self._changed or self._orders or self._lost)

    def compose(self, waiting: list[AwaitedAdmission]) -> ScriptRequest:
        """First what the store must know, then the questions."""
        request = ScriptRequest(heartbeat=self._heartbeat_due, known=self._epoch, resets=self._new_resets)
        self._heartbeat_due, self._new_resets = False, []
        self._batch = batch = Batch(request, _micros(monotonic()))
        about = [lease for question in waiting for _, lease, _ in question.taken] if self._lost else ()
        for lease in chain(about, list(islice(self._lost, MOST_ROWS))):
            if self._lost.pop(lease, self) is None and (units := lease.lacking(batch.now)):
                batch.reported[lease] = None
                batch.order(lease, units, AT_LEAST)
        while self._orders and len(batch.orders) < MOST_ROWS:
            some = list(islice(self._orders[0], MOST_ROWS - len(batch.orders)))
            batch.orders += some
            if not some:
                self._orders.popleft()
        for charge, amount, mode in batch.orders:
            batch.order(self._leases.find(charge), amount, mode)
        for question in waiting:
            batch.check(question)
        for lease in list(islice(self._changed, MOST_ROWS)):
            del self._changed[lease]
            batch.place(lease)
        return request

    def answered(
        self, waiting: list[AwaitedAdmission], request: ScriptRequest, reply: ScriptReply, sent: float
    ) -> None:
        when, now = _micros(sent), _micros(monotonic())
        lost, self._epoch = bool(self._epoch) and reply.epoch != self._epoch, reply.epoch
        if request.heartbeat:
            self.workers = max(self._on_machine, reply.workers)
        batch, self._batch = self._batch, Batch()
        for question, answer in zip(waiting, reply.checks[batch.first :], strict=False):
            self._decided(question, answer, now)
        for row, lease, held in zip(request.rows, batch.leases, reply.held, strict=False):
            self._leases.update(lease, row, held, when)
        if lost:  # a probe has found it so
            self._report_everything()
        elif reply.resets:
            try:
                self.on_resets(reply.resets)
            except Exception:  # what operators order must not cost calls the store
                log.exception("resets of operators could not be taken")

    def _decided(self, question: AwaitedAdmission, answer: list[int], now: int) -> None:
        place, pause, shadows, *units = answer
        taken, question.taken = question.taken, []
        verdict = LimitVerdict(how="store")
        for at, ((charge, lease, use), lacking) in enumerate(zip(taken, units, strict=True)):
            in_shadow = shadows >> at & 1
            lease.settle(use, use if place or in_shadow else 0)
            lease.lacks(lacking, now)
            if in_shadow:
                verdict.shadowed += (charge.limit,)
            elif charge.most and not place:
                self._leases.begin(lease, verdict)
            elif not place and not charge.limit.shadow:
                left = lease.left + lease.held
                if verdict.tightest is None or left < verdict.left:
                    verdict.tightest, verdict.left, verdict.lacking = charge, left, lease.lack[0]
        if place:
            charge, lease, _ = taken[place - 1]
            verdict = refused(verdict, [(pause, lease.lack[0], charge)])
        if not question.decided(verdict):
            self.release(verdict.permits)

    def emptied(self, epoch: str) -> None:
        self._epoch = epoch
        self._take_back()
        self._report_everything()

    def lost(self, waiting: list[AwaitedAdmission], why: StoreAway) -> None:
        self._count("fastgw_store_errors_total", why.kind)
        self._take_back()
        now = _micros(monotonic())
        for question in waiting:
            if not question.taken:  # its batch failed after it was answered
                continue
            for _, lease, use in question.taken:
                lease.settle(use, use)
            verdict = self._decide_locally(question.charges, now)
            if not question.decided(verdict):
                self.release(verdict.permits)

    def _take_back(self) -> None:
        """What was under way, and may not have been heard, is said again: rather twice than not at all."""
        batch, self._batch = self._batch, Batch()
        self._lost |= batch.reported
        if batch.orders:
            self._orders.appendleft(iter(batch.orders))
        self._new_resets = [*batch.request.resets, *self._new_resets]
        self._heartbeat_due = self._heartbeat_due or batch.request.heartbeat

    def _report_everything(self) -> None:
        """The store has lost its buckets: it hears what each lacked, before it decides about it again."""
        self._lost = dict.fromkeys(self._leases)
        self._drop_leases()
        self._batcher.send()

    def _drop_leases(self) -> None:
        """What was held before may have run out; the store must hear of calls that run."""
        self._leases.drop()
        self._changed.update(dict.fromkeys(self._leases.running))

    # -- without the store -------------------------------------------------------------------------------------------

    def _decide_locally(self, charges: Sequence[BucketCharge], now: int) -> LimitVerdict:
        """The verdict while the store is away."""
        must = next((one for one in charges if one.limit.on_failure == "deny" and not one.limit.shadow), None)
        if must is not None:
            return LimitVerdict(refused=must, how="deny")
        local = [_share_of(one, self.workers) for one in charges if one.limit.on_failure == "local"]
        crowded = [one for one in local if one.most and self._leases.running_in(one.bucket) >= one.most]
        if enforced := [one for one in crowded if not one.limit.shadow]:
            return refused(LimitVerdict(how="local"), [(0, 0, enforced[0])])
        verdict = self._local.decide([one for one in local if not one.most], now)
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
        _, tokens = self._unreported.get(charge.bucket, (charge, 0))
        if tokens or len(self._unreported) < MOST_UNREPORTED:
            self._unreported[charge.bucket] = charge, tokens + charge.cost

    def returned(self) -> None:
        """What was spent meanwhile is reported.

        What each worker granted by itself is not forgotten: a store that comes and goes must not bring a full share
        each time.
        """
        owed, self._unreported = self._unreported, {}
        self._orders.append((charge, tokens, TAKE) for charge, tokens in owed.values())
        self._drop_leases()

    # -- now and then ----------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Find the store, however long that takes."""
        await self._batcher.find()

    def heartbeat(self, now: int) -> None:
        """Twice a second: the store waits ten times as long for a worker, and eight for calls that run."""
        self._leases.forget_idle(now)
        self._local.heartbeat(now)
        if not self._batcher.away:
            self._heartbeat_due = True
            self._changed.update(dict.fromkeys([*self._leases.running, *self._leases.idle(now)]))
            self._batcher.send()

    # -- operators -------------------------------------------------------------------------------------------------

    def bucket_states(self, now: int) -> Iterator[BucketState]:
        """How full the buckets are, as far as this worker has heard."""
        return (lease.state(now) for lease in self._leases)

    def held(self) -> dict[str, int]:
        """Tokens and calls held in advance, by limit."""
        return self._leases.held()

    def reset(self, charges: Iterable[BucketCharge], order: int) -> None:
        """Make these buckets full, here and at the store; calls that run go on.

        Args:
            order: that demands it, as a number: the store heeds each once, whoever repeats it.
        """
        self._orders.append(self._reset(charges, order))
        self._batcher.send()

    def _reset(self, charges: Iterable[BucketCharge], order: int) -> Iterator[Order]:
        for charge in charges:
            lease = self._leases.find(charge)
            lease.held, lease.lack = 0, (0, 0, 0)
            lease.left = charge.rate.burst if charge.rate is not None else 0
            self._unreported.pop(charge.bucket, None)
            self._local.reset((charge,), order)
            yield charge, order, FILL

    def reset_all(self, limit: str, order: int) -> None:
        """The same for all buckets of a limit that this worker has heard of."""
        charges = [lease.charge for lease in self._leases if lease.charge.rate is not None]
        self.reset((charge for charge in charges if is_of(charge.bucket[0], limit)), order)

    def repeat(self, reset: str) -> None:
        """Let the whole deployment know of a reset."""
        self._new_resets.append(reset)
        self._heartbeat_due = True
        self._batcher.send()


def _share_of(charge: BucketCharge, count: int) -> BucketCharge:
    """What one of `count` workers grants of a bucket by itself."""
    if charge.rate is None:
        return charge._replace(most=max(1, charge.most // count))
    rate = charge.rate.among(count)
    return charge._replace(rate=rate, cost=min(charge.cost, rate.burst))


def _micros(seconds: float) -> int:
    return int(seconds * MICROS)
