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


class BadManifest(ValueError):
    """What counts cannot be told: a reader would leave out events, a writer delete them. Words for an operator."""


class Manifest(msgspec.Struct):
    """The Parquet files that count, and the names of the spool files whose events they contain."""

    parquet: list[ParquetFile] = []
    spool: list[str] = []


def manifest_path(folder: Path) -> Path:
    """The manifest in `folder`, which is `data/usage`."""
    return folder / "archive.json"


def read_manifest(folder: Path) -> Manifest:
    """The manifest in `folder`, `data/usage`; an empty one where nothing has been archived.

    Raises:
        OSError: it cannot be read.
        BadManifest: it is none, or it is gone.
    """
    path, archive = manifest_path(folder), parquet_path(folder, ".")
    mend = f"put it back from a backup, or move {archive} away with it"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        if any(archive.glob("*.parquet")):
            raise BadManifest(f"{path} is gone: {mend}") from None
        return Manifest()
    except (msgspec.DecodeError, ValueError, RecursionError) as wrong:
        raise BadManifest(f"{path} is damaged ({wrong}): {mend}") from None


def parquet_path(folder: Path, name: str) -> Path:
    """The Parquet file `name` of the archive in `folder`, `data/usage`."""
    return folder / "archive" / name
