"""Roll-ups by hour agree with an independent count, whatever is archived, and what is unusual is told once an hour."""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastgw.usage import hourly
from fastgw.usage.anomalies import WEEK, Findings, HourCounts, Rollup
from fastgw.usage.archive import Archive
from fastgw.usage.hourly import HOUR, AnomalyFinder
from tests.usage.events import line

NOON = int(datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp())
"""Of a Tuesday."""
KEEP = 400 * 86_400.0


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def spool(folder: Path, begun: float, lines: list[str]) -> Path:
    path = folder / "spool" / f"{int(begun * 1000):013}-77-1.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def rollup(folder: Path, hour: int) -> Rollup:
    name = datetime.fromtimestamp(hour * HOUR, UTC).strftime("%Y-%m-%dT%H.json")
    return msgspec.json.decode((folder / "hourly" / name).read_bytes(), type=Rollup)


def files(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / "hourly").glob("*.json"))


def findings(folder: Path) -> Findings:
    return msgspec.json.decode((folder / "anomalies.json").read_bytes(), type=Findings)


def remember(folder: Path, hour: int, counts: dict[str, dict[str, HourCounts]]) -> None:
    """The roll-up of an hour of the past."""
    path = folder / "hourly" / datetime.fromtimestamp(hour * HOUR, UTC).strftime("%Y-%m-%dT%H.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(Rollup(counts)))


def test_hours_agree_with_an_independent_count_while_events_are_archived(tmp_path: Path) -> None:
    """Three days of events, made known in pieces; each hour is the same whether it came from the spool or Parquet."""
    dice, clock = random.Random(3), Clock(NOON - 3 * 86_400)
    archive = Archive(tmp_path, clock)
    finder = AnomalyFinder(tmp_path, KEEP, clock)
    wanted: dict[tuple[int, str, str], list[float]] = defaultdict(lambda: [0] * 5)
    begun = clock.now
    while begun < NOON:
        lines = []
        for number in range(50):
            event = {
                "timestamp": at(begun + dice.random() * 59 - 1),
                "agentId": dice.choice(("a", "b", "c")),
                "tool": dice.choice(("search", None)),
                "mcpServer": dice.choice(("docs", None)),
                "outcome": dice.choice(("ok", "ok", "tool_error", "denied", "unavailable")),
                "attempts": dice.choice((0, 1, 2)),
                "latencyMs": round(dice.lognormvariate(3, 1), 3),
                "overheadMs": 0.2,
            }
            lines.append(line(number, **event))
            count(wanted, event)
        path = spool(tmp_path, begun, lines)
        clock.now = begun + 60
        if dice.random() < 0.7:
            archive.convert([path])
        begun += dice.choice((3600, 7200, 10_800))
    clock.now = NOON + hourly.SETTLED
    for _ in range(4):  # a day at a time
        finder.look()
    found = {
        (hour, kind, name): [one.calls, one.errors, one.timed, one.log_sum, one.log_squares]
        for hour in {key[0] for key in wanted}
        for kind, counts in rollup(tmp_path, hour).counts.items()
        for name, one in counts.items()
    }
    assert found.keys() == wanted.keys()
    assert all(found[key] == pytest.approx(wanted[key]) for key in wanted)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "hourly").glob("*.json")} == {0o600}


def count(wanted: dict[tuple[int, str, str], list[float]], event: dict[str, Any]) -> None:
    hour = int(datetime.fromisoformat(event["timestamp"]).timestamp() // HOUR)
    took = max(1.0, round(event["latencyMs"] * 1000) - 200)
    timed = event["attempts"] > 0 and event["outcome"] in ("ok", "tool_error")
    for kind, name in (("agent", event["agentId"]), ("tool", event["tool"]), ("server", event["mcpServer"])):
        if name is not None:
            sums = wanted[hour, kind, name]
            sums[0] += 1
            sums[1] += event["outcome"] in ("tool_error", "unavailable")
            if timed:
                sums[2:] = [sums[2] + 1, sums[3] + math.log(took), sums[4] + math.log(took) ** 2]


def test_without_events_there_is_nothing_and_no_file_of_any_hour(tmp_path: Path) -> None:
    finder = AnomalyFinder(tmp_path, KEEP, Clock(NOON))
    finder.look()
    assert (files(tmp_path), findings(tmp_path)) == ([], Findings())


def story(folder: Path, minute: int, calls: int) -> tuple[AnomalyFinder, Clock]:
    """Five weeks in which agent `loops` made ten calls at noon, and so many of now."""
    hour = NOON // HOUR
    for week in range(1, 6):
        remember(folder, hour - WEEK * week, {"agent": {"loops": HourCounts(10)}})
    spool(folder, NOON + 1, [line(number, timestamp=at(NOON + 1), agentId="loops") for number in range(calls)])
    clock = Clock(NOON + 60 * minute)
    return AnomalyFinder(folder, KEEP, clock), clock


def test_what_is_unusual_is_found_in_the_hour_and_stays_one(tmp_path: Path) -> None:
    finder, clock = story(tmp_path, 5, 200)
    finder.look()
    (first,) = findings(tmp_path).anomalies
    assert (first.kind, first.subject, first.hour) == ("pace", {"agent": "loops"}, "2026-11-24T12:00:00Z")
    assert (first.value, first.usual, first.found) == (200, 10, clock.now)
    assert findings(tmp_path).history_since == "2026-10-20T12:00:00Z"
    spool(tmp_path, NOON + 360, [line(number, timestamp=at(NOON + 370), agentId="loops") for number in range(300)])
    clock.now += 120
    finder.look()
    (second,) = findings(tmp_path).anomalies
    assert (second.value, second.found) == (500, first.found)
    clock.now = NOON + HOUR + hourly.SETTLED
    again = AnomalyFinder(tmp_path, KEEP, clock)  # after a restart
    again.look()
    assert [one.value for one in findings(tmp_path).anomalies] == [500]
    assert rollup(tmp_path, NOON // HOUR).counts["agent"]["loops"].calls == 500


def test_a_clock_that_jumps_makes_no_storm_and_no_hour_of_the_future(tmp_path: Path) -> None:
    finder, clock = story(tmp_path, 5, 200)
    for jump in (0, HOUR * 5, -HOUR * 5, 0, 86_400 * 3650, 0):
        clock.now = NOON + 300 + jump
        finder.look()
    assert [one.hour for one in findings(tmp_path).anomalies] == ["2026-11-24T12:00:00Z"]
    assert all(name < "2026-11-24T12" for name in files(tmp_path))


def test_of_thousands_of_agents_the_busiest_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hourly, "MOST", 3)
    lines = [line(0, timestamp=at(NOON + 5), agentId=f"agent-{n}", tool="t", mcpServer=None) for n in range(9)]
    lines += [line(0, timestamp=at(NOON + 5), agentId=f"agent-{n}", tool="t", mcpServer=None) for n in (2, 4, 6, 8)]
    spool(tmp_path, NOON + 5, lines)
    AnomalyFinder(tmp_path, KEEP, Clock(NOON + HOUR + hourly.SETTLED)).look()
    found = rollup(tmp_path, NOON // HOUR)
    assert {name: one.calls for name, one in found.counts["agent"].items()} == {
        "agent-2": 2,
        "agent-4": 2,
        "agent-6": 2,
    }
    assert found.least == {"agent": 2}
    assert (found.calls(("agent", "agent-8")), found.calls(("tool", "strange"))) == (2, 0)


def test_a_name_may_be_anything(tmp_path: Path) -> None:
    names = ["a'; DROP TABLE events; --", "\x1b[2J\n", "é" * 500, "$most"]
    spool(tmp_path, NOON + 5, [line(0, timestamp=at(NOON + 5), agentId=name) for name in names])
    AnomalyFinder(tmp_path, KEEP, Clock(NOON + HOUR + hourly.SETTLED)).look()
    assert set(rollup(tmp_path, NOON // HOUR).counts["agent"]) == {name[: hourly.LONGEST] for name in names}


def test_roll_ups_go_with_the_events_and_spoiled_files_are_done_without(tmp_path: Path) -> None:
    _, clock = story(tmp_path, 5, 200)
    (tmp_path / "hourly" / "2026-11-17T12.json").write_text("{")
    (tmp_path / "anomalies.json").write_text("[]")
    AnomalyFinder(tmp_path, KEEP, clock).look()
    assert len(findings(tmp_path).anomalies) == 1  # four weeks are enough
    AnomalyFinder(tmp_path, 86_400 * 10, clock).look()
    assert [name for name in files(tmp_path) if name < "2026-11-14"] == []


def test_a_flood_of_anomalies_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hourly, "MOST_AN_HOUR", 5)
    names = [f"agent-{number}" for number in range(8)]
    for week in range(1, 6):
        remember(tmp_path, NOON // HOUR - WEEK * week, {"agent": dict.fromkeys(names, HourCounts(1))})
    clock = Clock(NOON + 100)
    finder = AnomalyFinder(tmp_path, KEEP, clock)
    spool(tmp_path, NOON, [line(n, timestamp=at(NOON + 1), agentId=name) for name in names for n in range(150)])
    for _ in range(3):
        finder.look()
        clock.now += 60
    assert len(findings(tmp_path).anomalies) == 5
    assert {one.found for one in findings(tmp_path).anomalies} == {NOON + 100}


def test_the_files_are_readable_by_people(tmp_path: Path) -> None:
    finder, _ = story(tmp_path, 5, 200)
    finder.look()
    (found,) = json.loads((tmp_path / "anomalies.json").read_text())["anomalies"]
    assert found["says"] == "agent loops: 200 calls in this hour, usually 10"


def test_of_weeks_of_events_what_was_put_into_the_last_hour_is_found(tmp_path: Path) -> None:
    """Five Tuesdays at noon, of which the first four are in the archive; nothing else of the last one is told."""
    dice, clock = random.Random(11), Clock(NOON - 5 * WEEK * HOUR)
    archive = Archive(tmp_path, clock)
    agents, servers = [f"agent-{number}" for number in range(20)], [f"server-{number}" for number in range(8)]

    def events(begin: float, last: bool) -> list[str]:
        found = []
        for agent in [*agents, *(["loops"] * (4 if last else 1))]:
            for _ in range(round(dice.gauss(120, 11))):
                server = dice.choice(servers)
                slower = 3 if last and server == "server-2" else 1
                fails = 0.25 if last and server == "server-5" else 0.02
                found.append(
                    line(
                        len(found),
                        timestamp=at(begin + dice.random() * 3500),
                        agentId=agent,
                        tool=f"tool-{server[-1]}",
                        mcpServer=server,
                        outcome="tool_error" if dice.random() < fails else "ok",
                        latencyMs=round(slower * dice.lognormvariate(4, 0.8), 3),
                        overheadMs=0.2,
                    )
                )
        return found

    for week in range(5, 0, -1):
        begin = NOON - week * WEEK * HOUR
        clock.now = begin + HOUR
        archive.convert([spool(tmp_path, begin, events(begin, last=False))])
    spool(tmp_path, NOON, events(NOON, last=True))
    clock.now = NOON + 3590
    finder = AnomalyFinder(tmp_path, KEEP, clock)
    days = 0
    while len(files(tmp_path)) < hourly.HISTORY - 1:
        finder.look()
        days += 1
        assert days < 40
    finder.look()
    found = {(one.kind, *one.subject.values()) for one in findings(tmp_path).anomalies}
    assert found == {("pace", "loops"), ("latency", "server-2"), ("errors", "server-5")}


def test_agents_of_ever_new_names_are_not_all_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hourly, "MOST_SEEN", 100)
    hour = NOON // HOUR
    for back in range(50, 0, -1):
        names = {f"login:{back}-{number}": HourCounts(calls=5) for number in range(10)} | {
            "regular": HourCounts(calls=9)
        }
        remember(tmp_path, hour - back, {"agent": names, "tool": names})
    seen = AnomalyFinder(tmp_path, KEEP, Clock(NOON))._seen
    assert 11 <= len(seen) <= 100
    assert seen["agent", "regular"] == [hour - 50, hour - 1]
    assert {("agent", f"login:1-{number}") for number in range(10)} <= seen.keys()
