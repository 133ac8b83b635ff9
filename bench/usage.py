"""`python -m bench usage`: how large an archive of usage events is, how fast it grows, how fast it answers.

The events of a month are made in the archive's own schema, order and writer settings, by DuckDB itself: made as JSON
lines first, 100 million would take an hour. They are asked about as users ask, through `fastgw.usage.answers`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import shutil
import sys
import tempfile
import time
import uuid
from pathlib import Path

import duckdb
import msgspec

from fastgw.usage.answers import Row, answer
from fastgw.usage.archive import ORDER, WRITER, Archive
from fastgw.usage.manifest import Manifest, ParquetFile, manifest_path, parquet_path
from fastgw.usage.questions import question

DAYS = 30
ROUNDS = 3
MONTH = {"month": "2026-11"}
QUESTIONS = {
    "cost by team, month": {"by": "team", "metric": "cost", **MONTH},
    "cost by team, day": {"by": "team", "metric": "cost", "day": "2026-11-01"},
    "error rate by tool, month": {"by": "tool", "metric": "error_rate,errors,calls", **MONTH},
    "p50, p95, p99 by tool, month": {"by": "tool", "metric": "p50,p95,p99", **MONTH},
}
"""What `fastgw usage` is asked, by name."""
MADE = {
    "request_id": "replace(uuid()::VARCHAR, '-', '')",
    "timestamp": "(TIMESTAMP '2026-11-01' + to_days({day}) + to_milliseconds((random() * 86399999)::BIGINT))"
    "::TIMESTAMP_MS",
    "gateway": "'gateway-1'",
    "endpoint": "'main'",
    "agent": "'agent-' || a",
    "user": "NULL::VARCHAR",
    "credential": "'key-' || a",
    "team": "'team-' || (a % 200)",
    "project": "'project-' || (a % 400)",
    "billing_account": "'account-' || (a % 50)",
    "labels": "'{{}}'",
    "method": "'tools/call'",
    "tool": "'server-' || (t % 50) || '_tool-' || t",
    "server": "'server-' || (t % 50)",
    "instance": "'server-' || (t % 50) || '/' || (i % 2)",
    "outcome": "CASE WHEN d < 0.97 THEN 'ok' ELSE 'tool_error' END",
    "status": "200::SMALLINT",
    "error_code": "NULL::BIGINT",
    "refused_by": "NULL::VARCHAR",
    "attempts": "1::INTEGER",
    "failover": "false",
    "cached": "false",
    "latency_us": "(20000 * exp(1.2 * sqrt(-2 * ln(1 - random())) * cos(6.283 * d)))::BIGINT",
    "overhead_us": "(250 + 400 * random() * random())::BIGINT",
    "bytes_in": "(200 + 400 * random())::BIGINT",
    "bytes_out": "(tokens_out * 4 + 200)::BIGINT",
    "tokens_in": "(50 + 150 * random())::BIGINT",
    "tokens_out": "tokens_out",
    "cost": "(tokens_out * 0.000003 + 0.001)::DECIMAL(18, 9)",
    "currency": "'USD'",
    "rate_limit_remaining": "NULL::BIGINT",
    "protocol_version": "'2025-11-25'",
    "trace_id": "NULL::VARCHAR",
}


def make_month(folder: Path, events: int) -> int:
    """Write an archive of one month in `folder`, one file a day, and its manifest; its size in bytes."""
    database = duckdb.connect(config={"memory_limit": "2GB", "temp_directory": str(folder / "temp")})
    columns = ", ".join(f'{sql.format(day="$day")} AS "{name}"' for name, sql in MADE.items())
    dice = (
        "SELECT i, (random() * 1999)::INT AS a, (random() * random() * 499)::INT AS t, random() AS d, "
        "(20 + 3000 * random() * random() * random())::BIGINT AS tokens_out FROM range($count) AS made(i)"
    )
    parquet_path(folder, ".").mkdir(parents=True)
    files = []
    for day in range(DAYS):
        path = parquet_path(folder, f"{day:02d}.parquet")
        sql = f"COPY (SELECT {columns} FROM ({dice}) ORDER BY {ORDER}) TO '{path}' ({WRITER})"
        database.execute(sql.replace("$day", str(day)).replace("$count", str(events // DAYS)))
        files.append(ParquetFile(path.name, f"2026-11-{day + 1:02d}", events // DAYS, path.stat().st_size))
    manifest_path(folder).write_bytes(msgspec.json.encode(Manifest(files)))
    return sum(file.bytes for file in files)


def ask(folder: Path, asked: dict[str, str]) -> list[Row]:
    """The answer of `fastgw usage` with these options."""
    parameters = {name: [text] for name, text in asked.items()}
    return answer(folder, question(parameters, datetime.date(2026, 12, 1)), {})


def quickest(folder: Path, asked: dict[str, str]) -> tuple[float, int]:
    """Seconds of the quickest of some rounds, and rows of the answer."""
    took, rows = [], 0
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        rows = len(ask(folder, asked))
        took.append(time.perf_counter() - begun)
    return min(took), rows


def line(dice: random.Random, second: int) -> str:
    """One event as a worker writes it, more or less."""
    agent, tool, tokens = dice.randrange(2000), dice.randrange(500), dice.randrange(20, 3000)
    event = {
        "requestId": uuid.UUID(int=dice.getrandbits(128)).hex,
        "timestamp": f"2026-11-01T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}.123Z",
        "gateway": "gateway-1", "endpoint": "main", "agentId": f"agent-{agent}", "userId": None,
        "credential": f"key-{agent}", "team": f"team-{agent % 200}", "project": f"project-{agent % 400}",
        "billingAccount": f"account-{agent % 50}", "labels": {}, "method": "tools/call",
        "tool": f"server-{tool % 50}_tool-{tool}", "mcpServer": f"server-{tool % 50}",
        "instance": f"server-{tool % 50}/0", "outcome": "ok", "statusCode": 200, "errorCode": None,
        "refusedBy": None, "attempts": 1, "failover": False, "cached": False,
        "latencyMs": round(dice.lognormvariate(3, 1.2), 3), "overheadMs": round(dice.uniform(0.25, 0.6), 3),
        "bytesIn": dice.randrange(200, 600), "bytesOut": tokens * 4 + 200, "tokensIn": dice.randrange(50, 200),
        "tokensOut": tokens, "cost": tokens / 1e6, "currency": "USD", "rateLimitRemaining": None,
        "protocolVersion": "2025-11-25", "traceId": None,
    }  # fmt: skip
    return json.dumps(event, separators=(",", ":"))


def convert(folder: Path, lines: int) -> float:
    """Events a second from JSON lines into the archive, on one core."""
    dice = random.Random(1)
    spool = folder / "spool"
    spool.mkdir(parents=True)
    file = spool / "1.jsonl"
    with file.open("w") as out:
        out.writelines(line(dice, number * 86400 // lines) + "\n" for number in range(lines))
    archive = Archive(folder)
    begun = time.process_time()
    archive.convert([file])
    return lines / (time.process_time() - begun)


def main(argv: list[str]) -> int:
    """Print bytes an event, events converted a second, and seconds of each answer; exit code 1 where one is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench usage", description=__doc__)
    parser.add_argument("--events", type=int, default=100_000_000, help="of the month")
    parser.add_argument("--lines", type=int, default=500_000, help="JSON lines to be converted")
    parser.add_argument("--folder", type=Path, help="where a new folder is made, and deleted; some GB")
    args = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="usage-", dir=args.folder))
    month = folder / "month"
    try:
        print(f"convert: {convert(folder / 'lines', args.lines):,.0f} events/s on one core", flush=True)
        size, events = make_month(month, args.events), args.events // DAYS * DAYS
        print(f"size: {size / events:.1f} bytes an event, {size / 1e9:.2f} GB", flush=True)
        counted = ask(month, {"metric": "calls", **MONTH})
        if counted != [(events,)]:
            print(f"no figures: {counted} calls of {events} events", file=sys.stderr)
            return 1
        for name, asked in QUESTIONS.items():
            seconds, rows = quickest(month, asked)
            print(f"{name}: {seconds:.3f} s, {rows} rows", flush=True)
    finally:
        shutil.rmtree(folder)
    return 0
