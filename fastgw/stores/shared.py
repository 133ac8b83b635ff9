"""Buckets in a store that several workers share.

Knows: holdings, the traffic with the store, what is decided without it and what is told it afterwards. Refuses to know:
agents, requests, the configuration.

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

from fastgw.policy.bucket import MICROS
from fastgw.policy.verdict import Bucket, Charge, Standing, Verdict
from fastgw.stores.flights import Flights
from fastgw.stores.holdings import Holding, Holdings, micros, share_of
from fastgw.stores.memory import Memory, refused
from fastgw.stores.port import StoreAway
from fastgw.stores.questions import Admission, Question, Rows
from fastgw.stores.script import AT_LEAST, FILL, TAKE, Keys, Reply, Request

log = logging.getLogger("fastgw")

MOST_ROWS = 256
"""Buckets that are spoken of in one flight besides those that calls ask for."""
MOST_OWED = 100_000
"""Buckets whose spending is remembered while the store is away; of further ones it is lost."""


_Order = tuple[Charge, int, int]
"""What the store must do with a bucket whatever it lacks: how much, and the mode."""


class Shared:
    """The buckets of one worker with a store.

    Args:
        count: counts one of a metric: name and labels.
        workers: on this machine; those seen at the store are counted where they are more.
    """

    def __init__(self, keys: Keys, flights: Flights[Question], count: Callable[..., None], workers: int) -> None:
        self._flights = flights
        self._count = count
        self._least = workers
        self._seen = 0
        self._holdings = Holdings(keys)
        self._alone = Memory("local")
        self._owed: dict[Bucket, tuple[Charge, int]] = {}
        self._rows: list[Holding] = []
        self._first = 0
        self._lost: dict[Holding, None] = {}
        self._telling: dict[Holding, None] = {}
        self._told: dict[Holding, None] = {}
        self._orders: deque[_Order] = deque()
        self._more: deque[Iterator[_Order]] = deque()
        self._epoch = ""
        self._beat_due = False
        self._unsaid_orders: list[tuple[str, str, int]] = []
        self._under_way: Request = Request()
        self._carried: list[_Order] = []
        self.ordered: Callable[[list[tuple[str, float]]], None] = lambda _: None
        """Hears what operators have ordered, the whole deployment over: text, and seconds that it still holds."""
        self.forgotten: Callable[[], None] = lambda: None
        """Is told that the store knows of no orders any more: they are to be given again."""
        flights.crew = self

    @property
    def up(self) -> bool:
        """Whether the store is in use."""
        return not self._flights.away

    @property
    def state(self) -> str:
        """What operators read of the store."""
        return "up" if self.up else "away"

    @property
    def workers(self) -> int:
        """How many share the buckets, as far as is known."""
        return max(self._least, self._seen)

    def decide(self, charges: Sequence[Charge], now: int) -> Verdict | None:
        """The verdict where it needs no waiting; else None, and nothing was taken."""
        verdict = self._holdings.grant(charges, now)
        if verdict is None and self._flights.away:
            return self._by_itself(charges, now)
        return verdict

    def ask(self, admission: Admission) -> None:
        """Ask the store; `admission.decided` hears the verdict."""
        question = Question(admission)
        now = micros(monotonic())
        # Those in shadow first: the script tells of them by bits, of which a number of Lua's has 53.
        for charge in sorted(admission.charges, key=_enforced):
            holding = self._holdings.find(charge)
            question.taken.append((charge, holding, holding.take(charge.cost, now)))
        self._flights.ask(question)

    def release(self, permits: Iterable[Charge]) -> None:
        """These calls are over."""
        self._told.update(dict.fromkeys(self._holdings.release(permits)))
        if self._told:
            self._flights.fly()

    # -- a flight (`flights.Crew`) ---------------------------------------------------------------------------------

    def unsaid(self) -> bool:
        """See `Crew.unsaid`."""
        return bool(self._beat_due or self._told or self._orders or self._more or self._lost)

    def compose(self, waiting: list[Question]) -> Request:
        """See `Crew.compose`: first what the store must know, then the questions."""
        request = Request(beat=self._beat_due, known=self._epoch, orders=self._unsaid_orders)
        self._beat_due, self._unsaid_orders = False, []
        rows = Rows(micros(monotonic()))
        about = [holding for question in waiting for _, holding, _ in question.taken] if self._lost else ()
        for holding in chain(about, list(islice(self._lost, MOST_ROWS))):
            if self._lost.pop(holding, self) is None and (units := holding.lacking(rows.now)):
                self._telling[holding] = None
                request.checks.append([rows.place(holding), units, AT_LEAST])
        self._carried = self._next_orders()
        for charge, amount, mode in self._carried:
            request.checks.append([rows.place(self._holdings.find(charge)), amount, mode])
        self._first = len(request.checks)
        for question in waiting:
            request.checks.append(rows.check(question))
        for holding in list(islice(self._told, MOST_ROWS)):
            del self._told[holding]
            rows.place(holding)
        request.rows, self._rows, self._under_way = rows.rows, rows.holdings, request
        return request

    def landed(self, waiting: list[Question], request: Request, reply: Reply, sent: float) -> None:
        """See `Crew.landed`."""
        when, now = micros(sent), micros(monotonic())
        lost, self._epoch = bool(self._epoch) and reply.epoch != self._epoch, reply.epoch
        if request.beat:
            self._seen = reply.workers
        holdings, self._rows, self._carried, self._under_way, self._telling = self._rows, [], [], Request(), {}
        for question, answer in zip(waiting, reply.checks[self._first :], strict=False):
            self._answered(question, answer, now)
        for row, holding, held in zip(request.rows, holdings, reply.held, strict=False):
            self._holdings.told(holding, row, held, when)
        if lost:  # a probe has found it so
            self._know_nothing()
        elif request.beat:
            self._hear(reply)

    def _hear(self, reply: Reply) -> None:
        try:
            self.ordered([(text, left / MICROS) for text, left in reply.orders])
        except Exception:  # what operators order must not cost calls the store
            log.exception("orders of operators could not be taken")

    def _next_orders(self) -> list[_Order]:
        """As many as one flight carries."""
        taken = [self._orders.popleft() for _ in range(min(MOST_ROWS, len(self._orders)))]
        while self._more and len(taken) < MOST_ROWS:
            some = list(islice(self._more[0], MOST_ROWS - len(taken)))
            taken += some
            if not some:
                self._more.popleft()
        return taken

    def _answered(self, question: Question, answer: list[int], now: int) -> None:
        place, pause, shadows, *units = answer
        question.done = True
        verdict = Verdict(how="store")
        for at, ((charge, holding, use), lacking) in enumerate(zip(question.taken, units, strict=True)):
            holding.settle(use, use if place or shadows >> at & 1 else 0)
            holding.lacks(lacking, now)
            if shadows >> at & 1:
                verdict.shadowed += (charge.limit,)
            elif not place:
                self._counted(verdict, charge, holding)
        if place:
            charge, holding, _ = question.taken[place - 1]
            verdict = refused(verdict, [(pause, holding.lack[0], charge)])
        if not question.admission.decided(verdict):
            self.release(verdict.permits)

    def _counted(self, verdict: Verdict, charge: Charge, holding: Holding) -> None:
        """The call counts in this bucket."""
        if charge.most:
            self._holdings.begin(holding, verdict)
            return
        left = holding.left + holding.held
        if not charge.limit.shadow and (verdict.tightest is None or left < verdict.left):
            verdict.tightest, verdict.left, verdict.lacking = charge, left, holding.lack[0]

    def emptied(self, epoch: str) -> None:
        """See `Crew.emptied`."""
        self._epoch = epoch
        self._take_back()
        self._know_nothing()

    def lost(self, waiting: list[Question], why: StoreAway) -> None:
        """See `Crew.lost`."""
        self._count("fastgw_store_errors_total", why.kind)
        self._take_back()
        now = micros(monotonic())
        for question in waiting:
            if question.done:  # its flight failed after it was answered
                continue
            for _, holding, use in question.taken:
                holding.settle(use, use)
            verdict = self._by_itself(question.admission.charges, now)
            if not question.admission.decided(verdict):
                self.release(verdict.permits)

    def _take_back(self) -> None:
        """What was to be told, and may not have been heard, is told again: rather twice than not at all."""
        self._lost |= self._telling
        self._orders.extendleft(reversed(self._carried))
        self._unsaid_orders = [*self._under_way.orders, *self._unsaid_orders]
        self._beat_due = self._beat_due or self._under_way.beat
        self._rows, self._carried, self._under_way, self._telling = [], [], Request(), {}

    def _know_nothing(self) -> None:
        """The store has lost its buckets: it is told what each lacked, before it decides about it again."""
        self._lost = dict.fromkeys(self._holdings)
        self._hold_nothing()
        self.forgotten()
        self._flights.fly()

    # -- without the store -------------------------------------------------------------------------------------------

    def _by_itself(self, charges: Sequence[Charge], now: int) -> Verdict:
        """The verdict while the store is away."""
        must = next((one for one in charges if one.limit.on_failure == "deny" and not one.limit.shadow), None)
        if must is not None:
            return Verdict(refused=must, how="deny")
        local = [share_of(one, self.workers) for one in charges if one.limit.on_failure == "local"]
        crowded = [one for one in local if one.most and self._holdings.running_in(one.bucket) >= one.most]
        if enforced := [one for one in crowded if not one.limit.shadow]:
            return refused(Verdict(how="local"), [(0, 0, enforced[0])])
        verdict = self._alone.decide([one for one in local if not one.most], now)
        if verdict.refused is not None:
            return verdict
        verdict.how = "local" if local else "allow"
        shadowed = {one.bucket for one in crowded} | {one.bucket for one in charges if one.limit in verdict.shadowed}
        for charge in charges:
            if charge.bucket not in shadowed:
                self._spent(charge, verdict, now)
        return verdict

    def _spent(self, charge: Charge, verdict: Verdict, now: int) -> None:
        holding = self._holdings.find(charge)
        holding.used = now
        if charge.most:
            self._holdings.begin(holding, verdict)
            holding.held -= 1
            return
        if charge.limit.on_failure == "allow":
            self._count("fastgw_limit_fail_open_total", charge.limit.name)
        _, tokens = self._owed.get(charge.bucket, (charge, 0))
        if tokens or len(self._owed) < MOST_OWED:
            self._owed[charge.bucket] = charge, tokens + charge.cost

    def returned(self) -> None:
        """See `Crew.returned`: what was spent meanwhile is told.

        What each worker granted by itself is not forgotten: a store that comes and goes must not bring a full share
        each time.
        """
        owed, self._owed = self._owed, {}
        self._more.append((charge, tokens, TAKE) for charge, tokens in owed.values())
        self._hold_nothing()

    def _hold_nothing(self) -> None:
        """What was held before may have run out; calls that run must be told of."""
        self._holdings.drop()
        self._told.update(dict.fromkeys(self._holdings.running))

    # -- now and then ----------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Find the store, however long that takes."""
        await self._flights.find()

    def beat(self, now: int) -> None:
        """One sign of life, twice a second: the store waits ten times as long, and eight for calls that run."""
        self._holdings.forget_idle(now)
        self._alone.forget_idle(now)
        if not self.up:
            return
        self._beat_due = True
        for holding in (*self._holdings.running, *self._holdings.idle(now)):
            self._told[holding] = None
        self._flights.fly()

    # -- operators -------------------------------------------------------------------------------------------------

    def standings(self, now: int) -> Iterator[Standing]:
        """How full the buckets are, as far as this worker has heard."""
        return self._holdings.standings(now)

    def held(self) -> dict[str, int]:
        """Tokens and calls held in advance, by limit."""
        return self._holdings.held()

    def reset(self, charges: Iterable[Charge], order: int) -> None:
        """Make these buckets full, here and at the store; calls that run go on.

        Args:
            order: that demands it, as a number: the store heeds each once, whoever repeats it.
        """
        self._more.append(self._reset(charges, order))
        self._flights.fly()

    def _reset(self, charges: Iterable[Charge], order: int) -> Iterator[_Order]:
        for charge in charges:
            holding = self._holdings.find(charge)
            holding.held, holding.lack = 0, (0, 0, 0)
            holding.left = charge.figures.burst if charge.figures is not None else 0
            self._owed.pop(charge.bucket, None)
            self._alone.reset((charge,), order)
            yield charge, order, FILL

    def reset_all(self, limit: str, order: int) -> None:
        """The same for all buckets of a limit that this worker has heard of."""
        charges = (holding.charge for holding in self._holdings.of_limit(limit) if holding.charge.figures is not None)
        self.reset(charges, order)

    def order(self, target: str, text: str, seconds: float) -> None:
        """Let the whole deployment know what an operator has ordered; 0 seconds take back what the target was."""
        self._unsaid_orders.append((target, text, micros(seconds)))
        self._beat_due = True
        self._flights.fly()


def _enforced(charge: Charge) -> bool:
    return not charge.limit.shadow
