"""What one worker asks of the store in one flight: calls' questions, and the buckets they are about.

Knows: what is taken of what is held, and that each bucket stands in a flight once. Refuses to know: answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fastgw.policy.verdict import Charge, Verdict
from fastgw.stores.holdings import Holding
from fastgw.stores.script import ENFORCE, SHADOW, Row


class Admission(Protocol):
    """A call that asks to be admitted."""

    charges: Sequence[Charge]

    def decided(self, verdict: Verdict) -> bool:
        """Take the verdict; whether anybody still waits for it."""
        ...


class Question:
    """One call's question: what it took of holdings, and where its buckets stand in the check."""

    __slots__ = ("admission", "taken", "done")

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.done = False
        self.taken: list[tuple[Charge, Holding, int]] = []
        """Charge, holding, and what of the cost was held."""


class Rows:
    """The buckets of one flight, each once."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.rows: list[Row] = []
        self.holdings: list[Holding] = []
        self._places: dict[str, int] = {}

    def place(self, holding: Holding) -> int:
        """Where its row stands, counted from 1."""
        found = self._places.get(holding.key)
        if found is None:
            self.rows.append(holding.row(self.now))
            self.holdings.append(holding)
            found = self._places[holding.key] = len(self.rows)
        return found

    def check(self, question: Question) -> list[int]:
        """What a question asks of its buckets: what is not held of the cost."""
        found: list[int] = []
        for charge, holding, use in question.taken:
            found += self.place(holding), charge.cost - use, SHADOW if charge.limit.shadow else ENFORCE
        return found
