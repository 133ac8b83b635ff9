"""The lock file beside the configuration: read with it, refused with a place, watched."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastgw.catalog.definitions import DefinitionKind, parse_definitions
from fastgw.catalog.pins import dump_lock
from fastgw.config.files import ConfigFiles
from fastgw.config.lint import lint
from fastgw.config.reader import read
from fastgw.config.tree import ConfigError

TOOLS = parse_definitions(DefinitionKind.TOOL, "a", b'[{"name":"x","inputSchema":{"type":"object"}}]')[0]
SERVERS = "servers:\n  a: {url: http://h/mcp, on_change: hold}\n  b: {url: http://h/b, on_change: warn}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "gateway.yaml").write_text(SERVERS)
    return tmp_path / "gateway.yaml"


def test_it_has_the_name_of_the_configuration_and_need_not_be_there(file: Path) -> None:
    files = ConfigFiles()
    assert read(file, {}, files).settings.lock == {}
    assert files.names == [str(file)] and not files.changed()
    file.with_suffix(".lock").write_bytes(dump_lock({"a": TOOLS}))
    assert files.changed()
    files = ConfigFiles()
    assert read(file, {}, files).settings.lock == {"a": TOOLS}
    assert files.names == [str(file), str(file.with_suffix(".lock"))]
    file.with_suffix(".lock").unlink()
    assert files.changed()


def test_a_bad_one_is_refused_with_its_place(file: Path) -> None:
    lock = file.with_suffix(".lock")
    lock.write_text('{\n "format": 1,\n>>>>>>> theirs\n}')
    with pytest.raises(ConfigError, match=f"{lock}:3:1: is no JSON"):
        read(file, {})
    lock.unlink()
    lock.mkdir()
    with pytest.raises(ConfigError, match=f"{lock}:1:1: cannot be read"):
        read(file, {})


def test_servers_that_are_only_in_one_of_both_are_told(file: Path) -> None:
    lock = file.with_suffix(".lock")
    lock.write_bytes(dump_lock({"a": TOOLS, "aa": TOOLS}))
    reading = read(file, {})
    said = [str(one) for one in lint(reading.settings, reading.root)]
    line = lock.read_text().split("\n").index('  "aa": [') + 1
    assert f'{lock}:{line}:1: there is no server "aa" (did you mean "a"?)' in said
    assert next(one for one in said if "first sees them" in one).startswith(f"{file}:3:")
