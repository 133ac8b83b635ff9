"""Percentiles of several workers against the raw latencies, the windows, the bounds, and the exported log."""

from __future__ import annotations

import gc
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from fastgw.telemetry import hlog, latencies
from fastgw.telemetry.counters import CallSeries, CallTimes, Counters
from fastgw.telemetry.histogram import LONGEST
from fastgw.telemetry.latencies import PERCENTS, STAGES, Latencies, Percentiles
from fastgw.telemetry.metrics import quantiles

SEARCH: CallSeries = ("search", "docs", "ok")
PAIRS = 50_000


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def told(counters: Counters) -> dict[CallSeries, CallTimes]:
    """A worker's delta after its way through the socket."""
    delta = counters.take()
    return {} if delta is None else pickle.loads(pickle.dumps(delta)).calls


def called(*series: CallSeries, seconds: float = 0.01) -> dict[CallSeries, CallTimes]:
    counters = Counters()
    for one in series:
        counters.call(one, int(seconds * 1e6), int(seconds * 1e5), 1)
    return told(counters)


def counts(kept: Latencies, window: str) -> dict[CallSeries, int]:
    kept.settle()
    return {series_of(row): row.count for row in kept.percentiles(window) if row.stage == "total"}


def series_of(row: Percentiles) -> CallSeries:
    return row.tool, row.server, row.outcome


def micros_of(row: Percentiles) -> tuple[int, ...]:
    return tuple(round(value * 1000) for value in row.times)


def exact(values: list[int], percent: float) -> int:
    """Of sorted microseconds, by HdrHistogram's rank."""
    return values[max(1, int(percent * len(values) / 100 + 0.5)) - 1]


# -- over workers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", latencies.WINDOWS)
def test_four_workers_of_which_one_dies_have_the_percentiles_of_all_that_was_told(window: str) -> None:
    dice = random.Random(4)
    kept = Latencies(Clock())
    raw: dict[CallSeries, dict[str, list[int]]] = {
        series: {stage: [] for stage in STAGES} for series in (SEARCH, ("a", None, "failed"))
    }
    workers = [Counters() for _ in range(4)]
    for beat in range(20):
        for number, counters in enumerate(workers):
            dies = (beat, number) == (11, 2)
            for _ in range(100):
                series = dice.choice(list(raw))
                total = dice.lognormvariate(-4, 1.5)
                overhead = min(total, dice.lognormvariate(-8, 1))
                counters.call(series, int(total * 1e6), int(overhead * 1e6), 1)
                whole, over = int(total * 1e6), int(overhead * 1e6)
                for stage, value in zip(STAGES, (whole, whole - over, over), strict=True):
                    if not dies:
                        raw[series][stage].append(value)
            if not dies:
                kept.merge(told(counters))
        if beat == 11:
            del workers[2]  # with what it has not told
    kept.settle()
    found = {(series_of(row), row.stage): row for row in kept.percentiles(window)}
    assert len(found) == len(raw) * len(STAGES)
    for (series, stage), row in found.items():
        values = sorted(raw[series][stage])
        assert row.count == len(values)
        for percent, micros in zip(PERCENTS, micros_of(row), strict=True):
            assert exact(values, percent) <= micros <= exact(values, percent) * 1.001
        assert micros_of(row) == by_the_package(values)


def by_the_package(values: list[int]) -> tuple[int, ...]:
    theirs = HdrHistogram(1, LONGEST, 3)
    for value in values:
        theirs.record_value(value)
    found = theirs.get_percentile_to_value_dict(PERCENTS)
    return tuple(found[percent] for percent in PERCENTS)


def test_what_is_no_duration_is_the_nearest_that_is_one() -> None:
    kept = Latencies(Clock())
    kept.merge({SEARCH: CallTimes({-5: 1}, {0: 1}, {10**6: 1})})
    kept.settle()
    rows = {row.stage: micros_of(row)[0] for row in kept.percentiles("start")}
    assert (rows["total"], rows["upstream"]) == (0, 0)
    assert LONGEST <= rows["overhead"] <= LONGEST * 1.001


# -- windows ---------------------------------------------------------------------------------------------------------


def test_a_minute_and_an_hour_pass() -> None:
    clock = Clock()
    kept = Latencies(clock)
    kept.merge(called(SEARCH))
    clock.now += 59
    kept.merge(called(SEARCH, ("b", "docs", "ok")))
    assert counts(kept, "1m") == counts(kept, "1h") == counts(kept, "start") == {SEARCH: 2, ("b", "docs", "ok"): 1}
    clock.now += 20
    assert counts(kept, "1m") == {SEARCH: 1, ("b", "docs", "ok"): 1}
    assert counts(kept, "1h") == {SEARCH: 2, ("b", "docs", "ok"): 1}
    clock.now += 3700
    assert counts(kept, "1m") == counts(kept, "1h") == {}
    assert counts(kept, "start") == {SEARCH: 2, ("b", "docs", "ok"): 1}


@pytest.mark.parametrize("asked_every", [3, 15, 10_000])
def test_every_second_of_an_hour_is_in_it_once_and_little_more(asked_every: int) -> None:
    clock = Clock()
    kept = Latencies(clock)
    for second in range(3 * 3600):
        clock.now += 1
        kept.merge(called(SEARCH))
        if second % asked_every == 0:
            kept.settle()
    assert 60 <= counts(kept, "1m")[SEARCH] <= 70
    assert 3600 <= counts(kept, "1h")[SEARCH] <= 3660
    assert counts(kept, "start")[SEARCH] == 3 * 3600


def test_a_slice_that_is_full_is_packed_and_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latencies, "MOST_FRESH", 10)
    monkeypatch.setattr(latencies, "MOST_OPEN", 10)
    clock = Clock()
    kept = Latencies(clock)
    for micros in range(100):
        clock.now += 0.1
        kept.merge(called(SEARCH, seconds=micros / 1000))
    assert counts(kept, "1m") == counts(kept, "1h") == {SEARCH: 100}
    monkeypatch.setattr(latencies, "MOST_PACKED", 100)
    for micros in range(100):
        kept.merge(called(SEARCH, seconds=micros / 1000))
    assert counts(kept, "1h")[SEARCH] < 50
    assert counts(kept, "start") == {SEARCH: 200}


def test_the_most_called_is_first_and_its_stages_stand_together() -> None:
    kept = Latencies(Clock())
    kept.merge(called(SEARCH))
    for _ in range(2):
        kept.merge(called(("b", "docs", "ok")))
    kept.settle()
    found = [(row.tool, row.stage) for row in kept.percentiles("1m")]
    assert found == [(tool, stage) for tool in ("b", "search") for stage in STAGES]


# -- bounds ----------------------------------------------------------------------------------------------------------


def test_more_tools_than_fit_are_other_by_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latencies, "MOST_SERIES", 3)
    kept = Latencies(Clock())
    for number in range(10):
        kept.merge(called((f"t{number}", "s", "ok"), (f"t{number}", "s", "failed")))
    first = {("t0", "s", "ok"): 1, ("t0", "s", "failed"): 1, ("t1", "s", "ok"): 1}
    for window in latencies.WINDOWS:
        assert counts(kept, window) == {**first, ("other", "other", "failed"): 9, ("other", "other", "ok"): 8}


def test_more_values_than_fit_are_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latencies, "MOST_CELLS", 30)
    kept = Latencies(Clock())
    for milliseconds in range(100):
        kept.merge(called(SEARCH, seconds=milliseconds / 1000))
        kept.merge(called(SEARCH, seconds=0.0))
    found = counts(kept, "start")
    assert sum(found.values()) == 200
    assert found[SEARCH] < 120
    assert counts(kept, "1h") == {SEARCH: 200}


COST = f"""
import sys, random, pathlib
from fastgw.telemetry.counters import Counters
from fastgw.telemetry.metrics import Sums, quantiles

def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096

dice, before, clock = random.Random(1), resident(), [0.0]
workers, sums = [Counters() for _ in range(4)], Sums(lambda: clock[0])
kept = sums.latencies
for calls in range(2):  # untold: as much as four workers ever hold, were the controller away
    for number in range({PAIRS}):
        total = dice.lognormvariate(-3, 1.5)
        series = (f"tool-{{number % 1000}}-of-some-length", f"server-{{number // 1000}}", "ok")
        workers[number % 4].call(series, int(total * 1e6), int(total * 1e6 / dice.uniform(5, 50)), 1)
for counters in workers:
    sums.merge(1, counters.take())
    clock[0] += 15
kept.settle()
assert len(quantiles(kept)) == 201 * 3 * 6
assert len(kept.percentiles("start")) == {PAIRS} * 3
print(resident() - before)
"""


def test_fifty_thousand_pairs_cost_less_than_200_megabytes() -> None:
    """What four workers have not told yet, the controller's three windows, and what it shows of them."""
    gc.collect()
    done = subprocess.run([sys.executable, "-c", COST], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200e6


# -- what is shown of it ---------------------------------------------------------------------------------------------


def test_quantiles_are_gauges_of_the_last_minute() -> None:
    clock = Clock()
    kept = Latencies(clock)
    kept.merge(called(SEARCH, (None, None, "refused"), seconds=0.5))
    kept.settle()
    found = quantiles(kept)
    assert len(found) == 2 * 3 * len(PERCENTS)
    name = "fastgw_call_quantile_seconds"
    assert found[name, "search", "docs", "ok", "total", "0.999"] == pytest.approx(0.5, rel=0.001)
    assert found[name, "", "", "refused", "overhead", "1"] == pytest.approx(0.05, rel=0.001)
    clock.now += 100
    assert quantiles(kept) == {}


def test_beyond_the_most_called_all_others_are_one_and_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastgw.telemetry.metrics.MOST_SHOWN", 2)
    kept, raw = Latencies(Clock()), []
    for number in range(20):
        for repeat in range(1 + (number in (3, 4))):
            micros = 1000 * (number + 1) + repeat
            if number not in (3, 4):
                raw.append(micros)
            kept.merge(called((f"tool-{number}", "docs", "ok"), seconds=micros / 1e6))
    kept.merge(called(("other", "other", "ok"), seconds=0.5))
    kept.settle()
    found = {series[1:]: value for series, value in quantiles(kept).items()}
    assert {series[:2] for series in found} == {("tool-3", "docs"), ("tool-4", "docs"), ("other", "other")}
    assert found["tool-3", "docs", "ok", "total", "0.5"] == pytest.approx(0.004, rel=0.002)
    rest = {series[-1]: value for series, value in found.items() if series[:4] == ("other", "other", "ok", "total")}
    assert rest["0.5"] == pytest.approx(exact(sorted([*raw, 500_000]), 50) / 1e6, rel=0.001)
    assert rest["1"] == pytest.approx(0.5, rel=0.001)


def logged(kept: Latencies, file: Path, window: str = "start") -> str:
    kept.settle()
    file.write_text("".join(hlog.lines(kept, window)))
    return file.read_text()


def test_the_log_is_read_by_hdrhistograms_own_reader(tmp_path: Path) -> None:
    clock = Clock()
    kept = Latencies(clock)
    odd: CallSeries = ("a,b /c\n", None, "ok")
    for milliseconds in (1, 20, 300):
        kept.merge(called(SEARCH, odd, seconds=milliseconds / 1000))
        clock.now += 15
    logged(kept, tmp_path / "1m.hlog", "1m")
    reader = HistogramLogReader(str(tmp_path / "1m.hlog"), HdrHistogram(1, LONGEST, 3))
    read = []
    while (histogram := reader.get_next_interval_histogram()) is not None:
        read.append(histogram)
    assert len(read) == 3 * 2 * len(STAGES)
    assert {one.get_tag() for one in read} >= {"search/docs/ok/total", "a%2Cb%20%2Fc%0A//ok/overhead"}
    longest = [one.get_max_value() for one in read if one.get_tag() == "search/docs/ok/total"]
    assert longest == [pytest.approx(micros, rel=0.001) for micros in (1_000, 20_000, 300_000)]
    begun = [one.get_start_time_stamp() for one in read]
    assert begun == sorted(begun)
    assert begun[-1] - begun[0] == pytest.approx(30_000, abs=10)


def test_logs_of_two_machines_add_up_to_what_one_would_have_counted(tmp_path: Path) -> None:
    dice = random.Random(2)
    machines, one = [Latencies(Clock()), Latencies(Clock())], Latencies(Clock())
    for _ in range(2000):
        calls = called(SEARCH, (None, "docs", "ok"), seconds=dice.lognormvariate(-4, 2))
        for kept in (one, dice.choice(machines)):
            kept.merge(calls)
    logs = [logged(kept, tmp_path / "log") for kept in machines]

    def ordered(rows: list[Percentiles]) -> list[Percentiles]:
        return sorted(rows, key=repr)

    one.settle()
    assert ordered(hlog.percentiles(logs)) == ordered(one.percentiles("start"))


@pytest.mark.parametrize(
    "line", ["Tag=a/b/c/total,1,2,3,nonsense", "Tag=a,1,2,3,HISTFAAA", "Tag=a/b/c/d,1,2,3,HISTFAAA"]
)
def test_what_is_no_log_of_ours_is_said(line: str) -> None:
    with pytest.raises(ValueError, match="not a histogram of fastgw: Tag=a"):
        hlog.percentiles([line])
