"""The archive of usage events: Parquet by UTC day, made from closed spool files.

The manifest says what counts (`usage/manifest.py`). It is replaced as a whole once the new files are on the disk, so
that every event is read exactly once at any moment, whatever is killed. What it does not name is deleted some minutes
later: somebody who read an earlier manifest may still be reading it.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import msgspec

from fastgw.usage.columns import literal, rows_of_lines, without_long_lines
from fastgw.usage.manifest import Manifest, ParquetFile, manifest_path, parquet_path, read_manifest

log = logging.getLogger("fastgw")

MOST_BYTES = 128 * 1024 * 1024
"""Bytes of spool files that are converted at once."""
MEMORY = "512MB"
"""What DuckDB may take; more goes to files under `archive/temp`."""
MERGE_AT = 10
"""Files of a day, alike in size, that become one; an event is then rewritten once for each decimal place of a day."""
LARGE = 1_000_000
"""Rows of a file that stays as it is."""
DAY_ENDS_AFTER = 3600.0
"""Seconds after midnight when a day's small files, however many, become one."""
LINGER = 300.0
"""Seconds for which a file that counts no more can still be read."""
ORDER = "team, agent, tool, timestamp, request_id"
"""Alike beside alike: it compresses."""
WRITER = "FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 122880, PARQUET_VERSION V2"


class Archive:
    """The archive in `folder`, which is `data/usage`; for one process and one thread.

    Args:
        clock: Unix seconds.

    Raises:
        OSError: it cannot be read. BadManifest: what counts is not known, so that nothing may be changed.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.spoiled = 0
        """Lines that were no events: cut short by a crash, or spoiled."""
        self._folder = folder
        self._clock = clock
        self._parquet: list[ParquetFile] = []
        self._spool: dict[str, None] = {}
        self._unnamed: dict[str, float] = {}
        """Files that do not count, and since when."""
        self._unmergeable: set[str] = set()
        """Files that could not be merged, for one of them is spoiled: what comes after them is."""
        self._is_unsure = True
        self._load()

    def contains(self, path: Path) -> bool:
        """Whether the events of this spool file are in the archive."""
        return path.name in self._spool

    def convert(self, closed: Sequence[Path]) -> None:
        """Take in these spool files, which nobody writes to any more; those that it contains are passed over.

        Raises:
            OSError: the disk refuses. duckdb.Error: DuckDB does. What was not taken in can be converted later.
        """
        with self._changing():
            self._delete_unnamed()
            for paths in _batches([path for path in closed if not self.contains(path)]):
                self._take_in(paths)
            self._merge()

    def forget_before(self, day: date) -> None:
        """Let go of the days before this one.

        Raises:
            OSError: the disk refuses.
        """
        with self._changing():
            self._delete_unnamed()
            kept = [file for file in self._parquet if file.day >= day.isoformat()]
            if len(kept) < len(self._parquet):
                self._commit(kept)

    # -- what counts -----------------------------------------------------------------------------------------------

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """After a failure, what is on the disk decides."""
        if self._is_unsure:
            self._load()
        self._is_unsure = True
        yield
        self._is_unsure = False

    def _load(self) -> None:
        self._is_unsure = True
        temp = parquet_path(self._folder, "temp")
        temp.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.rmtree(temp, ignore_errors=True)
        found = read_manifest(self._folder)
        self._parquet, self._spool = found.parquet, dict.fromkeys(found.spool)
        named = {file.name for file in self._parquet}
        now = self._clock()
        there = {file.name for file in temp.parent.glob("*.parquet")} - named
        self._unnamed = {name: self._unnamed.get(name, now) for name in there}
        if not manifest_path(self._folder).exists():  # there is one before there are files that it names
            self._commit([])
        self._is_unsure = False

    def _commit(self, parquet: list[ParquetFile], fresh: Sequence[Path] = ()) -> None:
        """Replace the manifest. Spool files that are no more need no mention."""
        named = [name for name in self._spool if (self._folder / "spool" / name).exists()]
        spool = dict.fromkeys([*named, *(path.name for path in fresh)])
        path = manifest_path(self._folder)
        hidden = path.with_suffix(".tmp")
        hidden.write_bytes(msgspec.json.encode(Manifest(parquet, list(spool))))
        _sync(parquet_path(self._folder, "."))
        _sync(hidden)
        os.replace(hidden, path)  # noqa: PTH105 - as os.fsync
        _sync(self._folder)
        now, kept = self._clock(), {file.name for file in parquet}
        self._unnamed |= {file.name: now for file in self._parquet if file.name not in kept}
        self._parquet, self._spool = parquet, spool

    def _delete_unnamed(self) -> None:
        now = self._clock()
        for name in [name for name, since in self._unnamed.items() if abs(now - since) >= LINGER]:
            parquet_path(self._folder, name).unlink(missing_ok=True)
            del self._unnamed[name]

    # -- files -----------------------------------------------------------------------------------------------------

    def _take_in(self, paths: list[Path]) -> None:
        paths = [path for path in paths if path.exists()]  # somebody may have made room
        lines = sum(map(_lines, paths))
        fresh: list[ParquetFile] = []
        if lines:
            with working_database(self._folder) as database:
                self._read(database, paths)
                found = database.execute("SELECT DISTINCT day FROM batch ORDER BY day").fetchall()
                chosen = "SELECT * EXCLUDE (day) FROM batch WHERE day = ?"
                try:
                    fresh.extend(self._write(database, day, chosen, day) for (day,) in found)
                except (OSError, duckdb.Error):  # a disk that is full must not be made fuller by each attempt
                    for file in fresh:
                        parquet_path(self._folder, file.name).unlink(missing_ok=True)
                    raise
        self._commit(self._parquet + fresh, paths)
        self.spoiled += lines - sum(file.rows for file in fresh)

    def _read(self, database: duckdb.DuckDBPyConnection, paths: list[Path]) -> None:
        """Make a table `batch` of their events, each with its day."""
        days = f"SELECT *, CAST(timestamp AS DATE)::VARCHAR AS day FROM ({rows_of_lines()})"  # noqa: S608 - ours
        query = f"CREATE TABLE batch AS {days} WHERE isfinite(timestamp)"
        try:
            database.execute(query, [[literal(path) for path in paths]])
        except duckdb.InvalidInputException:
            with TemporaryDirectory(prefix="long-", dir=parquet_path(self._folder, ".")) as scratch:
                database.execute(query, [[literal(path) for path in without_long_lines(paths, Path(scratch))]])

    def _write(self, database: duckdb.DuckDBPyConnection, day: str, chosen: str, value: object) -> ParquetFile:
        """Write the rows that `chosen` selects, with this value, into a new file of that day."""
        name = f"{int(self._clock() * 1000):013d}-{secrets.token_hex(6)}.parquet"
        path = parquet_path(self._folder, name)
        self._unnamed[name] = self._clock()
        quoted = str(path).replace("'", "''")
        copy = f"COPY ({chosen} ORDER BY {ORDER}) TO '{quoted}' ({WRITER})"
        ((rows,),) = database.execute(copy, [value]).fetchall()
        path.chmod(0o600)
        _sync(path)
        del self._unnamed[name]
        return ParquetFile(name, day, rows, path.stat().st_size)

    def _merge(self) -> None:
        """Make one file of some small ones of a day, where there are enough: one merge at a time is as many as come."""
        files = [file for file in self._parquet if file.name not in self._unmergeable]
        chosen = _to_merge(files, datetime.fromtimestamp(self._clock() - DAY_ENDS_AFTER, UTC).date())
        if chosen:
            paths = [literal(parquet_path(self._folder, file.name)) for file in chosen]
            everything = "SELECT * FROM read_parquet(?, union_by_name = true)"
            try:
                with working_database(self._folder) as database:
                    merged = self._write(database, chosen[0].day, everything, paths)
            except duckdb.Error:
                self._unmergeable |= {file.name for file in chosen}
                raise
            self._commit([*(file for file in self._parquet if file not in chosen), merged])


@contextmanager
def working_database(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database for one piece of work on `folder`, `data/usage`: it gives its memory back."""
    settings: dict[str, str | bool | int | float | list[str]] = {
        "threads": 1,
        "memory_limit": MEMORY,
        "temp_directory": str(parquet_path(folder, "temp")),
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    with duckdb.connect(":memory:", config=settings) as database:
        yield database


def _to_merge(files: list[ParquetFile], over: date) -> list[ParquetFile]:
    """Files of one day that are to become one: of days before `over` all small ones, otherwise `MERGE_AT` alike."""
    alike: dict[tuple[str, int], list[ParquetFile]] = defaultdict(list)
    for file in files:
        if file.rows < LARGE:
            is_over = file.day < over.isoformat()
            alike[file.day, 0 if is_over else len(str(file.rows))].append(file)
    for (_, size), found in sorted(alike.items()):
        if len(found) >= (MERGE_AT if size else 2):
            return found[: MERGE_AT * 10]
    return []


def _batches(paths: Sequence[Path]) -> Iterator[list[Path]]:
    batch: list[Path] = []
    size = 0
    for path in paths:
        size += path.stat().st_size if path.exists() else 0
        if batch and size > MOST_BYTES:
            yield batch
            batch, size = [], path.stat().st_size if path.exists() else 0
        batch.append(path)
    if batch:
        yield batch


def _lines(path: Path) -> int:
    """Lines of a file, the unfinished one included."""
    count, last = 0, b"\n"
    with path.open("rb") as file:
        for piece in iter(partial(file.read, 1 << 20), b""):
            count, last = count + piece.count(b"\n"), piece[-1:]
    return count + (last != b"\n")


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
