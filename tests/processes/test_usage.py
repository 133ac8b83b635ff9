"""What the usage process keeps of the spool: until everybody has it, and no longer than `keep`."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fastgw.config.rules import sampling_of
from fastgw.config.schema.settings import Settings, SinkSettings, TraceSettings, UsageSettings
from fastgw.processes import usage
from fastgw.processes.plan import plan_of
from fastgw.processes.usage import Orders, UsageProcess, lock_alone, told_by_usage
from tests.e2e.ports import free_port

FILE, PIPE = "file:events", "file:pipe"


class FakeArchive:
    """Contains what it was told to convert, unless it fails."""

    def __init__(self) -> None:
        self.converted: list[Path] = []
        self.forgotten: list[date] = []
        self.fails = False
        self.spoiled = 0

    def convert(self, closed: Sequence[Path]) -> None:
        if self.fails:
            raise OSError("no space")
        self.converted += [path for path in closed if not self.contains(path)]

    def contains(self, path: Path) -> bool:
        return path in self.converted

    def forget_before(self, day: date) -> None:
        self.forgotten.append(day)


def until(look: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.005)


class Running:
    """A usage process in a thread, told to stop by the other end of a socket."""

    def __init__(self, folder: Path, *urls: str, keep: float = 3600.0) -> None:
        self.spool = folder / "usage" / "spool"
        self.spool.mkdir(parents=True, exist_ok=True)
        self.link = str(folder / "link")
        settings = UsageSettings(sinks=tuple(SinkSettings(url=url) for url in urls), keep=f"{keep:g}s")  # type: ignore[arg-type]
        self.process = UsageProcess(settings, folder, usage.status_file(self.link))
        self._ours, self._theirs = socket.socketpair()
        self.thread = threading.Thread(target=self.process.run, args=(Orders(self._theirs),), daemon=True)
        self.thread.start()

    def write(self, number: int, text: str) -> Path:
        file = self.spool / f"{number:013d}-1-1.jsonl"
        hidden = self.spool / ".written"
        hidden.write_text(text)
        return hidden.rename(file)  # never seen empty

    def tell(self, text: bytes) -> None:
        self._ours.send(text)

    def stop(self) -> None:
        self._ours.send(b"drain 1\nstop\n")
        self.thread.join(10)
        assert not self.thread.is_alive()
        self._ours.close()
        self._theirs.close()


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> FakeArchive:
    made = FakeArchive()
    monkeypatch.setattr(usage, "open_archive", lambda _: made)
    monkeypatch.setattr(usage, "KEEP_EVERY", 0.01)
    monkeypatch.setattr(usage, "TELL_EVERY", 0.01)
    return made


def test_a_file_goes_when_it_is_archived_and_every_sink_has_it(tmp_path: Path, archive: FakeArchive) -> None:
    archive.fails = True
    running = Running(tmp_path, FILE)
    file = running.write(1, "a\nb\n")
    until(lambda: (tmp_path / "events").exists() and (tmp_path / "events").read_text() == "a\nb\n")
    until(lambda: told_by_usage(running.link).get(("fastgw_usage_archive_errors_total",), 0) > 1)
    assert file.exists()
    assert len(archive.forgotten) == 1, "which needs nothing of what is new"
    archive.fails = False
    until(lambda: not file.exists())
    assert archive.converted == [file]
    assert len(archive.forgotten) == 1
    running.stop()


def test_a_file_that_is_written_to_stays_and_is_not_archived(tmp_path: Path, archive: FakeArchive) -> None:
    running = Running(tmp_path, FILE)
    hidden = running.spool / ".hidden"
    with hidden.open("w") as writing:
        fcntl.flock(writing, fcntl.LOCK_EX)
        writing.write("a\n")
        writing.flush()
        file = hidden.rename(running.spool / "0000000000002-1-1.jsonl")
        other = running.write(1, "b\n")
        until(lambda: not other.exists())
        until(lambda: len((tmp_path / "events").read_text()) == 4)
        assert (file.exists(), archive.converted) == (True, [other])
    until(lambda: not file.exists())
    running.stop()


def test_what_is_older_than_keep_is_lost_for_the_sinks_that_did_not_take_it(
    tmp_path: Path, archive: FakeArchive
) -> None:
    os.mkfifo(tmp_path / "pipe")  # nobody reads: that sink is down
    running = Running(tmp_path, FILE, PIPE, keep=5)
    file = running.write(1, "a\nb\n")
    until(lambda: told_by_usage(running.link).get(("fastgw_usage_sink_lag_seconds", PIPE), 0) > 0)
    until(lambda: (tmp_path / "events").exists())
    assert file.exists()
    os.utime(file, (1, 1))
    until(lambda: not file.exists())
    until(lambda: told_by_usage(running.link)["fastgw_usage_events_lost_total", "sink"] == 2)
    running.stop()


def test_the_very_first_sinks_get_what_is_there_and_later_ones_what_comes(tmp_path: Path, archive: FakeArchive) -> None:
    archive.fails = True  # so that nothing is deleted
    (tmp_path / "usage" / "spool").mkdir(parents=True)
    first = Running.write
    early = tmp_path / "usage" / "spool" / "0000000000001-1-1.jsonl"
    early.write_text("early\n")
    running = Running(tmp_path, FILE)
    until(lambda: (tmp_path / "events").exists())
    running.stop()
    running = Running(tmp_path, FILE, "file:second")
    first(running, 2, "late\n")
    until(lambda: (tmp_path / "second").exists())
    running.stop()
    assert (tmp_path / "events").read_text() == "early\nlate\n"
    assert (tmp_path / "second").read_text() == "late\n"
    running = Running(tmp_path, FILE)  # the second is forgotten, and begins anew when it is named again
    running.stop()
    Running(tmp_path, FILE, "file:second").stop()
    assert (tmp_path / "second").read_text() == "late\n"


def test_two_sinks_at_one_host_are_one_series(tmp_path: Path, archive: FakeArchive) -> None:
    place = f"redis://127.0.0.1:{free_port()}"
    running = Running(tmp_path, f"{place}/first", f"{place}/second")
    running.write(1, '{"requestId":"a","timestamp":"2026-01-01T00:00:00.000Z"}\n')
    errors = ("fastgw_usage_sink_errors_total", place)
    until(lambda: all(feed.errors for feed in running.process.feeds))
    until(lambda: told_by_usage(running.link).get(errors, 0) >= 2)
    assert told_by_usage(running.link)["fastgw_usage_sink_lag_seconds", place] > 0
    running.stop()


def test_it_hears_that_the_log_is_another(
    tmp_path: Path, archive: FakeArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[str, ...]] = []
    monkeypatch.setattr(usage.logs, "change", lambda *words: heard.append(words))
    running = Running(tmp_path, FILE)
    running.tell(b"log debug json\nlog wa")
    until(lambda: heard == [("debug", "json")])
    running.tell(b"rning text\n")
    until(lambda: len(heard) == 2)
    running.stop()
    assert heard[1] == ("warning", "text")


def test_where_it_has_said_nothing_there_are_no_series(tmp_path: Path) -> None:
    found: dict[tuple[str, ...], Any] = told_by_usage(str(tmp_path / "link"))
    assert found == {}
    usage.status_file(str(tmp_path / "link")).write_text("[[")
    assert told_by_usage(str(tmp_path / "link")) == {}


def test_one_works_on_a_folder_and_another_waits_until_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(usage, "TELL_EVERY", 0.01)
    ours, theirs = socket.socketpair()
    (tmp_path / "usage").write_bytes(b"")  # a folder that cannot be had yet
    first: list[int] = []
    waiting = threading.Thread(target=lambda: first.append(lock_alone(tmp_path / "usage", Orders(theirs))))
    waiting.start()
    until(lambda: "usage events wait" in caplog.text)
    (tmp_path / "usage").unlink()
    waiting.join(10)
    caplog.clear()
    second: list[int] = []
    waiting = threading.Thread(target=lambda: second.append(lock_alone(tmp_path / "usage", Orders(theirs))))
    waiting.start()
    until(lambda: "another gateway" in caplog.text)
    ours.send(b"stop\n")
    waiting.join(10)
    assert second == [-1]
    os.close(first[0])
    os.close(lock_alone(tmp_path / "usage", Orders(theirs)))
    assert len(caplog.records) == 1, "told once"


def test_what_goes_wrong_again_and_again_is_told_once(
    tmp_path: Path, archive: FakeArchive, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks: list[int] = []

    def breaks(self: UsageProcess, now: float) -> None:
        looks.append(id(self))
        raise OSError(f"read-only {id(self)}")  # threads of tests before may still be looking, too

    monkeypatch.setattr(UsageProcess, "tidy", breaks)
    running = Running(tmp_path)
    until(lambda: looks.count(id(running.process)) > 2)
    running.stop()
    assert caplog.text.count(f"OSError: read-only {id(running.process)}\n") == 1


def test_without_the_packages_nothing_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers would be told of spans that nobody ever sees."""
    settings = Settings(traces=TraceSettings(url="http://h", sample=Decimal("0.5")))
    plan = plan_of(settings)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        assert sampling_of(settings) == 2**63
        assert sampling_of(Settings()) is None
        assert usage.span_export(plan_of(Settings()), ours) is None
        assert usage.span_export(plan, ours) is not None
        monkeypatch.setattr("fastgw.config.rules.can_export", lambda: False)
        monkeypatch.setattr(usage, "can_export", lambda: False)
        assert sampling_of(settings) is None
        assert usage.span_export(plan, ours) is None


def test_anomalies_that_cannot_be_looked_for_cost_nothing_else(
    tmp_path: Path, archive: FakeArchive, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Finder:
        looks = 0

        def look(self) -> None:
            self.looks += 1
            if self.looks < 3:
                raise OSError("no space")

    finder = Finder()
    monkeypatch.setattr(usage, "open_finder", lambda *_: finder)
    monkeypatch.setattr(usage, "LOOK_EVERY", 0.0)
    running = Running(tmp_path, FILE)
    file = running.write(1, "a\n")
    until(lambda: not file.exists() and finder.looks > 4)
    running.stop()
    assert [one for one in caplog.messages if "anomalies" in one] == [
        "anomalies cannot be looked for: OSError('no space')"
    ]
