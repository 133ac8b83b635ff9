"""What is unusual is found, and weeks of traffic that only varies by chance raise next to nothing."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from fastgw.usage.anomalies import (
    LEAST_CALLS,
    TOLD_AT_ONCE,
    WEEK,
    Anomaly,
    History,
    HourCounts,
    Rollup,
    Subject,
    anomalies,
    compared_with,
)

MONDAY = 20_003 * 24
"""Hours since 1970 of a Monday, 2024-10-07, 0:00 UTC."""
Agents = dict[str, float]
Servers = dict[str, tuple[float, float, float, float]]


def day_and_night(hour: int) -> float:
    """The part of its greatest pace that traffic has at this hour: little at night, and at weekends."""
    by_day = 0.15 + 0.85 * max(0.0, math.sin((hour % 24 - 6) / 12 * math.pi))
    return by_day * (0.3 if hour // 24 % 7 in (2, 3) else 1.0)


class Traffic:
    """Agents with a pace, and servers with a pace, a rate of errors, and log-normal times: every hour is drawn anew."""

    def __init__(self, seed: int, agents: int, servers: int) -> None:
        self.dice = random.Random(seed)
        draw = self.dice.uniform
        self.agents: Agents = {f"agent-{number}": 10 ** draw(0.5, 3.5) for number in range(agents)}
        self.servers: Servers = {
            f"server-{number}": (10 ** draw(1, 3.5), draw(0, 0.1), draw(7, 11), draw(0.3, 1.5))
            for number in range(servers)
        }
        self.hours: dict[int, Rollup] = {}
        self.seen: dict[Subject, int] = {}

    def poisson(self, mean: float) -> int:
        if mean > 30:
            return max(0, round(self.dice.gauss(mean, math.sqrt(mean))))
        count, left = 0, self.dice.random()
        while left > math.exp(-mean):
            count, left = count + 1, left * self.dice.random()
        return count

    def counts(self, calls: int, rate: float, middle: float, spread: float) -> HourCounts:
        """Of that many calls; sums of logarithms are drawn, and not each of them."""
        if not calls:
            return HourCounts()
        mean = self.dice.gauss(middle, spread / math.sqrt(calls))
        squares = calls * (mean * mean + spread * spread)
        return HourCounts(calls, min(calls, self.poisson(calls * rate)), calls, mean * calls, squares)

    def hour(self, hour: int) -> Rollup:
        pace = day_and_night(hour)
        agents = {name: HourCounts(self.poisson(calls * pace)) for name, calls in self.agents.items()}
        servers = {name: self.counts(self.poisson(one[0] * pace), *one[1:]) for name, one in self.servers.items()}
        found = {"agent": agents, "server": servers}
        return Rollup({kind: {name: one for name, one in of.items() if one.calls} for kind, of in found.items()})

    def pass_by(self, first: int, hours: int) -> None:
        for hour in range(first, first + hours):
            self.keep(hour, self.hour(hour))

    def keep(self, hour: int, rollup: Rollup) -> None:
        self.hours[hour] = rollup
        for kind, counts in rollup.counts.items():
            for name in counts:
                self.seen.setdefault((kind, name), hour)

    def unusual(self, hour: int, rollup: Rollup) -> list[Anomaly]:
        return anomalies(hour, rollup, History(self.hours, self.seen), {})


@pytest.mark.parametrize("weeks", [1, 5])
def test_traffic_that_varies_by_chance_alone_raises_next_to_nothing(weeks: int) -> None:
    """At most one of 10,000 judged; of 300,000 of other seeds two were."""
    traffic = Traffic(7, agents=200, servers=100)
    traffic.pass_by(MONDAY, WEEK * weeks)
    judged, found = 0, []
    for hour in range(MONDAY + WEEK * weeks, MONDAY + WEEK * (weeks + 1)):
        rollup = traffic.hour(hour)
        found += traffic.unusual(hour, rollup)
        judged += sum(one.calls >= LEAST_CALLS for of in rollup.counts.values() for one in of.values())
        traffic.keep(hour, rollup)
    assert judged > 10_000
    assert len(found) <= judged / 10_000


def test_what_was_put_in_is_found_and_nothing_else() -> None:
    traffic = Traffic(8, agents=60, servers=40)
    traffic.agents |= {"loops": 60.0, "busy": 2000.0}
    traffic.servers |= {"fails": (300.0, 0.02, 8.0, 1.0), "slows": (300.0, 0.02, 8.0, 1.0)}
    traffic.pass_by(MONDAY, WEEK * 5)
    hour = MONDAY + WEEK * 5 + 12
    usual = traffic.hour(hour)
    assert traffic.unusual(hour, usual) == []
    usual.counts["agent"]["loops"] = HourCounts(600)
    usual.counts["agent"]["busy"] = HourCounts(5000)
    usual.counts["server"]["fails"] = traffic.counts(300, 0.3, 8.0, 1.0)
    usual.counts["server"]["slows"] = traffic.counts(300, 0.02, 9.0, 1.0)
    found = {(one.kind, *one.subject.values()): one for one in traffic.unusual(hour, usual)}
    assert set(found) == {("pace", "loops"), ("pace", "busy"), ("errors", "fails"), ("latency", "slows")}
    assert found["pace", "loops"].value == 600 and 30 < found["pace", "loops"].usual < 90
    assert found["errors", "fails"].value > 0.2 and found["errors", "fails"].usual < 0.05
    assert 2 < found["latency", "slows"].value / found["latency", "slows"].usual < 3.5


def test_an_agent_that_loops_at_night_is_found_and_by_day_it_is_usual() -> None:
    traffic = Traffic(9, agents=0, servers=0)
    for day in range(35):
        for hour in range(9, 18):
            traffic.keep(MONDAY + day * 24 + hour, Rollup({"agent": {"office": HourCounts(400)}}))
        for hour in (*range(9), *range(18, 24)):
            traffic.keep(MONDAY + day * 24 + hour, Rollup())
    busy = Rollup({"agent": {"office": HourCounts(400)}})
    assert traffic.unusual(MONDAY + WEEK * 5 + 12, busy) == []
    assert traffic.unusual(MONDAY + WEEK * 5 + 8, busy) == []  # clocks have changed
    (night,) = traffic.unusual(MONDAY + WEEK * 5 + 3, busy)
    assert (night.hour, night.value, night.usual) == ("2024-11-11T03:00:00Z", 400, 0)
    assert night.says == "agent office: 400 calls in this hour, usually 0"


def test_with_little_history_nothing_is_said() -> None:
    flood = Rollup({"agent": {"a": HourCounts(100_000)}, "server": {"s": HourCounts(1000, 900, 1000, 15e3, 225e3)}})
    calm = Rollup({"agent": {"a": HourCounts(100)}, "server": {"s": HourCounts(1000, 0, 1000, 8e3, 64e3)}})
    traffic = Traffic(1, agents=0, servers=0)
    assert traffic.unusual(MONDAY, flood) == []
    told = []
    for day in range(7):
        told.append(len(traffic.unusual(MONDAY + 24 * day, flood)))
        traffic.keep(MONDAY + 24 * day, calm)
    assert told == [0, 0, 0, 0, 0, 3, 3]  # the same hour of five days
    stranger = Rollup({"agent": {"new": HourCounts(100_000)}})
    assert traffic.unusual(MONDAY + 24 * 7, stranger) == []


def test_three_weeks_count_before_days() -> None:
    traffic = Traffic(1, agents=0, servers=0)
    for day in range(21):
        calls = 5000 if day % 7 == 0 else 100
        traffic.keep(MONDAY + 24 * day, Rollup({"agent": {"weekly": HourCounts(calls)}}))
    weekly = Rollup({"agent": {"weekly": HourCounts(5000)}})
    assert traffic.unusual(MONDAY + 24 * 21, weekly) == []
    assert [one.usual for one in traffic.unusual(MONDAY + 24 * 22, weekly)] == [100]


def test_few_calls_are_no_anomaly_and_an_agent_out_of_the_table_is_not_thought_silent() -> None:
    traffic = Traffic(1, agents=0, servers=0)
    for week in range(5):
        one = Rollup(
            {"agent": {"a": HourCounts(1)}, "server": {"s": HourCounts(20, 0, 20, 140.0, 980.0)}}, {"agent": 80}
        )
        traffic.keep(MONDAY + WEEK * week, one)
    traffic.seen["agent", "small"] = MONDAY
    few = Rollup({"agent": {"a": HourCounts(99)}, "server": {"s": HourCounts(9, 9, 9, 140.0, 3000.0)}})
    assert traffic.unusual(MONDAY + WEEK * 5, few) == []
    assert traffic.unusual(MONDAY + WEEK * 5, Rollup({"agent": {"small": HourCounts(120)}})) == []
    assert len(traffic.unusual(MONDAY + WEEK * 5, Rollup({"agent": {"small": HourCounts(200)}}))) == 1


def test_tools_of_a_server_in_trouble_are_left_out_and_a_flood_is_cut() -> None:
    traffic = Traffic(1, agents=0, servers=0)
    names = [f"tool-{number}" for number in range(50)]
    for week in range(5):
        counts = {name: HourCounts(200) for name in names}
        traffic.keep(MONDAY + WEEK * week, Rollup({"tool": counts, "server": {"s": HourCounts(10_000)}}))
    hour = MONDAY + WEEK * 5
    bad = {name: HourCounts(200, 100 + number) for number, name in enumerate(names)}
    history = History(traffic.hours, traffic.seen)
    found = anomalies(hour, Rollup({"tool": bad}), history, dict.fromkeys(names, "s"))
    assert len(found) == TOLD_AT_ONCE and found[0].subject == {"tool": "tool-49"}
    server = Rollup({"tool": bad, "server": {"s": HourCounts(10_000, 6_000)}})
    found = anomalies(hour, server, history, dict.fromkeys(names[1:], "s"))
    assert Counter(kind for one in found for kind in one.subject) == {"server": 1, "tool": 1}


def test_a_hostile_name_stays_one_and_commands_no_terminal() -> None:
    name = "a\x1b[2J\n\u202ed\ud800"
    traffic = Traffic(1, agents=0, servers=0)
    for week in range(5):
        traffic.keep(MONDAY + WEEK * week, Rollup({"agent": {name: HourCounts(10)}}))
    (found,) = traffic.unusual(MONDAY + WEEK * 5, Rollup({"agent": {name: HourCounts(1000)}}))
    assert found.subject == {"agent": name}
    assert found.says == "agent a\\x1b[2J\\n\\u202ed\\ud800: 1,000 calls in this hour, usually 10"


def test_no_other_hour_is_looked_at() -> None:
    class Watched(dict[int, Rollup]):
        def __contains__(self, hour: object) -> bool:
            assert hour in compared_with(MONDAY)
            return super().__contains__(hour)

    flood = Rollup({"agent": {"a": HourCounts(10**6)}, "tool": {"t": HourCounts(10**6, 10**5, 10**6, 1e7, 1e8)}})
    seen = {("agent", "a"): 0, ("tool", "t"): 0}
    assert anomalies(MONDAY, flood, History(Watched(), seen), {}) == []
