"""Rounds and their table, with a bare backend and with one that lies."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import loop, rounds
from bench.messages import Target
from bench.rounds import Contender
from bench.started import NotStarted, Started, started

PLAN = loop.Plan(connections=4, seconds=0.2, warm=0.05)


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Started]:
    """A bare backend in a process of its own."""
    log = tmp_path / "backend.log"
    command = [sys.executable, "-m", "bench", "backend", "--tools", "3"]
    with started(command, log, lambda: b"port=" in log.read_bytes()) as pid:
        yield Started(pid, int(log.read_text().split("port=")[1].split()[0]))


def outcome(cpu: float, calls: int) -> loop.Outcome:
    return loop.Outcome(calls, 2.0, cpu, 0, (), [], [])


def test_a_tiny_run_meters_the_backend(backend: Started) -> None:
    said: list[str] = []
    contenders = [
        Contender("one", backend.pid, Target(backend.port)),
        Contender("two", backend.pid, Target(backend.port)),
    ]
    rows = rounds.table(contenders, rounds.measure(contenders, PLAN, 2, said.append))
    assert [row.name for row in rows] == ["one", "two"]
    assert all(row.calls > 50 and row.cpu > 1 and 0 < row.generator < 1.1 for row in rows)
    assert rows[0].ratio == 1.0
    assert len(said) == 2


def test_a_wrong_answer_ends_everything(backend: Started) -> None:
    liar = Contender("liar", backend.pid, Target(backend.port, size=3))
    with pytest.raises(rounds.Wrong, match=r"liar: .*altered content"):
        rounds.measure([liar], PLAN, 1, lambda line: None)


def test_a_ratio_is_taken_within_its_own_round() -> None:
    # The machine is five times slower in the second round: the ratio does not move.
    fast = [outcome(0.1, 10_000), outcome(0.4, 10_000)]
    slow = [outcome(0.5, 10_000), outcome(2.0, 10_000)]
    odd = [outcome(0.1, 10_000), outcome(0.3, 10_000)]
    contenders = [Contender("reference", 1, Target(1)), Contender("other", 1, Target(1))]
    row = rounds.table(contenders, [fast, slow, odd])[1]
    assert (row.ratio, row.least, row.greatest) == pytest.approx((4.0, 3.0, 4.0))
    assert row.cpu == pytest.approx(40.0)
    assert row.busy == pytest.approx(0.2)


def test_what_does_not_start_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such luck')"]
    with pytest.raises(NotStarted, match="no such luck"), started(command, tmp_path / "log", lambda: False):
        pass
