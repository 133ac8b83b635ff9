"""What one worker has of the accounts of quotas: units granted by the ledger and not yet used, and the questions.

A call takes what it reserves from the *pools* of its accounts; where they do not suffice it waits for the next question
to the ledger, one of which is under way at a time: of two, the one that says less could be heard last. All that was
ever granted of a slot is this worker's *register* of it, said again with each question, so that a ledger that has lost
the last second, or everything, is right again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from time import monotonic, time
from typing import Any

from fastgw.limits.batcher import StoreAway
from fastgw.limits.quota_account import QuotaAccount, Register, Reservation, added, five, state_of
from fastgw.limits.quota_ledger import slot_now
from fastgw.limits.quota_script import OUTSIDE, SHORT, AccountAnswer, AccountRow, QuotaKeys, QuotaLedger
from fastgw.policy.limits import Subject
from fastgw.policy.quotas import NOTHING, Amounts, OnWarning, Quota, QuotaState

log = logging.getLogger("fastgw")

Spawn = Callable[[Coroutine[Any, Any, Any], str], asyncio.Task[Any]]

IDLE = 0.5
"""Seconds after which units that nobody uses go back, and for which a refusal is remembered."""
SHARE = 100
"""A lease is at most one part in so many of an amount."""
MOST_ACCOUNTS = 16
"""Accounts in one question: of rolling windows each takes the store a third of a millisecond."""
LOOK_AGAIN = 0.2
"""Seconds between two questions to a ledger that is away; before the first up to 16 times that, where it was lost again
within `SOON` of being found: some answer only what changes nothing.
"""
SOON = 1.0
FORGET_AFTER = 3600.0
"""Seconds without a call after which an account that holds nothing is forgotten here."""
SWEEP = 1000
"""Accounts that are looked at in one step of forgetting."""
_MOST_TOLD = 2**53 - 1
"""Units of one kind: what is more, the store cannot count."""

Order = tuple[QuotaAccount, tuple[int, ...], int]
"""Of an operator: its number, and what it adds of each kind; Unix ms to which it may be carried out."""


@dataclass(slots=True)
class QuotaVerdict:
    """Whether a call may go.

    Args:
        taken: what it has reserved.
        refused: the account that refuses it; free: Unix ms at which it would not.
        shadowed: those in shadow that would have refused it.
        how: `lease`, `store`, or, while the ledger is away, `local`, `allow`, `deny`.
    """

    taken: tuple[Reservation, ...] = ()
    refused: QuotaAccount | None = None
    free: int = 0
    shadowed: tuple[Quota, ...] = ()
    how: str = "lease"


Charges = Sequence[tuple[QuotaAccount, Amounts]]


class _Question:
    """A call that waits."""

    __slots__ = ("charges", "verdict")

    def __init__(self, charges: Charges) -> None:
        self.charges = charges
        self.verdict: asyncio.Future[QuotaVerdict] = asyncio.get_running_loop().create_future()


class QuotaAccounts:
    """The accounts of one worker.

    Args:
        workers: of the deployment, as far as known: what each may spend by itself is its part.
        count: counts one of a metric: name and labels.
    """

    def __init__(
        self, ledger: QuotaLedger, keys: QuotaKeys, spawn: Spawn, count: Callable[..., None], workers: int = 1
    ) -> None:
        self._ledger, self._keys, self._spawn, self._count, self.workers = ledger, keys, spawn, count, workers
        self._accounts: dict[tuple[str, Subject], QuotaAccount] = {}
        self._waiting: deque[_Question] = deque()
        self._dirty: dict[QuotaAccount, None] = {}
        self._lent: dict[QuotaAccount, None] = {}
        """Those that may hold something."""
        self._sweep: Iterator[tuple[tuple[str, Subject], QuotaAccount]] = iter(())
        self._orders: deque[Order] = deque()
        self._sending, self.away, self._epoch = False, False, ""
        self._turn = asyncio.Lock()
        self._looks, self._found_at, self._lost_soon = False, -SOON, 0
        self._ahead = 0
        """Milliseconds that the ledger's clock is ahead of ours."""
        self._lives = itertools.count(1)
        self._clock: Callable[[], float] = time
        self.on_warning: OnWarning = lambda _: None

    def __iter__(self) -> Iterator[QuotaAccount]:
        return iter(list(self._accounts.values()))

    def find(self, quota: Quota, subject: Subject) -> QuotaAccount:
        """The account of a subject; the quota is in force from now on."""
        account = self._accounts.get((quota.name, subject))
        if account is None:
            account = self._opened(quota, subject)
        elif account.quota is not quota:
            account = self._renewed(account, quota)
        return account

    def _opened(self, quota: Quota, subject: Subject) -> QuotaAccount:
        key, life = self._keys.account(quota.kept_as, subject), f"x{next(self._lives)}"
        account = QuotaAccount(quota, subject, key, quota.kinds, life, used_at=monotonic())
        self._accounts[quota.name, subject] = account
        return account

    def _renewed(self, account: QuotaAccount, quota: Quota) -> QuotaAccount:
        """Under another amount nothing that was granted under the old one may be used. Where other things are counted,
        calls in flight are still of the old account.
        """
        old = account.quota
        if old != quota:
            account.bounds, account.refused_until, account.until = (), 0.0, 0.0
            if account.give_back():
                self._dirty[account] = None
            if (old.kept_as, old.period, old.kinds) != (quota.kept_as, quota.period, quota.kinds):
                return self._opened(quota, account.subject)
        account.quota = quota
        return account

    # -- a call ------------------------------------------------------------------------------------------------------

    def take(self, charges: Charges) -> Sequence[Reservation] | None:
        """What the call has taken where the pools suffice, which is usual; else None, and nothing was taken."""
        now, taken = monotonic(), []
        if len(charges) == 1:
            account, amounts = charges[0]
            return (account.take(amounts, now),) if account.suffices(amounts, now) else None
        for account, amounts in charges:
            if not account.suffices(amounts, now):
                return None
        for account, amounts in charges:
            taken.append(account.take(amounts, now))
        return taken

    def admit(self, charges: Charges) -> QuotaVerdict | None:
        """The verdict where it needs no waiting; else None, and nothing was taken."""
        now, shadow = monotonic(), False
        for account, amounts in charges:
            if not account.suffices(amounts, now):
                if self.away:
                    return self._alone(charges, now)
                if account.quota.shadow:
                    shadow = True
                    continue
                if account.refused_until > now and _as_much(account, amounts):
                    return QuotaVerdict(refused=account, free=account.free)
                return None
        return self._taken_in_shadow(charges, now) if shadow else self._taken(charges, now, "lease")

    async def ask(self, charges: Charges) -> QuotaVerdict:
        """Wait for the ledger."""
        question = _Question(charges)
        for account, _ in charges:
            account.used_at = monotonic()  # it must not be forgotten meanwhile
        self._waiting.append(question)
        self._send()
        try:
            return await question.verdict
        except asyncio.CancelledError:
            if question.verdict.done() and not question.verdict.cancelled():
                self.settle(question.verdict.result().taken, None)
            raise

    def settle(self, taken: Iterable[Reservation], actual: Amounts | None) -> None:
        """A call is over that used `actual` (money in billionths); None: nothing, it goes back whole."""
        send = False
        for account, amounts, register in taken:
            account.in_flight -= 1
            spent = NOTHING if actual is None else actual if account.quota.unit == 1 else account.quota.units(actual)
            pool, over, is_current, is_short = account.pool, account.over, register is account.current, False
            for kind in account.kinds:
                amount, used = amounts[kind], spent[kind]
                over[kind] += amount
                if used != amount and is_current:
                    pool[kind] += amount - used
                    is_short = is_short or pool[kind] < 0
            if is_current:
                if is_short and account.overdrawn():
                    self._dirty[account] = None
                    send = True
            elif register is not None:  # its period is over: nothing comes back in this one
                for kind in account.kinds:
                    register.granted[kind] = max(0, register.granted[kind] - amounts[kind] + spent[kind])
                register.dirty = send = True
                self._dirty[account] = None
        if send:
            self._send()

    def _taken(self, charges: Charges, now: float, how: str) -> QuotaVerdict:
        return QuotaVerdict(tuple([account.take(amounts, now) for account, amounts in charges]), how=how)

    def _taken_in_shadow(self, charges: Charges, now: float) -> QuotaVerdict:
        """An account in shadow keeps nobody waiting: the ledger hears of this with the next question, and whether it
        would have refused is judged by what was last heard.
        """
        beyond = []
        for account, amounts in charges:
            if not account.suffices(amounts, now):
                self._by_own_clock(account, now)
                if account.exceeded_by(amounts):
                    beyond.append(account.quota)
                account.used = added(account.used, amounts)
        verdict = self._taken(charges, now, "lease")
        self._overdraw(charges)
        verdict.shadowed = tuple(beyond)
        return verdict

    def _overdraw(self, charges: Charges) -> None:
        for account, _ in charges:
            if account.overdrawn():
                self._dirty[account] = self._lent[account] = None

    # -- questions ---------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        if not self._sending and not self.away:
            self._sending = True
            self._spawn(self._send_all(), "asking about quotas")

    async def _send_all(self) -> None:
        try:
            while (self._waiting or self._dirty or self._orders or self._looks) and not self.away:
                await self._round()
        finally:
            self._sending = False

    async def _round(self) -> None:
        waiting, self._looks = self._next(), False
        needs: dict[QuotaAccount, list[int]] = {}
        for account, amounts in [charge for question in waiting for charge in question.charges]:
            found = needs.setdefault(account, [0] * 5)
            for kind in account.kinds:
                found[kind] += amounts[kind]
        orders = self._next_orders()
        for account in [*orders, *islice(self._dirty, max(0, MOST_ACCOUNTS - len(needs)))]:
            needs.setdefault(account, [0] * 5)
        try:
            answers = await self._question(needs, orders)
        except Exception as wrong:  # whoever waits would wait for ever
            if not isinstance(wrong, StoreAway):
                log.exception("a question about quotas failed")
                wrong = StoreAway("defect", repr(wrong))
            self._orders.extendleft(reversed(orders.values()))
            self._lost(waiting, wrong)
            return
        outside = {account for account, answer in answers.items() if answer.status == OUTSIDE}
        self._orders.extend(order for account, order in orders.items() if account in outside)
        for account in {one for question in waiting for one in self._decide(question, outside)}:
            if account.give_back():  # part of what was lacking: others can use it
                self._dirty[account] = None

    def _next_orders(self) -> dict[QuotaAccount, Order]:
        """One of each account: two rows about one would say the same and contradict each other."""
        orders: dict[QuotaAccount, Order] = {}
        for _ in range(len(self._orders)):
            order = self._orders.popleft()
            if self.now() < order[2] and orders.setdefault(order[0], order) is not order:
                self._orders.append(order)
        return orders

    async def _question(
        self, needs: dict[QuotaAccount, list[int]], orders: dict[QuotaAccount, Order]
    ) -> dict[QuotaAccount, AccountAnswer]:
        """Ask about these accounts, and go by the answers.

        Raises:
            StoreAway: there are none.
        """
        async with self._turn:
            sent, at = monotonic(), self.now()
            try:
                rows = [self._row(account, need, sent) for account, need in needs.items()]
                for row, account in zip(rows, needs, strict=True):
                    row.order = orders[account][1] if account in orders else ()
                reply = await self._ledger.ask(rows)
            except BaseException:
                self._untold(needs, at)
                raise
            self._ahead = reply.now - int(self._clock() * 1000)
            answers = dict(zip(needs, reply.rows, strict=True))
            for account, answer in answers.items():
                self._answered(account, answer, reply.now, sent)
                if account in orders:
                    account.refused_until = 0.0
            if self._epoch not in ("", reply.epoch):
                self._tell_everything()
            self._epoch = reply.epoch
            return answers

    def _untold(self, accounts: Iterable[QuotaAccount], since: int) -> None:
        """Nobody knows whether the ledger has heard, or granted what we have not got, since then (Unix ms)."""
        for account in accounts:
            for at in (since, self.now()):
                if (place := slot_now(account.period(at), at)) is not None:
                    account.registers.setdefault(place[0], Register(place[0]))
            self._tell_all_of(account)

    def _tell_all_of(self, account: QuotaAccount) -> None:
        self._dirty[account] = None
        for register in account.registers.values():
            register.dirty = True

    def _next(self) -> list[_Question]:
        found: list[_Question] = []
        about = set[QuotaAccount]()
        while self._waiting:
            own = {account for account, _ in self._waiting[0].charges}
            if found and len(about | own) > MOST_ACCOUNTS:
                break
            about |= own
            found.append(self._waiting.popleft())
        return [one for one in found if not one.verdict.done()]

    def _row(self, account: QuotaAccount, need: list[int], now: float) -> AccountRow:
        quota = account.quota
        ahead = [0] * 5
        if any(need):
            passed = max(1.0, now - account.since)
            for kind in account.kinds:
                ahead[kind] = min(
                    int((account.taken[kind] - account.before[kind]) / passed), max(0, quota.amounts[kind]) // SHARE
                )
            if now - account.since > 1.0:
                account.since, account.before = now, account.taken.copy()
        account.seq += 1
        self._dirty.pop(account, None)
        told = [one for one in account.registers.values() if one.dirty or one is account.current]
        for register in told:
            register.dirty = False
        return AccountRow(
            account.key,
            self._keys.index(quota.kept_as),
            _member(account.subject),
            account.period(self.now()),
            quota.amounts,
            quota.warn_at,
            account.seq,
            [(one.start, *[min(units, _MOST_TOLD) for units in one.granted]) for one in told if not account.ended],
            five([min(units, _MOST_TOLD) for units in need]),
            five(ahead),
            life=account.life,
            ended=int(account.ended),
        )

    def _answered(self, account: QuotaAccount, answer: AccountAnswer, now: int, sent: float) -> None:
        if answer.status == OUTSIDE:
            account.bounds = account.quota.period.boundaries(now)
            self._tell_all_of(account)
            return
        account.until = sent + (answer.ends - now) / 1000
        if account.current is None or account.current.start != answer.slot:
            if account.give_back():
                self._dirty[account] = None
            account.current = account.registers.setdefault(answer.slot, Register(answer.slot))
            self._forget_slots(account)
        if any(answer.granted):
            self._lent[account] = None
        for kind in account.kinds:
            account.current.granted[kind] += answer.granted[kind]
            account.pool[kind] += answer.granted[kind]
        account.used, account.raised, account.ends, account.free = answer.used, answer.raised, answer.ends, answer.free
        if answer.status != SHORT:
            account.refused_until = 0.0
        if answer.warned:
            self._warn(account)

    def _forget_slots(self, account: QuotaAccount) -> None:
        assert account.current is not None
        period = account.quota.period
        oldest = account.current.start - period.rolling - period.width
        old = [at for at, one in account.registers.items() if at < oldest and (period.rolling or not one.dirty)]
        for at in sorted(old)[:-1]:
            del account.registers[at]

    def _decide(self, question: _Question, outside: set[QuotaAccount]) -> list[QuotaAccount]:
        """Give its verdict, or let it wait for another answer; the accounts that refuse it."""
        now = monotonic()
        if question.verdict.done():
            return []
        if any(account in outside for account, _ in question.charges):
            self._waiting.append(question)
            return []
        short = [one for one in question.charges if not one[0].suffices(one[1], now)]
        for account, amounts in short:
            if not account.quota.shadow:
                account.refused, account.refused_until = amounts, now + IDLE
        refused = [account for account, _ in short if not account.quota.shadow]
        if refused:
            last = max(refused, key=lambda one: one.free or one.ends)
            question.verdict.set_result(QuotaVerdict(refused=last, free=last.free or last.ends, how="store"))
            return refused
        verdict = self._taken(question.charges, now, "store")
        verdict.shadowed = tuple([account.quota for account, _ in short])
        self._overdraw(question.charges)
        question.verdict.set_result(verdict)
        return []

    # -- without the ledger ------------------------------------------------------------------------------------------

    def _lost(self, waiting: list[_Question], why: StoreAway) -> None:
        self._count("fastgw_quota_store_errors_total", why.kind)
        self.away = True
        self._lost_soon = min(4, self._lost_soon + 1) if monotonic() - self._found_at < SOON else 0
        log.warning("quotas cannot be checked: %s", why)
        self._spawn(self._find(), "looking for the store of quotas")
        for question in [*waiting, *self._waiting]:
            self._decide_alone(question)
        self._waiting.clear()

    def _decide_alone(self, question: _Question) -> None:
        if not question.verdict.done():
            question.verdict.set_result(self._alone(question.charges, monotonic()))

    def _alone(self, charges: Charges, now: float) -> QuotaVerdict:
        for account, _ in charges:
            self._by_own_clock(account, now)
        short = [one for one in charges if not one[0].quota.shadow and not one[0].suffices(one[1], now)]
        for account, amounts in short:
            if account.quota.on_failure == "deny":
                return QuotaVerdict(refused=account, how="deny")
            if account.quota.on_failure == "local" and account.exceeded_by(amounts, self.workers):
                return QuotaVerdict(refused=account, free=account.ends, how="local")
        for account, amounts in short:  # of what was last known to be left we take only our part
            account.used = added(account.used, five([amount * max(1, self.workers) for amount in amounts]))
        verdict = self._taken(charges, now, "local")
        self._overdraw(charges)
        return verdict

    def _by_own_clock(self, account: QuotaAccount, now: float) -> None:
        """The slot that it is by our clock, where the ledger cannot say."""
        if account.until > now:
            return
        at = self.now()
        place = slot_now(account.period(at), at)
        assert place is not None
        if account.current is None or account.current.start != place[0]:
            if account.give_back():
                self._dirty[account] = None
            account.current = account.registers.setdefault(place[0], Register(place[0]))
            self._forget_slots(account)
            if not account.quota.period.rolling:
                account.used = account.raised = NOTHING
        account.until, account.ends = now + (place[1] - at) / 1000, place[1]

    async def _find(self) -> None:
        await asyncio.sleep(LOOK_AGAIN * (2**self._lost_soon - 1))
        while self.away:
            await asyncio.sleep(LOOK_AGAIN)
            try:
                async with self._turn:
                    await self._ledger.ask([])
            except StoreAway:
                continue
            except Exception:  # nobody else looks for it
                log.exception("looking for the store of quotas failed")
                continue
            self.away, self._found_at = False, monotonic()
        log.info("quotas are checked again")
        self._tell_everything()
        self._send()

    def _tell_everything(self) -> None:
        """The ledger may have lost the last second, or everything: each register is said again."""
        for account in self._accounts.values():
            if account.registers:
                self._tell_all_of(account)

    # -- now and then, operators -------------------------------------------------------------------------------------

    def heartbeat(self) -> bool:
        """Twice a second: what lies idle goes back, and the ledger is asked whether it is still what it was. Whether
        accounts were forgotten: whoever keeps some finds them anew.
        """
        now = monotonic()
        for account in list(self._lent):
            if account.until <= now or now - account.used_at > IDLE:
                if account.give_back():
                    self._dirty[account] = None
                if not account.in_flight:
                    del self._lent[account]
        before = len(self._accounts)
        self._forget_unused(now)
        self._looks = bool(self._accounts)
        self._send()
        return len(self._accounts) < before

    def _forget_unused(self, now: float) -> None:
        """Forget some of those that nobody has used for long; called often, it goes round them all."""
        some = list(islice(self._sweep, SWEEP))
        for name, account in some:
            in_use = account.in_flight or account in self._dirty or account in self._lent
            if now - account.used_at > FORGET_AFTER and not in_use and self._accounts.get(name) is account:
                del self._accounts[name]
                if account.registers:
                    account.ended, self._dirty[account] = True, None
        if len(some) < SWEEP:
            self._sweep = iter(list(self._accounts.items()))

    def now(self) -> int:
        """The ledger's clock, as far as known: Unix ms."""
        return int(self._clock() * 1000) + self._ahead

    def raise_by(self, quota: Quota, subject: Subject, number: int, amounts: Amounts) -> None:
        """An operator adds to an account for the rest of the period; each number is heeded once, whoever repeats it."""
        account, now = self.find(quota, subject), self.now()
        ends = now + quota.period.rolling if quota.period.rolling else account.period(now)[3]
        self._orders.append((account, (number, *amounts), ends))
        self._send()

    async def states(self, quotas: Sequence[Quota], most: int) -> list[QuotaState]:
        """How the accounts stand: those that this worker knows, and those that the ledger lists, the fullest first."""
        try:
            for quota in quotas if not self.away else ():
                await self._hear_of(quota, most)
        except StoreAway as wrong:
            log.info("quotas are reported as they were last known: %s", wrong)
        named = {quota.name: quota for quota in quotas}
        known = [one for one in self if one.quota.name in named and one.quota.kept_as == named[one.quota.name].kept_as]
        states = [state_of(self.find(named[one.quota.name], one.subject), self.now()) for one in known]
        return sorted(states, key=lambda one: -one.share)[:most]

    async def _hear_of(self, quota: Quota, most: int) -> None:
        async with self._turn:
            listed = await self._ledger.ask([], self._keys.index(quota.kept_as), most)
        found = [self.find(quota, subject) for one in listed.members if (subject := _subject(one)) is not _NONE]
        for at in range(0, len(found), MOST_ACCOUNTS):
            await self._question({account: [0] * 5 for account in found[at : at + MOST_ACCOUNTS]}, {})

    def _warn(self, account: QuotaAccount) -> None:
        try:
            self.on_warning(state_of(account, self.now()))
        except Exception:  # a warning must not cost calls the store
            log.exception("a warning of a quota could not be given")


def _as_much(account: QuotaAccount, amounts: Amounts) -> bool:
    return all(amounts[kind] >= account.refused[kind] for kind in account.kinds)


_NONE = object()


def _member(subject: Subject) -> str:
    return json.dumps(subject)  # in ASCII, whatever it holds


def _subject(member: str) -> Any:
    """What `_member` wrote; `_NONE` for what a stranger did."""
    try:
        found = json.loads(member)
    except (ValueError, RecursionError):
        return _NONE
    parts = found if isinstance(found, list) else [found]
    if not all(part is None or isinstance(part, str) for part in parts):
        return _NONE
    return tuple(found) if isinstance(found, list) else found
