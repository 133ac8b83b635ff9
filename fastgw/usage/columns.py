"""Usage events as rows: the columns that questions are asked about, how they are read from spool files (JSON lines) and
kept in Parquet.

Lines that are none of ours (cut short by a crash, spoiled) become rows without `request_id`, and are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple


class Column(NamedTuple):
    """One column: its name, its DuckDB type, the field of the event, and how that is read where it differs."""

    name: str
    type: str
    field: str
    read_as: str = ""
    sql: str = ""


COLUMNS: Final = (
    Column("request_id", "VARCHAR", "requestId"),
    Column("timestamp", "TIMESTAMP_MS", "timestamp", "TIMESTAMP"),  # UTC
    Column("gateway", "VARCHAR", "gateway"),
    Column("endpoint", "VARCHAR", "endpoint"),
    Column("agent", "VARCHAR", "agentId"),
    Column("user", "VARCHAR", "userId"),
    Column("credential", "VARCHAR", "credential"),
    Column("team", "VARCHAR", "team"),
    Column("project", "VARCHAR", "project"),
    Column("billing_account", "VARCHAR", "billingAccount"),
    Column("labels", "VARCHAR", "labels", "JSON"),  # an object, as JSON text
    Column("method", "VARCHAR", "method"),
    Column("tool", "VARCHAR", "tool"),
    Column("server", "VARCHAR", "mcpServer"),
    Column("instance", "VARCHAR", "instance"),
    Column("outcome", "VARCHAR", "outcome"),
    Column("status", "SMALLINT", "statusCode"),
    Column("error_code", "BIGINT", "errorCode"),
    Column("refused_by", "VARCHAR", "refusedBy"),
    Column("attempts", "INTEGER", "attempts"),
    Column("failover", "BOOLEAN", "failover"),
    Column("cached", "BOOLEAN", "cached"),
    Column("latency_us", "BIGINT", "latencyMs", "DECIMAL(18, 3)", '("latencyMs" * 1000)'),
    Column("overhead_us", "BIGINT", "overheadMs", "DECIMAL(18, 3)", '("overheadMs" * 1000)'),
    Column("bytes_in", "BIGINT", "bytesIn"),
    Column("bytes_out", "BIGINT", "bytesOut"),
    Column("tokens_in", "BIGINT", "tokensIn"),
    Column("tokens_out", "BIGINT", "tokensOut"),
    # As a decimal at once: read as text it would come by way of a double, and the last places of a large one be others.
    Column("cost", "DECIMAL(18, 9)", "cost"),
    Column("currency", "VARCHAR", "currency"),
    Column("rate_limit_remaining", "BIGINT", "rateLimitRemaining"),
    Column("protocol_version", "VARCHAR", "protocolVersion"),
    Column("trace_id", "VARCHAR", "traceId"),
)
LARGEST_LINE = 2**24
"""Bytes of one event: claims may be long."""


def literal(path: Path) -> str:
    """A path that DuckDB does not take for a pattern."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in str(path))


def without_long_lines(paths: Iterable[Path], scratch: Path) -> Iterator[Path]:
    """Copies of spool files, in the folder `scratch`, where lines over `LARGEST_LINE` are no events.

    DuckDB refuses a whole file that has one. A file whose blocks never reached the disk is such a line, of zeroes.
    """
    for number, path in enumerate(paths):
        copy = scratch / f"{number}.jsonl"
        with path.open("rb") as lines, copy.open("wb") as kept:
            is_long = False
            while piece := lines.readline(LARGEST_LINE):
                is_whole = piece.endswith(b"\n")
                if not is_long:
                    kept.write(piece if is_whole or len(piece) < LARGEST_LINE else b"{}\n")
                is_long = not is_whole
        yield copy


def rows_of_lines(files: str = "?") -> str:
    """A SELECT of these columns from spool files; `files` is a parameter, a list of paths."""
    fields = ", ".join(f"\"{one.field}\": '{one.read_as or one.type}'" for one in COLUMNS)
    values = ", ".join(f'TRY_CAST({one.sql or _quoted(one.field)} AS {one.type}) AS "{one.name}"' for one in COLUMNS)
    options = f"format = 'newline_delimited', ignore_errors = true, maximum_object_size = {LARGEST_LINE}"
    return (
        f"SELECT {values} FROM read_json({files}, columns = {{{fields}}}, {options}) "  # noqa: S608 - names above alone
        'WHERE "requestId" IS NOT NULL AND "timestamp" IS NOT NULL'
    )


def _quoted(name: str) -> str:
    return f'"{name}"'
