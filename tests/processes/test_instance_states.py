"""Who hears what of an instance: workers that are there, workers that come, and the next controller."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fastgw.processes.instance_states import InstanceStates
from fastgw.processes.kept import Drain, KeptDrains
from fastgw.telemetry.metrics import Sums
from fastgw.upstream.breaker import BreakerNews
from tests.upstream.fakes import backend

KEY = "shop|http://a/mcp"
OPEN = tuple(BreakerNews("open", 1e9, 1, "reset", 60.0))
CLOSED = tuple(BreakerNews("closed", 0.0, 0, "", 61.0))


class Stage:
    """One server, and what was said of its instance."""

    def __init__(self, folder: Path) -> None:
        self.checked: list[str] = []
        self.health: Any = SimpleNamespace(check_now=self.checked.append, state=lambda _: {"health": "healthy"})
        self.server = backend()
        plane: Any = SimpleNamespace(health=self.health, servers=[self.server])
        self.heard: list[tuple[Any, ...]] = []
        self.sums = Sums()
        drains = KeptDrains(folder / "drains.json")
        self.states = InstanceStates(plane, drains, self.sums, lambda *said, but=None: self.heard.append((*said, but)))

    def welcome(self) -> list[tuple[Any, ...]]:
        """What a worker hears that comes now."""
        found: list[tuple[Any, ...]] = []
        self.states.tell(lambda *said: found.append(said))
        return found

    def gauge(self, name: str) -> float:
        return self.states.gauges()[name, "shop", "a:80"]


def test_what_checks_find_every_worker_hears(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    assert stage.welcome() == [("instance_health", KEY, True, False)]
    stage.health.on_check(KEY, False)
    stage.health.on_change(KEY, False)
    assert stage.heard == [("instance_health", KEY, False, False, None)]
    assert stage.welcome() == [("instance_health", KEY, False, False)]
    assert stage.gauge("fastgw_instance_healthy") == 0
    stage.health.on_change(KEY, True)
    assert stage.welcome() == [("instance_health", KEY, True, False)]
    assert stage.gauge("fastgw_instance_healthy") == 1
    assert stage.sums.counts["fastgw_health_checks_total", "shop", "failed"] == 1


def test_a_breaker_that_opens_in_one_worker_opens_in_the_others_and_has_the_instance_checked(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.states.breaker(KEY, OPEN, but="worker")
    assert stage.heard == [("breaker", KEY, OPEN, "worker")]
    assert stage.checked == [KEY]
    assert ("breaker", KEY, OPEN) in stage.welcome()
    assert stage.gauge("fastgw_breaker_open") == 1
    stage.states.breaker(KEY, CLOSED, but="worker")
    assert ("breaker", KEY, CLOSED) not in stage.welcome()
    assert (stage.gauge("fastgw_breaker_open"), stage.checked) == (0, [KEY])


def test_each_change_of_a_breaker_is_counted_once_whoever_tells_of_it(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    half_open = tuple(BreakerNews("half-open", 1e9, 1, "reset", 62.0))
    for news in (OPEN, OPEN, half_open, OPEN, half_open, CLOSED, CLOSED, OPEN):
        stage.states.breaker(KEY, news, but="worker")
    stage.states.breaker("gone|http://b/mcp", OPEN, but="worker")
    found = {series[-1]: count for series, count in stage.states.gauges().items() if "transitions" in series[0]}
    assert found == {"open": 3, "half-open": 2, "closed": 1}


def test_a_drain_outlives_the_controller_and_close_ends_it(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.states.carry_out("drain", stage.server, KEY, "me")
    assert stage.heard == [("instance_health", KEY, True, True, None)]
    stage = Stage(tmp_path)
    assert stage.welcome() == [("instance_health", KEY, True, True)]
    assert stage.states.told(KEY)["drained"]["who"] == "me"
    assert stage.gauge("fastgw_instance_drained") == 1
    stage.states.carry_out("close", stage.server, KEY, "me")
    assert stage.heard[0] == ("instance_health", KEY, True, False, None)
    assert stage.heard[1][:2] == ("breaker", KEY)
    assert stage.heard[1][2][0] == "closed"
    assert Stage(tmp_path).states.told(KEY)["drained"] is None


def test_an_operator_opens_a_breaker_for_its_time_and_nothing_is_checked(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.states.carry_out("open", stage.server, KEY, "me")
    ((name, key, news, but),) = stage.heard
    assert (name, key, news[0], but, stage.checked) == ("breaker", KEY, "open", None, [])


def test_kept_drains_that_cannot_be_read_are_none_and_new_ones_are_kept_for_their_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "drains.json"
    file.write_text("{", encoding="utf-8")
    drains = KeptDrains(file)
    assert drains.get(KEY) is None
    drains.put(KEY, Drain("me", 1.0))
    assert KeptDrains(file).get(KEY) == Drain("me", 1.0)
    assert "http" not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
