"""Files of `tls` towards servers: what cannot be used is refused where it is written, before any call needs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from fastgw.config.reader import read_settings
from fastgw.config.tree import ConfigError
from tests.upstream.test_tls import Authority


def told(folder: Path, tls: str) -> list[str]:
    """What is said about this `tls`, each less the path of the file."""
    file = folder / "f.yaml"
    file.write_text(f"servers:\n  a:\n    url: https://h/\n    tls: {{{tls}}}\n", encoding="utf-8")
    try:
        read_settings(file, {})
    except ConfigError as error:
        return [str(one).replace(f"{folder}/", "") for one in error.complaints]
    return []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds `ca.pem`, `ca-one.pem` with `ca-one.key`, `ca-two.*`, a locked key and junk."""
    authority = Authority(tmp_path, "ca")
    for name in ("one", "two"):
        authority.issue(name)
    locked = authority.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    (tmp_path / "locked.key").write_bytes(locked)
    (tmp_path / "junk.pem").write_text("no certificate", encoding="utf-8")
    return tmp_path


def test_good_files_beside_the_configuration(folder: Path) -> None:
    assert told(folder, "ca: ca.pem, cert: ca-one.pem, key: ca-one.key") == []


def test_every_missing_file_is_named_in_its_place(folder: Path) -> None:
    why = "cannot be read: No such file or directory"
    assert told(folder, "ca: x.pem, cert: y.pem, key: z.pem") == [
        f"f.yaml:4:15: the file x.pem {why}",
        f"f.yaml:4:28: the file y.pem {why}",
        f"f.yaml:4:40: the file z.pem {why}",
    ]


@pytest.mark.parametrize(
    ("tls", "complaint"),
    [
        ("ca: junk.pem", "4:15: junk.pem holds no certificate (PEM)"),
        ("ca: ca-one.key", "4:15: ca-one.key holds no certificate (PEM)"),
        ("ca: .", "4:15: the file {folder} cannot be read: Is a directory"),
        ("cert: junk.pem, key: ca-one.key", "4:17: junk.pem holds no certificate (PEM)"),
        ("cert: ca-one.pem, key: ca-two.key", "4:34: ca-two.key is not the key of this certificate (PEM, unencrypted)"),
        ("cert: ca-one.pem, key: locked.key", "4:34: locked.key is not the key of this certificate (PEM, unencrypted)"),
    ],
)
def test_a_file_that_is_something_else(folder: Path, tls: str, complaint: str) -> None:
    assert told(folder, tls) == [f"f.yaml:{complaint}".replace("{folder}", str(folder))]
