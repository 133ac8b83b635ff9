"""What an answer tells of the limits that counted its call: the two headers of draft-ietf-httpapi-ratelimit-headers,
and one number in the usage event.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from fastgw.policy.verdict import LimitVerdict


def tightest(verdicts: Iterable[LimitVerdict | None]) -> LimitVerdict | None:
    """The one of several calls' verdicts whose bucket has the fewest calls left."""
    counted = [verdict for verdict in verdicts if verdict is not None and verdict.tightest is not None]
    return min(counted, key=lambda verdict: verdict.left, default=None)


def fields(verdict: LimitVerdict | None) -> list[tuple[bytes, bytes]]:
    """`RateLimit` and `RateLimit-Policy` for the tightest rate that counted a call.

    `q` calls in `w` seconds: a bucket, and how long it takes to fill. `r` calls are left; in `t` seconds it is full.
    """
    charge = verdict.tightest if verdict is not None else None
    if verdict is None or charge is None or charge.figures is None:
        return []
    figures, name = charge.figures, _quoted(charge.limit.name)
    window = max(1, ceil(figures.seconds(figures.cap)))
    return [
        (b"ratelimit-policy", b"%s;q=%d;w=%d" % (name, figures.burst, window)),
        (b"ratelimit", b"%s;r=%d;t=%d" % (name, verdict.left, ceil(verdict.full_in))),
    ]


def _quoted(name: str) -> bytes:
    """A name as a String of structured fields (RFC 9651, section 3.3.3): printable ASCII, two letters escaped."""
    plain = "".join(letter if " " <= letter <= "~" else "?" for letter in name)
    return b'"%s"' % plain.replace("\\", "\\\\").replace('"', '\\"').encode()


def remaining(verdict: LimitVerdict | None) -> int | None:
    """Whole calls like this one that are left in the tightest rate that counted it; None where none did."""
    if verdict is None or verdict.refused is not None or verdict.tightest is None:
        return None
    return verdict.left // max(1, verdict.tightest.cost)
