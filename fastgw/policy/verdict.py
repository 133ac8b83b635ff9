"""What is asked of the buckets for one call, and what they say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from fastgw.policy.bucket import BucketRate
from fastgw.policy.limits import Limit, Subject

Bucket = tuple[str, Subject]
"""Which bucket: its limit (or the override of one) and its subject. Keeps its content over a reload."""


class BucketCharge(NamedTuple):
    """One bucket that a call counts in.

    Args:
        figures: of the rate; None where the calls at the same time are counted.
        cost: tokens that the call takes, at most a whole bucket.
        most: calls at the same time; 0 for a rate.
    """

    limit: Limit
    bucket: Bucket
    figures: BucketRate | None
    cost: int = 1
    most: int = 0


@dataclass(slots=True)
class LimitVerdict:
    """Whether a call may go, and how the tightest of its buckets stands then.

    Args:
        refused: the charge that refuses it; of several the one that takes longest. None where it may go.
        wait: seconds until that one would let it through; 0.0 where nobody can tell.
        tightest: of the rates that counted the call the one with the fewest calls left; the refusing one of a refusal.
        left: tokens in that bucket, as far as this worker knows.
        lacking: units that bucket lacks.
        shadowed: limits in shadow mode that would have refused it.
        permits: the charges whose calls at the same time it takes part in: to be given back when it is over.
        how: who decided: `memory`, `lease`, `store`, or, while the store is away, `local`, `allow`, `deny`.
    """

    refused: BucketCharge | None = None
    wait: float = 0.0
    tightest: BucketCharge | None = None
    left: int = 0
    lacking: int = 0
    shadowed: tuple[Limit, ...] = ()
    permits: tuple[BucketCharge, ...] = ()
    how: str = "memory"

    @property
    def full_in(self) -> float:
        """Seconds until the tightest bucket is full."""
        charge = self.tightest
        return charge.figures.seconds(self.lacking) if charge is not None and charge.figures is not None else 0.0


@dataclass(frozen=True, slots=True)
class BucketState:
    """How full one bucket is, for operators.

    Args:
        limit: name of the limit.
        subject: as operators read it.
        used: share of the bucket that is gone, 0.0 to 1.0.
        left: tokens, or calls, that are still to be had.
        burst: tokens of a full bucket, or most calls at the same time.
        at_once: calls at the same time are counted, those of this worker.
    """

    limit: str
    subject: str
    used: float
    left: int
    burst: int
    at_once: bool = False
