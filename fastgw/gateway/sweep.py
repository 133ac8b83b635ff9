"""Patrol: looks after the requests that take long, so that quick ones pay nothing for it.

A timer and a pending `receive` for every request cost about 25 us of CPU together, most of it wake-ups between the
server's thread and ours; nine requests in ten are over before either could matter. So one timer goes round for all.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from time import monotonic

from fastgw.gateway.context import RequestContext

log = logging.getLogger("fastgw")

PERIOD = 0.02
"""Seconds between two rounds: how much later than at once a leaving agent is noticed."""


class DeadlineSweep:
    """Of one worker. At rest it costs nothing: the timer runs only while there are requests."""

    def __init__(self) -> None:
        self._young: deque[RequestContext] = deque()
        self._old: set[RequestContext] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def at_rest(self) -> bool:
        """Whether there is nothing to look after."""
        return self._timer is None

    def add(self, context: RequestContext) -> None:
        """Look after this request until it is `over`."""
        self._young.append(context)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PERIOD, self._round)

    def _round(self) -> None:
        loop = asyncio.get_running_loop()
        now = monotonic()
        young, old = self._young, self._old
        while young and young[0].started <= now - PERIOD:
            old.add(young.popleft())
        for context in [context for context in old if context.over]:
            old.discard(context)
        for context in old:
            try:
                context.grow_old(now)
            except Exception:  # one request must not end the round for all others
                log.exception("%s could not be looked after", context.request_id)
        self._timer = loop.call_later(PERIOD, self._round) if young or old else None
