"""The script on a real server against the vectors of the Python arithmetic (`tests/policy/test_bucket.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fastgw.limits.script import ENFORCE, ScriptRequest, ScriptRow
from fastgw.policy.bucket import BucketRate, bucket_rate
from tests.limits.played import Played
from tests.limits.valkeys import Valkey
from tests.policy.test_bucket import START, VECTORS

KEY = "{vectors}:bucket"


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    with Valkey() as started:
        yield started


class Story:
    """One bucket at the server, of which another worker holds something."""

    def __init__(self, server: Valkey, rate: BucketRate) -> None:
        server.ask("FLUSHALL")
        self.played = Played(server.client(), "vectors")
        self.rate = rate
        self.lent = 0

    def take(self, now: int, cost: int) -> tuple[int, int]:
        """Microseconds to wait, and units lacking."""
        request = ScriptRequest([ScriptRow(KEY, self.rate)], [[1, cost, ENFORCE]])
        refused, pause, _, lacking = self.played.ask(request, "w1", now).checks[0]
        assert bool(refused) == bool(pause)
        return pause, lacking

    def other(self, now: int, *, lend: int = 0, spent: int = 0, back: int = 0) -> int:
        """The other worker speaks; units lacking."""
        row = ScriptRow(KEY, self.rate, held=self.lent - spent - back, back=back, ahead=lend)
        reply = self.played.ask(ScriptRequest([row], [[1, 0, ENFORCE]]), "w2", now)
        self.lent += lend - spent - back
        assert reply.held == [self.lent]
        return reply.checks[0][3] + lend * self.rate.price  # taken in advance after the checks


@pytest.mark.parametrize("told", VECTORS, ids=lambda told: told["law"])
def test_the_vectors(server: Valkey, told: dict[str, Any]) -> None:
    story = Story(server, bucket_rate(*told["rate"], told["burst"]))
    for step in told["steps"]:
        if "rate" in step:
            story.rate = bucket_rate(*step["rate"], step["burst"])
        elif "cost" in step:
            assert story.take(START + step["at"], step["cost"]) == (step.get("wait", 0), step["lacking"]), step
        else:
            told_by_other = {name: step[name] for name in ("lend", "spent", "back") if name in step}
            assert story.other(START + step["at"], **told_by_other) == step["lacking"], step
