"""What a process measures of itself: CPU time, memory, pauses of its garbage collector, how late its event loop is."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from fastgw import __version__
from fastgw.protocol import names
from fastgw.telemetry.counters import Counters, Series

log = logging.getLogger("fastgw")

LOOK_EVERY = 0.25
"""Seconds between two looks at how late the loop is."""
LAG = 0.25
"""Seconds that the loop may be late before the log says so."""
LOOKS = 4
"""Looks after which the rest is measured."""


def resident_bytes() -> int:
    """Memory of this process, shared pages with it; 0 where the system does not say (Linux does)."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def build() -> dict[Series, float]:
    """Which fastgw this is, which Python runs it, which revisions of the protocol it serves."""
    revisions = f"{names.LEGACY_VERSIONS[-1]} to {names.MODERN_VERSION}"
    return {("fastgw_build_info", __version__, platform.python_version(), revisions): 1}


class ProcessMeter:
    """Measures this process for its counters; made after the fork, and one only.

    Args:
        process: `controller` or `worker`: all of a kind are summed.
    """

    def __init__(self, process: str, counters: Counters) -> None:
        self._process, self._counters = process, counters
        self._cpu = 0.0
        self._begun = 0.0
        self._pauses: list[float] = []
        gc.callbacks.append(self._collected)

    async def watch(self, tell: Callable[[], object] = lambda: None) -> None:
        """Measure for ever; `tell` is called about once a second."""
        for number in count(1):
            before = time.monotonic()
            await asyncio.sleep(LOOK_EVERY)
            late = time.monotonic() - before - LOOK_EVERY
            self._counters.record(late, "fastgw_event_loop_lag_seconds", self._process)
            if late > LAG:
                log.warning("the event loop was %.2f s late", late)
            if number % LOOKS == 0:
                self.measure()
                tell()

    def measure(self) -> None:
        """Count what was used since the last time."""
        counters, process = self._counters, self._process
        before, self._cpu = self._cpu, time.process_time()
        counters.add(("fastgw_process_cpu_seconds_total", process), self._cpu - before)
        counters.gauge(resident_bytes(), "fastgw_process_resident_memory_bytes", process)
        pauses, self._pauses = self._pauses, []
        for pause in pauses:
            counters.record(pause, "fastgw_gc_pause_seconds", process)

    def close(self) -> None:
        """Listen to the collector no longer."""
        gc.callbacks.remove(self._collected)

    def _collected(self, phase: str, _: dict[str, Any]) -> None:
        """`gc.callbacks`: this may come in the middle of anything, so it only takes the time."""
        if phase == "start":
            self._begun = time.perf_counter()
        else:
            self._pauses.append(time.perf_counter() - self._begun)
