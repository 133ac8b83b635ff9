"""How often a wrong admin token is listened to: a few times at once, then once in a while.

By address, so that whoever guesses holds up nobody elsewhere; and in all, of addresses that have never shown the right
one, so that many of them guess no faster. While an address is held up its tokens are not looked at, the right one
either: it counts again as soon as the time that was said is over. Sessions of browsers go on meanwhile.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from math import ceil

from fastgw.config.schema.agents import is_this_machine
from fastgw.policy.networks import address_of, guesser

log = logging.getLogger("fastgw")

AT_ONCE, PAUSE = 10, 6.0
"""Wrong tokens of one address that are listened to without a pause, and the seconds between those after them."""
ALL_AT_ONCE, ALL_PAUSE = 100, 1.0
"""The same of all addresses together."""
MOST_KNOWN = 100
"""Addresses of which it is remembered that they have shown the right token."""
MOST_HELD = 1000
"""Addresses in memory from which on those are looked for that may go. The bound of all keeps them few."""
QUIET = 60.0
"""Seconds in which it is logged once."""


class TooManyWrongTokens(Exception):
    """Nobody listens to this address for now; `seconds` until somebody does."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = max(1, ceil(seconds))


class FailedLogins:
    """Of one admin port.

    Args:
        count: counts a metric.
        clock: seconds that never go back.
    """

    def __init__(self, count: Callable[..., object], clock: Callable[[], float]) -> None:
        self._count, self._clock = count, clock
        self._due: dict[str, float] = {}
        """When the wrong tokens of an address are forgotten: each moves it on by `PAUSE`."""
        self._all_due = 0.0
        self._known: dict[str, None] = {}
        self._unlogged, self._logged = 0, -QUIET

    def admit(self, remote: str | None, shown: bytes, token: bytes) -> bool:
        """Whether the token that an address shows is the right one. Raises TooManyWrongTokens."""
        source, now = guesser(address_of(remote or "")) or "", self._clock()
        due = max(self._due.get(source, 0.0), now)
        wait = due - now - (AT_ONCE - 1) * PAUSE
        is_stranger = source not in self._known and not is_this_machine(remote or "")
        all_due = max(self._all_due, now)
        if is_stranger:
            wait = max(wait, all_due - now - (ALL_AT_ONCE - 1) * ALL_PAUSE)
        if wait > 0.0:
            self._count("fastgw_admin_refused_total", "too_many_wrong_tokens")
            raise TooManyWrongTokens(wait)
        if hmac.compare_digest(shown, token):
            self._remember(source)
            return True
        if is_stranger:
            self._all_due = all_due + ALL_PAUSE
        if len(self._due) >= MOST_HELD:
            self._due = {one: until for one, until in self._due.items() if until > now}
        self._due[source] = due + PAUSE
        self._tell(source, now)
        return False

    def _remember(self, source: str) -> None:
        self._known.pop(source, None)
        self._known[source] = None
        if len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]

    def _tell(self, source: str, now: float) -> None:
        self._count("fastgw_admin_refused_total", "wrong_token")
        self._unlogged += 1
        if now - self._logged >= QUIET:
            log.warning("wrong admin tokens: %d, the last from %s", self._unlogged, source)
            self._unlogged, self._logged = 0, now
