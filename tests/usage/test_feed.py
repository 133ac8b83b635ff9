"""One sink fed from spool files that tests write."""

from __future__ import annotations

import fcntl
import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fastgw.config.schema.settings import SinkSettings
from fastgw.usage import feed
from fastgw.usage.feed import SinkFeed, position_file
from fastgw.usage.sinks import SinkDown

URL = "file:x"
SETTINGS = SinkSettings(url=URL)


def until(look: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.005)


class Remembering:
    """A sink that is up, down or slow as the test likes."""

    def __init__(self) -> None:
        self.lost = 0
        self.taken: list[bytes] = []
        self.batches: list[int] = []
        self.is_down = False
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def deliver(self, lines: Sequence[bytes]) -> None:
        self.may_go_on.wait(20)
        if self.is_down:
            raise SinkDown("as the test wants it")
        self.batches.append(len(lines))
        self.taken += lines

    def close(self) -> None: ...


class Stage:
    """A folder, spool files in it, and feeds of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "spool").mkdir(parents=True, exist_ok=True)
        self.running: list[SinkFeed] = []

    def write(self, number: int, *events: str, end: str = "\n") -> Path:
        file = self.folder / "spool" / f"{number:013d}-1-1.jsonl"
        with file.open("a") as opened:
            opened.write("\n".join(events) + end)
        return file

    def feed(self, sink: Remembering, *, from_now: bool = False) -> SinkFeed:
        made = SinkFeed(SETTINGS, lambda _: sink, self.folder, from_now=from_now)
        made.start()
        self.running.append(made)
        return made

    def end(self, one: SinkFeed) -> None:
        until = time.monotonic() + 10
        one.finish(until)
        one.join(until)
        self.running.remove(one)

    def position(self) -> dict[str, object]:
        return dict(json.loads(position_file(self.folder, URL).read_text()))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "usage")


def names(sink: Remembering) -> list[str]:
    return [line.decode() for line in sink.taken]


def test_files_are_delivered_in_order_and_open_ones_are_followed(stage: Stage) -> None:
    stage.write(2, "c")
    stage.write(1, "a", "b")
    sink = Remembering()
    made = stage.feed(sink)
    until(lambda: names(sink) == ["a", "b", "c"])
    file = stage.write(3, "d", end="")
    with file.open("a") as writing:
        fcntl.flock(writing, fcntl.LOCK_EX)
        writing.write("\ne")
        writing.flush()
        until(lambda: names(sink)[3:] == ["d"])
        assert not made.has(file.name)
        writing.write("\n")
        writing.flush()
        until(lambda: names(sink)[3:] == ["d", "e"])
    until(lambda: made.has(file.name))
    stage.end(made)
    assert (names(sink), made.lost, made.lag) == (["a", "b", "c", "d", "e"], 0, 0)
    assert stage.position()["done"] == sorted(path.name for path in (stage.folder / "spool").iterdir())


def test_a_cut_last_line_of_a_closed_file_is_lost_and_nothing_else(stage: Stage) -> None:
    stage.write(1, "a", '{"cu', end="")
    stage.write(2, "b")
    sink = Remembering()
    made = stage.feed(sink)
    until(lambda: names(sink) == ["a", "b"])
    stage.end(made)
    assert made.lost == 1


def test_who_comes_after_goes_on_where_the_position_stands(stage: Stage) -> None:
    stage.write(1, "a", "b")
    first, second = Remembering(), Remembering()
    stage.end(stage.feed(first))
    stage.write(2, "c")
    stage.end(stage.feed(second, from_now=True))
    assert (names(first), names(second)) == (["a", "b"], ["c"])


def test_a_kill_between_delivery_and_position_delivers_twice_and_loses_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "SAVE_EVERY", 1000.0)
    stage.write(1, "a", "b")
    killed, after = Remembering(), Remembering()
    stage.feed(killed)  # never ended: its position is that of the start
    until(lambda: names(killed) == ["a", "b"])
    stage.end(stage.feed(after))
    assert names(after) == ["a", "b"]


def test_a_sink_that_is_new_begins_with_what_comes_from_now_on(stage: Stage) -> None:
    stage.write(1, "old")
    file = stage.write(2, "old too")
    sink = Remembering()
    with file.open("a") as writing:
        fcntl.flock(writing, fcntl.LOCK_EX)
        made = stage.feed(sink, from_now=True)
        assert stage.position()["offsets"] == {file.name: 8}
        writing.write("new\n")
        writing.flush()
        until(lambda: names(sink) == ["new"])
    stage.end(made)


def test_a_position_that_cannot_be_read_delivers_all_again(stage: Stage) -> None:
    stage.write(1, "a")
    position = position_file(stage.folder, URL)
    position.parent.mkdir()
    position.write_text('{"offsets": []}')
    sink = Remembering()
    stage.end(stage.feed(sink, from_now=True))
    assert names(sink) == ["a"]


def test_a_dead_sink_gets_everything_when_it_is_back(stage: Stage) -> None:
    sink = Remembering()
    sink.is_down = True
    stage.write(1, "a")
    made = stage.feed(sink)
    until(lambda: made.errors >= 2)
    assert made.lag > 0
    stage.write(2, "b")
    sink.is_down = False
    until(lambda: names(sink) == ["a", "b"])
    until(lambda: made.lag == 0)
    stage.end(made)


def test_a_sink_that_cannot_even_be_made_ends_no_feed(stage: Stage) -> None:
    made = SinkFeed(SETTINGS, lambda _: 1 / 0, stage.folder, from_now=False)  # type: ignore[arg-type, return-value]
    stage.write(1, "a")
    made.start()
    until(lambda: made.errors >= 2)
    made.finish(time.monotonic())
    made.join(time.monotonic() + 10)


def test_a_slow_sink_delays_no_other_and_no_end(stage: Stage) -> None:
    slow, quick = Remembering(), Remembering()
    slow.may_go_on.clear()
    stage.write(1, "a")
    stuck = stage.feed(slow)
    other = SinkFeed(SinkSettings(url="file:y"), lambda _: quick, stage.folder, from_now=False)
    other.start()
    until(lambda: names(quick) == ["a"])
    begun = time.monotonic()
    for one in (stuck, other):
        one.finish(begun + 0.2)
    for one in (stuck, other):
        one.join(begun + 0.3)
    assert time.monotonic() - begun < 5
    slow.may_go_on.set()


def test_batches_are_bounded(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MOST_EVENTS", 100)
    stage.write(1, *(str(number) for number in range(250)))
    stage.write(2, *(str(number) for number in range(250, 300)))
    sink = Remembering()
    stage.end(stage.feed(sink))
    assert sink.batches == [100, 100, 100]
    assert names(sink) == [str(number) for number in range(300)]


def test_a_spool_that_cannot_be_read_for_a_while_is_not_taken_for_an_empty_one(stage: Stage) -> None:
    stage.write(1, "a")
    sink = Remembering()
    made = stage.feed(sink)
    until(lambda: names(sink) == ["a"])
    spool = stage.folder / "spool"
    spool.rename(stage.folder / "away")
    spool.symlink_to(spool)  # root, too, cannot read that
    until(lambda: made.errors >= 2)
    made._save()
    spool.unlink()
    (stage.folder / "away").rename(spool)
    stage.write(2, "b")
    until(lambda: "b" in names(sink))
    stage.end(made)
    assert names(sink) == ["a", "b"]
