"""The last hour of all calls together, in steps of seconds: the charts of a page that is opened only now."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

from fastgw.admin.paces import times_of
from fastgw.errors import ERROR_OUTCOMES, REFUSED_OUTCOMES
from fastgw.protocol import names
from fastgw.telemetry.metrics import Sums

STEP = 10.0
"""Seconds between two points."""
MOST_POINTS = 360
_CALLS = frozenset((names.TOOLS_CALL, names.PROMPTS_GET, names.RESOURCES_READ, names.COMPLETE))
_TIMES = ("fastgw_request_seconds",)


class CallHistory:
    """A ring of points: Unix seconds, then calls, errors and refused calls per second since the point before, then
    milliseconds at the 50th, 95th and 99th percentile, None where nothing was called.

    Args:
        sums: what all workers have counted since the start.
        clock: seconds that never go back, by which rates are taken.
    """

    def __init__(self, sums: Sums, clock: Any = time.monotonic) -> None:
        self._sums, self._clock = sums, clock
        self._points: deque[tuple[int, list[Any]]] = deque(maxlen=MOST_POINTS)
        self._number = 0
        self._before = self._now()

    async def run(self) -> None:
        """Add a point for each step; never returns."""
        while True:
            await asyncio.sleep(STEP)
            self.add(time.time())

    def add(self, now: float) -> None:
        """A step is over at `now`, Unix seconds."""
        before, self._before = self._before, self._now()
        at, counts, outcomes = self._before
        seconds = max(at - before[0], 0.001)
        fresh = {bucket: more for bucket, count in counts.items() if (more := count - before[1].get(bucket, 0)) > 0}
        errors, refused = (count - old for count, old in zip(outcomes, before[2], strict=True))
        rates = [round(count / seconds, 2) for count in (sum(fresh.values()), errors, refused)]
        self._number += 1
        self._points.append((self._number, [round(now, 1), *rates, *times_of(fresh)]))

    def points(self) -> dict[str, list[Any]]:
        """The points by their numbers, which go on over a clock that is set back."""
        return {str(number): point for number, point in self._points}

    def _now(self) -> tuple[float, dict[int, int], tuple[int, int]]:
        """When it is, all times of calls so far, and how many were errors and refused."""
        errors = refused = 0
        for series, count in self._sums.counts.items():
            if series[0] == "fastgw_requests_total" and series[2] in _CALLS:
                errors += int(count) if series[3] in ERROR_OUTCOMES else 0
                refused += int(count) if series[3] in REFUSED_OUTCOMES else 0
        return self._clock(), dict(self._sums.times.get(_TIMES, {})), (errors, refused)
