"""Which files a reading opened, and whether they are still the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastgw.config.files import ConfigFiles
from fastgw.config.reader import read
from fastgw.config.tree import ConfigError

AGENT = "agents: {%s: {key: sha256:%064d}}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.yaml").write_text(AGENT % ("a", 1))
    (tmp_path / "secret").write_text("0123456789abcdef")
    (tmp_path / "fastgw.yaml").write_text("include: more/*.yaml\nsecret: ${file:secret}\n")
    return tmp_path


def opened(folder: Path) -> ConfigFiles:
    files = ConfigFiles()
    read(folder / "fastgw.yaml", {}, files)
    return files


def test_everything_that_was_opened_is_named_the_main_file_first(folder: Path) -> None:
    assert opened(folder).names == [str(folder / name) for name in ("fastgw.yaml", "more/a.yaml", "secret")]


@pytest.mark.parametrize("name", ["fastgw.yaml", "more/a.yaml", "secret"])
def test_other_bytes_of_any_are_a_change_and_the_same_again_are_none(folder: Path, name: str) -> None:
    files, file = opened(folder), folder / name
    text = file.read_bytes()
    assert not files.changed()
    file.write_bytes(text + b"\n")
    assert files.changed()
    file.write_bytes(text)
    assert not files.changed()
    file.unlink()
    assert files.changed()


def test_a_file_more_that_the_pattern_finds_is_a_change(folder: Path) -> None:
    files = opened(folder)
    (folder / "more" / "b.yaml").write_text(AGENT % ("b", 2))
    assert files.changed()
    assert not opened(folder).changed()


def test_of_a_reading_that_failed_a_change_is_seen_too(folder: Path) -> None:
    files = ConfigFiles()
    (folder / "secret").unlink()
    with pytest.raises(ConfigError, match="secret cannot be read"):
        read(folder / "fastgw.yaml", {}, files)
    assert not files.changed()
    (folder / "secret").write_text("0123456789abcdef")
    assert files.changed()


def test_what_is_being_written_is_not_the_same_twice(folder: Path) -> None:
    files = opened(folder)
    assert files.now() == files.now()
    (folder / "more" / "b.yaml").write_text("")
    before = files.now()
    (folder / "more" / "b.yaml").write_text(AGENT % ("b", 2))
    assert files.now() != before


def test_folders_are_those_of_names_and_of_what_links_lead_to(tmp_path: Path) -> None:
    """A mounted config map: `fastgw.yaml` is a link through `..data`, which is renamed to lead elsewhere."""
    mounted, first = tmp_path / "mounted", tmp_path / "mounted" / "..2026_1"
    first.mkdir(parents=True)
    (first / "fastgw.yaml").write_text(AGENT % ("a", 1))
    (mounted / "..data").symlink_to("..2026_1")
    (mounted / "fastgw.yaml").symlink_to("..data/fastgw.yaml")
    files = opened(mounted)
    assert files.folders() == {str(place): place.stat().st_ino for place in (mounted, first)}
    second = mounted / "..2026_2"
    second.mkdir()
    (second / "fastgw.yaml").write_text(AGENT % ("b", 2))
    (mounted / "..data_tmp").symlink_to("..2026_2")
    (mounted / "..data_tmp").replace(mounted / "..data")
    assert files.changed()


def test_a_folder_that_is_not_there_is_not_watched(tmp_path: Path) -> None:
    (tmp_path / "fastgw.yaml").write_text("include: nowhere/*.yaml\n")
    assert list(opened(tmp_path).folders()) == [str(tmp_path)]
