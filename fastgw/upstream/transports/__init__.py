"""How an exchange with a server over HTTP can fail."""

from __future__ import annotations

from fastgw.errors import Fault, Kind


def down(detail: str, reason: str = "down") -> Fault:
    """The server cannot be reached (`down`), or all connections to it are in use (`busy`); nothing was sent."""
    failure = "full" if reason == "busy" else "unreachable"
    data = {"reason": reason}
    return Fault(Kind.NO_SERVER, detail=detail, data=data, failure=failure, repeatable=True, retry_after=1)


def lost(detail: str) -> Fault:
    """The request was sent, or a part of it, and no whole and sound answer came back."""
    return Fault(Kind.LOST, detail=detail, sent=True, failure="lost")


def late(seconds: float, which: str) -> Fault:
    """The request was sent and the deadline `which`, `seconds` long, has passed."""
    data = {"timeoutMs": round(seconds * 1000)}
    return Fault(Kind.TIMEOUT, detail=f"{which} deadline", data=data, sent=True, failure="timeout")
