"""`fastgw usage`: questions about usage events, and charge-back pages, of what is under `data`; it asks no gateway."""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fastgw.cli.admin_port import table
from fastgw.cli.terminal import FAILED, USAGE, CommandFailed, line, plain, say
from fastgw.config.reader import read_settings
from fastgw.processes.plan import plan_of
from fastgw.usage.answers import CannotAnswer, Row, answer, as_csv, as_json, text
from fastgw.usage.questions import KEYS, METRICS, PARAMETERS, Question, question
from fastgw.usage.report import Report, account_question

NOT_SET = "not-set-" * 8
"""Stands for variables that are not set: long enough for a secret."""
BAR = 40
"""Letters of the longest bar of a chart."""
WIDEST = 80
"""Letters of a cell of a table: one long name would make every row as long."""


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("usage", description="Times are UTC; without a period it is this month.")
    _add_shared(parser, Path("fastgw.yaml"), None)
    parser.set_defaults(run=run)
    parser.add_argument(
        "--by", metavar="KEY", action="append", help=f"{', '.join(KEYS)}; several joined by commas; none: one row"
    )
    words = f"{', '.join(METRICS)}; several joined by commas (calls,errors,error_rate,cost)"
    parser.add_argument("--metric", metavar="NAME", action="append", help=words)
    words = "only these, such as team=payments; repeated for one key: any of them; key=- where nothing is known"
    parser.add_argument("--where", metavar="KEY=VALUE", action="append", help=words)
    parser.add_argument("--day", metavar="2026-10-03", action="append", help="or today, or yesterday")
    parser.add_argument("--from", metavar="TIME", action="append", help="a day, or as 2026-10-03T14:30")
    parser.add_argument("--to", metavar="TIME", action="append", help="which is not part of it")
    parser.add_argument("--top", metavar="N", action="append", help="only the N greatest of the first metric")
    words = "only rows with so many calls: three calls are no error rate"
    parser.add_argument("--least", metavar="N", action="append", help=words)
    formats = ("table", "csv", "json", "parquet")
    parser.add_argument("--format", choices=formats, default="table", help="parquet needs -o")
    parser.add_argument("--chart", action="store_true", help="with bars of the first metric")
    orders = parser.add_subparsers(metavar="[report]", title="charge-back")
    page = orders.add_parser("report", help="what a billing account used in a month, as a page to print")
    _add_shared(page, argparse.SUPPRESS, argparse.SUPPRESS)  # what was said before the order holds
    page.add_argument("--billing-account", metavar="NAME", required=True, help="- for calls that name none")
    page.add_argument("--format", dest="form", choices=("html", "csv"), default="html")
    page.set_defaults(run=report)


def _add_shared(parser: argparse.ArgumentParser, config: Any, unless: Any) -> None:
    words = "names `data`, and aliases of servers (fastgw.yaml); its secrets are not needed"
    parser.add_argument("--config", metavar="FILE", type=Path, default=config, help=words)
    words = "the folder `data` itself, where there is no configuration"
    parser.add_argument("--data", metavar="FOLDER", type=Path, default=unless, help=words)
    parser.add_argument("--month", metavar="2026-10", action="append", default=unless, help="or this, or last")
    words = "write there instead of to stdout"
    parser.add_argument("-o", "--out", metavar="FILE", type=Path, default=unless, help=words)


def run(args: argparse.Namespace) -> int:
    """Answer; exit status 0, 1 where that cannot be done, 2 where it is typed wrong."""
    given = {name: vars(args)[name] for name in PARAMETERS if vars(args)[name]}
    try:
        asked = question(given, _today())
    except ValueError as wrong:
        raise CommandFailed(USAGE, str(wrong)) from None
    if args.format == "parquet" and args.out is None:
        raise CommandFailed(USAGE, "Parquet goes to a file: say with -o to which")
    parquet = args.out.absolute() if args.format == "parquet" else None
    rows = _answered(args, asked, parquet)
    if parquet is None:
        _put(_shown(args, asked, rows), args.out)
    return 0


def report(args: argparse.Namespace) -> int:
    """Make the page; exit status as `run`."""
    try:
        month = question({"month": args.month or ["last"]}, _today())
    except ValueError as wrong:
        raise CommandFailed(USAGE, str(wrong)) from None
    rows = _answered(args, account_question(args.billing_account, month), None)
    made = Report(args.billing_account, month.begin, month.end, rows)
    _put(made.html() if args.form == "html" else made.csv(), args.out)
    return 0


def _answered(args: argparse.Namespace, asked: Question, to: Path | None) -> list[Row]:
    data, aliases = (args.data, {}) if args.data is not None else usage_of(args.config)
    try:
        return answer(data.absolute() / "usage", asked, aliases, to)
    except CannotAnswer as wrong:
        raise CommandFailed(FAILED, str(wrong)) from None


class AnySecret(dict[str, str]):
    """The environment, in which nothing is missing: whoever asks need not be trusted with secrets."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return NOT_SET


def usage_of(config: Path) -> tuple[Path, dict[str, str]]:
    """The folder `data`, and aliases of servers. Raises ConfigError, CommandFailed."""
    plan = plan_of(read_settings(config, AnySecret(os.environ)))
    if NOT_SET in str(plan.data):
        raise CommandFailed(USAGE, "`data` takes a variable that is not set: set it, or say --data FOLDER")
    return plan.data, plan.aliases


def _shown(args: argparse.Namespace, asked: Question, rows: Sequence[Row]) -> str:
    if args.format == "json":
        return as_json(asked.columns, rows)
    if args.format == "csv":
        return as_csv(asked.columns, rows)
    cells = [[_cell(name, value) for name, value in zip(asked.columns, row, strict=True)] for row in rows]
    head: list[Sequence[str]] = [asked.columns]
    lines = list(table([*head, *cells]))
    if args.chart:
        width = max(map(len, lines))
        lines = [f"{one:<{width}}  {bar}".rstrip() for one, bar in zip(lines, ["", *_bars(asked, rows)], strict=True)]
    period = f"{asked.begin:%Y-%m-%dT%H:%M} to {asked.end:%Y-%m-%dT%H:%M}, UTC"
    return "\n".join([*lines, *(() if rows else (f"no events from {period}",))]) + "\n"


def _cell(name: str, value: Any) -> str:
    if name == "error_rate" and value is not None:
        return f"{value * 100:.2f}%"
    shown = "-" if value is None else line(text(name, value))
    return shown if len(shown) <= WIDEST else f"{shown[: WIDEST - 1]}…"


def _bars(asked: Question, rows: Sequence[Row]) -> Iterator[str]:
    """A bar a row: how much of the greatest it has of the first metric."""
    counts = [row[len(asked.by)] or 0 for row in rows]
    greatest = max((count for count in counts if not isinstance(count, str)), default=0)
    for count in counts:
        yield "█" * int(BAR * count / greatest) if greatest and not isinstance(count, str) else ""


def _put(text: str, path: Path | None) -> None:
    """To a file as it is; to a terminal without anything that would command it."""
    if path is None:
        encoding = sys.stdout.encoding or "utf-8"  # a terminal may have fewer letters than names have
        shown = plain(text) if sys.stdout.isatty() else text
        sys.stdout.write(shown.encode(encoding, "backslashreplace").decode(encoding))
        return
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as wrong:
        raise CommandFailed(FAILED, f"{path}: {wrong.strerror}") from None
    say(f"written: {path}")


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()
