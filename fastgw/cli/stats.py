"""`fastgw stats`: how long calls take, by tool, server and outcome, of a running gateway or of logs it has exported."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from fastgw.cli import terminal
from fastgw.cli.admin_port import add_options, ask, attempt, table
from fastgw.cli.terminal import CLEAR, FAILED, CommandFailed
from fastgw.telemetry import hlog
from fastgw.telemetry.latencies import WINDOWS, Percentiles

TITLES = {"1m": "last minute", "1h": "last hour", "start": "since the start", "logs": "all logs"}
WITHIN = 120.0
"""Seconds for an answer; with 50,000 tools an export takes 20."""


class _Stats(msgspec.Struct):
    windows: dict[str, list[Percentiles]]


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("stats")
    words = "exported logs, of several machines too, to be added up instead of asking"
    parser.add_argument("logs", metavar="LOG", nargs="*", type=Path, help=words)
    parser.add_argument("--window", choices=WINDOWS, help="this one alone")
    words = "again and again, 2 seconds apart unless said"
    parser.add_argument("--watch", metavar="SECONDS", nargs="?", type=float, const=2.0, help=words)
    words = "write the histograms there, as HdrHistogram's viewers open them: since the start, or of --window"
    parser.add_argument("--hlog", metavar="FILE", type=Path, help=words)
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show percentiles, or export; exit status 0, or 1 where that cannot be done."""
    if args.hlog and not args.logs:
        return attempt(lambda: _export(args))
    while (status := attempt(lambda: _show(args))) == 0 and args.watch is not None:
        time.sleep(max(0.1, args.watch))
    return status


def _show(args: argparse.Namespace) -> None:
    if args.logs:
        text = _of_logs(args.logs)
    else:
        text = ask(args, f"/stats?window={args.window}" if args.window else "/stats", within=WITHIN)
    lines: list[str] = []
    for window, rows in msgspec.json.decode(text, type=_Stats).windows.items():
        lines += [*([""] if lines else []), f"{TITLES.get(window, window)}, milliseconds"]
        lines += _table(rows) if rows else ["no calls"]
    again = args.watch is not None and sys.stdout.isatty()
    print((CLEAR if again else "") + (text.rstrip("\n") if args.json else "\n".join(lines)), flush=True)


def _table(rows: Iterable[Percentiles]) -> Iterator[str]:
    head = ("tool", "server", "outcome", "stage", "calls", "p50", "p90", "p95", "p99", "p99.9", "max")
    kinds = (((row.tool or "-", row.server or "-", row.outcome, row.stage), row) for row in rows)
    return table([head, *((*kind, str(row.count), *(f"{one:.3f}" for one in row.times)) for kind, row in kinds)])


def _export(args: argparse.Namespace) -> None:
    text = ask(args, f"/stats.hlog?window={args.window or 'start'}", within=WITHIN)
    try:
        args.hlog.write_text(text, encoding="utf-8")
    except OSError as wrong:
        raise CommandFailed(FAILED, f"{args.hlog}: {wrong.strerror}") from None


def _of_logs(files: Iterable[Path]) -> str:
    """What `/stats` would say if one gateway had served all that these logs hold."""
    try:
        found = hlog.percentiles([file.read_text(encoding="utf-8") for file in files])
    except ImportError:
        raise CommandFailed(FAILED, "the Python package hdrhistogram is not installed here") from None
    except (OSError, ValueError) as wrong:
        raise CommandFailed(FAILED, str(wrong)) from None
    return terminal.encoded(msgspec.to_builtins(_Stats({"logs": found})))
