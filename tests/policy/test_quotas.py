"""Periods by the calendar in three zones, amounts in whole units, and forecasts."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from fastgw.policy.quotas import MOST_UNITS, Period, Quota, forecast, money_units, rfc3339

DAY = 86_400_000
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe")


def ms(zone: str, *when: int, fold: int = 0) -> int:
    return int(datetime(*when, tzinfo=ZoneInfo(zone), fold=fold).timestamp()) * 1000  # type: ignore[arg-type,misc]


@pytest.mark.parametrize("zone", [*ZONES, "America/Sao_Paulo"])
@pytest.mark.parametrize("per", ["hour", "day", "week", "month"])
def test_periods_follow_each_other_without_gap(zone: str, per: str) -> None:
    period, before = Period(per, zone), (0, 0, 0, 0)
    now = ms(zone, 2018, 9, 1)  # Sao Paulo still changed its clocks at midnight
    while now < ms(zone, 2019, 9, 1):
        found = period.boundaries(now)
        assert found == period.boundaries(found[2] - 1)
        assert found[0] < found[1] <= now < found[2] < found[3]
        assert before[1] == 0 or found[:3] == before[1:]
        before, now = found, found[2]


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", (2026, 3, 29), 23),
        ("Europe/Berlin", (2026, 10, 25), 25),
        ("America/New_York", (2026, 3, 8), 23),
        ("America/New_York", (2026, 11, 1), 25),
        ("Australia/Lord_Howe", (2026, 10, 4), 23.5),
        ("Australia/Lord_Howe", (2026, 4, 5), 24.5),
    ],
)
def test_days_on_which_clocks_change(zone: str, day: tuple[int, int, int], hours: float) -> None:
    _, start, end, _ = Period("day", zone).boundaries(ms(zone, *day, 12))
    assert start == ms(zone, *day)
    assert (end - start) / 3_600_000 == hours


def test_a_month_begins_at_midnight_of_its_zone() -> None:
    found = Period("month", "Europe/Berlin").boundaries(ms("UTC", 2026, 10, 31, 23, 30))
    assert [rfc3339(one) for one in found] == [
        "2026-09-30T22:00:00Z", "2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z", "2026-12-31T23:00:00Z",
    ]  # fmt: skip


def test_a_week_begins_on_monday() -> None:
    assert rfc3339(Period("week").boundaries(ms("UTC", 2026, 11, 29, 12))[1]) == "2026-11-23T00:00:00Z"


@pytest.mark.parametrize(
    ("most", "units", "unit"),
    [("250.00", 250 * 10**9, 1), ("9000000", MOST_UNITS, 1), ("9000000.000000001", 900_000_000_000_001, 10)],
)
def test_money_stays_below_what_doubles_hold(most: str, units: int, unit: int) -> None:
    assert money_units(Decimal(most)) == (units, unit)


def test_coarse_money_is_rounded_up() -> None:
    assert Quota("q", unit=1000).units((1, 2, 3, 4, 1001)) == (1, 2, 3, 4, 2)


@pytest.mark.parametrize(
    ("used", "now", "at"),
    [(50, 10 * DAY, 20 * DAY), (50, 20 * DAY, None), (100, 5 * DAY, 5 * DAY), (0, 5 * DAY, None), (5, 0, None)],
)
def test_forecast(used: int, now: int, at: int | None) -> None:
    assert forecast(used, 100, 0, 30 * DAY, now) == at
