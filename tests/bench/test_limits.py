"""The costs of limits in small, what must be the same at any size, and when a missed bound counts."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from bench import asked, gateway, limits
from bench.beside import Measured, Subject, beside, text
from bench.decisions import SHARED, Crowd, InMemory, Leased, Line, Scene


def row(name: str, ratio: float, most: float | None) -> Measured:
    return Measured(name, ratio, ratio, ratio, 1.0, most)


def test_a_ratio_is_taken_within_its_round() -> None:
    """The reference is looked at before and after; in the second round everything is ten times as slow."""
    looks = iter([1.0, 1.0, 1.0, 3.0, 1.0, 10.0, 30.0, 10.0])  # first of all both are warmed
    found = beside(Subject("one", lambda: next(looks)), [Subject("three", lambda: next(looks), 2.0)], 2)
    assert next(looks, None) is None
    assert [one.ratio for one in found] == [1.0, 3.0]
    assert found[1].missed and "MISSED" in text(found) and not found[0].missed


@pytest.mark.parametrize("kept", [InMemory, Leased])
def test_a_call_counts_in_four_buckets_and_passes(kept: type[InMemory] | type[Leased]) -> None:
    line = Line(Scene(), kept())
    for _ in range(3):
        for verdict in (line.decision(), line.step()):
            assert verdict is not None and verdict.refused is None and verdict.tightest is not None
        line.whole()


@pytest.mark.parametrize("kept", [InMemory, Leased])
def test_many_agents_have_a_bucket_each(kept: type[InMemory] | type[Leased]) -> None:
    buckets = kept()
    crowd = Crowd(Scene(SHARED), buckets, 50, 10)
    assert len(buckets) == 50 + 3
    assert crowd.decision(100) > 0 and len(buckets) == 50 + 3


def test_the_store_makes_every_decision(tmp_path: Path) -> None:
    found = asked.rows(tmp_path, 1, 640)
    assert found[0].ratio == 1.0
    assert [one.most for one in found] == [None, asked.WANTED, asked.WANTED]


def test_full_buckets_are_forgotten_and_the_others_small() -> None:
    found = {one.name: one for one in limits.sizes(5000)}
    left = [one.ratio for name, one in found.items() if name.startswith("of these left")]
    assert left == [0.0, 0.0]
    assert not any(one.missed for one in found.values())


@pytest.mark.parametrize(
    ("first", "second", "looks", "fails"),
    [({"a": 1.0}, {}, 1, False), ({"a": 3.0}, {"a": 1.0}, 2, False), ({"a": 3.0}, {"a": 3.0}, 2, True)],
)
def test_a_bound_counts_as_missed_when_a_repeat_misses_it_too(
    first: dict[str, float], second: dict[str, float], looks: int, fails: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = iter([first, second])
    made: list[dict[str, float]] = []

    def suite() -> list[Measured]:
        made.append(next(runs))
        return [row(name, ratio, 2.0) for name, ratio in made[-1].items()]

    assert limits.judged(suite) is fails
    assert len(made) == looks
    assert ("missed twice: a" in capsys.readouterr().out) is fails


def test_every_suite_names_its_bounds() -> None:
    rows = [*limits.decisions(1, 50), *limits.many("from memory", 1, 64, 400), *limits.many("from leases", 1, 64, 400)]
    bounds = {one.name: one.most for one in rows if one.most is not None}
    assert bounds == {
        "from memory, decision": 2.0,
        "from memory, charges and decision": 2.0,
        "from leases, decision": 0.5,
        "from memory, 400 buckets, 10 agents call": 1.25,
        "from memory, 400 buckets, any agent calls": 1.25,
        "from leases, 400 buckets, 10 agents call": 1.25,
    }


def test_metrics_tell_who_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    told = (
        'fastgw_limit_decisions_total{how="lease",outcome="admitted"} 7\n'
        'fastgw_limit_decisions_total{how="store",outcome="refused"} 2\n'
        'fastgw_limit_decisions_total{how="store",outcome="admitted"} 3\n'
    )
    monkeypatch.setattr(gateway, "page", partial(lambda body, *_: (200, body), told.encode()))
    assert gateway.Gateway(1, 1, "k", Path("u"), 2, gateway.ON).decisions() == {"lease": 7, "store": 3}
