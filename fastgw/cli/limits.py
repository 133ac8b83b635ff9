"""`fastgw limits`: who is near a limit, and making buckets full. Which orders are good, the gateway says."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import msgspec

from fastgw.cli import terminal
from fastgw.cli.admin_port import add_options, ask, attempt, table
from fastgw.cli.terminal import USAGE, CommandFailed, line
from fastgw.policy.limits import BucketState

GONE = "there are no raises any more: edit `limits` in the configuration and have it reloaded (kill -HUP)"


class _Refusals(msgspec.Struct):
    limit: str
    subject: str
    calls: int


class _Report(msgspec.Struct):
    store: dict[str, int]
    buckets: list[BucketState]
    refused: list[_Refusals]


class _Done(msgspec.Struct):
    limit: str
    subject: list[str | None] | None = None


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("limits")
    add_options(parser)
    parser.set_defaults(run=run, limit=None)
    orders = parser.add_subparsers(metavar="[ORDER]", title="orders, which need the admin token")
    reset = orders.add_parser("reset", help="make buckets full")
    reset.add_argument("limit", metavar="LIMIT", help="its name")
    words = "values of its `by`, in their order; - for a missing one; none: all of its buckets"
    reset.add_argument("subject", metavar="SUBJECT", nargs="*", help=words)
    add_options(reset, argparse.SUPPRESS, argparse.SUPPRESS)  # what was said before the order holds
    gone = orders.add_parser("raise", prefix_chars="\0", add_help=False)
    gone.add_argument("given", nargs="*")
    gone.set_defaults(run=lambda _: terminal.show_failure(CommandFailed(USAGE, GONE)))


def run(args: argparse.Namespace) -> int:
    """Show how the limits stand, or reset; exit status 0, or 1 where that cannot be done."""
    wanted: dict[str, Any] | None = None
    if args.limit is not None:
        subject = [None if word == "-" else word for word in args.subject]
        wanted = {"limit": args.limit, **({"subject": subject} if subject else {})}

    def show() -> None:
        text = ask(args, "/limits" if wanted is None else "/limits/reset", wanted)
        rows = _shown(msgspec.json.decode(text, type=_Report)) if wanted is None else _done(text)
        print(text.rstrip("\n") if args.json else "\n".join(rows))

    return attempt(show)


def _done(text: str) -> Iterator[str]:
    done = msgspec.json.decode(text, type=_Done)
    values = "".join(f" {'-' if value is None else value}" for value in done.subject or ())
    yield line(f"{done.limit}{values if done.subject is not None else ', all buckets'}: full")


def _shown(report: _Report) -> Iterator[str]:
    states = (f"{state} ({count} worker{'s' if count != 1 else ''})" for state, count in report.store.items())
    yield line(f"store: {', '.join(states) or 'no worker answers'}")
    fullest = [("limit", "subject", "used", "left")]
    for one in report.buckets:
        left = f"{one.left}/{one.burst}{' at the same time' if one.at_once else ''}"
        fullest.append((one.limit, one.subject, f"{one.used:.0%}", left))
    refused = [("limit", "subject", "calls"), *((one.limit, one.subject, str(one.calls)) for one in report.refused)]
    for title, rows in (("fullest buckets", fullest), ("refused most", refused)):
        if len(rows) > 1:
            yield from ("", title, *table(rows))
