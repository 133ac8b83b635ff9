"""Sessions of agents that have ended, kept until their ids would have expired anyway."""

from __future__ import annotations

import logging
from pathlib import Path

log = logging.getLogger("fastgw")

MOST = 1_000_000
"""Sessions remembered; beyond it the one that ends first is forgotten."""


class EndedSessions:
    """The ended sessions.

    Args:
        path: the file, one `expiry id` a line; made when the first session ends.
        now: Unix seconds.
    """

    def __init__(self, path: Path, now: float) -> None:
        self._path = path
        self._lines = 0
        self._kept = 0
        self._torn = False
        self._until: dict[str, float] = {}
        self._read(now)

    def __len__(self) -> int:
        return len(self._until)

    def add(self, session: str, seconds: float, now: float) -> None:
        """Remember `session` for `seconds`."""
        self._until.pop(session, None)
        self._until[session] = now + seconds
        while len(self._until) > MOST:
            del self._until[next(iter(self._until))]
        try:
            self._append(f"{now + seconds:.0f} {session}\n")
            if self._lines > 1000 + 2 * self._kept:
                self._compact(now)
        except OSError as wrong:
            log.error("ended sessions cannot be kept in %s: %s", self._path, wrong)

    def live(self, now: float) -> list[tuple[str, float]]:
        """(session, seconds it is still to be remembered) of all that have not expired."""
        self._forget(now)
        return [(session, until - now) for session, until in self._until.items()]

    def _forget(self, now: float) -> None:
        self._until = {session: until for session, until in self._until.items() if until > now}

    def _append(self, line: str) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"\n{line}" if self._torn else line)
        self._torn = False
        self._lines += 1

    def _compact(self, now: float) -> None:
        self._forget(now)
        draft = self._path.with_suffix(".new")
        draft.write_text("".join(f"{until:.0f} {session}\n" for session, until in self._until.items()), "utf-8")
        draft.replace(self._path)
        self._lines = self._kept = len(self._until)

    def _read(self, now: float) -> None:
        try:
            text = self._path.read_text("utf-8", errors="replace")
        except OSError:
            return
        # What was cut short must not take the next line with it.
        self._torn = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            until, _, session = line.partition(" ")
            self._lines += 1
            # A line cut short by a crash says nothing and is passed over.
            if until.isdigit() and session and float(until) > now:
                self._until[session] = float(until)
