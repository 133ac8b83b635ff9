"""Every event is read exactly once, whatever is killed, cut or spoiled."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

from fastgw.usage import archive as module
from fastgw.usage.archive import LINGER, Archive
from fastgw.usage.columns import LARGEST_LINE, literal, rows_of_lines
from fastgw.usage.manifest import BadManifest, manifest_path, parquet_path, read_manifest

NOON = 1_772_000_000.0  # 2026-02-25T06:13:20Z
DAY = "2026-02-25"


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    there = tmp_path / "a [b] * 'c'"
    (there / "spool").mkdir(parents=True)
    return there


def event(number: int, day: str = DAY, **more: Any) -> str:
    return json.dumps({"requestId": f"r{number}", "timestamp": f"{day}T12:00:00.123Z", "cost": 0.5, **more})


def spool(folder: Path, name: str, *lines: str, end: str = "\n") -> Path:
    path = folder / "spool" / f"{name}.jsonl"
    path.write_text("\n".join(lines) + end if lines else "")
    return path


def everything(folder: Path, column: str = "request_id") -> list[Any]:
    """What a reader of the archive and the spool sees."""
    manifest = read_manifest(folder)
    found: list[Any] = []
    database = duckdb.connect()
    for file in manifest.parquet:
        path = literal(parquet_path(folder, file.name))
        rows = database.execute(f"SELECT {column} FROM read_parquet(?)", [path]).fetchall()
        assert len(rows) == file.rows
        found += [value for (value,) in rows]
    for path_ in sorted((folder / "spool").glob("*.jsonl")):
        if path_.name not in manifest.spool:
            select = f"SELECT {column} FROM ({rows_of_lines()})"
            found += [value for (value,) in database.execute(select, [[literal(path_)]]).fetchall()]
    return sorted(found)


def names(count: int) -> list[str]:
    return sorted(f"r{number}" for number in range(count))


def test_files_become_days(folder: Path) -> None:
    one = spool(folder, "1", event(0), event(1, "2026-02-24"), event(2, "2026-02-26"))
    archive = Archive(folder, Clock())
    archive.convert([one])
    assert archive.contains(one)
    assert [file.day for file in read_manifest(folder).parquet] == ["2026-02-24", DAY, "2026-02-26"]
    assert all(parquet_path(folder, file.name).stat().st_size == file.bytes for file in read_manifest(folder).parquet)
    assert everything(folder) == names(3)
    archive.convert([one])
    assert Archive(folder).contains(one)
    assert everything(folder) == names(3)


def test_spool_files_that_are_gone_are_not_named(folder: Path) -> None:
    one, two = spool(folder, "1", event(0)), spool(folder, "2", event(1))
    archive = Archive(folder, Clock())
    archive.convert([one])
    one.unlink()
    archive.convert([two, folder / "spool" / "never.jsonl"])
    assert read_manifest(folder).spool == ["2.jsonl"]
    assert everything(folder) == names(2)


def test_cut_and_spoiled_lines_are_counted(folder: Path) -> None:
    files = [
        spool(folder, "1", event(0), "not json", "\0\0\0", "[1]", "{}", event(1), event(7)[:30], end=""),
        spool(folder, "2"),
        spool(folder, "3", '{"requestId":"x","timestamp":"infinity"}'),
        spool(folder, "4", '{"requestId":"x","team":"\\ud800","timestamp":"2026-02-25T00:00:00Z"}', event(2)),
    ]
    (folder / "spool" / "5.jsonl").write_bytes(b'{"requestId":"\xff\xfe\n' + event(3).encode() + b"\n")
    archive = Archive(folder, Clock())
    archive.convert([*files, folder / "spool" / "5.jsonl"])
    assert [name for name in everything(folder) if name != "x"] == names(4)
    assert archive.spoiled in (7, 8)
    assert all(archive.contains(file) for file in files)


def test_teams_name_no_files(folder: Path) -> None:
    teams = ["../../etc", "a\nb", "t" * 10_000, "größe/日本", "'; DROP TABLE batch; --"]
    archive = Archive(folder, Clock())
    archive.convert([spool(folder, "1", *(event(number, team=team) for number, team in enumerate(teams)))])
    assert everything(folder, "team") == sorted(teams)
    assert sorted(file.name for file in folder.iterdir()) == ["archive", "archive.json", "spool"]


def test_small_files_become_one_and_go_later(folder: Path) -> None:
    clock = Clock()
    archive = Archive(folder, clock)
    for number in range(module.MERGE_AT):
        archive.convert([spool(folder, f"{number}", event(number))])
    assert [file.rows for file in read_manifest(folder).parquet] == [module.MERGE_AT]
    assert everything(folder) == names(module.MERGE_AT)
    assert len(list((folder / "archive").glob("*.parquet"))) == module.MERGE_AT + 1
    clock.now += LINGER
    archive.convert([])
    assert len(list((folder / "archive").glob("*.parquet"))) == 1


def test_a_day_that_is_over_becomes_one_file(folder: Path) -> None:
    clock = Clock()
    archive = Archive(folder, clock)
    for number in range(3):
        archive.convert([spool(folder, f"{number}", event(number))])
    assert len(read_manifest(folder).parquet) == 3
    clock.now += 86400
    archive.convert([spool(folder, "3", event(3, "2026-02-26"))])
    assert [(file.day, file.rows) for file in read_manifest(folder).parquet] == [("2026-02-26", 1), (DAY, 3)]
    clock.now -= 2 * 86400
    archive.convert([spool(folder, "4", event(4))])
    assert everything(folder) == names(5)


def test_days_are_forgotten(folder: Path) -> None:
    clock = Clock()
    archive = Archive(folder, clock)
    file = spool(folder, "1", event(0, "2026-02-24"), event(1))
    archive.convert([file])
    archive.forget_before(date(2026, 2, 25))
    assert everything(folder) == ["r1"]
    clock.now += LINGER
    archive.forget_before(date(2026, 2, 25))
    assert len(list((folder / "archive").glob("*.parquet"))) == 1


def test_a_folder_that_cannot_be_written_is_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = spool(folder, "1", event(0))
    archive = Archive(folder, Clock())
    (folder / "archive").rename(folder / "away")
    (folder / "archive").write_text("")
    with pytest.raises((OSError, duckdb.Error)):
        archive.convert([one])
    assert not archive.contains(one)
    (folder / "archive").unlink()
    archive.convert([one])
    assert archive.contains(one)
    assert everything(folder) == names(1)


KILLED = """
import os, sys
from pathlib import Path
from fastgw.usage.archive import Archive
left = int(sys.argv[2])
def counting(work):
    def step(*args, **more):
        global left
        left -= 1
        if left == 0:
            os._exit(9)
        return work(*args, **more)
    return step
for name in ("replace", "fsync", "unlink", "open"):
    setattr(os, name, counting(getattr(os, name)))
folder = Path(sys.argv[1])
archive = Archive(folder, lambda: float(sys.argv[3]))
archive.convert(sorted((folder / "spool").glob("*.jsonl")))
"""


def kills(folder: Path, seconds: float) -> Iterator[int]:
    for step in range(1, 60):
        args = [sys.executable, "-c", KILLED, str(folder), str(step), str(seconds)]
        code = subprocess.run(args, check=False).returncode
        assert code in (0, 9)
        yield code
        if code == 0:
            return
    raise AssertionError("never done")


def test_kills_at_each_step_lose_and_double_nothing(folder: Path) -> None:
    archive = Archive(folder, Clock())
    for number in range(module.MERGE_AT - 1):
        file = spool(folder, f"{number}", event(number))
        archive.convert([file])
        file.unlink()
    spool(folder, "9", event(9), event(10, "2026-02-24"))
    codes = []
    for code in kills(folder, NOON):
        assert everything(folder) == names(11)
        codes.append(code)
    assert codes.count(9) >= 5
    archive = Archive(folder, clock := Clock())
    clock.now += LINGER
    archive.convert([])
    there = {file.name for file in (folder / "archive").glob("*.parquet")}
    assert there == {file.name for file in read_manifest(folder).parquet}
    assert len(there) == 2


def test_a_line_that_is_longer_than_any_event_costs_no_other(folder: Path) -> None:
    """Blocks that never reached the disk are one long line of zeroes."""
    with (folder / "spool" / "1.jsonl").open("wb") as file:
        file.write(f"{event(0)}\n".encode() + b"\0" * (3 * LARGEST_LINE) + f"\n{event(1)}\n".encode())
    spool(folder, "2", event(2))
    archive = Archive(folder)
    archive.convert(sorted((folder / "spool").glob("*.jsonl")))
    assert everything(folder) == names(3)
    assert archive.spoiled == 1


KILLED_ANYWHERE = """
import os, shutil, sys
from pathlib import Path
from fastgw.usage import archive as module
module.MERGE_AT, module.LINGER = 2, 0.0
def work(place, number):
    seen = 0
    def watch(event, args):
        nonlocal seen
        seen += event in ("open", "os.rename", "os.remove", "os.mkdir", "os.listdir", "os.chmod")
        if seen == number:
            os._exit(9)
    sys.addaudithook(watch)
    archive = module.Archive(place)
    files = sorted((place / "spool").glob("*.jsonl"))
    archive.convert(files)
    for path in files:
        if archive.contains(path):
            path.unlink()
for number in range(1, 100):
    place = Path(sys.argv[2]) / str(number)
    shutil.copytree(sys.argv[1], place)
    if (pid := os.fork()) == 0:
        try:
            work(place, number)
        finally:
            os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
        break
"""
"""The same work again and again, each time killed one step later than before that touches a file or a folder."""


def test_a_kill_at_any_step_that_touches_files_loses_and_doubles_nothing(folder: Path, tmp_path: Path) -> None:
    """New files, a merge, deletions and what a life before has left, all in one."""
    for number in range(3):
        Archive(folder).convert([spool(folder, f"{number}", event(number), event(number + 10, "2026-02-26"))])
    parquet_path(folder, "left-by-a-kill.parquet").touch()
    spool(folder, "3", event(3), event(13, "2026-02-26"))
    (places := tmp_path / "places").mkdir()
    subprocess.run([sys.executable, "-c", KILLED_ANYWHERE, str(folder), str(places)], check=True)
    found = list(places.iterdir())
    assert 20 < len(found) < 99
    for place in found:
        assert everything(place) == sorted(f"r{number}" for number in (0, 1, 2, 3, 10, 11, 12, 13))


@pytest.mark.parametrize("text", [None, b"", b"\0\0", b"[]", b'{"parquet":[1]}', b"\xff", b"[" * 10_000])
def test_without_a_manifest_nothing_is_changed_and_nobody_is_told_that_there_is_nothing(
    folder: Path, text: bytes | None
) -> None:
    """Lost or spoiled: every file would be one that does not count, and be deleted."""
    one = spool(folder, "1", event(0))
    clock = Clock()
    archive = Archive(folder, clock)
    archive.convert([one])
    one.unlink()
    kept = manifest_path(folder).rename(folder / "kept")
    if text is not None:
        manifest_path(folder).write_bytes(text)
    with pytest.raises(BadManifest, match=r"archive\.json"):
        read_manifest(folder)
    with pytest.raises(BadManifest):
        Archive(folder, clock)
    clock.now += 2 * LINGER
    with pytest.raises(BadManifest):
        Archive(folder, clock)
    kept.rename(manifest_path(folder))
    Archive(folder, clock).convert([spool(folder, "2", event(1))])
    assert everything(folder) == names(2)


def test_a_spoiled_file_keeps_no_other_from_being_merged(folder: Path) -> None:
    clock = Clock()
    archive = Archive(folder, clock)
    for number in range(3):
        archive.convert([spool(folder, f"{number}", event(number))])
    lost = parquet_path(folder, read_manifest(folder).parquet[0].name)
    lost.write_bytes(b"PAR1 no more PAR1")
    clock.now += 86400
    with pytest.raises(duckdb.Error, match=lost.name):
        archive.convert([])
    for number in range(10, 10 + module.MERGE_AT):
        archive.convert([spool(folder, f"{number}", event(number, "2026-02-26"))])
    assert [file.rows for file in read_manifest(folder).parquet] == [1, 1, 1, module.MERGE_AT]


def test_a_disk_that_is_full_is_not_made_fuller(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first day fits, the second does not."""
    one = spool(folder, "1", event(0), event(1, "2026-02-26"))
    archive = Archive(folder, Clock())
    write = Archive._write

    def full(self: Archive, database: Any, day: str, *more: Any) -> Any:
        if day != DAY:
            raise OSError("no space")
        return write(self, database, day, *more)

    with monkeypatch.context() as small:
        small.setattr(Archive, "_write", full)
        for _ in range(2):
            with pytest.raises(OSError, match="no space"):
                archive.convert([one])
    assert list((folder / "archive").iterdir()) == []
    archive.convert([one])
    assert everything(folder) == names(2)
