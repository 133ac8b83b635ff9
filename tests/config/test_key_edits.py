"""When a key expires, written into a configuration file: that entry changes, and not one character more."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from fastgw.config.key_edits import UnusualForm, replace_file, with_expiry
from fastgw.config.reader import read_settings
from fastgw.config.schema.agents import moment

A, B = "a" * 64, "b" * 64
DAY = "2027-01-31"

FORMS = [
    ("  x:  # who\n    key: sha256:<A>  # why\n", 0, "  x:  # who\n    key: {sha256: <A>, expires: <DAY>}  # why\n"),
    ("  x: {key: 'sha256:<A>'}\n", 0, "  x: {key: {sha256: <A>, expires: <DAY>}}\n"),
    ('  {x: {key: [<A>, "<B>"]}}', 1, "  {x: {key: [<A>, {sha256: <B>, expires: <DAY>}]}}"),
    ("  x:\n    key:\n    - <A>\n    - <B>\n", 1, "  x:\n    key:\n    - <A>\n    - {sha256: <B>, expires: <DAY>}\n"),
    (
        "  x:\n    key:\n      sha256: <A> # old\n    disabled: true\n", 0,
        "  x:\n    key:\n      sha256: <A> # old\n      expires: <DAY>\n    disabled: true\n",
    ),
    ("  x:\n    key:\n      - sha256: <A>", 0, "  x:\n    key:\n      - sha256: <A>\n        expires: <DAY>"),
    (
        "  x:\r\n    key:\r\n      - sha256: <A>\r\n", 0,
        "  x:\r\n    key:\r\n      - sha256: <A>\r\n        expires: <DAY>\r\n",
    ),
    ("  x:\n    key: { sha256: '<A>' }\n", 0, "  x:\n    key: { sha256: '<A>', expires: <DAY> }\n"),
    (
        '  x:\n    key:\n    - expires: "2036-01-31"  # as agreed\n      sha256: <A>\n', 0,
        "  x:\n    key:\n    - expires: <DAY>  # as agreed\n      sha256: <A>\n",
    ),
    ("  x:\n    key: *keys\nx-more: *keys\n", 0, None),
    ("  x:\n    key: *one\n", 0, None),
    ("  x:\n    key: &same <A>\n", 0, None),
    ("  x:\n    key: !!str <A>\n", 0, None),
    ("  x:\n    key: >-\n      <A>\n", 0, None),
    ("  x:\n    key: ${env:HASH}\n", 0, None),
    ("  x:\n    key:\n      ? sha256\n      : <A>\n", 0, None),
]  # fmt: skip
"""A file from its second part on, the place of the key in it, and what becomes of it; None: it is left alone."""
BEFORE = ["", "\ufeff", "x-one: &one <A>\nx-keys: &keys\n  sha256: <A>\n"]


def filled(text: str) -> str:
    return text.replace("<A>", A).replace("<B>", B).replace("<DAY>", DAY)


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize(("form", "place", "wanted"), FORMS)
def test_forms(tmp_path: Path, before: str, form: str, place: int, wanted: str | None) -> None:
    top = BEFORE[2] if "*" in form else before
    text = filled(f"{top}agents:\n{form}")
    if wanted is None:
        with pytest.raises(UnusualForm):
            with_expiry(text, "f", ("x", place), DAY)
        return
    changed = with_expiry(text, "f", ("x", place), DAY)
    assert changed == filled(f"{top}agents:\n{wanted}")
    file = tmp_path / "f.yaml"
    file.write_bytes(changed.encode())
    keys = read_settings(file, {}).agents["x"].key
    assert [one.expires for one in keys] == [moment(DAY) if at == place else None for at in range(len(keys))]
    assert keys[place].sha256 == (A if place == 0 else B)


def test_a_time_takes_the_place_of_a_day() -> None:
    text = f"agents: {{x: {{key: {{sha256: {A}, expires: {DAY}}}}}}}"
    assert with_expiry(text, "f", ("x", 0), "2026-11-29T12:00:00Z") == text.replace(DAY, "2026-11-29T12:00:00Z")


def test_a_file_is_replaced_whole_and_where_its_link_leads(tmp_path: Path) -> None:
    real, link = tmp_path / "real.yaml", tmp_path / "link.yaml"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    inode = real.stat().st_ino
    replace_file(link, "new\r\n")
    assert link.is_symlink() and real.read_bytes() == b"new\r\n" and real.stat().st_ino != inode
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert {one.name for one in tmp_path.iterdir()} == {"link.yaml", "real.yaml"}
