"""An agent's session (revisions until 2025-11-25), held in nothing but its own sealed id."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from fastgw.protocol.sealing import Sealer

LIFETIME = 30 * 86400
"""Seconds a session id opens."""

_LARGEST = 1024
"""Bytes kept of capabilities and of clientInfo: session ids travel in a header, and those stay under 4 KiB."""


@dataclass(frozen=True, slots=True)
class Session:
    """One session of one agent at one endpoint.

    Args:
        id: random, unique: names the session inside, never seen outside.
        version: the revision settled on in `initialize`.
        opened: Unix seconds.
        capabilities, client: `ClientCapabilities` and `clientInfo` as JSON text.
    """

    id: str
    version: str
    opened: int
    capabilities: str
    client: str


def trimmed(text: bytes) -> str:
    """JSON text of capabilities or clientInfo as the session keeps it: `{}` where it is too large to travel."""
    return text.decode() if len(text) <= _LARGEST else "{}"


def sealed(session: Session, sealer: Sealer, bound: bytes, nonce: bytes) -> str:
    """The value of `Mcp-Session-Id`: visible ASCII, as the specification wants (2025-11-25, Session Management)."""
    return sealer.seal(_ENCODE(session), bound, nonce)


def opened(token: str, sealer: Sealer, bound: bytes, now: float) -> Session | None:
    """The session of an `Mcp-Session-Id`; None where it is foreign, altered or expired.

    Args:
        bound: agent and endpoint of the request, from `bond`.
        now: Unix seconds.
    """
    plain = sealer.open(token, bound)
    if plain is None:
        return None
    try:
        session = _DECODE(plain)
    except msgspec.DecodeError:
        return None  # sealed by us, but by a version that wrote it in another form
    return session if session.opened + LIFETIME > now else None


def bond(agent: str, endpoint: str) -> bytes:
    """What a session is bound to, so that no other agent and no other endpoint opens it."""
    return f"{endpoint}\n{agent}".encode()


_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(Session).decode
