"""Agents' sessions (revisions until 2025-11-25): each is held in nothing but its own sealed id, and may have ended."""

from __future__ import annotations

import os
from dataclasses import dataclass
from time import time

import msgspec

from fastgw.protocol.call import Call
from fastgw.protocol.sealing import NONCE, Sealer

LIFETIME = 30 * 86400
"""Seconds a session id opens."""
_LARGEST = 1024
"""Bytes kept of capabilities and of clientInfo: session ids travel in a header, and those stay under 4 KiB."""
_REMEMBERED = 4096
"""Opened ids kept: opening one costs about 3 us, a dictionary look-up 0.05 us; an id may be 4 KiB long."""
MOST_ENDED = 200_000
"""Ended sessions remembered; beyond it the oldest are forgotten (100 bytes each)."""
DEFAULT_LEVEL = "info"
"""Of a session that never set one: the server decides then (2025-11-25, Logging), and most decide so."""


@dataclass(frozen=True, slots=True)
class Session:
    """One session of one agent at one endpoint.

    Args:
        id: random, unique: names the session inside, never seen outside.
        version: the revision settled on in `initialize`.
        opened: Unix seconds.
        capabilities, client: `ClientCapabilities` and `clientInfo` as JSON text; `{}` where too large to travel.
    """

    id: str
    version: str
    opened: int
    capabilities: str
    client: str


_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(Session).decode


class AgentSessions:
    """Opens session ids for one worker, once it has been given the secrets."""

    def __init__(self, secrets: tuple[bytes, ...] = ()) -> None:
        self._opened: dict[tuple[str, str, str], Session] = {}
        self._ended: dict[str, float] = {}
        self._levels: dict[str, tuple[str, int]] = {}
        self._sealer: Sealer
        if secrets:
            self.renew(secrets)

    def renew(self, secrets: tuple[bytes, ...]) -> None:
        """Seal and open under these master secrets from now on; what was ended stays ended."""
        self._sealer = Sealer(secrets, "session")
        self._opened.clear()

    def begin(self, call: Call, agent: str, endpoint: str) -> str:
        """A new session for the sender of this `initialize`.

        Returns:
            The value of `Mcp-Session-Id`: visible ASCII (2025-11-25, Session Management), under 4 KiB.
        """
        kept = [text.decode() if len(text) <= _LARGEST else "{}" for text in (call.capabilities, call.client or b"{}")]
        session = Session(os.urandom(12).hex(), call.version, int(time()), *kept)
        return self._sealer.seal(_ENCODE(session), _bound(agent, endpoint), os.urandom(NONCE))

    def session(self, token: str, agent: str, endpoint: str) -> Session | None:
        """The session behind an `Mcp-Session-Id`; None where it is foreign, altered, expired or ended."""
        key = (token, agent, endpoint)
        session = self._opened.get(key)
        if session is None:
            plain = self._sealer.open(token, _bound(agent, endpoint))
            try:
                session = _DECODE(plain) if plain is not None else None
            except msgspec.DecodeError:  # sealed by us, but by a version that wrote it in another form
                session = None
            if session is None:
                return None
            if len(self._opened) >= _REMEMBERED:
                self._opened.clear()
            self._opened[key] = session
        return session if session.id not in self._ended and session.opened + LIFETIME > time() else None

    def end(self, session: str, seconds: float) -> None:
        """This session opens no more; remembered for as long as its id could still open."""
        now = time()
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

        Servers are sent it by the number: the same level may have been another in between, on another worker.
        """
        return self._levels.get(session, (DEFAULT_LEVEL, 0))


def _bound(agent: str, endpoint: str) -> bytes:
    """What a session is bound to, so that no other agent and no other endpoint opens it."""
    return f"{endpoint}\n{agent}".encode()
