"""Where the limiter's buckets are: the port that `stores.memory.Memory` and `stores.shared.Shared` fill.

Knows: shapes. Refuses to know: which of them it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from fastgw.gateway.admission import Admission
from fastgw.policy.verdict import Charge, Standing, Verdict


class Buckets(Protocol):
    """Where buckets are kept (`stores.memory.Memory`, `stores.shared.Shared`)."""

    def decide(self, charges: Sequence[Charge], now: int) -> Verdict | None:
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

    def release(self, permits: Sequence[Charge]) -> None:
        """These calls are over."""
        ...

    def reset(self, charges: Sequence[Charge], order: int) -> None:
        """Make these buckets full.

        Args:
            order: that demands it, as a number: it is heeded once, whoever repeats it.
        """
        ...

    def reset_all(self, limit: str, order: int) -> None:
        """Make all buckets of a limit full that are known here."""
        ...

    def standings(self, now: int) -> Iterator[Standing]:
        """How full each bucket is that is known here."""
        ...

    @property
    def state(self) -> str:
        """`memory`; of a store `up` or `away`."""
        ...
