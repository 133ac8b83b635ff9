"""What one worker asks of the store in one flight: calls' questions, and the buckets they are about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fastgw.limits.leases import Lease
from fastgw.limits.script import ENFORCE, SHADOW, ScriptRow
from fastgw.policy.verdict import BucketCharge, LimitVerdict


class AwaitedAdmission(Protocol):
    """A call that asks to be admitted."""

    charges: Sequence[BucketCharge]

    def decided(self, verdict: LimitVerdict) -> bool:
        """Take the verdict; whether anybody still waits for it."""
        ...


class BatchedCall:
    """One call's question: what it took of holdings, and where its buckets stand in the check."""

    __slots__ = ("admission", "taken", "done")

    def __init__(self, admission: AwaitedAdmission) -> None:
        self.admission = admission
        self.done = False
        self.taken: list[tuple[BucketCharge, Lease, int]] = []
        """Charge, holding, and what of the cost was held."""


class BatchRows:
    """The buckets of one flight, each once."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.rows: list[ScriptRow] = []
        self.leases: list[Lease] = []
        self._places: dict[str, int] = {}

    def place(self, lease: Lease) -> int:
        """Where its row stands, counted from 1."""
        found = self._places.get(lease.key)
        if found is None:
            self.rows.append(lease.row(self.now))
            self.leases.append(lease)
            found = self._places[lease.key] = len(self.rows)
        return found

    def check(self, question: BatchedCall) -> list[int]:
        """What a question asks of its buckets: what is not held of the cost."""
        found: list[int] = []
        for charge, lease, use in question.taken:
            found += self.place(lease), charge.cost - use, SHADOW if charge.limit.shadow else ENFORCE
        return found
