"""Usage events in the long run: Parquet files by day, made of closed spool files.

closed spool file --converted--> in new Parquet files, which do not count yet
these --the manifest names them, and the spool file--> they count, its lines do not (one rename: nothing in between)
small files of a day --merged--> likewise; the old ones stay for `GRACE`, for whoever is reading them

Who is killed before the manifest is written leaves files that do not count; they are deleted at the next start.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import duckdb

from fastgw.usage.columns import COLUMNS, rows_of_lines
from fastgw.usage.manifest import Manifest, ParquetFile, parquet_path, read_manifest, sync, write_manifest

log = logging.getLogger("fastgw")

MOST_BYTES = 128 * 2**20
"""Of spool files that are converted together; a single one may be larger."""
MERGE_AT = 24
"""Small files of one day that are merged: a gateway with little to do closes one spool file a minute."""
LARGE = 2_000_000
"""Events of a file that is not merged any more."""
GRACE = 120.0
"""Seconds for which a file is kept after it was merged into another."""
MEMORY = "512MB"
ORDER = "team, agent, tool, timestamp"
"""What is alike stands together: it compresses, and a question about one team skips most of a file."""
WRITTEN_AS = "FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 122880"
_NAMES = ", ".join(f'"{one.name}"' for one in COLUMNS)


class Archive:
    """The archive in `folder` (`data/usage`); for one thread of one process.

    Raises:
        OSError, msgspec.MsgspecError: the folder cannot be used, or what the archive says of itself not be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "archive").mkdir(parents=True, exist_ok=True, mode=0o700)
        self._manifest = read_manifest(folder)
        self._contained = set(self._manifest.spool)
        self._merged: list[tuple[float, str]] = []
        named = {one.name for one in self._manifest.parquet}
        for path in (folder / "archive").iterdir():
            if path.name not in named:
                path.unlink()
        self._database = connect(folder / "archive")

    def contains(self, path: Path) -> bool:
        """Whether the events of this spool file are here."""
        return path.name in self._contained

    def convert(self, closed: Sequence[Path]) -> None:
        """Take over the events of closed spool files, and tidy up.

        Raises:
            OSError, duckdb.Error: the disk does not do it; what is not converted yet is so next time.
        """
        self._delete_merged()
        for some in _portions([path for path in closed if not self.contains(path)]):
            try:
                self._convert(some)
            except duckdb.InvalidInputException:
                self._convert_each(some)
        self._merge_small()

    def forget_before(self, day: date) -> None:
        """Delete what is older than this day. Raises OSError."""
        old = [one for one in self._manifest.parquet if one.day < day.isoformat()]
        if old:
            self._commit([one for one in self._manifest.parquet if one not in old])
            for one in old:
                parquet_path(self._folder, one.name).unlink(missing_ok=True)

    # -- steps -------------------------------------------------------------------------------------------------------

    def _convert(self, paths: Sequence[Path]) -> None:
        database = self._database
        database.execute("DROP TABLE IF EXISTS batch")
        files = [str(path) for path in paths if path.stat().st_size]
        made = []
        if files:
            # Line by line into a table first: a file may hold several days, and is read once.
            database.execute(f"CREATE TEMP TABLE batch AS {rows_of_lines()}", [files])
            days = database.execute("SELECT DISTINCT CAST(timestamp AS DATE) FROM batch").fetchall()
            made = [self._write("FROM batch WHERE CAST(timestamp AS DATE) = ?", [day], day) for (day,) in days]
            database.execute("DROP TABLE batch")
        self._commit([*self._manifest.parquet, *made], {path.name for path in paths})

    def _convert_each(self, paths: Sequence[Path]) -> None:
        """One of these cannot be read at all, and must not keep the others."""
        for path in paths:
            try:
                self._convert([path])
            except duckdb.InvalidInputException as wrong:
                log.error("%s holds no usage events that can be read, and is put aside: %s", path.name, wrong)
                path.rename(path.with_suffix(".spoiled"))

    def _write(self, rows: str, values: list[Any], day: date) -> ParquetFile:
        name = f"{day.isoformat()}-{secrets.token_hex(8)}.parquet"
        path = parquet_path(self._folder, name)
        ours = f"COPY (SELECT {_NAMES} {rows} ORDER BY {ORDER}) TO '{_escaped(path)}' ({WRITTEN_AS})"
        counted = self._database.execute(ours, values).fetchone()
        assert counted is not None
        sync(path)
        return ParquetFile(name, day.isoformat(), int(counted[0]))

    def _commit(self, parquet: list[ParquetFile], more: Set[str] = frozenset()) -> None:
        """Let these files count, which now have `more` spool files, too. Spool files that are gone need no mention."""
        sync(self._folder / "archive")
        there = [name for name in sorted(self._contained | more) if (self._folder / "spool" / name).exists()]
        manifest = Manifest(parquet, there)
        write_manifest(self._folder, manifest)
        self._manifest, self._contained = manifest, set(there)

    def _merge_small(self) -> None:
        """Merge those of one day that has many."""
        by_day: dict[str, list[ParquetFile]] = defaultdict(list)
        for one in self._manifest.parquet:
            if one.rows < LARGE:
                by_day[one.day].append(one)
        day, small = max(by_day.items(), key=lambda item: len(item[1]), default=("", []))
        if len(small) < MERGE_AT:
            return
        chosen: list[ParquetFile] = []
        rows = 0
        for one in sorted(small, key=lambda one: one.rows):
            if chosen and rows + one.rows > 2 * LARGE:
                break
            chosen.append(one)
            rows += one.rows
        paths = [str(parquet_path(self._folder, one.name)) for one in chosen]
        whole = self._write("FROM read_parquet(?)", [paths], date.fromisoformat(day))
        self._commit([*(one for one in self._manifest.parquet if one not in chosen), whole])
        self._merged += [(time.monotonic(), one.name) for one in chosen]

    def _delete_merged(self) -> None:
        now = time.monotonic()
        for when, name in self._merged:
            if now - when >= GRACE:
                with suppress(FileNotFoundError):
                    parquet_path(self._folder, name).unlink()
        self._merged = [(when, name) for when, name in self._merged if now - when < GRACE]


def connect(spill: Path, threads: int = 1, memory: str = MEMORY) -> duckdb.DuckDBPyConnection:
    """A database in memory that loads nothing from anywhere; what does not fit goes to a folder in `spill`."""
    options: dict[str, Any] = {
        "threads": threads,
        "memory_limit": memory,
        "temp_directory": str(spill / "spill"),
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    return duckdb.connect(":memory:", config=options)


def _portions(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """As many at a time as fit into memory."""
    some: list[Path] = []
    size = 0
    for path in paths:
        own = path.stat().st_size
        if some and size + own > MOST_BYTES:
            yield some
            some, size = [], 0
        some.append(path)
        size += own
    if some:
        yield some


def _escaped(path: Path) -> str:
    """Within quotes of SQL; the operator chooses the folder."""
    return str(path).replace("'", "''")
