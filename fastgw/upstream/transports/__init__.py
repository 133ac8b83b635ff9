"""How an exchange with a server over HTTP can fail."""

from __future__ import annotations

from fastgw.errors import Fault, Kind


def down(detail: str, reason: str = "down") -> Fault:
    """The server cannot be reached (`down`), or all connections to it are in use (`busy`); nothing was sent."""
    return Fault(Kind.NO_SERVER, detail=detail, data={"reason": reason}, repeatable=True, retry_after=1)


def lost(detail: str) -> Fault:
    """The request was sent, or a part of it, and no whole and sound answer came back."""
    return Fault(Kind.LOST, detail=detail, sent=True)


def late(seconds: float, which: str) -> Fault:
    """The request was sent and the deadline `which`, `seconds` long, has passed."""
    return Fault(Kind.TIMEOUT, detail=f"{which} deadline", data={"timeoutMs": round(seconds * 1000)}, sent=True)
