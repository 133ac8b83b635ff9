"""Files of `tls`, of servers and of the listener: what cannot be used is refused where it is written, before any call
needs it, and what will not be of use for long is worth a word.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fastgw.cli.main import main
from fastgw.config.files import ConfigFiles
from fastgw.config.reader import read, read_settings
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


# -- the listener of agents ------------------------------------------------------------------------------------------


def test_the_listener_s_files_are_read_with_the_configuration(folder: Path) -> None:
    file = folder / "f.yaml"
    file.write_text("tls: {cert: ca-one.pem, key: ca-one.key, client_ca: ca.pem}\n", encoding="utf-8")
    files = ConfigFiles()
    tls = read(file, {}, files).tls
    assert tls is not None
    assert [tls.cert, tls.key, tls.client_ca] == [
        (folder / name).read_bytes() for name in ("ca-one.pem", "ca-one.key", "ca.pem")
    ]
    assert "PRIVATE" not in repr(tls)
    assert not files.changed()
    (folder / "ca-one.key").write_text("another")
    assert files.changed()


@pytest.mark.parametrize(
    ("tls", "complaint"),
    [
        ("cert: x.pem, key: ca-one.key", "1:13: the file x.pem cannot be read: No such file or directory"),
        ("cert: ca-one.pem, key: ca-two.key", "1:30: ca-two.key is not the key of this certificate (PEM, unencrypted)"),
        ("cert: ca-one.pem, key: ca-one.key, client_ca: junk.pem", "1:53: junk.pem holds no certificate (PEM)"),
    ],
)
def test_a_file_of_the_listener_that_cannot_be_used(folder: Path, tls: str, complaint: str) -> None:
    file = folder / "f.yaml"
    file.write_text(f"tls: {{{tls}}}\n", encoding="utf-8")
    files = ConfigFiles()
    with pytest.raises(ConfigError) as wrong:
        read(file, {}, files)
    assert str(wrong.value).replace(f"{folder}/", "") == f"f.yaml:{complaint}"
    # A file that is put right later is a change.
    assert {Path(name).name for name in files.names} > {"f.yaml"}


def checked(folder: Path, pair: tuple[str, str], said: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """What `fastgw check` says of a listener with this certificate and its key."""
    file = folder / "f.yaml"
    agents = "agents: {a: {key: 'sha256:" + "0" * 64 + "'}}"
    file.write_text(f"tls: {{cert: {pair[0]}, key: {pair[1]}}}\n{agents}\n", encoding="utf-8")
    status = main(["check", "--config", str(file)])
    told = said.readouterr()
    return status, (told.out + told.err).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("hours", "note"),
    [
        (15 * 24, ""),
        (13.5 * 24, r"note: f.yaml:1:13: expires in 1[34] days, on 20\d\d-\d\d-\d\d: .*\n"),
        (-0.5, r"note: f.yaml:1:13: has expired, on 20\d\d-\d\d-\d\d: .*\n"),
    ],
)
def test_a_certificate_that_ends_soon_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], hours: float, note: str
) -> None:
    status, said = checked(tmp_path, Authority(tmp_path, "ca").issue("a", hours), capsys)
    assert status == 0
    assert re.fullmatch(f"f.yaml: ok\n{note}", said)


def test_a_certificate_that_the_listener_does_not_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = Authority(tmp_path, "ca").issue("a", curve=ec.SECP521R1)
    status, said = checked(tmp_path, odd, capsys)
    assert status == 1
    assert said.startswith(
        "f.yaml:1:1: this certificate cannot be served: its key is none of RSA of 2048 to 4096 bits,"
    )
    assert main(["run", "--config", str(tmp_path / "f.yaml")]) == 1
    assert "f.yaml:1:1: this certificate cannot be served: " in capsys.readouterr().err
