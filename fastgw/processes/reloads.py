"""Reading the configuration again: at a signal, at an operator's order, when a file of it has changed.

    read -> check -> compile -> at every worker -> in force

What fails on the way changes nothing: the configuration before stays in force, and `/config` says what is wrong.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from fastgw.config.files import ConfigFiles
from fastgw.processes.plan import FIXED, Plan

log = logging.getLogger("fastgw")

Cause = Literal["start", "signal", "order", "file"]

SETTLED = 0.5
"""Seconds without another change before a file is read: half of a file may be a whole configuration, without the
policies at its end.
"""
LOOK_EVERY = 5.0
"""Seconds after which the files are looked at though nothing was heard: of a network's file system, or of a folder
that another one took the place of, nobody tells.
"""
QUIET, GATHER = 50, 500
"""Milliseconds in which the operating system's events are put together: without another one, and at most."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of the configuration: when it began, in Unix seconds, what asked for it, what is wrong with it."""

    at: float
    by: Cause
    error: str = ""

    def shown(self) -> dict[str, Any]:
        """As operators see it."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.at))
        return {"at": at, "by": self.by, **({"error": self.error} if self.error else {})}


class Reloads:
    """The configuration in force, and what became of the newest reading.

    Args:
        plan: what is in force at the start.
        read: reads the configuration; raises whatever says file and line where it is bad.
        apply: puts a plan in force; raises where it cannot be, and then the one before is.
        told: hears after each reading whether it is in force.
    """

    def __init__(
        self,
        plan: Plan,
        read: Callable[[ConfigFiles], Plan],
        apply: Callable[[Plan], Awaitable[None]],
        told: Callable[[bool], object],
    ) -> None:
        self.plan = plan
        self.files = plan.files
        """Of the newest reading, whatever became of it."""
        self.applied = Reading(plan.files.read_at, "start")
        self.refused: Reading | None = None
        """The newest reading, where it is not in force."""
        self.needs_restart: list[str] = []
        self._read, self._apply, self._told = read, apply, told
        self._one_at_a_time = asyncio.Lock()

    async def reload(self, by: Cause) -> Reading:
        """Read the configuration, and put it in force if it can be; what became of that.

        Where a file has changed it is not read if another reading has met the change.
        """
        async with self._one_at_a_time:
            if by == "file" and not await asyncio.to_thread(self.files.changed):
                return self.refused or self.applied
            files = ConfigFiles()
            try:
                # In a thread: of a large file it takes a second, in which sessions are opened and answers given.
                plan = await asyncio.to_thread(self._read, files)
                different = self.plan.needs_restart(plan)
                plan = self.plan.reloaded(plan)
                await self._apply(plan)
            except Exception as wrong:  # noqa: BLE001 - nothing in a file may end the controller
                log.error("the configuration is not applied, the one before is kept: %s", wrong)
                self.refused = Reading(files.read_at, by, str(wrong) or repr(wrong))
            else:
                for name in different:
                    log.warning(
                        "`%s` has changed in the configuration; it takes a restart, the old value is kept", name
                    )
                log.info("the configuration was read again (%s)", by)
                self.plan, self.needs_restart = plan, different
                self.applied, self.refused = Reading(files.read_at, by), None
            self.files = files
            self._told(self.refused is None)
            return self.refused or self.applied

    def report(self) -> dict[str, Any]:
        """What `/config` says, but for the generation."""
        return {
            "files": self.files.names,
            "applied": self.applied.shown(),
            "refused": None if self.refused is None else self.refused.shown(),
            "needs_restart": self.needs_restart,
        }

    async def diff(self, compare: Callable[[Any], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """What a reload would change now, by what `compare` says of settings; raises what a reload is refused for."""
        plan = await asyncio.to_thread(self._read, ConfigFiles())
        found = await compare(plan.settings)
        reloaded = [row for row in found["settings"] if row["setting"].partition(".")[0] not in FIXED]
        return {**found, "settings": reloaded, "needs_restart": self.plan.needs_restart(plan)}

    async def watch(self) -> None:
        """Reload whenever the files are not as they were last read; never returns."""
        events = import_module("watchfiles").awatch  # takes 30 ms, and nobody else needs it
        # It tells of every event, and where our log is written into such a folder, each line would be one.
        logging.getLogger("watchfiles").setLevel(logging.WARNING)
        heard: dict[str, Any] = {"step": QUIET, "debounce": GATHER, "rust_timeout": round(LOOK_EVERY * 1000)}
        heard |= {"yield_on_timeout": True, "watch_filter": None, "recursive": False, "ignore_permission_denied": True}
        said = ""
        while True:
            await self._look()
            folders = self.files.folders()
            try:
                async for _ in events(*folders, **heard):
                    await self._look()
                    if self.files.folders() != folders:
                        break
            except (OSError, RuntimeError) as wrong:  # a folder has gone, or the machine gives no more of its events
                if said != (said := str(wrong)):
                    log.warning("changes of the configuration are seen %g s late: %s", LOOK_EVERY, wrong)
                await asyncio.sleep(LOOK_EVERY)

    async def _look(self) -> None:
        """Reload where something is another than it was, once it no longer changes."""
        if not await asyncio.to_thread(self.files.changed):
            return
        before: object = None
        while before != (now := await asyncio.to_thread(self.files.now)):
            before = now
            await asyncio.sleep(SETTLED)
        await self.reload("file")
