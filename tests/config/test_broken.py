"""Broken files and what is said about each; their first line is `line:column | part of the message | nearest`."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastgw.config.reader import read_settings
from fastgw.config.tree import ConfigError

FILES = sorted((Path(__file__).parent / "broken").glob("*.yaml"))
ENVIRON = {"TOKEN": "t", "LONG": "sixteen letters.", "EMPTY": "", "TWO_LINES": "a\r\nX-Evil: b"}


def test_there_are_enough_of_them() -> None:
    assert len(FILES) >= 40


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_one_complaint_at_the_right_place(file: Path) -> None:
    place, fragment, nearest = (part.strip() for part in file.read_text("utf-8").split("\n")[0][1:].split(" | "))
    with pytest.raises(ConfigError) as refused:
        read_settings(file, ENVIRON)
    assert len(refused.value.complaints) == 1, str(refused.value)
    found = refused.value.complaints[0]
    assert (found.position.file, f"{found.position.line}:{found.position.column}") == (str(file), place), str(found)
    assert fragment in found.message
    assert (found.nearest or "-") == nearest
    assert "hunter2" not in str(found)
