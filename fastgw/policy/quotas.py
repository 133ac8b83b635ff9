"""How much may be spent in a period: periods by the calendar or rolling, amounts in whole units, and a forecast.

Times are milliseconds of Unix time. Amounts stand in the order of `KINDS`, money in billionths of the currency, or of
whatever coarser unit keeps the largest sum below 2^53, since the store counts in doubles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from typing import NamedTuple
from zoneinfo import ZoneInfo

from fastgw.policy.limits import LimitRule

KINDS = ("calls", "tokens", "tokens_in", "tokens_out", "cost")
"""What a quota may count, in the order of every tuple of amounts."""
CALLS, COST = 0, 4
NOTHING: Amounts = (0, 0, 0, 0, 0)
BILLIONTH = 10**9
MOST_UNITS = 9 * 10**15
"""Below 2^53, with room for what calls in flight cost beyond it."""
WINDOW_SLOTS = 60
"""Parts of a rolling window: it ends late by at most one of them."""

Amounts = tuple[int, int, int, int, int]


class Period(NamedTuple):
    """How long a quota lasts: `per` hour, day, week or month by the calendar of a `zone`; else `rolling` ms."""

    per: str = ""
    zone: str = "UTC"
    rolling: int = 0

    def boundaries(self, now: int) -> tuple[int, int, int, int]:
        """Beginning of the period before, of that which holds `now`, of the next one, and its end.

        Midnight that a change of the clocks leaves out is the first moment after it; one that comes twice the first.
        """
        zone = ZoneInfo(self.zone)
        if self.per == "hour":
            start = _hour(now, zone)
            end = _next_hour(start, zone)
            return _hour(start - 1, zone), start, end, _next_hour(end, zone)
        day = datetime.fromtimestamp(now // 1000, zone)
        first = day.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None, fold=0)
        if self.per == "week":
            first -= timedelta(days=first.weekday())
        elif self.per == "month":
            first = first.replace(day=1)
        found = [_instant(_shifted(first, self.per, step), zone) for step in (-1, 0, 1, 2)]
        return found[0], found[1], found[2], found[3]

    @property
    def width(self) -> int:
        """Milliseconds of one slot of a rolling window; 0 for a calendar's."""
        return -(-self.rolling // WINDOW_SLOTS)


MONTH = Period("month")


def _hour(now: int, zone: ZoneInfo) -> int:
    """When the clocks of the zone last showed a full hour: longer ago where they changed by half of one since."""
    at = now - now % 1000
    while (past := datetime.fromtimestamp(at // 1000, zone)).minute or past.second:
        at -= (past.minute * 60 + past.second) * 1000
    return at


def _next_hour(start: int, zone: ZoneInfo) -> int:
    """When the clocks show a full hour again: after a change by a half hour that is 30 or 60 minutes later."""
    for minutes in (30, 60, 90):
        at = start + minutes * 60_000
        if datetime.fromtimestamp(at // 1000, zone).minute == 0:
            return at
    return start + 3_600_000


def _shifted(first: datetime, per: str, step: int) -> datetime:
    if per == "month":
        months = first.year * 12 + first.month - 1 + step
        return first.replace(year=months // 12, month=months % 12 + 1)
    return first + timedelta(days=step * (7 if per == "week" else 1))


def _instant(local: datetime, zone: ZoneInfo) -> int:
    """A time on the clocks of a zone as Unix ms; of one that the clocks jump over, the jump."""
    at = local.replace(tzinfo=zone)
    found = int(at.timestamp())
    if datetime.fromtimestamp(found, zone).replace(tzinfo=None) != local:  # it does not exist
        found = int(local.replace(tzinfo=zone, fold=1).timestamp())
        later = int(local.replace(tzinfo=zone, fold=0).timestamp())
        low, high = min(found, later), max(found, later)
        before = datetime.fromtimestamp(low, zone).utcoffset()
        while high - low > 1:
            middle = (low + high) // 2
            if datetime.fromtimestamp(middle, zone).utcoffset() == before:
                low = middle
            else:
                high = middle
        found = high
    return found * 1000


@dataclass(frozen=True, slots=True)
class Quota(LimitRule):
    """One entry of `quotas`.

    Args:
        period: how long it lasts.
        amounts: most of each of `KINDS`, in units; -1 where it does not count that.
        unit: billionths of the currency in one unit of money.
        warn_at: share from which on somebody is warned, in thousandths; 0: never.
    """

    period: Period = MONTH
    amounts: Amounts = (-1, -1, -1, -1, -1)
    unit: int = 1
    warn_at: int = 0

    @property
    def kinds(self) -> tuple[int, ...]:
        """Places in `KINDS` of what it counts."""
        return tuple(at for at, most in enumerate(self.amounts) if most >= 0)

    @property
    def kept_as(self) -> str:
        """What its accounts are kept under: with another `by`, or another unit of money, they begin anew."""
        return "\n".join((self.name, *self.by, *([str(self.unit)] if self.unit != 1 else ())))

    def units(self, amounts: Amounts) -> Amounts:
        """Amounts with money in billionths as this quota counts them, rounded up."""
        a, b, c, d, money = amounts
        return amounts if self.unit == 1 else (a, b, c, d, -(-money // self.unit))


def money_units(most: Decimal) -> tuple[int, int]:
    """A sum of money as (units, billionths of the currency in a unit): as fine as whole numbers of the store allow."""
    unit = 1
    while (units := int((most * BILLIONTH / unit).to_integral_value(ROUND_CEILING))) > MOST_UNITS:
        unit *= 10
    return units, unit


def amount_shown(kind: int, units: int, unit: int) -> int | str:
    """An amount fit for JSON: money in the currency, as decimal text, never with an exponent."""
    return units if kind != COST else format(Decimal(units * unit) / BILLIONTH, "f")


def share(used: Sequence[int], most: Sequence[int]) -> float:
    """The largest part of an amount that is used."""
    return max((spent / whole for spent, whole in zip(used, most, strict=True) if whole > 0), default=0.0)


def forecast(used: int, most: int, start: int, end: int, now: int) -> int | None:
    """When an amount is used up at the pace since `start`; None where that is not before `end`."""
    if used >= most:
        return now
    if used <= 0 or now <= start:
        return None
    at = now + (most - used) * (now - start) // used
    return at if at < end else None


def rfc3339(ms: int) -> str:
    """A time in UTC as agents read it, whole seconds rounded up."""
    return datetime.fromtimestamp(-(-ms // 1000), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class QuotaState:
    """How one account stands, for operators.

    Args:
        start, end: of the period, Unix ms; of a rolling one its window until now.
        most: the amounts, with what was added for this period; raised: that.
        used: of all workers; held: of that, what this worker has and no call.
        reserved: by its calls in flight, of which there are `in_flight`: what those cost beyond it is all that the
            amount can be exceeded by.
        used_up: when at this pace, Unix ms; None where not before the end.
    """

    quota: Quota
    subject: str
    start: int
    end: int
    most: Amounts
    raised: Amounts
    used: Amounts
    held: Amounts
    reserved: Amounts
    in_flight: int
    share: float
    used_up: int | None

    def report(self) -> dict[str, object]:
        """The same, fit for JSON; money as decimal text."""
        quota = self.quota
        amounts = {
            KINDS[at]: {
                name: amount_shown(at, value, quota.unit)
                for name, value in (
                    ("amount", self.most[at] - self.raised[at]),
                    ("raised", self.raised[at]),
                    ("used", self.used[at]),
                    ("held", self.held[at]),
                    ("reserved", self.reserved[at]),
                )
            }
            for at in quota.kinds
        }
        return {
            "quota": quota.name,
            "by": list(quota.by),
            "subject": self.subject,
            "start": rfc3339(self.start),
            "end": rfc3339(self.end),
            "amounts": amounts,
            "inFlight": self.in_flight,
            "share": round(self.share, 4),
            "usedUp": None if self.used_up is None else rfc3339(self.used_up),
        }


OnWarning = Callable[[QuotaState], object]
