"""What is kept under data: one secret, whole, ours alone; ended sessions, no longer than they must."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fastgw.processes.kept import SECRET, BadSecret, EndedSessions, sealing_keys


def test_what_has_ended_is_known_after_a_restart_until_it_expires(tmp_path: Path) -> None:
    path = tmp_path / "data" / "ended"
    EndedSessions(path, 1000).add("s", 60, 1000)
    assert EndedSessions(path, 1030).live(1030) == [("s", 30.0)]
    assert EndedSessions(path, 1061).live(1061) == []


def test_a_line_cut_short_by_a_crash_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "ended"
    path.write_bytes(b"2000 good\nx y\n\xff\xff\n2000 \n20")
    assert EndedSessions(path, 1000).live(1000) == [("good", 1000.0)]


def test_the_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "ended"
    ended = EndedSessions(path, 0)
    for number in range(3000):
        ended.add(f"s{number}", 10, float(number))
    assert len(path.read_text().splitlines()) <= 1100
    assert len(EndedSessions(path, 2999).live(2999)) == 10


def test_a_folder_that_cannot_be_written_costs_only_the_memory_of_a_restart(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = EndedSessions(tmp_path / "file" / "ended", 0)
    ended.add("s", 10, 0)
    assert ended.live(0) == [("s", 10.0)]


def test_a_line_cut_short_does_not_take_the_next_one_with_it(tmp_path: Path) -> None:
    path = tmp_path / "ended"
    path.write_bytes(b"2000 good\n2000 ha")
    EndedSessions(path, 1000).add("next", 1000, 1000)
    assert ("next", 1000.0) in EndedSessions(path, 1000).live(1000)


def test_what_is_configured_is_used_and_nothing_is_written(tmp_path: Path) -> None:
    assert sealing_keys(("new", "old"), tmp_path / "data") == (b"new", b"old")
    assert not (tmp_path / "data").exists()


def test_one_is_made_kept_and_found_again(tmp_path: Path) -> None:
    (made,) = sealing_keys((), tmp_path / "data")
    assert len(made) == 64
    assert sealing_keys((), tmp_path / "data") == (made,)
    assert stat.S_IMODE((tmp_path / "data" / SECRET).stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "data").iterdir()] == [SECRET]


def test_all_who_start_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(lambda _: sealing_keys((), tmp_path), range(64)))
    assert len(found) == 1


def test_a_secret_cut_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / SECRET).write_text("short")
    with pytest.raises(BadSecret, match="too short"):
        sealing_keys((), tmp_path)
