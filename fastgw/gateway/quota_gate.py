"""The gate of quotas: what a call reserves before it goes to its server, and what is settled when it is over.

Where accounts are kept, and how they are decided, is in `limits/quota_accounts.py` and below it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import ceil
from time import monotonic, time
from typing import Annotated, Any

import msgspec

from fastgw.catalog.route import Arm
from fastgw.errors import Fault, Kind
from fastgw.gateway.admission import SOON, AdmissionGate, Spawn, call_subject
from fastgw.gateway.context import RequestContext
from fastgw.limits.quota_account import Reservation
from fastgw.limits.quota_accounts import QuotaAccounts, QuotaVerdict
from fastgw.limits.quota_ledger import LocalLedger
from fastgw.policy.limits import SubjectReader, applying_rules
from fastgw.policy.match import Claim, Match
from fastgw.policy.quotas import Amounts, Quota, QuotaState, rfc3339
from fastgw.protocol import names
from fastgw.snapshot.model import Snapshot
from fastgw.telemetry.counters import Counters

log = logging.getLogger("fastgw")

HEARTBEAT = 0.5
MOST_KNOWN = 20_000
"""Agents, and tools, of which it is remembered which quotas speak of them, and what their calls took lately."""
MOST_ACCOUNTS_SHOWN = 1000
RECENT = 300.0
"""Seconds; the dearest call of this stretch and of the one before is what the next one reserves."""
UNKNOWN = ("timeout", "unknown", "cancelled")
"""Outcomes after which nobody knows what a call used: it counts as what it had reserved."""

Counted = list[tuple[Quota, Match | None, SubjectReader]]


class Raise(msgspec.Struct, frozen=True, tag_field="do", tag="raise"):
    """An operator adds to an account for the rest of its period.

    Args:
        number: of no other order: each is obeyed once, whoever repeats it.
        subject: values of the quota's `by`, in order.
        amounts: more of each of `quotas.KINDS`; money in billionths of the currency.
    """

    number: Annotated[int, msgspec.Meta(ge=1, le=2**32)]
    quota: str
    subject: tuple[str | None, ...]
    amounts: tuple[
        Annotated[int, msgspec.Meta(ge=0, le=2**53)],
        Annotated[int, msgspec.Meta(ge=0, le=2**53)],
        Annotated[int, msgspec.Meta(ge=0, le=2**53)],
        Annotated[int, msgspec.Meta(ge=0, le=2**53)],
        Annotated[int, msgspec.Meta(ge=0, le=2**60)],
    ]


_RAISE = msgspec.json.Decoder(Raise).decode


class Estimates:
    """The dearest recent calls of each tool: (tokens in, tokens out, money) of two stretches of `RECENT`."""

    def __init__(self) -> None:
        self._since = monotonic()
        self._now: dict[tuple[str, str], tuple[int, int, int]] = {}
        self._before: dict[tuple[str, str], tuple[int, int, int]] = {}

    def learn(self, key: tuple[str, str], used: tuple[int, int, int]) -> bool:
        """A call of it used this much; whether that changes what to expect of some."""
        now, changed = monotonic(), False
        if now - self._since > RECENT or len(self._now) >= MOST_KNOWN:
            self._before = self._now if now - self._since < 2 * RECENT else {}
            self._now, self._since = {}, now
            changed = True
        known = self._now.get(key)
        if known is None or used[0] > known[0] or used[1] > known[1] or used[2] > known[2]:
            a, b, c = known or (0, 0, 0)
            self._now[key] = max(a, used[0]), max(b, used[1]), max(c, used[2])
            changed = True
        return changed

    def largest(self, key: tuple[str, str]) -> tuple[int, int, int]:
        """What to expect of the next one."""
        a, b = self._now.get(key, (0, 0, 0)), self._before.get(key, (0, 0, 0))
        return max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2])


class QuotaGate(AdmissionGate):
    """Holds one worker's calls to the quotas."""

    def __init__(self, accounts: QuotaAccounts, counters: Counters, local: LocalLedger | None = None) -> None:
        self.accounts = accounts
        self._counters, self._local = counters, local
        self._quotas: tuple[Quota, ...] = ()
        self._known: dict[tuple[str, str], tuple[Mapping[str, Claim], Sequence[tuple[Quota, Match | None]]]] = {}
        self._counted: dict[tuple[str, ...], tuple[object, Counted]] = {}
        self._estimates = Estimates()
        self._reserves: dict[int, tuple[Arm, Amounts]] = {}
        self.on_warning: Callable[[str, dict[str, object]], object] = lambda *_: None
        """Called with words and a report by one worker of the deployment, when an account first reaches `warn_at` in a
        period.
        """
        accounts.on_warning = self._warn

    def load(self, snapshot: Snapshot) -> None:
        """Go by the quotas of this snapshot. What is spent stays: accounts are known by the quota's name."""
        self._reserves.clear()
        if snapshot.quotas != self._quotas:
            self._quotas = snapshot.quotas
            self._known.clear()
            self._counted.clear()

    def prepare(self, spawn: Spawn) -> None:
        """Begin."""
        spawn(self._run(), "looking after quotas")

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT)
            try:
                self.accounts.heartbeat()
                if self._local is not None:
                    await self._local.sync()
            except Exception:
                log.exception("quotas could not be looked after")

    # -- a call ------------------------------------------------------------------------------------------------------

    def admit(self, context: RequestContext) -> Awaitable[None] | None:
        """Reserve what the call may use, or refuse it.

        Raises:
            Fault: OVER_QUOTA; FULL where a quota that must hold cannot be checked.
        """
        if not self._quotas:
            return None
        counted = self._counting(context)
        if not counted:
            return None
        reserve, charges = self._reserve(context), []
        arguments = None
        for quota, match, read in counted:
            if match is not None:
                if arguments is None:
                    assert context.call is not None
                    arguments = context.call.params.get("arguments", b"{}")
                if match.judge(arguments) is False:
                    continue
            amounts = reserve if quota.unit == 1 else quota.units(reserve)
            charges.append((self.accounts.find(quota, read(context.principal)), amounts))
        if not charges:
            return None
        verdict = self.accounts.admit(charges)
        if verdict is None:
            return self._admit_later(context, self.accounts.ask(charges))
        self._judge(context, verdict)
        return None

    async def _admit_later(self, context: RequestContext, asked: Awaitable[QuotaVerdict]) -> None:
        self._judge(context, await asked)

    def _judge(self, context: RequestContext, verdict: QuotaVerdict) -> None:
        context.reserved = verdict.taken
        for quota in verdict.shadowed:
            self._counters.inc("fastgw_quota_refusals_total", quota.name, "shadow")
        account = verdict.refused
        if account is None:
            return
        quota = account.quota
        context.refused_by = quota.name
        self._counters.inc("fastgw_quota_refusals_total", quota.name, "enforce")
        if verdict.how == "deny":
            raise Fault(Kind.FULL, "A quota cannot be checked now", retry_after=SOON)
        wait = max(SOON, ceil(verdict.free / 1000 - time()))
        at = rfc3339(verdict.free)
        data = {"quota": quota.name, "by": list(quota.by), "resetAt": at}
        raise Fault(Kind.OVER_QUOTA, f"Quota {quota.name} is used up until {at}", data=data, retry_after=wait)

    def settle(self, context: RequestContext) -> None:
        """The call is over: what it did not use goes back, what it used beyond its reservation is counted."""
        taken: Sequence[Reservation] = context.reserved
        if not taken:
            return
        context.reserved = ()
        if context.cached or not context.times_sent:
            self.accounts.settle(taken, None)
            return
        tokens_in, tokens_out, cost = context.tokens_in or 0, context.tokens_out or 0, context.cost or 0
        if context.outcome in UNKNOWN or context.error_code == Kind.LOST.code:
            for one in taken:
                a, b, c, d, e = one.amounts
                money = max(cost, e * one.account.quota.unit)
                self.accounts.settle(
                    (one,), (a, max(b, tokens_in + tokens_out), max(c, tokens_in), max(d, tokens_out), money)
                )
            return
        if self._estimates.learn(_key(context), (tokens_in, tokens_out, cost)):
            self._reserves.clear()
        self.accounts.settle(taken, (1, tokens_in + tokens_out, tokens_in, tokens_out, cost))

    def _reserve(self, context: RequestContext) -> Amounts:
        """What the call may use: as its tool says, else as the dearest of late; at least one unit."""
        arm = context.arm
        assert arm is not None
        known = self._reserves.get(id(arm))
        if known is not None and known[0] is arm:
            return known[1]
        if len(self._reserves) >= MOST_KNOWN:
            self._reserves.clear()
        found = self._reserve_of(arm, self._estimates.largest(_key(context)))
        self._reserves[id(arm)] = arm, found
        return found

    def _reserve_of(self, arm: Arm, largest: tuple[int, int, int]) -> Amounts:
        a, b, c = largest
        least = max([0, *[one.price.cost(0, 0) for one in arm.meters if one.price is not None]])
        tokens, tokens_in, tokens_out, cost = arm.reserve
        return (
            1,
            max(1, a + b) if tokens is None else tokens,
            max(1, a) if tokens_in is None else tokens_in,
            max(1, b) if tokens_out is None else tokens_out,
            max(1, c, least) if cost is None else max(cost, least),
        )

    # -- what it counts in -------------------------------------------------------------------------------------------

    def _counting(self, context: RequestContext) -> Counted:
        call, grant, arm = context.call, context.grant, context.arm
        assert call is not None and grant is not None and arm is not None
        key = (
            context.endpoint.path,
            context.principal.agent,
            call.method,
            grant.route.name,
            arm.target.server,
            arm.target.tool,
        )
        claims, found = self._counted.get(key, (None, None))
        if found is not None and claims is context.principal.claims:
            return found
        speaking = self._speaking(context)
        subject = call_subject(context, [quota.tools for quota, _ in speaking])
        found = [
            (quota, match, quota.subject_reader(context.endpoint.path, subject))
            for quota, match in speaking
            if quota.tools is None or quota.tools.take(subject)
        ]
        if call.method in (names.TOOLS_CALL, names.PROMPTS_GET):  # agents can write as many URIs as they like
            if len(self._counted) >= MOST_KNOWN:
                self._counted.clear()
            self._counted[key] = context.principal.claims, found
        return found

    def _speaking(self, context: RequestContext) -> Sequence[tuple[Quota, Match | None]]:
        principal, path = context.principal, context.endpoint.path
        claims, found = self._known.get((path, principal.agent), (None, None))
        if found is None or claims is not principal.claims:
            found = applying_rules(self._quotas, principal, path)
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[path, principal.agent] = principal.claims, found
        return found

    # -- operators ---------------------------------------------------------------------------------------------------

    def _warn(self, state: QuotaState) -> None:
        self._counters.inc("fastgw_quota_warnings_total", state.quota.name)
        at = f"used up on {rfc3339(state.used_up)} at this pace" if state.used_up is not None else "enough at this pace"
        whose = f" of {state.subject}" if state.quota.by else ""
        words = f"Quota {state.quota.name}{whose}: {state.share:.0%} used, {at}"
        log.warning("%s", words)
        self.on_warning(words, state.report())

    def raise_amounts(self, text: str) -> str | None:
        """Carry out a `Raise`, given as JSON; what is wrong with it, None where nothing is."""
        try:
            order = _RAISE(text)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as wrong:
            return str(wrong)
        quota = next((one for one in self._quotas if one.name == order.quota), None)
        if quota is None or len(order.subject) != len(quota.by):
            return f"there is no quota {order.quota!r} by {len(order.subject)} values"
        *counts, money = order.amounts
        a, b, c, d = counts
        amounts: Amounts = a, b, c, d, -(-money // quota.unit)
        subject = order.subject[0] if len(order.subject) == 1 else order.subject
        self.accounts.raise_by(quota, subject, order.number, amounts)
        return None

    async def report(self) -> dict[str, Any]:
        """How the quotas stand, fit for JSON: the fullest accounts of each, of all workers."""
        states = await self.accounts.states(self._quotas, MOST_ACCOUNTS_SHOWN)
        return {"quotas": [one.report() for one in states], "store": "away" if self.accounts.away else "up"}


def _key(context: RequestContext) -> tuple[str, str]:
    assert context.arm is not None
    target = context.arm.target
    return target.server, target.tool
