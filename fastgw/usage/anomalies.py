"""What is unusual in one hour of usage: errors that spike, agents beyond their usual pace, servers that get slower.

Each number of an hour is compared with the same hour of earlier weeks, by a robust z-score (Iglewicz and Hoaglin,
"How to Detect and Handle Outliers", 1993): its distance from their median, divided by 1.4826 times their median
absolute deviation, which is the standard deviation where they are normal. A few earlier hours may agree by chance, so
that the divisor is never smaller than what chance alone makes of so many calls. No clock, no file is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final, Literal, NamedTuple

import msgspec

SUBJECTS: Final = ("agent", "tool", "server")
Kind = Literal["errors", "pace", "latency"]
Subject = tuple[str, str]
"""One of `SUBJECTS` and a name."""

DAY, WEEK = 24, 168
"""Hours."""
WEEKS, DAYS = 5, 14
"""How far back the same hour of the week, and of the day, is looked for."""
LEAST_WEEKS, LEAST_DAYS = 3, 5
"""Of those so many must be known: of weeks, or else of days. With less, nothing is said."""
HISTORY: Final = WEEKS * WEEK + 1
"""Hours that are worth keeping."""
SCORE = 5.0
"""From here on it is unusual: by chance alone less than one of a million hours of an agent is (docs/usage.md)."""
TOLD_AT_ONCE = 20
"""Of one look; the greatest scores."""

LEAST_CALLS = 100
"""Of an agent in the hour, before its pace is judged; and PACE times what is usual."""
PACE = 2.0
LEAST_ERRORS = 10
"""In the hour, and calls in each earlier hour, before the part that failed is judged; MORE_ERRORS more than usual."""
MORE_ERRORS = 0.05
LEAST_TIMED = 30
"""Calls whose times are known, in each hour that is compared; and SLOWER times what is usual."""
SLOWER = 1.5
SPREAD = 0.1
"""Least standard deviation of usual paces and times, as a part of them: no week is quite like another."""


class HourCounts(msgspec.Struct, array_like=True, frozen=True):
    """What one agent, tool or server did in one hour.

    `log_sum` and `log_squares` are sums of the natural logarithm, and of its square, of the microseconds that each of
    `timed` calls waited for servers.
    """

    calls: int = 0
    errors: int = 0
    timed: int = 0
    log_sum: float = 0.0
    log_squares: float = 0.0


class Rollup(msgspec.Struct):
    """One hour: the counts of the busiest of each of `SUBJECTS`, by name.

    `least`: how few calls the least busy of them made where there are others; nobody else has made more.
    """

    counts: dict[str, dict[str, HourCounts]] = {}
    least: dict[str, int] = {}

    def of(self, subject: Subject) -> HourCounts | None:
        """The counts of one; None where it stands not here."""
        return self.counts.get(subject[0], {}).get(subject[1])

    def calls(self, subject: Subject) -> int:
        """How many calls one made, or at most made."""
        found = self.of(subject)
        return self.least.get(subject[0], 0) if found is None else found.calls


class Anomaly(msgspec.Struct, frozen=True):
    """Something unusual, as operators read it.

    Args:
        subject: one of `SUBJECTS`, and its name.
        hour: RFC 3339, UTC.
        value, usual: part of the calls that failed (errors), calls in the hour (pace), milliseconds that a typical call
            waited for its server, the geometric mean (latency).
        score: how many standard deviations lie between them.
        found: when it was found, Unix seconds.
    """

    kind: Kind
    subject: dict[str, str]
    hour: str
    value: float
    usual: float
    score: float
    says: str
    found: float = 0.0

    @property
    def key(self) -> tuple[str, ...]:
        """The same for what is told only once."""
        return (self.kind, *next(iter(self.subject.items())), self.hour)


class Findings(msgspec.Struct):
    """The anomalies that were found, the newest first, and the first hour of the history, RFC 3339.

    While that is less than some days ago, there is nothing to compare with.
    """

    anomalies: list[Anomaly] = []
    history_since: str | None = None


def findings_file(folder: Path) -> Path:
    """Where the `Findings` are kept under `folder`, `data/usage`."""
    return folder / "anomalies.json"


class History(NamedTuple):
    """Earlier hours, by their number (hours since 1970), and in which of them each agent was seen first."""

    hours: Mapping[int, Rollup]
    first_seen: Mapping[Subject, int]


def compared_with(hour: int) -> set[int]:
    """The numbers of all hours that `anomalies` of this hour may look at."""
    back = [*(WEEK * week for week in range(1, WEEKS + 1)), *(DAY * day for day in range(1, DAYS + 1))]
    return {hour - hours + shift for hours in back for shift in (-1, 0, 1)}


def anomalies(hour: int, now: Rollup, history: History, servers: Mapping[str, str]) -> list[Anomaly]:
    """What is unusual in the hour of this number, which need not be over: the greatest scores first.

    A tool whose server (`servers`, by tool) has the same trouble is left out.
    """
    found = [
        one
        for subject_kind in SUBJECTS
        for name, counts in now.counts.get(subject_kind, {}).items()
        for one in _judged(hour, (subject_kind, name), counts, history)
    ]
    in_trouble = {(one.kind, one.subject["server"]) for one in found if "server" in one.subject}
    found = [one for one in found if (one.kind, servers.get(one.subject.get("tool", ""))) not in in_trouble]
    return sorted(found, key=lambda one: -one.score)[:TOLD_AT_ONCE]


def _judged(hour: int, subject: Subject, counts: HourCounts, history: History) -> Iterator[Anomaly]:
    judges = (_pace,) if subject[0] == "agent" else (_errors, _latency)
    for judge in judges:
        found = judge(hour, subject, counts, history)
        if found is not None:
            yield found


def _pace(hour: int, subject: Subject, counts: HourCounts, history: History) -> Anomaly | None:
    """Calls in the hour. The hours before and after count too, whichever is busier: clocks change in spring and autumn.

    An hour without calls is nought, from the hour on in which the agent was seen first; and one deviation is at least
    what a Poisson process has, the square root.
    """
    if counts.calls < LEAST_CALLS:
        return None
    seen = history.first_seen.get(subject, hour)

    def calls(at: int) -> float | None:
        return history.hours[at].calls(subject) if at >= seen and at in history.hours else None

    near = [samples for shift in (-1, 0, 1) if (samples := _earlier(hour + shift, calls))]
    if not near:
        return None
    samples = max(near, key=median)
    usual = median(samples)
    deviation = max(_deviation(samples), math.sqrt(max(usual, 1.0)), SPREAD * usual)
    score = (counts.calls - usual) / deviation
    if score < SCORE or counts.calls < PACE * usual:
        return None
    says = f"{counts.calls:,} calls in this hour, usually {usual:,.0f}"
    return _anomaly("pace", subject, hour, (counts.calls, usual, score), says)


def _errors(hour: int, subject: Subject, counts: HourCounts, history: History) -> Anomaly | None:
    """The part of calls that failed; one deviation is at least what so many calls have by chance (binomial), two more
    failures than usual taken for granted. The median of k hours is off by chance too: 1.57 / k of that variance.
    """
    if counts.errors < LEAST_ERRORS:
        return None

    def rate(at: int) -> float | None:
        found = history.hours[at].of(subject) if at in history.hours else None
        return found.errors / found.calls if found is not None and found.calls >= LEAST_ERRORS else None

    samples = _earlier(hour, rate)
    if not samples:
        return None
    usual, value, calls = median(samples), counts.errors / counts.calls, counts.calls
    likely = min(0.5, usual + 2 / calls)
    deviation = max(_deviation(samples), math.sqrt(likely * (1 - likely) * (1 + 1.57 / len(samples)) / calls))
    score = (value - usual) / deviation
    if score < SCORE or value - usual < MORE_ERRORS:
        return None
    says = f"{value:.1%} of {calls:,} calls in this hour failed, usually {usual:.1%}"
    return _anomaly("errors", subject, hour, (value, usual, score), says)


def _latency(hour: int, subject: Subject, counts: HourCounts, history: History) -> Anomaly | None:
    """The mean logarithm of times; one deviation is at least what a mean of so many has by chance."""
    if counts.timed < LEAST_TIMED:
        return None

    def mean(at: int) -> float | None:
        found = history.hours[at].of(subject) if at in history.hours else None
        return found.log_sum / found.timed if found is not None and found.timed >= LEAST_TIMED else None

    samples = _earlier(hour, mean)
    if not samples:
        return None
    usual, value = median(samples), counts.log_sum / counts.timed
    spread = math.sqrt(max(0.0, counts.log_squares / counts.timed - value * value))
    by_chance = spread * math.sqrt((1 + 1.57 / len(samples)) / counts.timed)
    score = (value - usual) / max(_deviation(samples), by_chance, SPREAD)
    if score < SCORE or value - usual < math.log(SLOWER):
        return None
    took, before = math.exp(value) / 1000, math.exp(usual) / 1000
    says = f"a typical call in this hour took {_milliseconds(took)}, usually {_milliseconds(before)}"
    return _anomaly("latency", subject, hour, (took, before, score), says)


def _earlier(hour: int, value: Callable[[int], float | None]) -> Sequence[float]:
    """The values of the same hour of earlier weeks, or else of earlier days; none where too few are known."""
    for step, most, least in ((WEEK, WEEKS, LEAST_WEEKS), (DAY, DAYS, LEAST_DAYS)):
        found = [one for back in range(1, most + 1) if (one := value(hour - step * back)) is not None]
        if len(found) >= least:
            return found
    return ()


def _deviation(samples: Sequence[float]) -> float:
    middle = median(samples)
    return 1.4826 * median(abs(one - middle) for one in samples)


def _anomaly(kind: Kind, subject: Subject, hour: int, numbers: tuple[float, float, float], says: str) -> Anomaly:
    value, usual, score = (round(number, 4) for number in numbers)
    name = subject[1] if subject[1].isprintable() else subject[1].encode("unicode_escape", "surrogatepass").decode()
    says = f"{subject[0]} {name}: {says}"
    return Anomaly(kind, {subject[0]: subject[1]}, begun(hour), value, usual, score, says)


def begun(hour: int) -> str:
    """When the hour of this number begins, RFC 3339."""
    return datetime.fromtimestamp(hour * 3600, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _milliseconds(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"
