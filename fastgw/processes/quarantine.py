"""Calls that end the workers that carry them: what was in flight when two workers crashed is refused for a while.

Each worker writes down what it carries in memory that the supervisor shares (`Gateway.track`), so that it outlives the
worker. Only crashes count: whoever kills workers by hand (SIGKILL) says nothing about their calls, the kernel does when
it runs out of memory.
"""

from __future__ import annotations

import logging
import mmap
import signal
from contextlib import suppress
from pathlib import Path

from fastgw.gateway.context import SLOTS

log = logging.getLogger("fastgw")

MOST = 64
"""Calls that are refused at a time, at most: they travel in one line."""
FOR = 600.0
"""Seconds between two crashes that are laid to the same call, and for which it is refused."""
_CRASHES = {-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGILL, -signal.SIGABRT, -signal.SIGFPE}
_VMSTAT = Path("/proc/vmstat")


def shared_slots() -> memoryview:
    """Room for what one worker carries: signed numbers of 64 bits, 0 where there is nothing."""
    return memoryview(mmap.mmap(-1, 8 * SLOTS)).cast("q")


class Quarantine:
    """Which calls are refused. `now` is CLOCK_MONOTONIC seconds throughout."""

    def __init__(self) -> None:
        self._suspects: dict[int, float] = {}
        self._refused: dict[int, float] = {}
        self._killed = _out_of_memory()

    def worker_ended(self, slots: memoryview, code: int, now: float) -> bool:
        """A worker with these calls has ended with `code`, below 0 a signal; whether more calls are refused now."""
        found = {one for one in slots if one}
        slots[:] = memoryview(bytes(slots.nbytes)).cast("q")
        killed, self._killed = self._killed, _out_of_memory()
        if code not in _CRASHES and not (code == -signal.SIGKILL and self._killed > killed):
            return False
        again = {one for one in found if now - self._suspects.get(one, -FOR) < FOR}
        self._suspects = {one: at for one, at in self._suspects.items() if now - at < FOR}
        self._suspects |= dict.fromkeys(found, now)
        self._refused |= dict.fromkeys(again, now + FOR)
        if again:
            log.error("%d calls were in flight in two workers that crashed: refused for %g s", len(again), FOR)
        return bool(again)

    def refused(self, now: float) -> list[int]:
        """The calls to refuse, by their fingerprints."""
        self._refused = {one: until for one, until in self._refused.items() if until > now}
        return list(self._refused)[-MOST:]

    def ends(self) -> float | None:
        """When the next call is let go; None where none is refused."""
        return min(self._refused.values(), default=None)


def _out_of_memory() -> int:
    """Processes that this machine's kernel has killed for want of memory, 0 where it does not say."""
    with suppress(OSError):
        for line in _VMSTAT.read_text("ascii").splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0
