"""The archive: every event once, whoever is killed at whatever step; and nothing that an event says is a path."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

from fastgw.usage import archive
from fastgw.usage.archive import Archive
from fastgw.usage.columns import rows_of_lines
from fastgw.usage.manifest import parquet_path, read_manifest
from fastgw.usage.spool_files import spool_files

NAMES = ["../../etc", "a\nb", "x" * 10_240, "Überfüllung 株式会社", "", "'; DROP TABLE batch; --", "%s{}"]
KILLED = 9


def line(name: str, day: str = "2026-11-29", **more: Any) -> str:
    return json.dumps({"requestId": name, "timestamp": f"{day}T12:00:00.000Z", "cost": 0.001, **more}) + "\n"


def spooled(folder: Path, number: int, *lines: str) -> Path:
    file = folder / "spool" / f"{number:013d}-1-1.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(lines))
    return file


def events(folder: Path, column: str = "request_id") -> Counter[Any]:
    """What a reader finds, as often as it is found."""
    manifest, database = read_manifest(folder), duckdb.connect()
    found: Counter[Any] = Counter()
    if manifest.parquet:
        paths = [str(parquet_path(folder, one.name)) for one in manifest.parquet]
        found += Counter(
            one for (one,) in database.execute(f"SELECT {column} FROM read_parquet(?)", [paths]).fetchall()
        )
    if spool := [str(folder / "spool" / name) for name in spool_files(folder / "spool") if name not in manifest.spool]:
        rows = database.execute(f"SELECT {column} FROM ({rows_of_lines()})", [spool]).fetchall()
        found += Counter(one for (one,) in rows)
    return found


def test_events_move_and_values_stay_as_they_are(tmp_path: Path) -> None:
    file = spooled(tmp_path, 1, *(line(f"r{at}", team=name, agentId=None) for at, name in enumerate(NAMES)))
    made = Archive(tmp_path)
    assert not made.contains(file)
    made.convert([file])
    assert made.contains(file)
    assert events(tmp_path, "team") == Counter(NAMES)
    file.unlink()
    assert events(tmp_path, "team") == Counter(NAMES)
    assert {one.parent for one in tmp_path.rglob("*.parquet")} == {tmp_path / "archive"}


def test_days_are_apart_and_old_ones_go(tmp_path: Path) -> None:
    """Also where a clock has jumped."""
    days = ("2026-11-29", "2026-11-30", "2024-02-29", "2031-01-01")
    made = Archive(tmp_path)
    made.convert([spooled(tmp_path, 1, *(line(day, day) for day in days))])
    assert sorted(one.day for one in read_manifest(tmp_path).parquet) == sorted(days)
    made.forget_before(date(2026, 11, 30))
    (tmp_path / "spool").joinpath("0000000000001-1-1.jsonl").unlink()
    assert set(events(tmp_path)) == {"2026-11-30", "2031-01-01"}
    assert len(list((tmp_path / "archive").glob("*.parquet"))) == 2


def test_what_is_cut_spoiled_or_empty_costs_no_other_event(tmp_path: Path) -> None:
    files = [
        spooled(tmp_path, 1, line("a"), "\0\0\0\n", "not json\n", "[]\n", line("b"), line("c")[:-20]),
        spooled(tmp_path, 2),
        spooled(tmp_path, 3, line("d")),
    ]
    made = Archive(tmp_path)
    made.convert(files)
    assert set(events(tmp_path)) == {"a", "b", "d"}
    assert all(map(made.contains, files))


def test_a_file_that_cannot_be_read_at_all_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    huge = spooled(tmp_path, 1, "x" * (2**24 + 2**20) * 2)
    good = spooled(tmp_path, 2, line("a"))
    made = Archive(tmp_path)
    made.convert([huge, good])
    assert set(events(tmp_path)) == {"a"}
    assert made.contains(good) and not huge.exists()


def test_many_small_files_become_few_and_the_old_ones_stay_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(archive.time, "monotonic", lambda: now[0])
    made = Archive(tmp_path)
    count = archive.MERGE_AT
    for number in range(count):
        made.convert([spooled(tmp_path, number, line(f"r{number}"), line(f"s{number}", "2026-11-28"))])
    by_day = Counter(one.day for one in read_manifest(tmp_path).parquet)
    assert by_day == {"2026-11-29": count, "2026-11-28": 1} or by_day == {"2026-11-29": 1, "2026-11-28": count}
    made.convert([])
    assert len(read_manifest(tmp_path).parquet) == 2
    assert events(tmp_path).total() == 2 * count == len(events(tmp_path))
    files = tmp_path / "archive"
    assert len(list(files.glob("*.parquet"))) == 2 + 2 * count
    now[0] += archive.GRACE
    made.convert([])
    assert len(list(files.glob("*.parquet"))) == 2
    assert len(events(tmp_path)) == 2 * count


def test_a_disk_that_refuses_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = spooled(tmp_path, 1, line("a"))
    made = Archive(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(archive, "write_manifest", full)
        with pytest.raises(OSError, match="No space"):
            made.convert([file])
    assert not made.contains(file)
    assert events(tmp_path) == {"a": 1}
    made.convert([file])
    assert events(tmp_path) == {"a": 1}


def killed_at(step: int, work: Callable[[], None]) -> bool:
    """Do it in a process that is gone at the so-manieth step that touches files; whether it was."""
    pid = os.fork()
    if pid == 0:
        seen = 0

        def watch(event: str, args: tuple[Any, ...]) -> None:
            nonlocal seen
            if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.listdir"):
                seen += 1
                if seen == step:
                    os._exit(KILLED)

        sys.addaudithook(watch)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == KILLED


def test_whoever_is_killed_at_whatever_step_every_event_is_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MERGE_AT", 3)
    monkeypatch.setattr(archive, "GRACE", 0.0)
    wanted: set[str] = set()
    kills = 0
    for step in range(1, 200):
        new = [f"{step}-{at}" for at in range(3)]
        spooled(tmp_path, step, *(line(name, f"2026-11-{28 + at % 2}") for at, name in enumerate(new)))
        wanted |= set(new)

        def work() -> None:
            made = Archive(tmp_path)
            spool = tmp_path / "spool"
            made.convert([spool / name for name in spool_files(spool)])
            for name in spool_files(spool):
                if made.contains(spool / name):
                    (spool / name).unlink()

        was_killed = killed_at(step, work)
        found = events(tmp_path)
        assert set(found) == wanted
        assert set(found.values()) == {1}
        if not was_killed:
            break
        kills += 1
    assert kills > 10
