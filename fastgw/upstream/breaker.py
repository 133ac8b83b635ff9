"""The circuit breaker of one instance: pure, `now` is CLOCK_MONOTONIC seconds.

closed --failure--> closed              counted
closed --too many failures--> open      five in a row, or half of at least twenty calls within ten seconds
closed --success--> closed              the row is over
open --its time has passed--> half-open one call is let through, the trial
open --nothing else is left--> half-open likewise (the last instance is never shut out entirely)
half-open --trial succeeds--> closed
half-open --trial fails--> open         for longer each time, if its time had passed
half-open --trial is withdrawn--> open  the next call may try
half-open --trial takes long--> half-open where nothing else is left, one more call each five seconds

How calls end that began before it opened changes nothing.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

WINDOW = 10.0
"""Seconds over which the failure rate is taken."""
LEAST = 20
"""Calls within the window below which it says nothing."""
RATE = 0.5
"""Of the calls within the window: so many failures open it."""
LONGEST = 10
"""Times `open_for` that it is open at most, however often a try has failed."""
JITTER = 0.2
"""How much shorter or longer it is open than that, at most: workers and gateways must not try all at once."""
TRY_WITHIN = 5.0
"""Seconds that a trial keeps other calls from trying, here where nothing else is left, and at other workers."""


class BreakerPolicy(NamedTuple):
    """When it opens, failures in a row, and for how many seconds."""

    failures: int = 5
    open_for: float = 30.0


class BreakerState(Enum):
    """*Closed* lets calls through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class BreakerNews(NamedTuple):
    """What one worker tells the others of a breaker: its state, until when it is open (CLOCK_MONOTONIC seconds), how
    often in a row it has opened, what opened it, and since when it is so (Unix seconds).
    """

    state: str
    until: float
    opened: int
    why: str
    since: float


class Breaker:
    """One worker's view of one instance.

    Attributes:
        failures: in a row.
        until: when it may be tried again; `tried`: when it was last; `opened`: how many times in a row it has opened.
        why: what opened it last, in words for operators.
        since: Unix seconds of its last change, for operators; set by whoever knows the time. 0.0: it never changed.
    """

    __slots__ = (
        "_failed",
        "_since",
        "_started",
        "failures",
        "opened",
        "policy",
        "since",
        "state",
        "tried",
        "until",
        "why",
    )

    def __init__(self, policy: BreakerPolicy) -> None:
        self.policy = policy
        self.state = BreakerState.CLOSED
        self.failures = 0
        self.opened = 0
        self.until = self.tried = 0.0
        self.why = ""
        self.since = 0.0
        self._since = -WINDOW
        self._started = self._failed = 0

    def succeed(self, *, trial: bool) -> bool:
        """A call was answered; whether that closes it."""
        if trial:
            self.close()
        elif self.state is BreakerState.CLOSED:
            self.failures = 0
        return trial

    def fail(self, now: float, why: str, calls: int, jitter: float) -> bool:
        """A call that was no trial failed; whether that opens it.

        Args:
            calls: how many were begun at the instance so far.
            jitter: between -1 and 1, any.
        """
        if self.state is not BreakerState.CLOSED:
            return False
        self.failures += 1
        if now - self._since > WINDOW:
            self._since, self._started, self._failed = now, calls - 1, 0
        self._failed += 1
        lately = calls - self._started
        is_half = lately >= LEAST and self._failed >= RATE * lately
        if self.failures < self.policy.failures and not is_half:
            return False
        self.open(now, why, jitter)
        return True

    def fail_trial(self, now: float, why: str, jitter: float) -> bool:
        """The trial failed; whether it is open for longer. It is not where the trial came before its time."""
        self.failures += 1
        if now < self.until:
            self.state, self.why = BreakerState.OPEN, why
            return False
        self.open(now, why, jitter)
        return True

    def open(self, now: float, why: str, jitter: float) -> None:
        """Let no call through for a while."""
        self.opened += 1
        self.state, self.why = BreakerState.OPEN, why
        self.until = now + self.policy.open_for * min(self.opened, LONGEST) * (1 + JITTER * jitter)

    def close(self) -> None:
        """Let every call through."""
        self.state = BreakerState.CLOSED
        self.failures = self.opened = 0
        self._since = -WINDOW
        self.until = 0.0

    def may_try(self, now: float, *, last: bool) -> bool:
        """Whether it is time for a trial; `last`: nothing else is left."""
        if self.state is BreakerState.HALF_OPEN:
            return last and now - self.tried >= TRY_WITHIN
        return self.state is BreakerState.OPEN and (last or now >= self.until)

    def begin_trial(self, now: float) -> None:
        """Let one call through."""
        self.state, self.tried = BreakerState.HALF_OPEN, now

    def withdraw_trial(self) -> None:
        """The trial has ended without a verdict."""
        if self.state is BreakerState.HALF_OPEN:
            self.state = BreakerState.OPEN

    def news(self) -> BreakerNews:
        """What the others should know."""
        return BreakerNews(self.state.value, self.until, self.opened, self.why, self.since)

    def adopt(self, news: BreakerNews, now: float) -> None:
        """Go by what another worker found."""
        self.since = news.since
        if news.state == BreakerState.CLOSED.value:
            self.close()
        elif self.state is not BreakerState.HALF_OPEN:  # who tries it now will know more
            self.state, self.opened, self.why = BreakerState.OPEN, news.opened, news.why
            is_tried = news.state == BreakerState.HALF_OPEN.value
            self.until = now + TRY_WITHIN if is_tried else news.until
