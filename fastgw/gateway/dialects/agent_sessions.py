"""Which sealed session ids open, and which have been ended."""

from __future__ import annotations

import time

from fastgw.protocol import sessions
from fastgw.protocol.sealing import Sealer
from fastgw.protocol.sessions import Session

_REMEMBERED = 4096
"""Opened ids kept: opening one costs about 3 us, a dictionary look-up 0.05 us; an id may be 4 KiB long."""

MOST_ENDED = 200_000
"""Ended sessions remembered; beyond it the oldest are forgotten (100 bytes each)."""

DEFAULT_LEVEL = "info"
"""Of a session that never set one: the server decides then (2025-11-25, Logging), and most decide so."""

_UNSAID = (DEFAULT_LEVEL, 0)


class AgentSessions:
    """Opens session ids for one worker, once it has been given the secrets."""

    def __init__(self, secrets: tuple[bytes, ...] = ()) -> None:
        self._opened: dict[tuple[str, str, str], Session] = {}
        self._ended: dict[str, float] = {}
        self._levels: dict[str, tuple[str, int]] = {}
        self.sealer: Sealer
        if secrets:
            self.renew(secrets)

    def renew(self, secrets: tuple[bytes, ...]) -> None:
        """Seal and open under these master secrets from now on; what was ended stays ended."""
        self.sealer = Sealer(secrets, "session")
        self._opened.clear()

    def session(self, token: str, agent: str, endpoint: str) -> Session | None:
        """The session behind an `Mcp-Session-Id`; None where it is foreign, altered, expired or ended."""
        now = time.time()
        key = (token, agent, endpoint)
        session = self._opened.get(key)
        if session is None:
            session = sessions.opened(token, self.sealer, sessions.bond(agent, endpoint), now)
            if session is None:
                return None
            if len(self._opened) >= _REMEMBERED:
                self._opened.clear()
            self._opened[key] = session
        if session.id in self._ended or session.opened + sessions.LIFETIME <= now:
            return None
        return session

    def end(self, session: str, seconds: float) -> None:
        """This session opens no more; remembered for as long as its id could still open."""
        now = time.time()
        ended = self._ended
        self._levels.pop(session, None)
        ended.pop(session, None)
        ended[session] = now + seconds
        # They end nearly in the order they stand in, since all live equally long: looking at the first is enough.
        while ended:
            first = next(iter(ended))
            if len(ended) <= MOST_ENDED and ended[first] > now:
                return
            del ended[first]

    def set_level(self, session: str, level: str) -> None:
        """From now on this session wants log messages of this level and above."""
        before, times = self._levels.pop(session, ("", 0))
        self._levels[session] = level, times + (level != before)
        if len(self._levels) > MOST_ENDED:
            del self._levels[next(iter(self._levels))]

    def level(self, session: str) -> tuple[str, int]:
        """The lowest level of log messages the session wants, and how often it has named another one than before.

        Whoever tells servers goes by the number: the same level may have been another in between, on another worker.
        """
        return self._levels.get(session, _UNSAID)
