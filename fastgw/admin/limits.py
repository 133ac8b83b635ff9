"""`/limits` on the admin port: the fullest buckets of all workers, and resets, which need the admin token."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from fastgw.admin.orders import AuditLog
from fastgw.config.rules import FAILED_CREDENTIALS
from fastgw.config.schema.rules import LimitSettings
from fastgw.gateway.admission import REPORTED, Reset


class ResetOrder(msgspec.Struct, forbid_unknown_fields=True):
    """Whose buckets are made full: those with these values of the limit's `by`, or all of them.

    A member that is neither is refused: a slip in `subject` must not speak of everybody.
    """

    limit: str
    subject: tuple[str | None, ...] | None = None


@dataclass(frozen=True, slots=True)
class OperatorLimits:
    """Limits, as operators meet them; `ask` asks all workers, every order is written to `audit`."""

    ask: Callable[[str, tuple[Any, ...]], Awaitable[list[Any]]]
    limits: Callable[[], Sequence[LimitSettings]]
    audit: AuditLog

    async def report(self) -> dict[str, Any]:
        """How the limits stand, as far as the workers of this machine have heard."""
        # A worker that ends while it is asked says nothing.
        reports = [report for report in await self.ask("report", ()) if report is not None]
        states = [report["store"] for report in reports]
        refused: Counter[tuple[str, str]] = Counter()
        for row in (row for report in reports for row in report["refused"]):
            refused[row["limit"], row["subject"]] += row["calls"]
        return {
            "store": {state: states.count(state) for state in sorted(set(states))},
            "buckets": _fullest(bucket for report in reports for bucket in report["buckets"]),
            "refused": [
                {"limit": limit, "subject": subject, "calls": calls}
                for (limit, subject), calls in refused.most_common(REPORTED)
            ],
        }

    async def reset(self, order: ResetOrder, who: str) -> dict[str, Any]:
        """Make buckets full; what was written down of it.

        Raises:
            web.HTTPBadRequest: there is no such limit, or its buckets are told apart otherwise.
            OSError: it cannot be written down, so it was not done.
        """
        self._check(order)
        entry = self.audit.write(who, "reset", limit=order.limit, subject=order.subject)
        reset = Reset(secrets.randbelow(2**32) + 1, order.limit, order.subject)
        await self.ask("reset", (msgspec.json.encode(reset).decode(),))
        return entry

    def _check(self, order: ResetOrder) -> None:
        name, limits = order.limit, self.limits()
        known = {limit.name: limit.by for limit in limits} | {FAILED_CREDENTIALS: ("address",)}
        if name not in known:
            raise web.HTTPBadRequest(text=f"there is no limit {name!r}; there are {', '.join(known)}")
        if any(limit.name == name and limit.rate is None for limit in limits):
            raise web.HTTPBadRequest(text=f"limit {name} has no rate: calls at the same time end by themselves")
        if order.subject is not None and len(order.subject) != len(known[name]):
            words = f"subject must be the values of [{', '.join(known[name])}], in this order"
            raise web.HTTPBadRequest(text=words)


def _fullest(buckets: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each bucket: what most is known of it; of calls at the same time the sum over workers."""
    found: dict[tuple[str, str, bool], dict[str, Any]] = {}
    for bucket in buckets:
        key = bucket["limit"], bucket["subject"], bucket["at_once"]
        known = found.setdefault(key, bucket)
        if known is bucket:
            continue
        if bucket["at_once"]:
            known["used"] += bucket["used"]
            known["left"] = max(0, known["left"] - (bucket["burst"] - bucket["left"]))
        elif bucket["used"] > known["used"]:
            found[key] = bucket
    rows = sorted(found.values(), key=lambda row: -row["used"])[:REPORTED]
    return [{**row, "used": round(row["used"], 4)} for row in rows]
