"""What calls reserve of quotas: put together once for each agent and tool, anew when a dearer call was seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fastgw.catalog.route import Arm
from fastgw.limits.quota_account import QuotaAccount
from fastgw.policy.match import Match
from fastgw.policy.quotas import Amounts

RECENT = 300.0
"""Seconds; the dearest call of this stretch and of the one before is what the next one reserves."""


class Estimate:
    """The dearest recent calls of one tool: (tokens in, tokens out, money) of two stretches of `RECENT`."""

    __slots__ = ("_before", "_now", "_since", "largest")

    def __init__(self) -> None:
        self._since = 0.0
        self._now = self._before = self.largest = 0, 0, 0
        """`largest`: what to expect of the next one."""

    def learn(self, used: tuple[int, int, int], now: float) -> None:
        """A call used this much, at `now` (CLOCK_MONOTONIC seconds)."""
        known = self._now
        if now - self._since > RECENT:
            self._before = known if now - self._since < 2 * RECENT else (0, 0, 0)
            self._now, self._since = used, now
        elif used[0] > known[0] or used[1] > known[1] or used[2] > known[2]:
            self._now = max(known[0], used[0]), max(known[1], used[1]), max(known[2], used[2])
        else:
            return
        a, b = self._now, self._before
        self.largest = max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2])


class QuotaCharges(NamedTuple):
    """What the calls of one agent by one arm of a route reserve of accounts.

    Args:
        generation, largest: while they are the gate's and the estimate's, all this holds.
        charges: an account, and what a call reserves of it; of the same place in `matches` which calls it counts.
        matches: None: it counts all; empty where each does.
    """

    arm: Arm
    generation: int
    estimate: Estimate
    largest: tuple[int, int, int]
    charges: Sequence[tuple[QuotaAccount, Amounts]]
    matches: Sequence[Match | None]
