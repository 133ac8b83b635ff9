"""Quotas on the admin port: how the accounts stand, and raising one for the rest of its period, which needs the admin
token.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from aiohttp import web

from fastgw.admin.orders import AuditLog
from fastgw.config.schema.rules import QuotaSettings
from fastgw.gateway.quota_gate import MOST_ACCOUNTS_SHOWN, Raise
from fastgw.policy.quotas import BILLIONTH, KINDS

More = Annotated[int, msgspec.Meta(ge=1, le=2**53)]


class RaiseOrder(msgspec.Struct, forbid_unknown_fields=True):
    """By how much which account is raised, for the rest of its period.

    Args:
        subject: values of the quota's `by`, in their order.
        cost: decimal text, in the currency.
    """

    quota: str
    subject: tuple[str | None, ...] = ()
    calls: More | None = None
    tokens: More | None = None
    tokens_in: More | None = None
    tokens_out: More | None = None
    cost: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9})?$")] | None = None

    @property
    def amounts(self) -> tuple[int, int, int, int, int]:
        """In the order of `policy.quotas.KINDS`, money in billionths."""
        money = int(Decimal(self.cost or 0) * BILLIONTH)
        return self.calls or 0, self.tokens or 0, self.tokens_in or 0, self.tokens_out or 0, money


@dataclass(frozen=True, slots=True)
class OperatorQuotas:
    """Quotas, as operators meet them; `ask` asks all workers, every order is written to `audit`."""

    ask: Callable[[str, tuple[Any, ...]], Awaitable[list[Any]]]
    quotas: Callable[[], Sequence[QuotaSettings]]
    audit: AuditLog

    async def report(self) -> list[dict[str, Any]]:
        """How the accounts stand, those first of which most is used."""
        if not self.quotas():
            return []
        reports = await self.ask("quotas", ())
        return _merged(row for report in reports if report is not None for row in report["quotas"])

    async def raise_account(self, order: RaiseOrder, who: str) -> dict[str, Any]:
        """Add to an account for the rest of its period; what was written down of it.

        Raises:
            web.HTTPBadRequest: no such quota, its accounts are told apart otherwise, or it does not count that.
            OSError: it cannot be written down, so it was not done.
        """
        self._check(order)
        what = {name: value for name in KINDS if (value := getattr(order, name)) is not None}
        entry = self.audit.write(who, "raise", quota=order.quota, subject=order.subject, **what)
        text = msgspec.json.encode(Raise(secrets.randbelow(2**32) + 1, order.quota, order.subject, order.amounts))
        await self.ask("raise", (text.decode(),))
        return entry

    def _check(self, order: RaiseOrder) -> None:
        known = {quota.name: quota for quota in self.quotas()}
        quota = known.get(order.quota)
        if quota is None:
            raise web.HTTPBadRequest(text=f"there is no quota {order.quota!r}; there are {', '.join(known) or 'none'}")
        if len(order.subject) != len(quota.by):
            words = f"subject must be the values of [{', '.join(quota.by)}], in this order"
            raise web.HTTPBadRequest(text=words)
        named = [name for name in KINDS if getattr(order, name) is not None]
        if not named:
            raise web.HTTPBadRequest(text=f"say by how much: {', '.join(KINDS)}")
        for name in named:
            if getattr(quota, name) is None:
                raise web.HTTPBadRequest(text=f"quota {quota.name} does not count {name}")


def _merged(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each account: what is used as the store says, what is held and in flight as the sum over workers."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = row["quota"], row["subject"]
        known = found.setdefault(key, row)
        if known is row:
            continue
        newer, older = (row, known) if row["share"] > known["share"] else (known, row)
        newer["inFlight"] += older["inFlight"]
        for kind, amount in newer["amounts"].items():
            for name in ("held", "reserved"):
                amount[name] = _sum(amount[name], older["amounts"].get(kind, amount | {name: 0})[name])
        found[key] = newer
    return sorted(found.values(), key=lambda row: -row["share"])[:MOST_ACCOUNTS_SHOWN]


def _sum(one: int | str, other: int | str) -> int | str:
    if isinstance(one, int) and isinstance(other, int):
        return one + other
    return format(Decimal(one) + Decimal(other), "f")
