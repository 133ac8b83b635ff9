"""`python -m bench usage`: how large an archive of usage events is, how fast it grows, how fast it answers.

The events of a month are made in the archive's own schema, order and writer settings, by DuckDB itself: made as JSON
lines first, 100 million would take an hour.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import duckdb

from fastgw.usage.archive import ORDER, WRITER, Archive

DAYS = 30
ROUNDS = 3
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
    "outcome": "CASE WHEN d < 0.97 THEN 'ok' ELSE 'error' END",
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


def make_month(folder: Path, events: int) -> None:
    """Write the files of one month, one a day."""
    database = duckdb.connect(config={"memory_limit": "2GB", "temp_directory": str(folder / "temp")})
    columns = ", ".join(f'{sql.format(day="$day")} AS "{name}"' for name, sql in MADE.items())
    dice = (
        "SELECT i, (random() * 1999)::INT AS a, (random() * random() * 499)::INT AS t, random() AS d, "
        "(20 + 3000 * random() * random() * random())::BIGINT AS tokens_out FROM range($count) AS made(i)"
    )
    for day in range(DAYS):
        sql = f"COPY (SELECT {columns} FROM ({dice}) ORDER BY {ORDER}) TO '{folder}/{day:02d}.parquet' ({WRITER})"
        database.execute(sql.replace("$day", str(day)).replace("$count", str(events // DAYS)))


def best(work: Callable[[], object]) -> float:
    """Seconds of the quickest of some rounds."""
    took = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        work()
        took.append(time.perf_counter() - begun)
    return min(took)


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
    spool.mkdir()
    file = spool / "1.jsonl"
    with file.open("w") as out:
        out.writelines(line(dice, number * 86400 // lines) + "\n" for number in range(lines))
    archive = Archive(folder)
    begun = time.process_time()
    archive.convert([file])
    return lines / (time.process_time() - begun)


def main(argv: list[str]) -> int:
    """Print bytes an event, events converted a second, seconds of a month's and a day's sums by team."""
    parser = argparse.ArgumentParser(prog="python -m bench usage", description=__doc__)
    parser.add_argument("--events", type=int, default=100_000_000, help="of the month")
    parser.add_argument("--lines", type=int, default=500_000, help="JSON lines to be converted")
    parser.add_argument("--folder", type=Path, help="where a new folder is made, and deleted; some GB")
    args = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="usage-", dir=args.folder))
    try:
        print(f"convert: {convert(folder, args.lines):,.0f} events/s on one core", flush=True)
        make_month(folder, args.events)
        size = sum(file.stat().st_size for file in folder.glob("*.parquet"))
        print(f"size: {size / (args.events // DAYS * DAYS):.1f} bytes an event, {size / 1e9:.2f} GB", flush=True)
        database = duckdb.connect()
        for name, files in (("month", "*.parquet"), ("day", "00.parquet")):
            sql = f"SELECT team, sum(cost) FROM read_parquet('{folder}/{files}') GROUP BY team"
            print(f"{name}: {best(lambda sql=sql: database.execute(sql).fetchall()):.3f} s", flush=True)  # type: ignore[misc]
    finally:
        shutil.rmtree(folder)
    return 0
