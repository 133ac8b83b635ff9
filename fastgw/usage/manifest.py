"""What the archive of usage events consists of, as `data/usage/archive.json` says; without DuckDB."""

from __future__ import annotations

from pathlib import Path

import msgspec


class ParquetFile(msgspec.Struct, frozen=True):
    """One file that counts: its name, its UTC day (`2026-11-29`), its rows and bytes."""

    name: str
    day: str
    rows: int
    bytes: int = 0


class Manifest(msgspec.Struct):
    """The Parquet files that count, and the names of the spool files whose events they contain."""

    parquet: list[ParquetFile] = []
    spool: list[str] = []


def manifest_path(folder: Path) -> Path:
    """The manifest in `folder`, which is `data/usage`."""
    return folder / "archive.json"


def read_manifest(folder: Path) -> Manifest:
    """The manifest in `folder`, `data/usage`; an empty one where there is none.

    Raises:
        OSError: it cannot be read.
        msgspec.DecodeError: it is no manifest.
    """
    try:
        return msgspec.json.decode(manifest_path(folder).read_bytes(), type=Manifest)
    except FileNotFoundError:
        return Manifest()


def parquet_path(folder: Path, name: str) -> Path:
    """The Parquet file `name` of the archive in `folder`, `data/usage`."""
    return folder / "archive" / name
