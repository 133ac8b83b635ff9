"""The gate of quotas: what a call reserves before it goes to its server, and what is settled when it is over.

Where accounts are kept, and how they are decided, is in `limits/quota_accounts.py` and below it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import ceil
from time import monotonic
from typing import Annotated, Any

import msgspec

from fastgw.catalog.route import Arm
from fastgw.errors import Fault, Kind
from fastgw.gateway.admission import MOST_CHARGES, SOON, AdmissionGate, Spawn, call_subject
from fastgw.gateway.context import RequestContext
from fastgw.gateway.quota_charges import Estimate, QuotaCharges
from fastgw.limits.quota_account import QuotaAccount
from fastgw.limits.quota_accounts import QuotaAccounts, QuotaVerdict
from fastgw.limits.quota_ledger import LocalLedger
from fastgw.policy.limits import applying_rules
from fastgw.policy.match import Claim, Match
from fastgw.policy.quotas import Amounts, Quota, QuotaState, rfc3339
from fastgw.snapshot.model import Snapshot
from fastgw.telemetry.counters import Counters

log = logging.getLogger("fastgw")

HEARTBEAT = 0.5
MOST_KNOWN = 20_000
"""Agents, and tools, of which it is remembered which quotas speak of them, and what their calls took lately."""
MOST_ACCOUNTS_SHOWN = 1000
UNKNOWN = ("timeout", "unknown", "cancelled")
"""Outcomes after which nobody knows what a call used: it counts as what it had reserved."""


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


_LOST = Kind.LOST.code
_NOTHING = Estimate()


class QuotaGate(AdmissionGate):
    """Holds one worker's calls to the quotas."""

    def __init__(self, accounts: QuotaAccounts, counters: Counters, local: LocalLedger | None = None) -> None:
        self.accounts = accounts
        self._counters, self._local = counters, local
        self._quotas: tuple[Quota, ...] = ()
        self._known: dict[tuple[str, str], tuple[Mapping[str, Claim], Sequence[tuple[Quota, Match | None]]]] = {}
        self._estimates: dict[tuple[str, str], Estimate] = {}
        self._generation = 0
        """Grows when what calls reserve (`Access.quotas`) must be found anew."""
        self.on_warning: Callable[[str, dict[str, object]], object] = lambda *_: None
        """Called with words and a report by one worker of the deployment, when an account first reaches `warn_at` in a
        period.
        """
        accounts.on_warning = self._warn

    def load(self, snapshot: Snapshot) -> None:
        """Go by the quotas of this snapshot. What is spent stays: accounts are known by the quota's name."""
        self._generation += 1
        if snapshot.quotas != self._quotas:
            self._quotas = snapshot.quotas
            self._known.clear()

    def prepare(self, spawn: Spawn) -> None:
        """Begin."""
        spawn(self._run(), "looking after quotas")

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT)
            try:
                if self.accounts.heartbeat():
                    self._generation += 1
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
        access = context.access
        assert access is not None
        found = access.quotas.get(context.tool or "")
        if (
            found is None
            or found.arm is not context.arm
            or found.generation != self._generation
            or found.largest is not found.estimate.largest
        ):
            found = self._charges(context)
            self._remember(context, found)
        charges = _counted(context, found) if found.matches else found.charges
        if not charges:
            return None
        context.estimate = found.estimate
        context.reserved = taken = self.accounts.take(charges) or ()
        if taken:
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
        wait = max(SOON, ceil((verdict.free - self.accounts.now()) / 1000))
        at = rfc3339(verdict.free)
        data = {"quota": quota.name, "by": list(quota.by), "resetAt": at}
        raise Fault(Kind.OVER_QUOTA, f"Quota {quota.name} is used up until {at}", data=data, retry_after=wait)

    def settle(self, context: RequestContext) -> None:
        """The call is over: what it did not use goes back, what it used beyond its reservation is counted."""
        taken = context.reserved
        if not taken:
            return
        context.reserved = ()
        if context.cached or not context.sent:
            self.accounts.settle(taken, None)
            return
        tokens_in, tokens_out, cost = context.tokens_in or 0, context.tokens_out or 0, context.cost or 0
        if context.outcome != "ok" and (context.outcome in UNKNOWN or context.error_code == _LOST):
            for one in taken:
                account, (a, b, c, d, e), _ = one
                money = max(cost, e * account.quota.unit)
                self.accounts.settle(
                    (one,), (a, max(b, tokens_in + tokens_out), max(c, tokens_in), max(d, tokens_out), money)
                )
            return
        assert context.estimate is not None
        context.estimate.learn((tokens_in, tokens_out, cost), monotonic())
        self.accounts.settle(taken, (1, tokens_in + tokens_out, tokens_in, tokens_out, cost))

    # -- what it counts in -------------------------------------------------------------------------------------------

    def _charges(self, context: RequestContext) -> QuotaCharges:
        """What the call reserves of which accounts: the same for all calls of one tool until it learns of a dearer."""
        access, call, arm = context.access, context.call, context.arm
        assert access is not None and call is not None and arm is not None
        if not (speaking := self._speaking(context)):
            return QuotaCharges(arm, self._generation, _NOTHING, _NOTHING.largest, (), ())
        subject = call_subject(context, [quota.tools for quota, _ in speaking])
        estimate = self._estimate(arm)
        amounts, charges, matches = arm.reservation(estimate.largest), [], []
        for quota, match in speaking:
            if quota.tools is None or quota.tools.take(subject):
                read = quota.subject_reader(context.endpoint.path, subject)
                charges.append((self.accounts.find(quota, read(context.principal)), quota.units(amounts)))
                matches.append(match)
        return QuotaCharges(arm, self._generation, estimate, estimate.largest, charges, matches if any(matches) else ())

    def _remember(self, context: RequestContext, charges: QuotaCharges) -> None:
        assert context.access is not None
        if context.tool is not None:  # agents can write as many URIs as they like
            known = context.access.quotas
            if len(known) >= MOST_CHARGES:
                known.clear()
            known[context.tool] = charges

    def _estimate(self, arm: Arm) -> Estimate:
        target = arm.targets[0]
        key = target.server, target.tool
        found = self._estimates.get(key)
        if found is None:
            if len(self._estimates) >= MOST_KNOWN:
                self._estimates.clear()
            found = self._estimates[key] = Estimate()
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


def _counted(context: RequestContext, found: QuotaCharges) -> list[tuple[QuotaAccount, Amounts]]:
    """Those of the accounts that count a call with these arguments."""
    assert context.call is not None
    arguments = context.call.params.get("arguments", b"{}")
    return [
        charge
        for charge, match in zip(found.charges, found.matches, strict=True)
        if match is None or match.judge(arguments) is not False
    ]
