"""Where the limiter's buckets are: the port that `stores.memory.Memory` and `stores.shared.Shared` fill."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from fastgw.limits.admission import Admission
from fastgw.policy.verdict import BucketCharge, BucketState, LimitVerdict


class Buckets(Protocol):
    """Where buckets are kept (`stores.memory.Memory`, `stores.shared.Shared`)."""

    def decide(self, charges: Sequence[BucketCharge], now: int) -> LimitVerdict | None:
        """The verdict where it needs no waiting; else None, and nothing was taken.

        Args:
            now: CLOCK_MONOTONIC microseconds.
        """
        ...

    def ask(self, admission: Admission) -> None:
        """Have it decided; called only after `decide` said None."""
        ...

    async def begin(self) -> None:
        """Get ready; a store that is away is looked for until it is there."""
        ...

    def beat(self, now: int) -> None:
        """What is to be done now and then: about twice a second."""
        ...

    def held(self) -> dict[str, int]:
        """Tokens and calls that this worker holds in advance, by limit."""
        ...

    def release(self, permits: Sequence[BucketCharge]) -> None:
        """These calls are over."""
        ...

    def reset(self, charges: Sequence[BucketCharge], order: int) -> None:
        """Make these buckets full.

        Args:
            order: that demands it, as a number: it is heeded once, whoever repeats it.
        """
        ...

    def reset_all(self, limit: str, order: int) -> None:
        """Make all buckets of a limit full that are known here."""
        ...

    def standings(self, now: int) -> Iterator[BucketState]:
        """How full each bucket is that is known here."""
        ...

    @property
    def state(self) -> str:
        """`memory`; of a store `up` or `away`."""
        ...
