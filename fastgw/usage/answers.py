"""Answers to questions about usage events, by DuckDB on our own files; as text: JSON, CSV.

As a program (`python -m fastgw.usage.answers`) it takes what is asked on stdin and answers on stdout, both JSON: so the
controller is never held up, and never has DuckDB in its memory.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import msgspec

from fastgw.usage.columns import COLUMNS, literal, rows_of_lines, without_long_lines
from fastgw.usage.manifest import parquet_path, read_manifest
from fastgw.usage.questions import Question, sql, values
from fastgw.usage.spool_files import spool_files

Value = str | int | Decimal | None
Row = tuple[Value, ...]

MEMORY = "1GB"
"""For one answer; what needs more spills into a temporary folder."""
TRIES = 5
"""As often a question is asked where files are merged or deleted meanwhile; each time it sees other files."""
NICE = 10
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""With one of these a spreadsheet takes a text for something to be computed: names of tools come from servers."""
MOST = 100_000
"""Rows that the program answers with; the controller holds them in its memory."""


class CannotAnswer(Exception):
    """A question that has no one answer, or files that cannot be read; words for the user."""


class Asked(msgspec.Struct):
    """What the program is asked: the folder `data/usage`, the question, aliases of servers by their names."""

    folder: str
    question: Question
    aliases: dict[str, str]


def answer(folder: Path, asked: Question, aliases: Mapping[str, str], to: Path | None = None) -> list[Row]:
    """The rows for a question, as `Question.columns`; with `to` they are written there as Parquet instead.

    Money and rates are Decimal, the rest is int and str; None is unknown.

    Raises:
        CannotAnswer: see there.
    """
    import duckdb  # noqa: PLC0415 - takes 100 ms and 30 MB, which only those pay who ask

    wrong: Exception | None = None
    for _ in range(TRIES):
        paths: list[Path] = []
        try:
            files = _sources(folder, asked)
            paths = [path for few in files.values() for path in few]
            with tempfile.TemporaryDirectory(prefix=f"fastgw-{os.getpid()}-") as spill:
                try:
                    return _ask(asked, files, values(asked, aliases), spill, to)
                except duckdb.InvalidInputException:
                    if "lines" not in files:
                        raise
                    files["lines"] = list(without_long_lines(files["lines"], Path(spill)))
                    return _ask(asked, files, values(asked, aliases), spill, to)
        except duckdb.OutOfMemoryException:
            raise CannotAnswer("it takes too much memory: ask about less time, or by fewer keys") from None
        except (duckdb.Error, OSError, ValueError) as failed:
            wrong = failed
            if not isinstance(failed, FileNotFoundError) and not any(map(_is_gone, paths)):
                break
    if (gone := next(filter(_is_gone, paths), None)) is not None:
        raise CannotAnswer(f"{gone} is gone: put it back from a backup")
    raise CannotAnswer(f"{folder} cannot be read: {str(wrong).partition(chr(10))[0]}")


def _is_gone(path: Path) -> bool:
    try:
        path.stat()
    except OSError as wrong:
        return isinstance(wrong, FileNotFoundError)
    return False


def _sources(folder: Path, asked: Question) -> dict[str, list[Path]]:
    """Files that hold every event of that time once: `parquet` and `lines`, each only where there are such.

    The spool is listed first: of what is archived between the two, the manifest says so, or the file is gone, and who
    misses a file asks again.
    """
    names = spool_files(folder / "spool")
    manifest = read_manifest(folder)
    contained = set(manifest.spool)
    first, last = asked.begin.date(), (asked.end - datetime.timedelta(microseconds=1)).date()
    days = f"{first:%Y-%m-%d}", f"{last:%Y-%m-%d}"
    spool = [folder / "spool" / name for name in names if name not in contained]
    found = {
        "parquet": [parquet_path(folder, one.name) for one in manifest.parquet if days[0] <= one.day <= days[1]],
        "lines": [path for path in spool if path.stat().st_size],
    }
    return {name: paths for name, paths in found.items() if paths}


def _ask(
    asked: Question, files: dict[str, list[Path]], parameters: dict[str, object], spill: str, to: Path | None
) -> list[Row]:
    """Ask of `files`: `parquet` and `lines`, or only one of them, or none; an empty list is none that DuckDB takes."""
    import duckdb  # noqa: PLC0415 - as in `answer`

    given = {name: list(map(literal, paths)) for name, paths in files.items()}
    off = ("autoinstall_known_extensions", "autoload_known_extensions", "allow_community_extensions")
    options: dict[str, str | bool | int | float | list[str]] = {
        "threads": len(os.sched_getaffinity(0)), "memory_limit": MEMORY, "temp_directory": spill,
        **dict.fromkeys(off, False),
    }  # fmt: skip
    with duckdb.connect(":memory:", config=options) as duck:
        reachable = [str(path) for paths in files.values() for path in paths] + ([str(to)] if to else [])
        duck.execute(f"SET allowed_paths = {_texts(reachable)}")
        duck.execute(f"SET allowed_directories = {_texts([spill])}")
        duck.execute("SET enable_progress_bar = false")
        duck.execute("SET enable_external_access = false")
        duck.execute("SET lock_configuration = true")
        duck.execute(f"CREATE TEMP TABLE answer AS {sql(asked, f'({events_of(files)})')}", {**parameters, **given})
        rows = duck.execute("SELECT * FROM answer").fetchall()
        _one_currency(rows)
        if to is not None:
            columns = "* EXCLUDE (first_currency, last_currency)"
            duck.execute(f"COPY (SELECT {columns} FROM answer) TO $to (FORMAT parquet)", {"to": str(to)})  # noqa: S608
    return [row[:-2] for row in rows]


def events_of(files: Iterable[str]) -> str:
    """A query for all events of the parameters `parquet` and `lines`, as far as there are these."""
    of = {"parquet": "SELECT * FROM read_parquet($parquet, union_by_name = true)", "lines": rows_of_lines("$lines")}
    none = ", ".join(f'CAST(NULL AS {one.type}) AS "{one.name}"' for one in COLUMNS)
    return " UNION ALL BY NAME ".join(of[name] for name in files) or f"SELECT {none} WHERE false"


def _one_currency(rows: Sequence[Row]) -> None:
    first, last = rows[0][-2:] if rows else (None, None)
    if first != last:
        raise CannotAnswer(f"costs are in {first} and {last}: ask by currency, or where currency={first}")


def _texts(texts: Iterable[str]) -> str:
    """A list of texts in SQL: paths of ours, for settings take no parameters."""
    return "[" + ", ".join("'" + text.replace("'", "''") + "'" for text in texts) + "]"


def text(name: str, value: Value) -> str:
    """A value as digits: never an exponent, money with two places at least and as many as it has."""
    if not isinstance(value, Decimal):
        return str(value)
    digits = f"{value:f}"
    if name != "cost" or "." not in digits:
        return digits
    whole, _, fraction = digits.partition(".")
    return f"{whole}.{fraction.rstrip('0'):0<2}"


def as_json(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """A list of objects; what is unknown is null, money and rates are numbers with all their places."""

    def member(name: str, value: Value) -> str:
        shown = json.dumps(value) if value is None or isinstance(value, str) else _number(text(name, value))
        return f"{json.dumps(name)}: {shown}"

    objects = ["{" + ", ".join(map(member, columns, row)) + "}" for row in rows]
    return "[" + ",\n ".join(objects) + "]\n"


def _number(digits: str) -> str:
    """Without zeros that say nothing."""
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def as_csv(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """RFC 4180, the names first; unknown is empty; what a spreadsheet would compute has a `'` before it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(_cell(name, value) for name, value in zip(columns, row, strict=True))
    return out.getvalue()


def _cell(name: str, value: Value) -> str:
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else text(name, value)


def bounded_answer(asked: Asked) -> list[Row]:
    """At most `MOST` rows; no more are ever held.

    Raises:
        CannotAnswer: there are more, or see there.
    """
    rows = answer(Path(asked.folder), msgspec.structs.replace(asked.question, most=MOST + 1), asked.aliases)
    if len(rows) > MOST:
        raise CannotAnswer(f"more than {MOST:,} rows: ask for the top of them, or by fewer keys")
    return rows


def main() -> int:
    """Answer what stands on stdin; exit status 1, and words on stderr, where that cannot be done."""
    os.nice(NICE)
    with contextlib.suppress(OSError):  # where memory is short, this is ended, not a worker
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=Asked)
    try:
        rows = bounded_answer(asked)
    except CannotAnswer as wrong:
        sys.stderr.write(f"{wrong}\n")
        return 1
    sys.stdout.write(as_json(asked.question.columns, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
