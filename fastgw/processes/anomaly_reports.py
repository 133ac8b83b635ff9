"""The controller's side of anomalies: what the usage process has found is logged, counted, posted and shown.

The two share a file under `data`, so that what was found outlives both; whatever stands in it when the controller
starts was told by the one before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from fastgw.telemetry.counters import Counters
from fastgw.usage.anomalies import Anomaly, Findings, findings_file

log = logging.getLogger("fastgw")

LOOK_EVERY = 2.0
"""Seconds between two looks at whether the file has changed."""

Send = Callable[[str, str, Mapping[str, Any]], None]
"""As `Webhook.send`."""


class AnomalyReports:
    """What was found last.

    Args:
        folder: `data/usage`.
        counters: counts `fastgw_anomalies_total`. `send`: posts an alert; never waits.
    """

    def __init__(self, folder: Path, counters: Counters, send: Send) -> None:
        self._file = findings_file(folder)
        self._counters, self._send = counters, send
        self._version = 0
        self._findings = _read(self._file)

    async def watch(self) -> None:
        """Tell of what is new, always."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            await self.look()

    async def look(self) -> None:
        """Read the file if it has changed; once more of the same agent, tool or server in one hour is nothing new."""
        version = await asyncio.to_thread(_version, self._file)  # in a thread: the disk may not answer
        if version == self._version:
            return
        self._version = version
        known = {one.key for one in self._findings.anomalies}
        self._findings = await asyncio.to_thread(_read, self._file)
        for one in reversed(self._findings.anomalies):
            if one.key not in known:
                self._tell(one)

    def report(self) -> dict[str, Any]:
        """What `/anomalies` says, the newest first."""
        found: dict[str, Any] = msgspec.to_builtins(self._findings)
        return found

    def _tell(self, one: Anomaly) -> None:
        log.warning("unusual: %s", one.says)
        self._counters.inc("fastgw_anomalies_total", one.kind)
        self._send("anomaly", one.says, {"anomaly": msgspec.to_builtins(one)})


def _version(file: Path) -> int:
    """Another number each time that the file is replaced."""
    try:
        found = file.stat()
    except OSError:
        return 0
    return hash((found.st_ino, found.st_mtime_ns))


def _read(file: Path) -> Findings:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Findings)
    except FileNotFoundError:
        return Findings()
    except (OSError, ValueError) as wrong:
        log.warning("anomalies cannot be read: %s", wrong)
        return Findings()
