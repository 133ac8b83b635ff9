"""Which files hold the usage events that are kept: the Parquet files that count, and the spool files they contain.

Whoever asks reads these Parquet files and the lines of all other spool files: so each event is there once at any
moment, for the manifest changes in one step.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec


class ParquetFile(msgspec.Struct, frozen=True):
    """One file of the archive, with the events of one day (UTC, `2026-11-29`)."""

    name: str
    day: str
    rows: int


class Manifest(msgspec.Struct):
    """What counts; `spool` names the spool files whose events are in `parquet`."""

    parquet: list[ParquetFile] = []
    spool: list[str] = []


_FILE = "archive.json"
_read = msgspec.json.Decoder(Manifest).decode


def read_manifest(folder: Path) -> Manifest:
    """That of the events under `folder` (`data/usage`), empty where there is none.

    Raises:
        OSError: it cannot be read.
        msgspec.MsgspecError: it is not ours.
    """
    try:
        return _read((folder / _FILE).read_bytes())
    except FileNotFoundError:
        return Manifest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Let this one count from now on. Raises OSError; then the one before does."""
    hidden = folder / f".{_FILE}"
    with hidden.open("wb") as file:
        file.write(msgspec.json.encode(manifest))
        file.flush()
        os.fsync(file.fileno())
    hidden.replace(folder / _FILE)
    sync(folder)


def parquet_path(folder: Path, name: str) -> Path:
    """Where a Parquet file is."""
    return folder / "archive" / name


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
