"""What one worker has of the accounts of quotas: units granted by the ledger and not yet used, and the questions.

A call takes what it reserves from the *pools* of its accounts; where they do not suffice it waits for the next question
to the ledger, one of which is under way at a time. All that was ever granted of a slot is this worker's *register* of
it, said again with each question, so that a ledger that has lost the last second, or everything, is right again.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from time import monotonic, time
from typing import Any

import msgspec

from fastgw.limits.batcher import StoreAway
from fastgw.limits.quota_account import QuotaAccount, Register, Reservation
from fastgw.limits.quota_ledger import slot_now
from fastgw.limits.quota_script import OUTSIDE, SHORT, AccountAnswer, AccountRow, LedgerReply, QuotaKeys, QuotaLedger
from fastgw.policy.limits import Subject, shown
from fastgw.policy.quotas import NOTHING, Amounts, OnWarning, Quota, QuotaState, forecast, share

log = logging.getLogger("fastgw")

Spawn = Callable[[Coroutine[Any, Any, Any], str], asyncio.Task[Any]]

IDLE = 0.5
"""Seconds after which units that nobody uses go back, and for which a refusal is remembered."""
SHARE = 100
"""A lease is at most one part in so many of an amount."""
MOST_ACCOUNTS = 64
"""Accounts in one question."""
LOOK_AGAIN = 0.2
"""Seconds between two questions to a ledger that is away."""
FORGET_AFTER = 3600.0
"""Seconds without a call after which an account that holds nothing is forgotten here."""
SWEEP = 1000
"""Accounts that are looked at in one step of forgetting."""
_KINDS = range(5)


Order = tuple[QuotaAccount, tuple[int, ...]]
"""Of an operator: its number, and what it adds of each kind."""


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
            key = self._keys.account(quota.name, subject)
            account = self._accounts[quota.name, subject] = QuotaAccount(
                quota, subject, key, quota.kinds, f"x{next(self._lives)}", used_at=monotonic()
            )
        elif account.quota is not quota:
            if account.quota != quota:
                self._renew(account, quota)
            account.quota = quota
        return account

    def _renew(self, account: QuotaAccount, quota: Quota) -> None:
        """Another amount or period: nothing that was granted under the old one may be used."""
        account.bounds, account.refused_until = (), 0.0
        if account.give_back():
            self._dirty[account] = None
        account.kinds, account.until = quota.kinds, 0.0

    # -- a call ------------------------------------------------------------------------------------------------------

    def take(self, charges: Charges) -> Sequence[Reservation] | None:
        """What the call has taken where the pools suffice, which is usual; else None, and nothing was taken."""
        now, taken = monotonic(), []
        for account, amounts in charges:
            if not account.suffices(amounts, now):
                return None
        for account, amounts in charges:
            taken.append(account.take(amounts, now))
        return taken

    def admit(self, charges: Charges) -> QuotaVerdict | None:
        """The verdict where it needs no waiting; else None, and nothing was taken."""
        now = monotonic()
        for account, amounts in charges:
            if not account.suffices(amounts, now):
                if self.away:
                    return self._alone(charges, now)
                if account.refused_until > now and not account.quota.shadow and _as_much(account, amounts):
                    return QuotaVerdict(refused=account, free=account.free)
                return None
        return self._taken(charges, now, "lease")

    async def ask(self, charges: Charges) -> QuotaVerdict:
        """Wait for the ledger."""
        question = _Question(charges)
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
                amount = amounts[kind]
                over[kind] += amount
                if is_current:
                    left = pool[kind] = pool[kind] + amount - spent[kind]
                    is_short = is_short or left < 0
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

    # -- questions ---------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        if not self._sending and not self.away:
            self._sending = True
            self._spawn(self._send_all(), "asking about quotas")

    async def _send_all(self) -> None:
        try:
            while (self._waiting or self._dirty or self._orders) and not self.away:
                await self._round()
        finally:
            self._sending = False

    async def _round(self) -> None:
        now, waiting = monotonic(), self._next()
        needs: dict[QuotaAccount, list[int]] = {}
        for account, amounts in [charge for question in waiting for charge in question.charges]:
            found = needs.setdefault(account, [0] * 5)
            for kind in account.kinds:
                found[kind] += amounts[kind]
        for account in list(self._dirty)[: max(0, MOST_ACCOUNTS - len(needs))]:
            needs.setdefault(account, [0] * 5)
        orders, self._orders = list(self._orders), deque()
        rows = [self._row(account, need, now) for account, need in needs.items()]
        for account, order in orders:
            rows.append(self._row(account, [0] * 5, now))
            rows[-1].order = order
        for account in needs:
            self._dirty.pop(account, None)
        try:
            reply = await self._ledger.ask(rows)
        except Exception as wrong:  # whoever waits would wait for ever
            if not isinstance(wrong, StoreAway):
                log.exception("a question about quotas failed")
                wrong = StoreAway("defect", repr(wrong))
            self._orders.extendleft(reversed(orders))
            self._lost(waiting, wrong)
            return
        self._heard([*needs, *[account for account, _ in orders]], orders, reply, now)
        outside = {account for account, answer in zip(needs, reply.rows, strict=False) if answer.status == OUTSIDE}
        for question in waiting:
            self._decide(question, outside)

    def _heard(self, accounts: list[QuotaAccount], orders: list[Order], reply: LedgerReply, sent: float) -> None:
        self._ahead = reply.now - int(self._clock() * 1000)
        for account, answer in zip(accounts, reply.rows, strict=True):
            self._answered(account, answer, reply.now, sent)
        for (account, order), answer in zip(orders, reply.rows[len(accounts) - len(orders) :], strict=True):
            account.refused_until = 0.0
            if answer.status == OUTSIDE:
                self._orders.append((account, order))
        if self._epoch not in ("", reply.epoch):
            self._tell_everything()
        self._epoch = reply.epoch

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
        told = [one for one in account.registers.values() if one.dirty or one is account.current]
        for register in told:
            register.dirty = False
        return AccountRow(
            account.key,
            self._keys.index(quota.name),
            _member(account.subject),
            account.period(self._now()),
            quota.amounts,
            quota.warn_at,
            account.seq,
            [(one.start, *one.granted) for one in told],
            _five(need),
            _five(ahead),
            life=account.life,
        )

    def _answered(self, account: QuotaAccount, answer: AccountAnswer, now: int, sent: float) -> None:
        if answer.status == OUTSIDE:
            account.bounds = account.quota.period.boundaries(now)
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
        oldest = account.current.start - max(account.quota.period.rolling, 0)
        old = [at for at, one in account.registers.items() if at < oldest and not one.dirty]
        for at in sorted(old)[: -1 if len(old) > 1 else 0]:
            del account.registers[at]

    def _decide(self, question: _Question, outside: set[QuotaAccount]) -> None:
        now = monotonic()
        if question.verdict.done():
            return
        if any(account in outside for account, _ in question.charges):
            self._waiting.append(question)
            return
        short = [one for one in question.charges if not one[0].suffices(one[1], now)]
        for account, amounts in short:
            if not account.quota.shadow:
                account.refused, account.refused_until = amounts, now + IDLE
        refused = [account for account, _ in short if not account.quota.shadow]
        if refused:
            last = max(refused, key=lambda one: one.free or one.ends)
            question.verdict.set_result(QuotaVerdict(refused=last, free=last.free or last.ends, how="store"))
            return
        verdict = self._taken(question.charges, now, "store")
        verdict.shadowed = tuple([account.quota for account, _ in short])
        for account, _ in short:
            if account.overdrawn():
                self._dirty[account] = None
        question.verdict.set_result(verdict)

    # -- without the ledger ------------------------------------------------------------------------------------------

    def _lost(self, waiting: list[_Question], why: StoreAway) -> None:
        self._count("fastgw_quota_store_errors_total", why.kind)
        self.away = True
        log.warning("quotas cannot be checked: %s", why)
        self._spawn(self._find(), "looking for the store of quotas")
        for question in [*waiting, *self._waiting]:
            self._decide_alone(question)
        self._waiting.clear()

    def _decide_alone(self, question: _Question) -> None:
        if not question.verdict.done():
            question.verdict.set_result(self._alone(question.charges, monotonic()))

    def _alone(self, charges: Charges, now: float) -> QuotaVerdict:
        for account, amounts in charges:
            quota = account.quota
            if quota.shadow or account.suffices(amounts, now):
                continue
            if quota.on_failure == "deny":
                return QuotaVerdict(refused=account, how="deny")
            if quota.on_failure == "local" and not self._has_share(account, amounts):
                return QuotaVerdict(refused=account, free=account.ends, how="local")
        for account, _ in charges:
            self._by_own_clock(account, now)
        verdict = self._taken(charges, now, "local")
        for account, _ in charges:
            account.overdrawn()
            self._lent[account] = None
        return verdict

    def _has_share(self, account: QuotaAccount, amounts: Amounts) -> bool:
        """Whether this worker's part of what was left when last heard of has these still; they are taken of it."""
        left = [
            (most + raised - used) // max(1, self.workers)
            for most, raised, used in zip(account.quota.amounts, account.raised, account.used, strict=True)
        ]
        if any(left[kind] < amounts[kind] for kind in account.kinds):
            return False
        account.used = _five([
            used + amount * max(1, self.workers) for used, amount in zip(account.used, amounts, strict=True)
        ])  # fmt: skip
        return True

    def _by_own_clock(self, account: QuotaAccount, now: float) -> None:
        """The slot that it is by our clock, where the ledger cannot say."""
        if account.until > now:
            return
        at = self._now()
        place = slot_now(account.period(at), at)
        assert place is not None
        if account.current is None or account.current.start != place[0]:
            account.give_back()
            account.current = account.registers.setdefault(place[0], Register(place[0]))
            account.used = account.raised = NOTHING
        account.until, account.ends = now + (place[1] - at) / 1000, place[1]

    async def _find(self) -> None:
        while self.away:
            await asyncio.sleep(LOOK_AGAIN)
            try:
                await self._ledger.ask([])
            except StoreAway:
                continue
            self.away = False
        log.info("quotas are checked again")
        self._tell_everything()
        self._send()

    def _tell_everything(self) -> None:
        """The ledger may have lost the last second, or everything: each register is said again."""
        for account in self._accounts.values():
            if account.registers:
                self._dirty[account] = None
                for register in account.registers.values():
                    register.dirty = True

    # -- now and then, operators -------------------------------------------------------------------------------------

    def heartbeat(self) -> bool:
        """Twice a second: what lies idle goes back. Whether accounts were forgotten: whoever keeps some finds them
        anew.
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
        self._send()
        return len(self._accounts) < before

    def _forget_unused(self, now: float) -> None:
        """Forget some of those that nobody has used for long; called often, it goes round them all."""
        some = list(islice(self._sweep, SWEEP))
        for name, account in some:
            in_use = account.in_flight or account in self._dirty or account in self._lent
            if now - account.used_at > FORGET_AFTER and not in_use and self._accounts.get(name) is account:
                del self._accounts[name]
        if len(some) < SWEEP:
            self._sweep = iter(list(self._accounts.items()))

    def _now(self) -> int:
        return int(self._clock() * 1000) + self._ahead

    def raise_by(self, quota: Quota, subject: Subject, number: int, amounts: Amounts) -> None:
        """An operator adds to an account for the rest of the period; each number is heeded once, whoever repeats it."""
        self._orders.append((self.find(quota, subject), (number, *amounts)))
        self._send()

    async def states(self, quotas: Sequence[Quota], most: int) -> list[QuotaState]:
        """How the accounts stand: those that this worker knows, and those that the ledger lists, the fullest first."""
        for quota in quotas if not self.away else ():
            try:
                listed = await self._ledger.ask([], self._keys.index(quota.name), most)
                found = [self.find(quota, subject) for one in listed.members if (subject := _subject(one)) is not _NONE]
                for at in range(0, len(found), MOST_ACCOUNTS):
                    some = found[at : at + MOST_ACCOUNTS]
                    reply = await self._ledger.ask([self._row(one, [0] * 5, monotonic()) for one in some])
                    for account, answer in zip(some, reply.rows, strict=True):
                        if answer.status != OUTSIDE:
                            account.used, account.raised, account.ends = answer.used, answer.raised, answer.ends
            except StoreAway:
                break
        states = [self._state(one) for one in self._accounts.values()]
        return sorted(states, key=lambda one: -one.share)[:most]

    def _state(self, account: QuotaAccount) -> QuotaState:
        quota, now = account.quota, self._now()
        start = now - quota.period.rolling if quota.period.rolling else account.period(now)[2]
        end = now + quota.period.rolling if quota.period.rolling else account.period(now)[3]
        most = _five([(a + b if a >= 0 else 0) for a, b in zip(quota.amounts, account.raised, strict=True)])
        ends = [
            at
            for kind in account.kinds
            if (at := forecast(account.used[kind], most[kind], start, end, now)) is not None
        ]
        return QuotaState(
            quota, shown(account.subject), start, end, most, account.raised, account.used, _five(account.pool),
            _five([taken - over for taken, over in zip(account.taken, account.over, strict=True)]),
            account.in_flight, share(account.used, most), min(ends, default=None),
        )  # fmt: skip

    def _warn(self, account: QuotaAccount) -> None:
        try:
            self.on_warning(self._state(account))
        except Exception:  # a warning must not cost calls the store
            log.exception("a warning of a quota could not be given")


def _as_much(account: QuotaAccount, amounts: Amounts) -> bool:
    return all(amounts[kind] >= account.refused[kind] for kind in account.kinds)


def _five(values: Sequence[int]) -> Amounts:
    a, b, c, d, e = values
    return a, b, c, d, e


_NONE = object()


def _member(subject: Subject) -> str:
    return msgspec.json.encode(subject).decode()


def _subject(member: str) -> Any:
    """What `_member` wrote; `_NONE` for what a stranger did."""
    try:
        found = msgspec.json.decode(member, type=str | None | list[str | None])
    except (msgspec.MsgspecError, UnicodeError):
        return _NONE
    return tuple(found) if isinstance(found, list) else found
