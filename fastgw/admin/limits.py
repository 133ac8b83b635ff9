"""What operators see of limits and may do about them: the fullest buckets, resets, raises for a time."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from fastgw.config.limitchecks import FAILED_CREDENTIALS
from fastgw.config.schema.rules import LimitSettings
from fastgw.config.schema.units import RateSetting, rate, seconds
from fastgw.gateway.limiter import REPORTED
from fastgw.gateway.orders import RESET_FOR, Order
from fastgw.policy.bucket import figures_of

log = logging.getLogger("fastgw")

LONGEST = 31 * 86400.0
"""Seconds of a raise: what is to hold for longer belongs into the configuration."""

Ask = Callable[[str, tuple[Any, ...]], Awaitable[list[Any]]]


class BadOrder(ValueError):
    """What an operator asks for cannot be; the text says why."""


class LimitHandlers:
    """Limits, as operators meet them.

    Args:
        ask: has every worker do something; their answers.
        limits: of the configuration as it is now.
        audit: file that every order is appended to.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        ask: Ask,
        limits: Callable[[], Sequence[LimitSettings]],
        audit: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._limits = limits
        self._audit = audit
        self._clock = clock
        self._orders: dict[str, tuple[Order, float]] = {}

    async def report(self) -> dict[str, Any]:
        """How the limits stand, as far as the workers of this machine have heard."""
        # A worker that ends while it is asked says nothing.
        reports = [report for report in await self._ask("report", ()) if report is not None]
        states = [report["store"] for report in reports]
        return {
            "store": {state: states.count(state) for state in sorted(set(states))},
            "buckets": _fullest(bucket for report in reports for bucket in report["buckets"]),
            "refused": _most(row for report in reports for row in report["refused"]),
            "raises": reports[0]["raises"] if reports else [],
        }

    async def reset(self, asked: dict[str, Any], who: str) -> dict[str, Any]:
        """Make buckets full: `limit`, and `subject` (values of its `by`) unless all are meant.

        Raises:
            BadOrder: there is no such limit, or its buckets are told apart otherwise.
        """
        name, subject = self._found(asked, "limit", "subject")
        if any(limit.name == name and limit.rate is None for limit in self._limits()):
            raise BadOrder(f"limit {name} has no rate: calls at the same time end by themselves")
        return await self._give(Order(uuid.uuid4().hex, "reset", name, subject), RESET_FOR, who)

    async def raise_(self, asked: dict[str, Any], who: str) -> dict[str, Any]:
        """Count by another rate for a time: `limit`, `subject`, `rate`, `burst`, `for`; for 0s takes a raise back.

        Raises:
            BadOrder: as for `reset`; or what is asked is no rate, lets less through, or is for too long.
        """
        name, subject = self._found(asked, "limit", "subject", "rate", "burst", "for")
        limit = next((one for one in self._limits() if one.name == name), None)
        if limit is None or limit.rate is None:
            raise BadOrder(f"limit {name} has no rate that could be raised")
        try:
            lasting = seconds(asked.get("for"))
        except ValueError as wrong:
            raise BadOrder(f"for {wrong}") from None
        if lasting > LONGEST:
            raise BadOrder("for must be at most 31d: what is to hold longer belongs into the configuration")
        raised, burst = (limit.rate, 1) if lasting == 0 else _wider(limit.rate, limit.burst, asked)
        order = Order(uuid.uuid4().hex, "raise", name, subject, raised.calls, raised.seconds, burst)
        return await self._give(order, lasting, who)

    def orders(self) -> list[tuple[str, float]]:
        """Those in force: text, and seconds they still hold."""
        now = self._clock()
        self._orders = {target: found for target, found in self._orders.items() if found[1] > now}
        return [(order.text, until - now) for order, until in self._orders.values()]

    def _found(self, asked: dict[str, Any], *known_keys: str) -> tuple[str, tuple[str | None, ...] | None]:
        if more := sorted(asked.keys() - set(known_keys)):  # a slip in `subject` must not speak of everybody
            raise BadOrder(f"an order has {', '.join(known_keys)}, not {more[0]!r}")
        name, subject = asked.get("limit"), asked.get("subject")
        known = {limit.name: limit.by for limit in self._limits()} | {FAILED_CREDENTIALS: ("address",)}
        if not isinstance(name, str) or name not in known:
            raise BadOrder(f"there is no limit {name!r}; there are {', '.join(known)}")
        if subject is None:
            return name, None
        if not isinstance(subject, list) or len(subject) != len(known[name]):
            raise BadOrder(f"subject must be the values of [{', '.join(known[name])}], in this order")
        if not all(value is None or (isinstance(value, str) and _is_text(value)) for value in subject):
            raise BadOrder("subject must be texts, or null for a value that is missing")
        return name, tuple(subject)

    async def _give(self, order: Order, lasting: float, who: str) -> dict[str, Any]:
        said: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "who": who,
            "do": order.do,
            "limit": order.limit,
            "subject": order.subject,
        }
        if order.do == "raise":
            said |= {"rate": f"{order.calls}/{order.seconds}s", "burst": order.burst, "seconds": lasting}
        self._write(said)
        self._orders.pop(order.target, None)
        if lasting > 0:
            self._orders[order.target] = order, self._clock() + lasting
        await self._ask("order", (order.text, lasting))
        return said

    def _write(self, said: dict[str, Any]) -> None:
        """Write an order down before it is carried out.

        Raises:
            OSError: it cannot be: then it is not carried out.
        """
        line = json.dumps(said)
        self._audit.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._audit.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        log.warning("an operator's order: %s", line)


def _wider(own: RateSetting, own_burst: int | None, asked: dict[str, Any]) -> tuple[RateSetting, int]:
    """Rate and burst of a raise; a burst that is not asked for is that of the limit, or as many as the rate names.

    Raises:
        BadOrder: they are none, or let less through than the limit's own.
    """
    try:
        raised = rate(asked.get("rate"))
    except ValueError as wrong:
        raise BadOrder(f"rate {wrong}") from None
    least = own.calls if own_burst is None else own_burst
    burst = asked.get("burst", max(least, raised.calls))
    if not isinstance(burst, int) or isinstance(burst, bool) or burst < 1:
        raise BadOrder("burst must be a whole number of calls")
    if raised.calls * own.seconds < own.calls * raised.seconds or burst < least:
        raise BadOrder(f"a raise cannot let less through than the configuration: {own}, burst {least}")
    try:
        figures_of(raised.calls, raised.seconds, burst)
    except ValueError as wrong:
        raise BadOrder(f"rate {wrong}") from None
    return raised, burst


def _is_text(value: str) -> bool:
    """Whether it is more than what JSON can write: half a surrogate pair is no text."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


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


def _most(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Who was refused most, all workers together."""
    found: dict[tuple[str, str], int] = {}
    for row in rows:
        key = row["limit"], row["subject"]
        found[key] = found.get(key, 0) + row["calls"]
    ordered = sorted(found.items(), key=lambda row: -row[1])[:REPORTED]
    return [{"limit": limit, "subject": subject, "calls": calls} for (limit, subject), calls in ordered]
