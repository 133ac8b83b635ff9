"""The secret kept under data: one, whole, ours alone."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fastgw.processes.secret import FILE, BadSecret, sealing_keys


def test_what_is_configured_is_used_and_nothing_is_written(tmp_path: Path) -> None:
    assert sealing_keys(("new", "old"), tmp_path / "data") == (b"new", b"old")
    assert not (tmp_path / "data").exists()


def test_one_is_made_kept_and_found_again(tmp_path: Path) -> None:
    (made,) = sealing_keys((), tmp_path / "data")
    assert len(made) == 64
    assert sealing_keys((), tmp_path / "data") == (made,)
    assert stat.S_IMODE((tmp_path / "data" / FILE).stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "data").iterdir()] == [FILE]


def test_all_who_start_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(lambda _: sealing_keys((), tmp_path), range(64)))
    assert len(found) == 1


def test_a_secret_cut_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("short")
    with pytest.raises(BadSecret, match="too short"):
        sealing_keys((), tmp_path)
