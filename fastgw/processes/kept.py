"""What the processes keep under `data`: the secret that sessions and cursors are sealed under, ended sessions,
and the instances that are drained.
"""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from fastgw.upstream.discovery.kept import hashed, write_private

log = logging.getLogger("fastgw")

SECRET = "secret"
"""The file's name."""
MOST = 1_000_000
"""Ended sessions remembered; beyond it the one that ends first is forgotten."""


class BadSecret(OSError):
    """The kept secret cannot be used; its text is fit for the user."""


def sealing_keys(configured: tuple[str, ...], data: Path) -> tuple[bytes, ...]:
    """The master secrets, first seals, all open: those configured, or one that is made and kept under `data`.

    Raises:
        OSError: the folder cannot be written.
        BadSecret: the kept secret is shorter than 32 bytes.
    """
    if configured:
        return tuple(value.encode() for value in configured)
    path = data / SECRET
    if not path.exists():
        _make_secret(path)
    found = path.read_bytes()
    if len(found) < 32:
        raise BadSecret(f"{path} is too short for a secret; restore it, or remove it and end all sessions")
    return (found,)


def _make_secret(path: Path) -> None:
    """Write the whole secret under another name and link it: of several that start at once, one wins."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".secret-")  # made with mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_hex(32).encode())
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        Path(draft).unlink()


class EndedSessions:
    """Sessions of agents that have ended, kept until their ids would have expired anyway.

    Args:
        path: the file, one `expiry id` a line; made when the first session ends.
        now: Unix seconds.
    """

    def __init__(self, path: Path, now: float) -> None:
        self._path = path
        self._until: dict[str, float] = {}
        text = ""
        with suppress(OSError):
            text = path.read_text("utf-8", errors="replace")
        # What was cut short by a crash must not take the next line with it; by itself it says nothing.
        self._torn = bool(text) and not text.endswith("\n")
        lines = text.splitlines()
        self._lines, self._kept = len(lines), 0
        for until, _, session in (line.partition(" ") for line in lines):
            if until.isdigit() and session and float(until) > now:
                self._until[session] = float(until)

    def __len__(self) -> int:
        return len(self._until)

    def add(self, session: str, seconds: float, now: float) -> None:
        """Remember `session` for `seconds`."""
        self._until.pop(session, None)
        self._until[session] = now + seconds
        while len(self._until) > MOST:
            del self._until[next(iter(self._until))]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n" * self._torn + f"{now + seconds:.0f} {session}\n")
            self._torn = False
            self._lines += 1
            if self._lines > 1000 + 2 * self._kept:
                draft = self._path.with_suffix(".new")
                draft.write_text("".join(f"{now + left:.0f} {one}\n" for one, left in self.live(now)), "utf-8")
                draft.replace(self._path)
                self._lines = self._kept = len(self._until)
        except OSError as wrong:
            log.error("ended sessions cannot be kept in %s: %s", self._path, wrong)

    def live(self, now: float) -> list[tuple[str, float]]:
        """(session, seconds it is still to be remembered) of all that have not expired."""
        self._until = {session: until for session, until in self._until.items() if until > now}
        return [(session, until - now) for session, until in self._until.items()]


class Drain(NamedTuple):
    """An operator's order that an instance gets no new calls: who gave it, and when (Unix seconds)."""

    who: str
    at: float


class KeptDrains:
    """The drains in force, by instance key, until an operator ends them; in the file `path` once there has been one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._drains: dict[str, Drain] = {}
        try:
            self._drains = msgspec.json.decode(path.read_bytes(), type=dict[str, Drain])
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as wrong:
            log.error("the kept drains in %s are not used: %s", path, wrong)

    def get(self, key: str) -> Drain | None:
        return self._drains.get(hashed(key))

    def put(self, key: str, drain: Drain | None) -> None:
        """Drain an instance, or (None) end that. Raises OSError: it cannot be kept, so all is as before."""
        drains = {name: one for name, one in self._drains.items() if name != hashed(key)}
        if drain is not None:
            drains[hashed(key)] = drain
        if drains != self._drains:
            write_private(self._path, msgspec.json.encode(drains))
            self._drains = drains
